"""Metrics of routing: pure functions of arrays, which know no log, router or run."""

"""Cascades: ask a finer option where an answer looks wrong."""

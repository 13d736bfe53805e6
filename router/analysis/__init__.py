"""Metrics, intervals and evaluation of routers: pure functions of arrays."""

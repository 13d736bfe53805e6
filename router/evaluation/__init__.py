"""Evaluation: the methods that are compared, the metrics of a report, studies and baselines."""

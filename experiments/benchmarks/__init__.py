"""Speed, as ratios within one run: ``python -m experiments.benchmarks.speed``."""

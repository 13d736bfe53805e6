"""How an answer is scored: one metric for each way that benchmarks compare answers."""

"""Published benchmarks: where each is on the hub, how its rows are read, how it is scored."""

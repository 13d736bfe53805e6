"""Load on the server: how many answers a second, how fast, and whether all are right."""

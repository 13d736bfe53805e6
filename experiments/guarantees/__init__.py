"""Whether guarantees hold, and what they cost, where the truth is known."""

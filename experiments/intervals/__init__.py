"""How often intervals hold the truth, where the truth is known."""

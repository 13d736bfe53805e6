"""Features that a router reads."""

"""Models that answer from any number of an image's visual tokens."""

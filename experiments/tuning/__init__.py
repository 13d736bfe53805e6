"""What tuning gained over the defaults, on pictures that it never read."""

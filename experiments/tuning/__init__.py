"""What tuning gained over the defaults, on images that it never read."""

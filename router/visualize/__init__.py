"""What a question looks like at several scales."""

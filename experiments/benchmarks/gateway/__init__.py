"""What the gateway adds to a request, and what it leaves of the upstream's throughput."""

"""What a request meets before anything parses it: connections, bodies, keys, rates."""

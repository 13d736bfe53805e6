"""Oracle logs: what every option answered, how it is journaled, kept, checked and published."""

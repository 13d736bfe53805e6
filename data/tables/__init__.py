"""Tables that users bring, in any of the formats that are read."""

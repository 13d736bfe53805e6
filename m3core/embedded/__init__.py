"""The small M3 model that ships with the package, and how it is made."""

"""The frozen multi-scale model: load it, encode once, answer at any scale, label."""

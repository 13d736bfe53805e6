"""Policies: fitting them, what they cost and what they guarantee."""

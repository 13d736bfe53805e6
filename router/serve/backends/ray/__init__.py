"""Answers by replicas under Ray Serve."""

"""What flows through the project: examples, scores, oracle logs, splits. Without torch."""

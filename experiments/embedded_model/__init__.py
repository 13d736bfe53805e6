"""Train the embedded model from nothing: ``python -m experiments.embedded_model.train``."""

"""The procedural visual-question world on which the embedded model is trained and shown."""

"""Routers, policies and cascades on the Hugging Face hub."""

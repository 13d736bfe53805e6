"""Answers through a vLLM server, which runs the language model."""

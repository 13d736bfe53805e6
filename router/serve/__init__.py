"""The pipeline behind an HTTP interface that OpenAI's clients speak; the extra ``serve``."""

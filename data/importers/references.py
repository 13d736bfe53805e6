"""Reference answers as other tools write them."""

from __future__ import annotations

import ast


def references_in(text: str) -> tuple[str, ...]:
    """Reference answers in a cell: a list of texts as Python or JSON writes it, or one text.

    >>> references_in("['1/8/93', 'Jan 8']")
    ('1/8/93', 'Jan 8')
    >>> references_in("[3]")
    ('[3]',)
    """
    if text[:1] == "[" and text[-1:] == "]":
        try:
            listed = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            listed = None
        if isinstance(listed, list) and listed and all(isinstance(one, str) for one in listed):
            return tuple(listed)
    return (text,)

"""What was expected of an answer, in words: the reference answers and what compares with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

SHOWN = 8


def expected_text(references: Sequence[str] | None) -> str | None:
    """Reference answers on one line, each once, with how often it was given.

    Args:
        references: Of an example; None where the log does not have them.

    Returns:
        None where there are none to show.

    >>> expected_text(["net", "a net", "net", ""])
    'net (2), a net, (empty)'
    """
    if not references:
        return None
    counts = Counter(text.strip() or "(empty)" for text in references)
    told = [f"{text} ({n})" if n > 1 else text for text, n in list(counts.items())[:SHOWN]]
    more = len(counts) - SHOWN
    return ", ".join(told) + (f" and {more} more" if more > 0 else "")

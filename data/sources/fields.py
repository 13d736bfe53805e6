"""Fields of a dataset's rows, which may be missing: null, NaN or empty. No word is missing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def is_missing(value: Any) -> bool:
    """Whether a field is null, empty or NaN (which is not itself).

    >>> [is_missing(value) for value in (None, "", float("nan"), 0, "None", "nan")]
    [True, True, True, False, False, False]
    """
    return value is None or value == "" or value != value


def text_in(value: Any) -> str:
    """A field as text; empty where it is missing."""
    return "" if is_missing(value) else str(value)


def stripped(value: Any) -> str | None:
    """A field as text without outer white space; None where it is null or NaN."""
    return None if value is None or value != value else str(value).strip()


def placed(values: Iterable[Any]) -> tuple[str | None, ...]:
    """Texts of choices at their places: None where there is none, so that letters do not move.

    >>> placed(["cat", None, "None", float("nan")])
    ('cat', None, 'None')
    """
    texts = [None if value is None or value != value else str(value) for value in values]
    while texts and texts[-1] is None:
        texts.pop()
    return tuple(texts)

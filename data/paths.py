"""Paths as callers write them: a text, a ``pathlib.Path``, anything else with ``__fspath__``."""

from __future__ import annotations

import os
from pathlib import Path

from m3router.data.errors import DataError

StrPath = str | os.PathLike[str]
"""What every public function takes where it wants a path."""


def as_path(path: StrPath) -> Path:
    """The path, as all of the code inside handles it.

    Args:
        path: A text or a path object; relative ones start from the working folder.

    Raises:
        DataError: It is something else, such as bytes, None or an open file.

    >>> as_path("runs/first").name
    'first'
    >>> as_path(3)
    Traceback (most recent call last):
    m3router.data.errors.DataError: A path must be a text or a pathlib.Path, not int (3).
    """
    place = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(place, str):
        shown = repr(path)
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        raise DataError(
            f"A path must be a text or a pathlib.Path, not {type(path).__name__} ({shown})."
        )
    return path if isinstance(path, Path) else Path(place)


def as_path_or_none(path: StrPath | None) -> Path | None:
    """The same, where None stands for no path."""
    return None if path is None else as_path(path)

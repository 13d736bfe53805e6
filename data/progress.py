"""How far something has come: a bar on a terminal and in a notebook, lines of a log elsewhere.

All bars are tqdm's. Where there is neither terminal nor notebook, a line is written at most every
:data:`EVERY` seconds, without control characters. :func:`silence` turns all of it off.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that a notebook lacks ipywidgets: bars of text, then
    from tqdm.auto import tqdm

EVERY = 10.0
"""Seconds between lines where there is no terminal."""
_COLUMNS = 80
SILENCE = "M3ROUTER_PROGRESS"
"""Environment variable that says whether progress is shown: "0" for not."""

Advance = Callable[[int, int | None, str], None]
"""Called with (done, in all or None where nobody knows, note)."""
_log = logging.getLogger(__name__)


def silence() -> None:
    """Show no progress from here on, in this process and those that it starts."""
    os.environ[SILENCE] = "0"


@contextmanager
def progress_bar(what: str, *, line: Callable[[str], None] | None = None) -> Iterator[Advance]:
    """Show how far a task has come.

    Args:
        what: The task, in a word.
        line: Takes the lines where there is neither terminal nor notebook; None logs them.

    Yields:
        What to call with (done, in all, note). A task may begin with some done, and go on to
        another count.
    """
    if os.environ.get(SILENCE) == "0":
        yield _nothing
    elif in_notebook() or sys.stderr.isatty():
        shown = _Bar(what)
        try:
            yield shown
        finally:
            shown.close()
    else:
        yield _Lines(what, line or _log.info)


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Say on a terminal what is waited for, as long as it takes."""
    if os.environ.get(SILENCE) == "0" or not sys.stderr.isatty():
        yield
        return
    with tqdm(desc=what, total=0, bar_format="{desc} …", leave=False) as shown:
        shown.refresh()
        yield


@contextmanager
def watched(
    progress: Callable[..., None] | bool | None,
    what: str,
    told: Callable[..., tuple[int, int | None, str]],
) -> Iterator[Callable[..., None] | None]:
    """What a long function calls where it was told how to show its progress.

    Args:
        progress: True for a bar, False or None for nothing, or what the caller wants called.
        what: The task, in a word.
        told: What is called with -> (done, in all, note).

    Yields:
        What to call; None for nothing.
    """
    if callable(progress):
        yield progress
    elif not progress:
        yield None
    else:
        with progress_bar(what) as advance:
            yield lambda *values: advance(*told(*values))


def as_counted(done: int, total: int, note: str = "") -> tuple[int, int, str]:
    """The plainest `told` of :func:`watched`: its own arguments."""
    return done, total, note


def in_notebook() -> bool:
    """Whether this runs in a notebook's kernel."""
    shell = sys.modules.get("IPython")
    running = None if shell is None else shell.get_ipython()
    return running is not None and "IPKernelApp" in running.config


def _nothing(done: int, total: int | None, note: str = "") -> None:
    """What is called where nothing is shown."""


class _Bar:
    """A bar of tqdm's, made when the first count is known."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.bar: Any = None

    def __call__(self, done: int, total: int | None, note: str = "") -> None:
        if self.bar is not None and (total != self.bar.total or done < self.bar.n):
            self.close()  # the next part counts anew, below what is done
        if self.bar is None:
            self.bar = tqdm(desc=self.what, total=total, initial=done, **_width())
        self.bar.set_postfix_str(note, refresh=False)
        self.bar.update(done - self.bar.n)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.refresh()
            self.bar.close()
            self.bar = None


def _width() -> dict[str, Any]:
    """As wide as the terminal; some say that they have no columns at all."""
    try:
        known = in_notebook() or os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except (OSError, ValueError):
        known = False
    return {"dynamic_ncols": True} if known else {"ncols": _COLUMNS}


class _Lines:
    """Plain progress: the first, the last, and a line every few seconds in between."""

    def __init__(self, what: str, line: Callable[[str], None]) -> None:
        self.what = what
        self.line = line
        self.began = time.monotonic()
        self.first: int | None = None
        self.shown: tuple[float, int] | None = None

    def __call__(self, done: int, total: int | None, note: str = "") -> None:
        now = time.monotonic()
        if self.first is None:
            self.first, self.began = done, now
        last = self.shown
        whole = total is not None and done >= total
        if last and (last[1] == done or (not whole and now - last[0] < EVERY)):
            return
        self.shown = now, done
        spent, new = now - self.began, done - self.first
        count, left = f"{done}" if total is None else f"{done}/{total}", ""
        if whole:
            left = f", {spent:.1f} s"
        elif total is not None and new > 0:
            left = f", about {spent / new * (total - done):.0f} s left"
        self.line(f"{self.what}: {count}{left}{f' ({note})' if note else ''}")

"""The order of a run, an image and a question on the command line."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from m3router.data.errors import DataError
from m3router.router.cli import next_steps


def check_order(command: str, given: Sequence[str], *, run_may_end: bool = False) -> None:
    """Refuse a run, an image and a question that come in another order.

    Args:
        command: What they were given to.
        given: As they were typed; the image may be left out.
        run_may_end: Whether the run may come last, too.

    Raises:
        DataError: If exactly one is a run, and the order is another; with the command in order.
    """
    runs = [one for one in given if _is_run(one)]
    if len(runs) != 1:
        return
    others = [one for one in given if one != runs[0]]
    image_first = sorted(others, key=lambda one: not os.path.isfile(one))
    right = [*runs, *image_first]
    if list(given) == right or (run_may_end and list(given) == [*image_first, *runs]):
        return
    words = "RUN IMAGE QUESTION" if len(right) > 2 else "RUN QUESTION"
    raise DataError(f"The order is {words}. Write `{next_steps.command(command, *right)}`.")


def _is_run(text: str) -> bool:
    """Whether a folder holds a log or a router."""
    return any(os.path.isdir(Path(text) / one) for one in ("log", "router"))

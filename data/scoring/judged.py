"""Metrics that need a judge: a language model scores the answers after all of them are there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from m3router.data.errors import DataError

NOT_JUDGED = "not judged"
"""What the error of an answer begins with that no judge has scored yet."""
WAITING = f"{NOT_JUDGED} yet: run `m3router judge` with the address of a judge"
"""The error of answers whose metric needs a judge, until one was asked."""


def is_waiting(error: str | None) -> bool:
    """Whether an error says that there is an answer, and that it has not been judged.

    >>> [is_waiting(WAITING), is_waiting("the image cannot be read"), is_waiting(None)]
    [True, False, False]
    """
    return error is not None and error.startswith(NOT_JUDGED)


def refuse_to_score(answer: str, answers: Sequence[str], choices: Sequence[str] = ()) -> NoReturn:
    """Say that no rule can score this.

    Raises:
        DataError: Always.
    """
    raise DataError(
        "Answers to this benchmark are scored by a judge, a language model: label first, then run "
        "`m3router judge`; or give the examples another metric, such as 'exact'."
    )

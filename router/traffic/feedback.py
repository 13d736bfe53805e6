"""What who asked says of an answer: a score, and perhaps the right one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from m3router.data.errors import DataError

LONGEST_ANSWER = 2000
"""Characters of a right answer."""


@dataclass(frozen=True, kw_only=True)
class Feedback:
    """What who asked says of an answer.

    Attributes:
        score: How right it was, in [0, 1].
        answer: The right answer's text; "" where that was not told.
    """

    score: float
    answer: str = ""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            DataError: If the score lies outside of [0, 1], or the answer is too long or no text.
        """
        if not math.isfinite(self.score) or not 0 <= self.score <= 1:
            raise DataError(f"A score lies in [0, 1], got {self.score}.")
        if len(self.answer) > LONGEST_ANSWER:
            raise DataError(f"A right answer has at most {LONGEST_ANSWER} characters.")
        try:
            self.answer.encode("utf-8")
        except UnicodeEncodeError:
            raise DataError("A right answer must be text, without halves of pairs.") from None

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> Feedback:
        """From a line of the folder.

        Raises:
            DataError: If the values cannot be one's.
            TypeError: If one is of another kind; a KeyError or ValueError likewise.
        """
        answer = line.get("answer", "")
        if not isinstance(answer, str):
            raise TypeError(f"answer cannot be {answer!r:.60}")
        return cls(score=float(line["score"]), answer=answer)

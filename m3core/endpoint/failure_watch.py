"""When failures of single requests are a failure of all."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass

from PIL import Image

FIRST = 3
"""An option whose first requests fail alike for so many images cannot be asked at all."""
IN_A_ROW = 8
"""A server that gave no answer to so many requests in a row has broken down."""


@dataclass(frozen=True, kw_only=True)
class FailureKind:
    """In what way a request failed.

    Attributes:
        refused: Whether the server refused it; else it gave no answer.
        said: What it said.
    """

    refused: bool
    said: str

    @property
    def alike(self) -> tuple[bool, str]:
        """What is equal for failures of one cause: numbers and names do not count."""
        return self.refused, re.sub(r"\d+|'[^']*'|\"[^\"]*\"", "", self.said)


class FailureWatch:
    """Sees all ends of requests; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answered: set[str] = set()
        self._firsts: dict[str, list[tuple[FailureKind, Image.Image]]] = {}
        self._row = 0

    def answered(self, option: str) -> None:
        """A request was answered."""
        with self._lock:
            self._row = 0
            self._answered.add(option)
            self._firsts.pop(option, None)

    def failed(self, option: str, kind: FailureKind, image: Image.Image) -> str | None:
        """A request failed; returns why nothing can be asked any more, or None where it can."""
        with self._lock:
            self._row = 0 if kind.refused else self._row + 1
            if self._row >= IN_A_ROW:
                return (
                    f"the server gave no answer to {self._row} requests in a row, the last time: "
                    f"{kind.said}. What was answered is kept; go on when it is well."
                )
            if option in self._answered:
                return None
            firsts = self._firsts.setdefault(option, [])
            if all(image is not seen for _, seen in firsts):
                firsts.append((kind, image))
            if len({one.alike for one, _ in firsts}) > 1:  # no common cause: nothing to watch for
                self._answered.add(option)
                del self._firsts[option]
                return None
            if len(firsts) < FIRST:
                return None
            return (
                f"the first requests at option {option!r} all failed alike, for {len(firsts)} "
                f"images: {kind.said}"
            )

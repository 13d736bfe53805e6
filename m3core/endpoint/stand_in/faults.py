"""Which request goes wrong, and how."""

from __future__ import annotations

import re
import threading
from collections import Counter, deque
from collections.abc import Mapping

from m3router.data.errors import DataError
from m3router.data.registry import unknown_name

FAULTS: dict[str, str] = {
    "400": "refused as a prompt that is too long",
    "401": "a wrong key",
    "404": "no such model",
    "413": "a body that is too large",
    "429": "too many requests, with Retry-After",
    "500": "an error of the server",
    "503": "a server that is not ready",
    "html": "a proxy's page instead of an answer, status 502",
    "html-200": "a proxy's page with status 200",
    "cut": "the connection breaks in the middle of the answer",
    "unfinished": "the stream ends before the answer does, without a word",
    "no-done": "the stream has no [DONE]",
    "wrong-usage": "the usage cannot be: fewer prompt tokens than those of the image",
    "no-usage": "there is no usage",
    "slow": "the answer takes `slow_seconds` longer",
    "other-model": "another model's name in the answer",
    "fingerprint": "another system_fingerprint",
}
"""Name -> what a client sees."""
HEADER = "x-stand-in-fault"
_MARK = re.compile(r"<<([a-z0-9-]+)(?:\*(\d+))?>>")


class FaultPlan:
    """Decides the fault of each request; thread-safe.

    A request's fault is, in this order: the next of those that were queued, the one its header
    ``x-stand-in-fault`` names, the one its question names as ``<<NAME>>``, or that of every n-th
    request. ``<<429*2>>`` goes wrong for the first two requests with this question.

    Args:
        every: Name of a fault -> n; every n-th request has it.

    Raises:
        DataError: If there is no such fault, or n is not at least 1.
    """

    def __init__(self, every: Mapping[str, int] | None = None) -> None:
        self.every = dict(every or {})
        for name, count in self.every.items():
            _known(name)
            if count < 1:
                raise DataError(f"every {count}th request cannot have the fault {name}: at least 1")
        self._queued: deque[str | None] = deque()
        self._seen: Counter[str] = Counter()
        self._requests = 0
        self._lock = threading.Lock()

    def queue(self, *names: str | None) -> None:
        """Give the next requests these faults, in their order; None lets one pass.

        Raises:
            DataError: If there is no such fault.
        """
        for name in names:
            if name is not None:
                _known(name)
        with self._lock:
            self._queued.extend(names)

    def clear(self) -> None:
        """Forget what was queued and what was counted."""
        with self._lock:
            self._queued.clear()
            self._seen.clear()
            self._requests = 0

    def next(self, question: str, header: str | None) -> str | None:
        """The fault of this request; None where it shall be answered."""
        with self._lock:
            self._requests += 1
            if self._queued:
                return self._queued.popleft()
            if header in FAULTS:
                return header
            for name, times in _MARK.findall(question):
                self._seen[question] += 1
                if name in FAULTS and self._seen[question] <= int(times or self._requests):
                    return str(name)
            hit = (name for name, count in self.every.items() if self._requests % count == 0)
            return next(hit, None)


def _known(name: str) -> None:
    if name not in FAULTS:
        raise DataError(unknown_name("fault", name, FAULTS))

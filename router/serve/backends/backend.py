"""What the server's front asks of whatever answers behind it.

The front (`m3router.router.serve.http.app`) checks who asks and what; a backend answers. There is
one for this very process (`m3router.router.serve.backends.engine`), one for replicas under Ray and
one for a vLLM server.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Protocol

from m3router.data.errors import M3RouterError
from m3router.router.inference.query import Query, Served

if TYPE_CHECKING:  # loads torch, which the gateway's own processes do without
    from m3router.router.inference.result import RoutedAnswer


class BusyError(M3RouterError):
    """The queue is full.

    Attributes:
        retry_after: Seconds after which there is likely to be room.
    """

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class OverdueError(M3RouterError):
    """A question was not answered within its time."""


class UnavailableError(M3RouterError):
    """What answers is starting, stopping or gone."""


class Backend(Protocol):
    """Answers questions, many at a time."""

    async def start(self) -> None:
        """Load and warm up; returns when questions can be answered."""
        ...

    def ready(self) -> bool:
        """Whether questions are taken now."""
        ...

    def served(self) -> Served:
        """What is served, once started."""
        ...

    def check(self, query: Query) -> None:
        """Refuse at once what could never be answered.

        Raises:
            DataError: If the question does not fit the model's context, or a budget or regret
                cannot be met or cannot be asked for here.
            MismatchError: If the model has no such scale.
        """
        ...

    def ask(self, query: Query) -> AsyncIterator[str | RoutedAnswer]:
        """Answer one question: any number of texts, then the routed answer.

        A text is more of the answer and never taken back; all of them together are the answer's
        text. Closing the iterator gives the question up and frees its place.

        Raises:
            BusyError: If the queue is full; before the first text.
            OverdueError: If the time is over.
            UnavailableError: If the backend is stopping or broke down.
            DataError: As in :meth:`check`.
        """
        ...

    def load(self) -> dict[str, Any]:
        """How busy it is.

        Returns:
            "queued" and "running" questions and the "capacity" of the queue; where it is known,
            also "retry_after": seconds after which a full queue is likely to have room.
        """
        ...

    async def stop(self, *, seconds: float) -> None:
        """Take nothing new, answer what was let in for at most so many seconds, then let go."""
        ...

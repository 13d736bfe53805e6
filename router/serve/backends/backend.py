"""What the server's front asks of whatever answers behind it.

The front (`m3router.router.serve.http.app`) checks who asks and what; a backend answers. There is
one for this very process (`m3router.router.serve.backends.engine`), one for replicas under Ray and
one for a vLLM server.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from m3router.data.errors import M3RouterError
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


@dataclass(frozen=True, kw_only=True)
class Query:
    """One question that was let in. At most one of `scale`, `budget`, `max_regret` is given.

    Attributes:
        id: Of the request, unique.
        image: The image, RGB.
        digest: Equal for equal images only, such as a hash of the file, so that one need not be
            encoded twice; "" for not known.
        question: What is asked, not empty.
        scale: Answer at this scale of the grid instead of routing.
        budget: Route within so many visual tokens on average instead of by the server's policy.
        max_regret: Route so that at most this share of answers is lost, as certified on the run's
            calibrate part.
        max_tokens: Longest answer in tokens; None for the model's own limit.
        seconds: Within which it must be answered.
    """

    id: str
    image: Image.Image
    question: str
    scale: int | None = None
    budget: float | None = None
    max_regret: float | None = None
    max_tokens: int | None = None
    seconds: float = 60.0
    digest: str = ""


@dataclass(frozen=True, kw_only=True)
class Served:
    """What a backend serves.

    Attributes:
        model: Name of the model.
        revision: Its revision.
        scales: Of its grid, coarsest first.
        router: Fingerprint of the router.
        policy: Name of the policy.
        max_tokens: Longest answer in tokens.
        guarantee: What is certified about the policy, one sentence; "" without.
    """

    model: str
    revision: str
    scales: tuple[int, ...]
    router: str
    policy: str
    max_tokens: int
    guarantee: str = ""


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

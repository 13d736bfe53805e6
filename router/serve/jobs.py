"""A question in a worker's hands."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from data.errors import M3RouterError
from m3core.models.base import Answer, IncrementalAnswer, Request
from router.deciding import Decided
from router.policies.policy import Policy
from router.serve.backend import Ask, Finished, OverdueError, Piece

Event = Piece | Finished | M3RouterError


@dataclass(kw_only=True, eq=False)
class Job:
    """A question, and how far it has come.

    Attributes:
        ask: The question.
        rule: A scale, a policy, or None for the pipeline's own.
        tell: Called in the worker's thread with pieces and one end; must not block or raise.
        gone: Set by anybody to give the question up; nothing is told any more.
        entered: When it was let in, by `time.perf_counter`.
        decided: What was decided for it; None before.
        request: What is asked now; a cascade may ask more than once.
        row: The answer that is being written.
        earlier: Answers that looked wrong.
        said: What was told of the answer.
        streams: Whether nothing can be asked after the answer, so that it is told as it grows.
        milliseconds: Wall-clock time by stage, all of it on the way of this question.
        since: When its scale was decided, by `time.perf_counter`.
    """

    ask: Ask
    rule: int | Policy | None
    tell: Callable[[Event], None]
    gone: bool = False
    entered: float = field(default_factory=time.perf_counter)
    decided: Decided | None = None
    request: Request | None = None
    row: IncrementalAnswer | None = None
    earlier: tuple[Answer, ...] = ()
    said: str = ""
    streams: bool = False
    milliseconds: dict[str, float] = field(default_factory=dict)
    since: float = 0.0

    @property
    def overdue(self) -> bool:
        """Whether its time is over."""
        return time.perf_counter() - self.entered > self.ask.seconds

    def too_late(self) -> OverdueError:
        """What is told when its time is over."""
        return OverdueError(f"The question was not answered within {self.ask.seconds:.3g} s.")

    @property
    def prompt(self) -> Request:
        """What is asked now, once its scale is decided."""
        assert self.request is not None, "the scale is decided before the prompt is read"
        return self.request

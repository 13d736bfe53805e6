"""What runs in each replica under Ray: an engine, and answers told as plain values."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import Any

from m3router.data.errors import DataError, M3RouterError, MismatchError
from m3router.router.inference.query import Query, Served
from m3router.router.inference.result import RoutedAnswer
from m3router.router.serve.backends.backend import BusyError, OverdueError, UnavailableError
from m3router.router.serve.backends.engine import LocalEngine
from m3router.router.serve.backends.ray.fence import keep_inside
from m3router.router.serve.settings import EngineSettings

KINDS: dict[str, type[M3RouterError]] = {
    "data": DataError,
    "mismatch": MismatchError,
    "overdue": OverdueError,
    "unavailable": UnavailableError,
}
"""Errors that a replica tells, by name."""
BUSY = "busy"


@dataclass(frozen=True, kw_only=True)
class Taken:
    """A replica has taken a question.

    Attributes:
        process: Id of its process.
    """

    process: int


@dataclass(frozen=True, kw_only=True)
class Refused:
    """An error as a value: what is raised in a replica arrives wrapped and without its parts.

    Attributes:
        kind: A key of :data:`KINDS`, or :data:`BUSY`.
        message: Its text.
        retry_after: Of a busy engine, in seconds.
    """

    kind: str
    message: str
    retry_after: float = 1.0

    @classmethod
    def of(cls, error: M3RouterError) -> Refused:
        """An error as a client sees it; of an unknown kind, only that there was one."""
        if isinstance(error, BusyError):
            return cls(kind=BUSY, message=str(error), retry_after=error.retry_after)
        for name, kind in KINDS.items():
            if isinstance(error, kind):
                return cls(kind=name, message=str(error))
        return cls(kind="unavailable", message="A replica failed to answer.")

    def error(self) -> M3RouterError:
        """The error again."""
        if self.kind == BUSY:
            return BusyError(self.message, retry_after=self.retry_after)
        return KINDS[self.kind](self.message)


class Replica:
    """One engine in a process of its own.

    Args:
        settings: Of the engine.
    """

    async def __init__(self, settings: EngineSettings) -> None:  # type: ignore[misc]
        keep_inside()
        # Ray Serve awaits it; a replica takes questions when it returns.
        self._engine = LocalEngine(settings)
        await self._engine.start()

    def check_health(self) -> None:
        """Ray Serve replaces a replica for which this raises.

        Raises:
            UnavailableError: If the engine's worker is gone.
        """
        if not self._engine.ready():
            raise UnavailableError("The engine's worker is gone.")

    def served(self) -> Served:
        """What is served; known once it is ready."""
        return self._engine.served()

    def load(self) -> dict[str, Any]:
        """What a :class:`Backend` tells about itself, with the id of this "process"."""
        return {**self._engine.load(), "process": os.getpid()}

    async def ask(
        self, query: Query, seconds: float
    ) -> AsyncGenerator[Taken | str | RoutedAnswer | Refused, None]:
        """Answer one question; errors come as values.

        Args:
            query: The question.
            seconds: That are left for it.
        """
        yield Taken(process=os.getpid())
        try:
            await asyncio.to_thread(self._engine.check, query)  # which may make a policy
            events = self._engine.ask(replace(query, seconds=seconds))
            async with contextlib.aclosing(events) as told:  # type: ignore[type-var]
                async for event in told:
                    if isinstance(event, RoutedAnswer):
                        # An encoding is megabytes, and the front has no model to use it with.
                        event = replace(event, encoding=None)
                    yield event
        except M3RouterError as error:
            yield Refused.of(error)

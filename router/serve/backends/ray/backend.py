"""Answers by replicas under Ray Serve: this process lets questions in, others answer them.

Each replica is a local engine (`m3router.router.serve.backends.ray.replica`). A question whose
replica dies is asked again of another one. Greedy decoding gives the same answer there, so a stream
goes on behind the text that was already sent; where the new answer would contradict that text,
which a float's last bit may cause between different processors, the stream ends with an error
instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from m3router.data.errors import DataError, MismatchError
from m3router.data.plain_files import real_path
from m3router.router.inference.query import Query, Served
from m3router.router.inference.result import RoutedAnswer
from m3router.router.serve.backends.backend import BusyError, OverdueError, UnavailableError
from m3router.router.serve.backends.policies import Policies
from m3router.router.serve.backends.ray.application import RayApplication, ray_settings
from m3router.router.serve.backends.ray.replica import Refused, Replica, Taken
from m3router.router.serve.backends.ray.settings import RaySettings
from m3router.router.serve.settings import EngineSettings, ServeSettings
from m3router.router.training.scale_router import ScaleRouter

logger = logging.getLogger(__name__)

PAUSE = 0.2
"""Seconds before a question is asked again of another replica."""


class RayBackend:
    """Questions are let in here and answered by replicas.

    Args:
        settings: Of each replica's engine; the run and the model must lie where every node of
            the cluster finds them.
        ray: How many replicas.
    """

    def __init__(self, settings: EngineSettings, ray: RaySettings) -> None:
        self._settings = replace(settings, run=str(real_path(Path(settings.run))))
        self._ray_settings = ray
        self._taking = False
        self._app = RayApplication(ray, Replica, self._settings, ongoing=settings.batch)
        self._queued = 0
        self._running = 0

    async def start(self) -> None:
        """Start Ray where it is not running, and the replicas; see the protocol.

        Raises:
            DataError: If Ray is not installed, others can read its token, or it was imported
                before in a way that lets it listen beyond this machine.
            UnavailableError: If the replicas do not come up.
        """
        router = ScaleRouter.read(Path(self._settings.run) / "router")
        self._policies = Policies(Path(self._settings.run), router)
        self._served: Served = await self._app.start("served")
        self._stream = self._app.handle.options(stream=True)
        self._taking = True

    def ready(self) -> bool:
        """Whether questions are taken; one whose replicas are all gone waits for new ones."""
        return self._taking

    def served(self) -> Served:
        """What is served; known once it is ready."""
        return self._served

    def check(self, query: Query) -> None:
        """Refuse what this process can see; a replica looks at the question's length."""
        self._policies.rule(query)
        if not query.question.strip():
            raise DataError("the question is empty; ask something about the image")
        if query.scale is not None and query.scale not in self._served.scales:
            raise MismatchError(
                f"the scale {query.scale} is not one of {list(self._served.scales)}; choose one of "
                "them"
            )

    def load(self) -> dict[str, Any]:
        """How busy it is: questions queued and running, and the queue's capacity."""
        return {
            "queued": self._queued,
            "running": self._running,
            "capacity": self._ray_settings.queue,
        }

    async def loads(self) -> list[dict[str, Any]]:
        """What each replica has in hand; two of them may tell, the others not be reached."""
        return list(await asyncio.gather(*(self._app.handle.load.remote() for _ in range(8))))

    async def ask(self, query: Query) -> AsyncGenerator[str | RoutedAnswer, None]:
        """Answer one question: texts as they grow, then the routed answer."""
        if not self._taking:
            raise UnavailableError("The server is starting or stopping.")
        await asyncio.to_thread(self.check, query)  # which may make a policy
        until = time.monotonic() + query.seconds
        sent, first = "", True
        while True:
            said = ""
            asking = self._once(query, until, patient=not first)
            try:
                async for event in asking:
                    if isinstance(event, RoutedAnswer):
                        agree(sent, event.answer.text, whole=True)
                        yield event
                        return
                    said += event
                    agree(sent, said)
                    if len(said) > len(sent):
                        new, sent = said[len(sent) :], said
                        yield new
            except self._app.lost as error:
                logger.warning(
                    "a replica was lost (%s); %s is asked again", type(error).__name__, query.id
                )
            finally:
                await asking.aclose()
            first = False
            await asyncio.sleep(PAUSE)

    async def _once(
        self, query: Query, until: float, *, patient: bool
    ) -> AsyncGenerator[str | RoutedAnswer, None]:
        """Ask one replica.

        Args:
            query: The question.
            until: By :func:`time.monotonic`.
            patient: Wait where the queue is full, as for a question that was let in before.
        """
        taken = ended = False
        self._queued += 1
        response = self._stream.ask.remote(query, _left(until))
        try:
            while True:
                try:
                    async with asyncio.timeout(_left(until)):
                        event = await anext(response, None)
                except TimeoutError as error:
                    raise OverdueError(
                        "The question was not answered in time. Try again later."
                    ) from error
                except self._app.serve.exceptions.BackPressureError as error:
                    if not patient:
                        raise BusyError(
                            "The queue is full. Try again later.",
                            retry_after=getattr(error, "retry_after_s", None) or 1.0,
                        ) from error
                    await asyncio.sleep(PAUSE)
                    response = self._stream.ask.remote(query, _left(until))
                    continue
                except self._app.ray.exceptions.RayTaskError as error:
                    ended = True
                    logger.exception("a replica failed")
                    raise UnavailableError("A replica failed to answer.") from error
                if isinstance(event, Taken):
                    taken = True
                    self._queued, self._running = self._queued - 1, self._running + 1
                    continue
                if isinstance(event, Refused):
                    ended = True
                    raise event.error()
                if event is None:
                    raise UnavailableError("A replica ended before the answer did.")
                ended = isinstance(event, RoutedAnswer)
                yield event
                if ended:
                    return
        finally:
            if taken:
                self._running -= 1
            else:
                self._queued -= 1
            if not ended:
                # Where the replica is lost, or never took the question, this tells so once more.
                with contextlib.suppress(*self._app.any):
                    response.cancel()

    async def stop(self, *, seconds: float) -> None:
        """Take nothing new, answer what was let in for at most so many seconds, then let go."""
        self._taking = False
        until = time.monotonic() + seconds
        while self._queued + self._running and time.monotonic() < until:
            await asyncio.sleep(0.02)
        await self._app.stop()


def _left(until: float) -> float:
    return max(0.0, until - time.monotonic())


def agree(sent: str, said: str, *, whole: bool = False) -> None:
    """Make sure that text does not contradict what was sent.

    Args:
        sent: To the client.
        said: By the replica that answers now, so far.
        whole: Whether nothing follows `said`.

    Raises:
        UnavailableError: If it does.
    """
    if said.startswith(sent) or (sent.startswith(said) and not whole):
        return
    raise UnavailableError(
        "The answer was begun by a process that died, and another one goes on otherwise. Ask again."
    )


def from_settings(settings: ServeSettings, environment: Mapping[str, str]) -> RayBackend:
    """Replicas as ``--replicas``, ``--autoscale`` and ``--ray-config`` ask for them.

    Raises:
        DataError: If the file cannot be read or a number cannot be meant.
    """
    return RayBackend(settings.engine, ray_settings(settings))

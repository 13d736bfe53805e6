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
import os
import signal
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from m3router.data.errors import DataError, MismatchError
from m3router.router.inference.query import Query, Served
from m3router.router.inference.result import RoutedAnswer
from m3router.router.serve.backends.backend import BusyError, OverdueError, UnavailableError
from m3router.router.serve.backends.policies import Policies
from m3router.router.serve.backends.ray.fence import check_address, fence
from m3router.router.serve.backends.ray.replica import Refused, Replica, Taken
from m3router.router.serve.backends.ray.settings import RaySettings
from m3router.router.serve.settings import EngineSettings, ServeSettings
from m3router.router.training.scale_router import ScaleRouter

logger = logging.getLogger(__name__)

PAUSE = 0.2
"""Seconds before a question is asked again of another replica."""
DRAIN = 60.0
"""Seconds in which a replica that is taken away may finish."""
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # A replica whose cores are busy with answering takes longer than Ray's usual 0.1 s to tell
    # how much it has in hand.
    "RAY_SERVE_QUEUE_LENGTH_RESPONSE_DEADLINE_S": "2.0",
    # Ray's usual 15 lets whatever else runs on the machine starve the replicas.
    "RAY_worker_niceness": "0",
}
"""Environment of Ray, where it is not set."""


class RayBackend:
    """Questions are let in here and answered by replicas.

    Args:
        settings: Of each replica's engine; the run and the model must lie where every node of
            the cluster finds them.
        ray: How many replicas.
    """

    def __init__(self, settings: EngineSettings, ray: RaySettings) -> None:
        self._settings = replace(settings, run=str(Path(settings.run).resolve()))
        self._ray_settings = ray
        self._taking = False
        self._joined = self._started_ray = False  # a cluster, or one that was started for it
        self._queued = 0
        self._running = 0

    async def start(self) -> None:
        """Start Ray where it is not running, and the replicas; see the protocol.

        Raises:
            DataError: If Ray is not installed, others can read its token, or it was imported
                before in a way that lets it listen beyond this machine.
            UnavailableError: If the replicas do not come up.
        """
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        if self._ray_settings.address is None:
            fence()
        try:
            import ray
            from ray import serve
        except ImportError as error:
            raise DataError(
                "serving by replicas needs the package ray: pip install 'm3router[ray]'"
            ) from error
        self._ray: Any = ray
        self._serve: Any = serve
        self._lost = (
            ray.exceptions.RayActorError,
            ray.exceptions.WorkerCrashedError,
            ray.exceptions.NodeDiedError,
            ray.exceptions.ObjectLostError,
            ray.exceptions.TaskCancelledError,  # by a replica that is taken away
            serve.exceptions.ReplicaUnavailableError,
        )
        self._any = (ray.exceptions.RayError, serve.exceptions.RayServeException)
        router = ScaleRouter.read(Path(self._settings.run) / "router")
        self._policies = Policies(Path(self._settings.run), router)
        seconds = self._ray_settings.start_seconds
        try:
            async with asyncio.timeout(seconds):
                await asyncio.to_thread(self._deploy)
                self._served: Served = await self._handle.served.remote()
        except (TimeoutError, RuntimeError, ConnectionError, *self._lost) as error:
            await asyncio.to_thread(self._withdraw)
            raise UnavailableError(
                f"the replicas did not come up within {seconds:g} s ({type(error).__name__}: "
                f"{error}); look at Ray's log, and whether the cluster has the cores and GPUs "
                "that they ask for"
            ) from error
        _take_back_sigterm()
        self._taking = True

    def _deploy(self) -> None:
        """Start what is not running, and wait for the replicas."""
        given = self._ray_settings
        if not self._ray.is_initialized():
            # "local", since without an address Ray joins a cluster that it finds.
            local = given.address is None
            if local:
                check_address(self._ray.util.get_node_ip_address())
            self._ray.init(
                address="local" if local else given.address,
                include_dashboard=False if local else None,
                log_to_driver=False,
            )
            self._joined = True
            self._started_ray = local
        # The front is here: Ray's own HTTP proxies are not needed.
        self._serve.start(proxy_location="Disabled")
        options = given.options(ongoing=self._settings.batch, drain=DRAIN)
        app = self._serve.deployment(Replica).options(**options).bind(self._settings)
        self._serve.run(app, name=given.app, route_prefix=None, blocking=False)
        self._handle = self._serve.get_app_handle(given.app)
        self._stream = self._handle.options(stream=True)

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
        return list(await asyncio.gather(*(self._handle.load.remote() for _ in range(8))))

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
            except self._lost as error:
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
                except self._serve.exceptions.BackPressureError as error:
                    if not patient:
                        raise BusyError(
                            "The queue is full. Try again later.",
                            retry_after=getattr(error, "retry_after_s", None) or 1.0,
                        ) from error
                    await asyncio.sleep(PAUSE)
                    response = self._stream.ask.remote(query, _left(until))
                    continue
                except self._ray.exceptions.RayTaskError as error:
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
                with contextlib.suppress(*self._any):
                    response.cancel()

    async def stop(self, *, seconds: float) -> None:
        """Take nothing new, answer what was let in for at most so many seconds, then let go."""
        self._taking = False
        until = time.monotonic() + seconds
        while self._queued + self._running and time.monotonic() < until:
            await asyncio.sleep(0.02)
        await asyncio.to_thread(self._withdraw)

    def _withdraw(self) -> None:
        """Take the replicas away, and Ray where it was started here."""
        if self._ray.is_initialized():
            self._serve.delete(self._ray_settings.app)
            if self._started_ray:
                self._serve.shutdown()
            if self._joined:
                self._ray.shutdown()


def _take_back_sigterm() -> None:
    """Let SIGTERM reach the server again.

    Ray's core puts a handler of its own (absl's for failures) before Python's, which aborts the
    process three seconds after the signal and so cuts draining short.
    """
    with contextlib.suppress(ValueError):  # not the main thread: signals are not handled here
        handler = signal.getsignal(signal.SIGTERM)
        if handler is not None:
            signal.signal(signal.SIGTERM, handler)


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
    ray = RaySettings() if settings.ray_config is None else RaySettings.read(settings.ray_config)
    if settings.replicas is not None:
        ray = replace(ray, replicas=settings.replicas, most_replicas=None)
    if settings.autoscale is not None:
        ray = ray.scaled(settings.autoscale)
    return RayBackend(settings.engine, ray)

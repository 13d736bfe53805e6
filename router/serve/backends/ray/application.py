"""An application of replicas under Ray Serve, and Ray itself where it is started for it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import replace
from typing import Any

from m3router.data.errors import DataError
from m3router.router.serve.backends.backend import UnavailableError
from m3router.router.serve.backends.ray.fence import check_address, fence
from m3router.router.serve.backends.ray.settings import RaySettings
from m3router.router.serve.settings import ServeSettings

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


class RayApplication:
    """Replicas of one class.

    Args:
        given: How many, and where.
        replica: The class.
        arguments: Of each replica; can be pickled.
        ongoing: Where the settings have none, most questions in a replica's hands.

    Attributes:
        ray: The package, once started.
        serve: Its part for applications, once started.
        handle: Asks a replica, once started.
        lost: Errors that say that a replica, or what it was given, is gone.
        any: All of Ray's errors.
    """

    ray: Any
    serve: Any
    handle: Any
    lost: tuple[type[Exception], ...]
    any: tuple[type[Exception], ...]

    def __init__(self, given: RaySettings, replica: type, *arguments: object, ongoing: int) -> None:
        self._given, self._replica, self._arguments = given, replica, arguments
        self._ongoing = ongoing
        self._joined = self._started_ray = False  # a cluster, or one that was started for it

    async def start(self, first: str) -> Any:
        """Start Ray where it is not running, and the replicas.

        Args:
            first: Method that is called once they are there.

        Returns:
            What it returned.

        Raises:
            DataError: If Ray is not installed, others can read its token, or it was imported
                before in a way that lets it listen beyond this machine.
            UnavailableError: If the replicas do not come up.
        """
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        if self._given.address is None:
            fence()
        try:
            import ray
            from ray import serve
        except ImportError as error:
            raise DataError(
                "serving by replicas needs the package ray: pip install 'm3router[ray]'"
            ) from error
        self.ray, self.serve = ray, serve
        self.lost = (
            ray.exceptions.RayActorError,
            ray.exceptions.WorkerCrashedError,
            ray.exceptions.NodeDiedError,
            ray.exceptions.ObjectLostError,
            ray.exceptions.TaskCancelledError,  # by a replica that is taken away
            serve.exceptions.ReplicaUnavailableError,
        )
        self.any = (ray.exceptions.RayError, serve.exceptions.RayServeException)
        seconds = self._given.start_seconds
        try:
            async with asyncio.timeout(seconds):
                await asyncio.to_thread(self._deploy)
                told = await getattr(self.handle, first).remote()
        except (TimeoutError, RuntimeError, ConnectionError, *self.lost) as error:
            await asyncio.to_thread(self._withdraw)
            raise UnavailableError(
                f"the replicas did not come up within {seconds:g} s ({type(error).__name__}: "
                f"{error}); look at Ray's log, and whether the cluster has the cores and GPUs "
                "that they ask for"
            ) from error
        _take_back_sigterm()
        return told

    async def stop(self) -> None:
        """Take the replicas away, and Ray where it was started here."""
        await asyncio.to_thread(self._withdraw)

    def _deploy(self) -> None:
        """Start what is not running, and wait for the replicas."""
        given = self._given
        if not self.ray.is_initialized():
            # "local", since without an address Ray joins a cluster that it finds.
            local = given.address is None
            if local:
                check_address(self.ray.util.get_node_ip_address())
            self.ray.init(
                address="local" if local else given.address,
                include_dashboard=False if local else None,
                log_to_driver=False,
            )
            self._joined = True
            self._started_ray = local
        # The front is here: Ray's own HTTP proxies are not needed.
        self.serve.start(proxy_location="Disabled")
        options = given.options(ongoing=self._ongoing, drain=DRAIN)
        app = self.serve.deployment(self._replica).options(**options).bind(*self._arguments)
        self.serve.run(app, name=given.app, route_prefix=None, blocking=False)
        self.handle = self.serve.get_app_handle(given.app)

    def _withdraw(self) -> None:
        if self.ray.is_initialized():
            self.serve.delete(self._given.app)
            if self._started_ray:
                self.serve.shutdown()
            if self._joined:
                self.ray.shutdown()


def _take_back_sigterm() -> None:
    """Let SIGTERM reach the server again.

    Ray's core puts a handler of its own (absl's for failures) before Python's, which aborts the
    process three seconds after the signal and so cuts draining short.
    """
    with contextlib.suppress(ValueError):  # not the main thread: signals are not handled here
        handler = signal.getsignal(signal.SIGTERM)
        if handler is not None:
            signal.signal(signal.SIGTERM, handler)


def ray_settings(settings: ServeSettings) -> RaySettings:
    """Replicas as ``--replicas``, ``--autoscale`` and ``--ray-config`` ask for them.

    Raises:
        DataError: If the file cannot be read or a number cannot be meant.
    """
    ray = RaySettings() if settings.ray_config is None else RaySettings.read(settings.ray_config)
    if settings.replicas is not None:
        ray = replace(ray, replicas=settings.replicas, most_replicas=None)
    if settings.autoscale is not None:
        ray = ray.scaled(settings.autoscale)
    return ray

"""From settings to a server that runs: the model server, or the gateway in front of others."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m3router.data.errors import DataError
from m3router.data.plain_files import real_path
from m3router.router.inference.query import Served
from m3router.router.runs.run import Run
from m3router.router.serve.backends.factory import backend_of
from m3router.router.serve.backends.ray.application import ray_settings
from m3router.router.serve.deciding.decider import Decider, RouterFacts
from m3router.router.serve.deciding.process import ProcessDecider
from m3router.router.serve.deciding.ray import RayDecider
from m3router.router.serve.gateway.upstreams import Upstreams, upstreams_of
from m3router.router.serve.guard.keys import ENVIRONMENT, KeyRing
from m3router.router.serve.guard.rates import Rates
from m3router.router.serve.http.lifespan import Lifespan
from m3router.router.serve.http.processes import Place, serve_processes
from m3router.router.serve.http.running import serve_forever
from m3router.router.serve.images.decoding import image_of
from m3router.router.serve.images.fetching import Fetcher
from m3router.router.serve.images.limits import ImageLimits
from m3router.router.serve.images.workers import ImageWorkers
from m3router.router.serve.settings import ServeSettings
from m3router.router.traffic.recorder import Recorder
from m3router.router.training.scale_router import ScaleRouter

if TYPE_CHECKING:
    from PIL import Image

    from m3router.router.serve.gateway.app import GatewayFront
    from m3router.router.serve.http.app import Front

LOOPBACK = ("127.0.0.1", "::1", "localhost")
NAMES = frozenset(("localhost", "127.0.0.1", "[::1]"))
FETCH_SECONDS = 10.0  # for an image elsewhere


def launch(
    settings: ServeSettings,
    *,
    environment: Mapping[str, str],
    on_start: Callable[[str], None] | None = None,
    on_ready: Callable[[Served | RouterFacts], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: How.
        environment: Where M3ROUTER_API_KEYS and M3ROUTER_VLLM_KEY are looked for.
        on_start: Called with the address once it is taken.
        on_ready: Called with what is served, or with what routes in front of upstreams, once
            questions are taken.

    Raises:
        DataError: If a package is missing, there is no such policy, a setting is wrong, or the
            server would be open to others without keys.
        MismatchError: If model, router and policy do not belong together.
        UnavailableError: If replicas or a vLLM server do not answer.
    """
    _require_policy(Path(settings.run), settings.policy)
    if settings.processes > 1:
        _launch_processes(settings, environment, on_start, on_ready)
        return
    try:
        app = application(settings, environment, on_ready=on_ready)
    except ModuleNotFoundError as error:
        raise DataError(
            f"Serving needs the package {error.name}, which is not installed: pip install "
            "'m3router[serve]'"
        ) from error
    try:
        serve_forever(
            app,
            settings.host,
            settings.port,
            **_running(settings),
            on_start=on_start,
        )
    except SystemExit:  # of uvicorn, where the application did not start
        if app.error is None:
            raise
    if app.error is not None:
        raise app.error


def _running(settings: ServeSettings) -> dict[str, Any]:
    """How a server is run, whatever it serves."""
    return {
        "tls_cert": settings.tls_cert,
        "tls_key": settings.tls_key,
        "drain_seconds": math.ceil(settings.shutdown_timeout),
        "proxies": ",".join(settings.trusted_proxies or ()) or None,
    }


def _launch_processes(
    settings: ServeSettings,
    environment: Mapping[str, str],
    on_start: Callable[[str], None] | None,
    on_ready: Callable[[Any], None] | None,
) -> None:
    """Serve the gateway with several processes.

    Raises:
        DataError: As :func:`launch`, or if the model server would answer.
    """
    if upstreams_for(settings) is None:
        raise DataError(
            "--processes goes with --upstream: a model would be loaded by each process. For "
            "several models give --ray --replicas."
        )
    _admitted(settings, environment)
    serve_processes(
        partial(_in_a_process, settings, dict(environment)),
        settings.host,
        settings.port,
        processes=settings.processes,
        on_start=on_start,
        on_ready=on_ready,
        **_running(settings),
    )


def _in_a_process(
    settings: ServeSettings, environment: Mapping[str, str], place: Place
) -> Lifespan:
    """The gateway in one of several processes."""
    from m3router.router.serve.gateway.app import create_gateway
    from m3router.router.serve.gateway.metrics import share

    share(place.folder, place.number)
    upstreams = upstreams_for(settings)
    assert upstreams is not None, "looked at before"
    front = gateway_front(settings, environment, upstreams, shared=place.folder)
    return create_gateway(front, on_ready=place.ready)


def application(
    settings: ServeSettings,
    environment: Mapping[str, str],
    *,
    on_ready: Callable[[Served | RouterFacts], None] | None = None,
) -> Lifespan:
    """The gateway where the run's options are asked of upstreams, else the model server.

    Raises:
        DataError: As :func:`launch`.
    """
    upstreams = upstreams_for(settings)
    if upstreams is not None:
        from m3router.router.serve.gateway.app import create_gateway

        return create_gateway(gateway_front(settings, environment, upstreams), on_ready=on_ready)
    from m3router.router.serve.http.app import create_app  # loads torch

    return create_app(_front(settings, environment), on_ready=on_ready)


def upstreams_for(settings: ServeSettings) -> Upstreams | None:
    """What the run's options are asked of; None where the model server answers.

    Raises:
        DataError: As :func:`m3router.router.serve.gateway.upstreams.upstreams_of`.
    """
    router = ScaleRouter.read(Run(Path(settings.run)).arm())
    return upstreams_of(
        router.metadata,
        router.options,
        upstream=settings.upstream,
        file=settings.options,
        preset=settings.preset,
        model=settings.model or None,
        key_env=settings.upstream_key_env,
    )


def gateway_front(
    settings: ServeSettings,
    environment: Mapping[str, str],
    upstreams: Upstreams,
    *,
    shared: Path | None = None,
) -> GatewayFront:
    """What the gateway is made of.

    Args:
        settings: How it is run.
        environment: Where keys are looked for.
        upstreams: Who answers.
        shared: Where all of its processes keep their numbers; None for one process alone.

    Raises:
        DataError: If a setting is wrong, or the gateway would be open to others without keys.
    """
    from m3router.router.serve.gateway.app import GatewayFront
    from m3router.router.serve.gateway.metrics import GatewayMetrics

    keys, hosts = _admitted(settings, environment)
    limits = _limits(settings)
    decider = _decider(settings)
    images = ImageWorkers(limits)
    recorder = _recorder(settings)
    metrics = GatewayMetrics(
        options=tuple(upstreams.options),
        unlike=settings.unlike,
        load=lambda: {**decider.load(), **_load(images)},
        folder=shared,
    )
    if recorder is not None:
        metrics.of_traffic(recorder.counts)
    return GatewayFront(
        upstreams=upstreams,
        decider=decider,
        images=images,
        keys=keys,
        rates=Rates(settings.requests_per_minute, settings.burst, processes=settings.processes),
        settings=settings,
        metrics=metrics,
        fetch=_fetcher(settings, limits),
        recorder=recorder,
        hosts=hosts,
    )


def _load(images: ImageWorkers) -> dict[str, float]:
    return {
        "image_bytes": images.in_flight.taken,
        "image_file_bytes": images.waiting,
        "image_restarts": images.restarts,
    }


def _decider(settings: ServeSettings) -> Decider:
    """What decides: a process beside this one, or replicas."""
    make = partial(
        ProcessDecider,
        real_path(Path(settings.run)),
        policy=settings.policy,
        encoder=None,
        device=settings.device,
        threads=settings.threads,
    )
    if not settings.ray:
        return make()
    return RayDecider(make, ray_settings(settings))


def _front(settings: ServeSettings, environment: Mapping[str, str]) -> Front:
    from m3router.router.serve.http.app import Front

    keys, hosts = _admitted(settings, environment)
    limits = _limits(settings)
    workers, fetcher = ImageWorkers(limits), _fetcher(settings, limits)

    async def image(url: str) -> Image.Image:
        deadline = time.monotonic() + settings.request_timeout
        return await image_of(url, workers, fetcher, deadline=deadline, param="messages.0.content")

    return Front(
        backend=backend_of(settings, environment),
        image=image,
        workers=workers,
        keys=keys,
        rates=Rates(settings.requests_per_minute, settings.burst),
        settings=settings,
        recorder=_recorder(settings),
        hosts=hosts,
    )


def _recorder(settings: ServeSettings) -> Recorder | None:
    """What keeps a share of the traffic, not started; None where nothing is kept."""
    if settings.traffic is None:
        return None
    return Recorder(
        settings.traffic,
        share=settings.traffic_share,
        keep_days=settings.traffic_days,
        consent=settings.traffic_consent,
        max_bytes=settings.traffic_bytes,
    )


def _admitted(
    settings: ServeSettings, environment: Mapping[str, str]
) -> tuple[KeyRing, frozenset[str] | None]:
    """Who may ask, and by which names the server goes; None for any.

    Raises:
        DataError: If the server would be open to others without keys.
    """
    keys = KeyRing.of(settings.keys, environment.get(ENVIRONMENT))
    local = settings.host in LOOPBACK
    if not (local or keys.needed or settings.allow_unauthenticated):
        raise DataError(
            f"Without API keys anybody could ask at {settings.host}. Give --keys FILE (`m3router "
            f"keys add` makes one) or {ENVIRONMENT}; --allow-unauthenticated lets everybody in."
        )
    # Without keys, no page in a browser may reach the server by a name of its own.
    return keys, NAMES if local and not keys.needed else None


def _limits(settings: ServeSettings) -> ImageLimits:
    return ImageLimits(max_bytes=settings.max_bytes, max_pixels=settings.max_pixels)


def _fetcher(settings: ServeSettings, limits: ImageLimits) -> Fetcher | None:
    hosts = tuple(settings.image_hosts or ())
    return Fetcher(hosts, limits.max_bytes, FETCH_SECONDS) if hosts else None


def _require_policy(run: Path, name: str) -> None:
    Run(run).need_router()
    Run(run).need_policy(name)

"""From settings to a server that runs: the model server, or the gateway in front of others."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from m3router.data.errors import DataError
from m3router.router.inference.query import Served
from m3router.router.runs.run import Run
from m3router.router.serve.gateway.app import GatewayFront, create_gateway
from m3router.router.serve.gateway.deciding import RouterFacts
from m3router.router.serve.gateway.upstreams import Upstreams, upstreams_of
from m3router.router.serve.guard.keys import ENVIRONMENT, KeyRing
from m3router.router.serve.guard.rates import Rates
from m3router.router.serve.http.lifespan import Lifespan
from m3router.router.serve.http.running import serve_forever
from m3router.router.serve.images.decoding import ImageLimits, image_of
from m3router.router.serve.images.fetching import Fetcher
from m3router.router.serve.settings import ServeSettings
from m3router.router.traffic.recorder import Recorder
from m3router.router.training.scale_router import ScaleRouter

if TYPE_CHECKING:
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
            tls_cert=settings.tls_cert,
            tls_key=settings.tls_key,
            drain_seconds=math.ceil(settings.shutdown_timeout),
            proxies=",".join(settings.trusted_proxies or ()) or None,
            on_start=on_start,
        )
    except SystemExit:  # of uvicorn, where the application did not start
        if app.error is None:
            raise
    if app.error is not None:
        raise app.error


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
    settings: ServeSettings, environment: Mapping[str, str], upstreams: Upstreams
) -> GatewayFront:
    """What the gateway is made of.

    Raises:
        DataError: If a setting is wrong, or the gateway would be open to others without keys.
    """
    from m3router.router.serve.gateway.decider_process import ProcessDecider
    from m3router.router.serve.gateway.metrics import GatewayMetrics
    from m3router.router.serve.images.workers import ImageWorkers

    keys, hosts = _admitted(settings, environment)
    limits = _limits(settings)
    decider = ProcessDecider(
        Path(settings.run),
        policy=settings.policy,
        encoder=None,
        device=settings.device,
        threads=settings.threads,
    )
    return GatewayFront(
        upstreams=upstreams,
        decider=decider,
        images=ImageWorkers(limits),
        keys=keys,
        rates=Rates(settings.requests_per_minute, settings.burst),
        settings=settings,
        metrics=GatewayMetrics(
            options=tuple(upstreams.options), unlike=settings.unlike, load=decider.load
        ),
        fetch=_fetcher(settings, limits),
        hosts=hosts,
    )


def _front(settings: ServeSettings, environment: Mapping[str, str]) -> Front:
    from m3router.router.serve.backends.factory import backend_of
    from m3router.router.serve.http.app import Front

    keys, hosts = _admitted(settings, environment)
    limits = _limits(settings)
    recorder = None
    if settings.traffic is not None:
        recorder = Recorder(
            settings.traffic,
            share=settings.traffic_share,
            keep_days=settings.traffic_days,
            consent=settings.traffic_consent,
        )
    return Front(
        backend=backend_of(settings, environment),
        image=partial(
            image_of,
            limits=limits,
            fetch=_fetcher(settings, limits),
            param="messages.0.content",
        ),
        keys=keys,
        rates=Rates(settings.requests_per_minute, settings.burst),
        settings=settings,
        recorder=recorder,
        hosts=hosts,
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
    policies = Run(run).policies
    if not policies.is_dir():
        raise DataError(
            f"{run} is not a run folder with policies. `m3router calibrate` makes policies; a "
            "policy is given by its name: m3router serve RUN --policy NAME"
        )
    if not Run(run).policy(name).is_file():
        known = sorted(one.stem for one in policies.glob("*.json") if one.name != "manifest.json")
        raise DataError(
            f"{run} has no policy {name!r}; it has {', '.join(known) or 'none'}. Give one of "
            f"these, or make it: m3router calibrate {run} --policy {name}"
        )

"""From settings to a server that runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from m3router.data.errors import DataError
from m3router.router.inference.query import Served
from m3router.router.runs.run import Run
from m3router.router.serve.backends.factory import backend_of
from m3router.router.serve.guard.keys import ENVIRONMENT, KeyRing
from m3router.router.serve.guard.rates import Rates
from m3router.router.serve.http.running import serve_forever
from m3router.router.serve.images.decoding import ImageLimits, image_of
from m3router.router.serve.images.fetching import Fetcher
from m3router.router.serve.settings import ServeSettings
from m3router.router.traffic.recorder import Recorder

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
    on_ready: Callable[[Served], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: How.
        environment: Where M3ROUTER_API_KEYS and M3ROUTER_VLLM_KEY are looked for.
        on_start: Called with the address once it is taken.
        on_ready: Called with what is served once questions are taken.

    Raises:
        DataError: If a package is missing, there is no such policy, a setting is wrong, or the
            server would be open to others without keys.
        MismatchError: If model, router and policy do not belong together.
        UnavailableError: If replicas or a vLLM server do not answer.
    """
    _require_policy(Path(settings.run), settings.policy)
    try:
        from m3router.router.serve.http.app import create_app
    except ModuleNotFoundError as error:
        raise DataError(
            f"Serving needs the package {error.name}, which is not installed: pip install "
            "'m3router[serve]'"
        ) from error
    app = create_app(_front(settings, environment), on_ready=on_ready)
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


def _front(settings: ServeSettings, environment: Mapping[str, str]) -> Front:
    from m3router.router.serve.http.app import Front

    keys = KeyRing.of(settings.keys, environment.get(ENVIRONMENT))
    local = settings.host in LOOPBACK
    if not (local or keys.needed or settings.allow_unauthenticated):
        raise DataError(
            f"Without API keys anybody could ask at {settings.host}. Give --keys FILE (`m3router "
            f"keys add` makes one) or {ENVIRONMENT}; --allow-unauthenticated lets everybody in."
        )
    limits = ImageLimits(max_bytes=settings.max_bytes, max_pixels=settings.max_pixels)
    hosts = tuple(settings.image_hosts or ())
    fetcher = Fetcher(hosts, limits.max_bytes, FETCH_SECONDS) if hosts else None
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
        image=partial(image_of, limits=limits, fetch=fetcher),
        keys=keys,
        rates=Rates(settings.requests_per_minute, settings.burst),
        settings=settings,
        recorder=recorder,
        # Without keys, no page in a browser may reach the server by a name of its own.
        hosts=NAMES if local and not keys.needed else None,
    )


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

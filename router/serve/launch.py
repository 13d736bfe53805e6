"""From settings to a server that runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from data.errors import DataError
from router.serve.backends.backend import Served
from router.serve.backends.factory import backend_of
from router.serve.backends.ray.settings import RaySettings
from router.serve.backends.vllm.client import VllmAddress
from router.serve.guard.keys import ENVIRONMENT, KeyRing
from router.serve.guard.rates import Rates
from router.serve.images.decoding import PictureLimits, picture_of
from router.serve.images.fetching import Fetcher
from router.serve.settings import EngineSettings, FrontSettings
from router.traffic.consent import Consent
from router.traffic.recorder import Recorder

if TYPE_CHECKING:
    from router.serve.http.app import Front

LOOPBACK = ("127.0.0.1", "::1", "localhost")
NAMES = frozenset(("localhost", "127.0.0.1", "[::1]"))
FETCH_SECONDS = 10.0  # for a picture elsewhere


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How a server is run.

    Attributes:
        engine: What answers, and how much it takes on.
        front: Limits of single requests.
        host: Address to listen at.
        port: To listen at; 0 for any free one.
        keys: File of API keys.
        open_door: Listen beyond this machine although there are no keys.
        per_minute: Requests a minute for each key or address; None for no limit.
        burst: Requests that may come at once within that.
        image_hosts: Hosts that pictures may be fetched from.
        traffic: Folder for a share of the traffic; None to keep nothing.
        traffic_share: Of the requests.
        traffic_days: What is older is deleted.
        traffic_consent: Whose word counts.
        tls_cert: PEM file of a certificate.
        tls_key: PEM file of its key.
        proxies: Addresses whose X-Forwarded-For is believed.
        ray: Replicas under Ray Serve, in place of this process; None for none.
        vllm: A server that runs the language model, in place of this process; None for none.
    """

    engine: EngineSettings
    front: FrontSettings
    host: str = "127.0.0.1"
    port: int = 8000
    keys: Path | None = None
    open_door: bool = False
    per_minute: float | None = None
    burst: int = 32
    image_hosts: tuple[str, ...] = ()
    traffic: Path | None = None
    traffic_share: float = 0.01
    traffic_days: float = 30.0
    traffic_consent: Consent = Consent.OPT_OUT
    tls_cert: Path | None = None
    tls_key: Path | None = None
    proxies: str | None = None
    ray: RaySettings | None = None
    vllm: VllmAddress | None = None


def launch(
    settings: Launch,
    *,
    environment: Mapping[str, str],
    on_start: Callable[[str], None] | None = None,
    on_ready: Callable[[Served], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: How.
        environment: Where M3ROUTER_API_KEYS is looked for.
        on_start: Called with the address once it is taken.
        on_ready: Called with what is served once questions are taken.

    Raises:
        DataError: If a package is missing, a setting is wrong, or the server would be open to
            others without keys.
        MismatchError: If model, router and policy do not belong together.
        UnavailableError: If replicas or a vLLM server do not answer.
    """
    try:
        from router.serve.http.app import create_app
        from router.serve.http.running import serve_forever
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
            drain_seconds=math.ceil(settings.front.drain_seconds),
            proxies=settings.proxies,
            on_start=on_start,
        )
    except SystemExit:  # of uvicorn, where the application did not start
        if app.error is None:
            raise
    if app.error is not None:
        raise app.error


def _front(settings: Launch, environment: Mapping[str, str]) -> Front:
    from router.serve.http.app import Front

    keys = KeyRing.of(settings.keys, environment.get(ENVIRONMENT))
    local = settings.host in LOOPBACK
    if not (local or keys.needed or settings.open_door):
        raise DataError(
            f"Without API keys anybody could ask at {settings.host}. Give --keys FILE (`m3router "
            f"keys add` makes one) or {ENVIRONMENT}; --open lets everybody in."
        )
    limits = PictureLimits(max_bytes=settings.front.max_bytes, max_pixels=settings.front.max_pixels)
    hosts = settings.image_hosts
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
        backend=backend_of(settings.engine, ray=settings.ray, vllm=settings.vllm),
        picture=partial(picture_of, limits=limits, fetch=fetcher, param="messages.0.content"),
        keys=keys,
        rates=Rates(settings.per_minute, settings.burst),
        settings=settings.front,
        recorder=recorder,
        # Without keys, no page in a browser may reach the server by a name of its own.
        hosts=NAMES if local and not keys.needed else None,
    )

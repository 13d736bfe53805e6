"""What a server loads and takes on; plain values.

A field that can be set on the command line says what it is in its annotation: `m3router serve` has
these options and no others. Python callers set the same fields.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from m3router.data.errors import DataError
from m3router.router.serve.logs import LogFormat
from m3router.router.text.fractions import METAVAR, fraction
from m3router.router.traffic.consent import FOLDER_BYTES, Consent


class WhenRouterFails(StrEnum):
    """What becomes of a request that the router fails to judge.

    Attributes:
        OPEN: It is asked at the finest option.
        CLOSED: It is refused.
    """

    OPEN = "open"
    CLOSED = "closed"


class SystemText(StrEnum):
    """What becomes of system and developer messages.

    Attributes:
        REFUSE: A request with one is refused.
        PREPEND: Their text stands before the question.
    """

    REFUSE = "refuse"
    PREPEND = "prepend"


class Temperature(StrEnum):
    """What becomes of a temperature above 0.

    Attributes:
        REFUSE: A request with one is refused.
        IGNORE: The answer is greedy all the same.
        HONOUR: The answer's tokens are drawn.
    """

    REFUSE = "refuse"
    IGNORE = "ignore"
    HONOUR = "honour"


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """What an engine loads and how much it takes on; plain values that can be pickled.

    Attributes:
        model: "" for the run's own.
        device: As for `m3router.m3core.load_model`.
        workers: Threads that answer, each its own batch; None for one on a GPU, and on a processor
            for one for each core, up to four.
    """

    run: Annotated[
        str,
        typer.Argument(
            help="A run folder with a router and policies, or a folder that `m3router push` "
            "published and `hf download` fetched.",
            show_default=False,
        ),
    ]
    policy: Annotated[str, typer.Option(help="Name of the policy.")] = "default"
    model: Annotated[
        str,
        typer.Option(
            help="Name, folder or hub id of the model that was labelled. [default: the run's]",
            show_default=False,
        ),
    ] = ""
    device: Annotated[
        str, typer.Option(help="Such as cpu or cuda; auto takes a GPU if there is one.")
    ] = "auto"
    threads: Annotated[
        int | None, typer.Option(help="Processor threads. [default: all]", show_default=False)
    ] = None
    queue: Annotated[int, typer.Option(help="Most questions that wait; then 429.")] = 64
    workers: int | None = None
    batch: Annotated[int, typer.Option(help="Most questions that are answered at once.")] = 32
    encode_batch_size: Annotated[
        int, typer.Option(help="Most images that the tower encodes at once.")
    ] = 4
    image_cache_size: Annotated[
        int, typer.Option(help="Encodings kept for further questions about the same images.")
    ] = 32


@dataclass(frozen=True, kw_only=True)
class FrontSettings:
    """Limits of single requests.

    Attributes:
        body_seconds: Within which a body must have come.
        max_depth: Deepest nesting of JSON.
    """

    request_timeout: Annotated[
        float, typer.Option(help="Seconds within which a question must be answered; then 504.")
    ] = 60.0
    max_tokens: Annotated[
        int | None,
        typer.Option(help="Longest answer in tokens. [default: the run's]", show_default=False),
    ] = None
    max_bytes: Annotated[int, typer.Option(help="Longest request body.")] = 20 << 20
    max_pixels: Annotated[int, typer.Option(help="Largest image.")] = 25_000_000
    system_text: Annotated[
        SystemText,
        typer.Option(
            help="prepend: put the text of system messages before the question; nothing is "
            "certified about such answers."
        ),
    ] = SystemText.REFUSE
    temperature: Annotated[
        Temperature,
        typer.Option(
            help="A temperature above 0, which many clients send unasked. ignore: answer greedily "
            "all the same; honour: draw the answer's tokens, about which nothing is certified."
        ),
    ] = Temperature.REFUSE
    body_seconds: float = 30.0
    max_depth: int = 16
    shutdown_timeout: Annotated[
        float, typer.Option(help="Seconds for answers that run when SIGTERM comes.")
    ] = 30.0

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            DataError: If one is not above 0.
        """
        for one in fields(FrontSettings):
            value = getattr(self, one.name)
            if isinstance(value, int | float) and not value > 0:
                raise DataError(f"{one.name} must be above 0, not {value}.")


@dataclass(frozen=True, kw_only=True)
class GatewaySettings:
    """How requests are relayed to servers that exist; nothing of it is read without an upstream."""

    upstream: Annotated[
        str | None,
        typer.Option(
            metavar="URL|FILE",
            help="Route in front of this OpenAI-compatible server instead of answering here, such "
            "as http://gpu-1:8000/v1; or a TOML file of named upstreams, see docs/gateway.md. "
            "[default: the endpoint that the run was labelled with, if any]",
            show_default=False,
        ),
    ] = None
    options: Annotated[
        Path | None,
        typer.Option(
            help="TOML file that says how each option is asked, see docs/endpoints.md. [default: "
            "as the run was labelled]",
            show_default=False,
        ),
    ] = None
    preset: Annotated[
        str | None,
        typer.Option(
            help="Ask options as this preset says, such as vllm-qwen3-vl.", show_default=False
        ),
    ] = None
    upstream_key_env: Annotated[
        str | None,
        typer.Option(
            help="Environment variable with the upstream's key. Without it, and without keys of "
            "the gateway's own, a client's key goes on to the upstream.",
            show_default=False,
        ),
    ] = None
    upstream_timeout: Annotated[
        float, typer.Option(help="Seconds that an upstream may be silent; then 504.")
    ] = 600.0
    trust_env: Annotated[
        bool,
        typer.Option("--trust-env", help="Reach upstreams by the environment's proxies."),
    ] = False
    when_router_fails: Annotated[
        WhenRouterFails,
        typer.Option(help="open: ask the finest option all the same; closed: refuse with 503."),
    ] = WhenRouterFails.OPEN
    unlike: Annotated[
        float,
        typer.Option(
            parser=fraction,
            metavar=METAVAR,
            help="Ask the finest option about images that at most this share of the training "
            "images is as unlike the others as; 0 to route every image.",
        ),
    ] = 0.01
    ask_logprobs: Annotated[
        bool,
        typer.Option(
            "--ask-logprobs",
            help="Ask for log-probabilities where the client did not and the policy may ask again.",
        ),
    ] = False
    processes: Annotated[int, typer.Option(help="Processes that relay, behind one port.")] = 1


@dataclass(frozen=True, kw_only=True)
class ServeSettings(FrontSettings, EngineSettings, GatewaySettings):
    """How a server is run."""

    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1"
    port: Annotated[int, typer.Option(help="Port to listen at; 0 for any free one.")] = 8000
    keys: Annotated[
        Path | None,
        typer.Option(help="File of API keys, see `m3router keys`.", show_default=False),
    ] = None
    allow_unauthenticated: Annotated[
        bool,
        typer.Option(
            "--allow-unauthenticated", help="Listen beyond this machine without any keys."
        ),
    ] = False
    requests_per_minute: Annotated[
        float | None,
        typer.Option(help="For each key or address. [default: no limit]", show_default=False),
    ] = None
    burst: Annotated[int, typer.Option(help="Requests that may come at once within that.")] = 32
    image_hosts: Annotated[
        list[str] | None,
        typer.Option(
            "--image-host",
            help="Host that images may be fetched from, such as img.example.org or "
            "*.example.org; may be repeated. [default: none]",
            show_default=False,
        ),
    ] = None
    traffic: Annotated[
        Path | None,
        typer.Option(help="Keep a share of the traffic in this folder.", show_default=False),
    ] = None
    traffic_share: Annotated[
        float,
        typer.Option(
            parser=fraction, metavar=METAVAR, help="Share of the requests to keep, such as 1%."
        ),
    ] = 0.01
    traffic_days: Annotated[
        float, typer.Option(help="Days to keep requests; older ones are deleted.")
    ] = 30.0
    traffic_bytes: Annotated[
        int,
        typer.Option(help="Most bytes of the folder; the oldest requests go for new ones."),
    ] = FOLDER_BYTES
    traffic_consent: Annotated[
        Consent, typer.Option(help="How much a request's own `store` field counts.")
    ] = Consent.OPT_OUT
    log_format: Annotated[
        LogFormat, typer.Option(help="json: each log line is an object, with the request's id.")
    ] = LogFormat.TEXT
    tls_cert: Annotated[
        Path | None, typer.Option(help="PEM file of a certificate.", show_default=False)
    ] = None
    tls_key: Annotated[
        Path | None, typer.Option(help="PEM file of its key.", show_default=False)
    ] = None
    trusted_proxies: Annotated[
        list[str] | None,
        typer.Option(
            "--trusted-proxy",
            help="Address whose X-Forwarded-For is believed; may be repeated.",
            show_default=False,
        ),
    ] = None
    ray: Annotated[
        bool, typer.Option("--ray", help="Answer by replicas under Ray Serve; the extra 'ray'.")
    ] = False
    replicas: Annotated[
        int | None, typer.Option(help="Number of replicas, with --ray.", show_default=False)
    ] = None
    autoscale: Annotated[
        str | None,
        typer.Option(
            metavar="FEWEST:MOST",
            help="Fewest and most replicas, such as 1:4, with --ray.",
            show_default=False,
        ),
    ] = None
    ray_config: Annotated[
        Path | None,
        typer.Option(help="TOML file of more settings, see docs/scale-out.md.", show_default=False),
    ] = None
    vllm: Annotated[
        str | None,
        typer.Option(
            help="Address of a vLLM server that runs the language model, such as "
            "http://gpu-1:8000. NOT YET RUN against a real one.",
            show_default=False,
        ),
    ] = None
    vllm_model: Annotated[
        str, typer.Option(help="What the vLLM server calls the model; its key: M3ROUTER_VLLM_KEY.")
    ] = "m3"

    def __post_init__(self) -> None:
        """Check the numbers, and that settings of replicas come with ``--ray``.

        Raises:
            DataError: If one is not above 0, or goes with another that is not given.
        """
        super().__post_init__()
        if not self.ray and (self.replicas or self.autoscale or self.ray_config):
            raise DataError("--replicas, --autoscale and --ray-config go with --ray; add it.")
        if self.processes < 1:
            raise DataError(f"--processes must be 1 or more, not {self.processes}.")
        if self.processes > 1 and self.traffic is not None:
            raise DataError(
                "--traffic goes with one process: a folder has one writer. Leave out --processes, "
                "or run a gateway for each folder behind a load balancer."
            )
        if self.processes > 1 and self.ray:
            raise DataError(
                "--ray goes with one process that relays: each would have replicas of its own. "
                "Leave out --processes, or run several gateways, each with an `app` of its own in "
                "--ray-config."
            )
        if self.replicas and self.autoscale:
            raise DataError("Give --replicas or --autoscale, not both.")

    @property
    def engine(self) -> EngineSettings:
        """What goes to the processes that answer, and no more."""
        names = [one.name for one in fields(EngineSettings)]
        return EngineSettings(**{name: getattr(self, name) for name in names})

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
from m3router.router.text.familiarity import UNLIKE
from m3router.router.text.fractions import METAVAR, fraction
from m3router.router.traffic.consent import FOLDER_BYTES, Consent

LIMITS = "Limits"
MODEL_SERVER = "The model server"
GATEWAY = "The gateway"
TRAFFIC = "Keeping requests"
REPLICAS = "Replicas, and a vLLM server behind the model server"
"""Headings of the command's help."""


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
            help="Name, folder or hub id of the model that was labelled; in the gateway, what the "
            "upstream calls it. [default: the run's]",
            show_default=False,
        ),
    ] = ""
    device: Annotated[
        str, typer.Option(help="Such as cpu or cuda; auto takes a GPU if there is one.")
    ] = "auto"
    threads: Annotated[
        int | None,
        typer.Option(
            help="Processor threads; in the gateway, those that decide. [default: all; in the "
            "gateway all but one]",
            show_default=False,
        ),
    ] = None
    queue: Annotated[
        int, typer.Option(help="Most questions that wait; then 429.", rich_help_panel=MODEL_SERVER)
    ] = 64
    workers: int | None = None
    batch: Annotated[
        int,
        typer.Option(
            help="Most questions that are answered at once.", rich_help_panel=MODEL_SERVER
        ),
    ] = 32
    encode_batch_size: Annotated[
        int,
        typer.Option(
            help="Most images that the tower encodes at once.", rich_help_panel=MODEL_SERVER
        ),
    ] = 4
    image_cache_size: Annotated[
        int,
        typer.Option(
            help="Encodings kept for further questions about the same images.",
            rich_help_panel=MODEL_SERVER,
        ),
    ] = 32


@dataclass(frozen=True, kw_only=True)
class FrontSettings:
    """Limits of single requests.

    Attributes:
        body_seconds: Within which a body must have come.
        max_depth: Deepest nesting of JSON.
    """

    request_timeout: Annotated[
        float,
        typer.Option(
            help="Seconds within which a question must be answered; then 504.",
            rich_help_panel=MODEL_SERVER,
        ),
    ] = 60.0
    max_tokens: Annotated[
        int | None,
        typer.Option(
            help="Longest answer, in tokens. [default: the run's]",
            show_default=False,
            rich_help_panel=MODEL_SERVER,
        ),
    ] = None
    max_bytes: Annotated[
        int, typer.Option(help="Bytes of a request's body, at most.", rich_help_panel=LIMITS)
    ] = 20 << 20
    max_pixels: Annotated[
        int, typer.Option(help="Pixels of an image, at most.", rich_help_panel=LIMITS)
    ] = 25_000_000
    system_text: Annotated[
        SystemText,
        typer.Option(
            help="prepend: put the text of system messages before the question; nothing is "
            "certified about such answers.",
            rich_help_panel=MODEL_SERVER,
        ),
    ] = SystemText.REFUSE
    temperature: Annotated[
        Temperature,
        typer.Option(
            help="A temperature above 0, which many clients send unasked. ignore: answer greedily "
            "all the same; honour: draw the answer's tokens, about which nothing is certified.",
            rich_help_panel=MODEL_SERVER,
        ),
    ] = Temperature.REFUSE
    body_seconds: float = 30.0
    max_depth: int = 16
    shutdown_timeout: Annotated[
        float,
        typer.Option(
            help="Seconds that running answers get when SIGTERM comes.", rich_help_panel=LIMITS
        ),
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
            rich_help_panel=GATEWAY,
        ),
    ] = None
    options: Annotated[
        Path | None,
        typer.Option(
            help="TOML file that says how each option is asked, see docs/endpoints.md. [default: "
            "as the run was labelled]",
            show_default=False,
            rich_help_panel=GATEWAY,
        ),
    ] = None
    preset: Annotated[
        str | None,
        typer.Option(
            help="Ask options as this preset says, such as vllm-qwen3-vl.",
            show_default=False,
            rich_help_panel=GATEWAY,
        ),
    ] = None
    upstream_key_env: Annotated[
        str | None,
        typer.Option(
            help="Environment variable with the upstream's key. Without it, and without keys of "
            "the gateway's own, a client's key goes on to the upstream.",
            show_default=False,
            rich_help_panel=GATEWAY,
        ),
    ] = None
    upstream_timeout: Annotated[
        float,
        typer.Option(
            help="Seconds that an upstream may be silent; then 504.", rich_help_panel=GATEWAY
        ),
    ] = 600.0
    trust_env: Annotated[
        bool,
        typer.Option(
            "--trust-env",
            help="Reach upstreams through the environment's proxies, which then see their keys.",
            rich_help_panel=GATEWAY,
        ),
    ] = False
    when_router_fails: Annotated[
        WhenRouterFails,
        typer.Option(
            help="open: ask the finest option; closed: refuse with 503.", rich_help_panel=GATEWAY
        ),
    ] = WhenRouterFails.OPEN
    unlike: Annotated[
        float,
        typer.Option(
            parser=fraction,
            metavar=METAVAR,
            help="Ask the finest option about an image if at most this share of the training's "
            "images is as unusual; 0 to route every image.",
            rich_help_panel=GATEWAY,
        ),
    ] = UNLIKE
    ask_logprobs: Annotated[
        bool,
        typer.Option(
            "--ask-logprobs",
            help="Ask for log-probabilities where the client did not, so that a policy with a "
            "cascade can ask again; the answers then have them.",
            rich_help_panel=GATEWAY,
        ),
    ] = False
    processes: Annotated[
        int, typer.Option(help="Processes that relay, behind one port.", rich_help_panel=GATEWAY)
    ] = 1


@dataclass(frozen=True, kw_only=True)
class ServeSettings(GatewaySettings, FrontSettings, EngineSettings):
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
        typer.Option(
            help="Requests a minute for each key or address. [default: no limit]",
            show_default=False,
            rich_help_panel=LIMITS,
        ),
    ] = None
    burst: Annotated[
        int,
        typer.Option(help="Requests that may come at once within that.", rich_help_panel=LIMITS),
    ] = 32
    image_hosts: Annotated[
        list[str] | None,
        typer.Option(
            "--image-host",
            help="Host that images may be fetched from, such as img.example.org or "
            "*.example.org; may be repeated. [default: none]",
            show_default=False,
            rich_help_panel=LIMITS,
        ),
    ] = None
    traffic: Annotated[
        Path | None,
        typer.Option(
            help="Keep a share of the traffic in this folder.",
            show_default=False,
            rich_help_panel=TRAFFIC,
        ),
    ] = None
    traffic_share: Annotated[
        float,
        typer.Option(
            parser=fraction,
            metavar=METAVAR,
            help="Share of the requests to keep, such as 1%.",
            rich_help_panel=TRAFFIC,
        ),
    ] = 0.01
    traffic_days: Annotated[
        float,
        typer.Option(
            help="Days to keep requests; older ones are deleted.", rich_help_panel=TRAFFIC
        ),
    ] = 30.0
    traffic_bytes: Annotated[
        int,
        typer.Option(
            help="Most bytes of the folder; the oldest requests go for new ones.",
            rich_help_panel=TRAFFIC,
        ),
    ] = FOLDER_BYTES
    traffic_consent: Annotated[
        Consent,
        typer.Option(
            help="How much a request's own `store` field counts.", rich_help_panel=TRAFFIC
        ),
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
        bool,
        typer.Option(
            "--ray",
            help="Answer by replicas under Ray Serve; the extra 'ray'.",
            rich_help_panel=REPLICAS,
        ),
    ] = False
    replicas: Annotated[
        int | None,
        typer.Option(
            help="Number of replicas, with --ray.", show_default=False, rich_help_panel=REPLICAS
        ),
    ] = None
    autoscale: Annotated[
        str | None,
        typer.Option(
            metavar="FEWEST:MOST",
            help="Fewest and most replicas, such as 1:4, with --ray.",
            show_default=False,
            rich_help_panel=REPLICAS,
        ),
    ] = None
    ray_config: Annotated[
        Path | None,
        typer.Option(
            help="TOML file of more settings, see docs/scale-out.md.",
            show_default=False,
            rich_help_panel=REPLICAS,
        ),
    ] = None
    vllm: Annotated[
        str | None,
        typer.Option(
            help="Address of a vLLM server that runs the language model, such as "
            "http://gpu-1:8000; docs/scale-out.md says what was tried.",
            show_default=False,
            rich_help_panel=REPLICAS,
        ),
    ] = None
    vllm_model: Annotated[
        str,
        typer.Option(
            help="What the vLLM server calls the model; its key: M3ROUTER_VLLM_KEY.",
            rich_help_panel=REPLICAS,
        ),
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

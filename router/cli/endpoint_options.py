"""Options of commands that ask a model behind an OpenAI-compatible endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from m3router.m3core.endpoint.connecting import connect
from m3router.m3core.endpoint.endpoint_options import read_options
from m3router.m3core.endpoint.keys import Key
from m3router.m3core.endpoint.model import MAX_NEW_TOKENS, EndpointModel
from m3router.m3core.options import SPEC
from m3router.router.cli.options import pairs
from m3router.router.training.scale_router import ScaleRouter

IN_FLIGHT, REQUEST_TIMEOUT = 8, 120.0

Endpoint = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Address of an OpenAI-compatible server, such as http://host:8000/v1, that is "
        "asked instead of a local model; --model is its name there.",
        show_default=False,
    ),
]
RunEndpoint = Annotated[
    str | None,
    typer.Option(
        "--endpoint",
        metavar="URL",
        help="Address of the server that the run was labelled over, where it is elsewhere now.",
        show_default=False,
    ),
]
OptionsFile = Annotated[
    Path | None,
    typer.Option(
        "--options",
        help="TOML (or .json) file of the endpoint's options, coarsest first; see "
        "docs/endpoints.md.",
        show_default=False,
    ),
]
PresetName = Annotated[
    str | None,
    typer.Option(
        "--preset",
        help="Options that a kind of server is known to have, such as vllm-gemma4, openai-detail "
        "or resize; docs/endpoints.md has them all.",
        show_default=False,
    ),
]
KeyVariable = Annotated[
    str | None,
    typer.Option(
        "--key-env",
        metavar="NAME",
        help="Environment variable that holds the endpoint's key, such as OPENAI_API_KEY.",
        show_default="no key",
    ),
]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key-file", help="File that holds the endpoint's key alone.", show_default=False
    ),
]
InFlight = Annotated[
    int, typer.Option(min=1, help="Most requests to the endpoint at the same time.")
]
RequestTimeout = Annotated[
    float, typer.Option(help="Seconds in which the endpoint's response must have come.")
]
MaxRequests = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Most requests to the endpoint, retries included; then the run stops, and goes on "
        "later with the same command.",
        show_default="no limit",
    ),
]
PriceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--price",
        metavar="KIND=PRICE",
        help="What the endpoint asks for a million tokens of input, output or cached, or for an "
        "image or request, such as input=0.15; repeat it. Then the price is the cost.",
        show_default=False,
    ),
]
CostUnitOption = Annotated[
    str | None,
    typer.Option(
        "--cost-unit",
        help="What an endpoint's answer costs: image tokens, prompt tokens, price, pixels or "
        "seconds.",
        show_default="price where it is known, else image tokens",
    ),
]


@dataclass(frozen=True, kw_only=True)
class EndpointArguments:
    """What the options of this module were given.

    Attributes:
        url: ``--endpoint``.
        model: The server's name of the model; None for the only one, or those in the file.
        options: ``--options``.
        preset: ``--preset``.
        key_env: ``--key-env``.
        key_file: ``--key-file``.
        in_flight: ``--in-flight``.
        request_timeout: ``--request-timeout``, seconds.
        max_requests: ``--max-requests``.
        price: ``--price``, as typed.
        cost_unit: ``--cost-unit``.
        max_new_tokens: Tokens of the longest answer; None for the endpoint's 16.
    """

    url: str
    model: str | None = None
    options: Path | None = None
    preset: str | None = None
    key_env: str | None = None
    key_file: Path | None = None
    in_flight: int = IN_FLIGHT
    request_timeout: float = REQUEST_TIMEOUT
    max_requests: int | None = None
    price: Sequence[str] | None = None
    cost_unit: str | None = None
    max_new_tokens: int | None = None


def connect_from(given: EndpointArguments) -> EndpointModel:
    """The model that a command's options name, its options tried once.

    Raises:
        BadParameter: If options exclude each other, or a price is none.
        DataError: If the file of options, the key or the address cannot be used.
        ModelError: If the endpoint cannot be asked, or an option changes nothing.
    """
    if given.options is None and given.preset is None:
        raise typer.BadParameter(
            "--endpoint needs --options FILE or --preset NAME, which say how its options are asked"
        )
    options = read_options(
        given.options, preset=given.preset, model=given.model, prices=prices_of(given.price)
    )
    return connect(
        given.url,
        options,
        key=key_of(given.key_env, given.key_file),
        in_flight=given.in_flight,
        timeout_s=given.request_timeout,
        max_requests=given.max_requests,
        max_new_tokens=given.max_new_tokens or MAX_NEW_TOKENS,
        cost_unit=given.cost_unit,
    )


def key_of(variable: str | None, file: Path | None) -> Key | None:
    """The key that ``--key-env`` or ``--key-file`` names; None where neither is given.

    Raises:
        BadParameter: If both are given.
        DataError: If there is no such key.
    """
    if variable is not None and file is not None:
        raise typer.BadParameter("--key-env and --key-file exclude each other: give one of them")
    if variable is not None:
        return Key.from_environment(variable)
    return None if file is None else Key.from_file(file)


def prices_of(texts: Sequence[str] | None) -> dict[str, float]:
    """What ``--price`` says.

    Raises:
        BadParameter: If a text has another form.
    """
    found = {}
    for name, text in pairs(texts, "--price", "KIND=PRICE").items():
        try:
            found[name] = float(text)
        except ValueError:
            raise typer.BadParameter(f"--price {name}: {text!r} is no number") from None
    return found


def model_or_endpoint(run: Path, model: str | None, endpoint: str | None) -> str | None:
    """The model that ``--model`` or ``--endpoint`` of a run's command names; None for the run's.

    Raises:
        BadParameter: If both are given, or the run was not labelled over an endpoint.
        DataError: If the run has no router.
    """
    if endpoint is None:
        return model
    if model is not None:
        raise typer.BadParameter("--model and --endpoint exclude each other: give one of them")
    from m3router.m3core.opening import ENDPOINT  # loads torch

    router = ScaleRouter.read(run / "router")
    spec = router.metadata.get("log", {}).get(SPEC)
    if not isinstance(spec, dict) or spec.get("kind") != ENDPOINT:
        labelled = router.model or "an imported log"
        raise typer.BadParameter(
            f"--endpoint {endpoint}: the run was made from answers of {labelled}, not of an "
            "endpoint, and its router knows no other model. Label, train and calibrate a run over "
            "that server first (m3router label --endpoint)."
        )
    return endpoint

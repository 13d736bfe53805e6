"""Connecting to an endpoint, and to the endpoint of a log again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from m3router.data.errors import DataError, ModelError
from m3router.data.prices import Prices
from m3router.m3core.endpoint.endpoint_options import EndpointOptions, parse_options
from m3router.m3core.endpoint.keys import Key, base_url
from m3router.m3core.endpoint.meter import RequestLimitError
from m3router.m3core.endpoint.model import (
    MAX_NEW_TOKENS,
    EndpointModel,
    EndpointSettings,
)
from m3router.m3core.endpoint.retries import RetryPolicy
from m3router.m3core.endpoint.server_facts import ServerFacts, listed_models
from m3router.m3core.endpoint.transport import Transport


def connect(
    url: str,
    options: EndpointOptions,
    *,
    key: Key | None = None,
    in_flight: int = 8,
    timeout_s: float = 120.0,
    max_requests: int | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    cost_unit: str | None = None,
    prices: Prices | None = None,
    retry: RetryPolicy | None = None,
    probe: bool = True,
) -> EndpointModel:
    """A model behind an OpenAI-compatible endpoint, its options tried once.

    Args:
        url: Such as ``"http://gpu-1:8000/v1"``; without a path, ``/v1`` is meant.
        options: As :func:`m3router.m3core.endpoint.endpoint_options.read_options` gives them.
        key: Sent as a bearer token; None for none.
        in_flight: Most requests at the same time.
        timeout_s: Seconds in which a response must have come.
        max_requests: Most requests that are sent, probing, retries and requests for a question's
            tokens included; None for any number.
        max_new_tokens: Tokens of the longest answer, where a request names no other limit.
        cost_unit: What ``Usage.cost`` counts; None for the price where all options have one, else
            image tokens.
        prices: Of options that have none of their own.
        retry: When requests are sent again.
        probe: Whether the options are tried now; without, the server's name for a model is not
            part of the revision.

    Raises:
        DataError: If the address, a number or the unit cannot be used, or options of several
            models have neither prices nor a cost unit.
        ModelError: If the endpoint cannot be asked, or an option changes nothing.
    """
    if max_requests is not None and max_requests < 1:
        raise DataError(f"max_requests must be at least 1, got {max_requests}")
    address = base_url(url)
    if prices is not None:
        given = (replace(one, prices=one.prices or prices) for one in options.options)
        options = replace(options, options=tuple(given))
    if any(one.model is None for one in options.options):
        transport = Transport(address, key=key, connections=1, timeout=timeout_s)
        try:
            options = options.with_model(_only_model(transport, address))
        finally:
            transport.close()
    settings = EndpointSettings(
        url=address,
        options=options,
        max_new_tokens=max_new_tokens,
        cost_unit=_unit(options) if cost_unit is None else cost_unit,
        in_flight=in_flight,
        timeout_s=timeout_s,
    )
    model = EndpointModel(settings, key=key, max_requests=max_requests, retry=retry)
    try:
        if probe:
            model.probe()
    except RequestLimitError as error:
        raise RequestLimitError(
            f"{error}. All were spent on trying the options, which every start does: allow more"
        ) from error
    return model


def from_spec(
    spec: Mapping[str, Any], *, key: Key | str | None = None, max_requests: int | None = None
) -> EndpointModel:
    """The model of another one's :attr:`EndpointModel.spec`; nothing is asked.

    Args:
        spec: With ``kind`` "endpoint".
        key: None for the one from where the other one's was read.
        max_requests: As for :func:`connect`.

    Raises:
        DataError: If it is no such spec, or the key is there no more.
    """
    try:
        settings = EndpointSettings(
            url=base_url(spec["url"]),
            options=replace(
                parse_options(spec["options"], where="the endpoint's options"),
                preset=spec["preset"],
            ),
            max_new_tokens=spec["max_new_tokens"],
            cost_unit=spec["cost_unit"],
            in_flight=spec["in_flight"],
            timeout_s=spec["timeout_s"],
        )
        facts, source = ServerFacts.of(spec["server"]), spec["key"]
    except (KeyError, TypeError) as error:
        raise DataError(
            f"this does not say how an endpoint is asked: {error} is missing"
        ) from error
    if key is None and source is not None:
        key = Key.again(source)
    elif isinstance(key, str):
        key = Key(key)
    return EndpointModel(settings, key=key, max_requests=max_requests, facts=facts)


def _only_model(transport: Transport, url: str) -> str:
    """The one model of a server.

    Raises:
        ModelError: If it has none or several, or does not say.
    """
    names = listed_models(transport)
    if len(names) == 1:
        return names[0]
    if not names:
        transport.get("/models")  # says so itself where nothing answers there
    said = f"it has {', '.join(names)}" if names else f"{url}/models does not list them"
    raise ModelError(
        f"the options name no model, and the endpoint has not exactly one ({said}): write `model` "
        "into the file of options, or name it on the command line"
    )


def _unit(options: EndpointOptions) -> str:
    """What costs are counted in where nobody says.

    Raises:
        DataError: If image tokens of several models would be compared.
    """
    if all(one.prices is not None for one in options.options):
        return "price"
    models = sorted({str(one.model) for one in options.options})
    if len(models) > 1:
        raise DataError(
            f"a token costs another amount in each of the models {', '.join(models)}: give every "
            "option a `price`, or choose a cost unit yourself"
        )
    return "image tokens"

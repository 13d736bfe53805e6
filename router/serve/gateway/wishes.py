"""How a request wants to be routed: by its model's name, a header, or a field of its body."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

import typer

from m3router.data.registry import unknown_name
from m3router.router.serve.deciding.decider import Wish
from m3router.router.serve.errors import ApiError
from m3router.router.text.fractions import fraction

FIELD = "m3router"
"""Of a body: an object of wishes; it is not relayed."""
PREFIX = "m3router/"
AUTO = "m3router/auto"
HEADER = "x-m3router-"
KINDS = ("option", "budget", "max-loss", "policy")
LONGEST = 200


def wish_of(body: Mapping[str, Any], headers: Mapping[str, str], options: Collection[str]) -> Wish:
    """What a request wishes for.

    Args:
        body: Of the request.
        headers: As :func:`shown_headers` gives them.
        options: Names of the router's options.

    Raises:
        ApiError: 400 if a wish is unknown, cannot be read or contradicts another; 404 for a
            model's name that begins with ``m3router/`` and is none.
    """
    found: dict[str, tuple[Any, str]] = {}
    model = body.get("model")
    if isinstance(model, str) and model.startswith(PREFIX) and model != AUTO:
        name, text = _of_model(model, options)
        _add(found, name, text, f"the model {model[:LONGEST]}", "model")
    for header, text in headers.items():
        name = header.removeprefix(HEADER)
        if name not in KINDS:
            names = [HEADER + one for one in KINDS]
            raise ApiError(400, unknown_name("header", header[:LONGEST], names))
        if text.strip():
            _add(found, name, unquote(text.strip()), f"the header {header}", None)
    for name, value in _of_field(body).items():
        _add(found, name, value, f"the field {FIELD}.{name.replace('-', '_')}", FIELD)
    if not found:
        return Wish()
    if len(found) > 1:
        told = " and ".join(place for _, place in found.values())
        raise ApiError(
            400,
            f"The request contradicts itself: {told} ask for different things. Give one of "
            "option, budget, max_loss and policy.",
            code="contradiction",
        )
    ((name, (value, _)),) = found.items()
    wish = replace(Wish(), **{name.replace("-", "_"): value})
    if wish.option is not None and wish.option not in options:
        told = unknown_name("option", wish.option[:LONGEST], options)
        raise ApiError(400, told, code="unknown_option")
    return wish


def shown_headers(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """A request's headers of wishes as text; different ones of a name, one behind the other.

    >>> shown_headers([(b"x-m3router-budget", b"40"), (b"accept", b"*/*")])
    {'x-m3router-budget': '40'}
    """
    found: dict[str, str] = {}
    for raw, value in headers:
        name = raw.decode("latin-1")
        if not name.startswith(HEADER):
            continue
        try:
            text = value.decode("utf-8")
        except UnicodeDecodeError:
            text = value.decode("latin-1")
        found[name] = text if found.get(name, text) == text else f"{found[name]}, {text}"
    return found


def _of_model(model: str, options: Collection[str]) -> tuple[str, str]:
    rest = model.removeprefix(PREFIX)
    if rest in options:
        return "option", rest
    name, mark, text = rest.partition("=")
    name = name.replace("_", "-")
    if mark and name in KINDS:
        return name, text
    known = [AUTO, *(PREFIX + one for one in options), *(f"{PREFIX}{one}=..." for one in KINDS)]
    raise ApiError(
        404, unknown_name("model", model[:LONGEST], known), param="model", code="model_not_found"
    )


def _of_field(body: Mapping[str, Any]) -> dict[str, Any]:
    wishes = body.get(FIELD)
    if wishes is None:
        return {}
    if not isinstance(wishes, Mapping):
        raise ApiError(400, f'{FIELD} must be an object, such as {{"budget": 40}}.', param=FIELD)
    names = [one.replace("-", "_") for one in KINDS]
    for name in wishes:
        if name not in names:
            raise ApiError(400, unknown_name(f"{FIELD} field", name[:LONGEST], names), param=FIELD)
    return {name.replace("_", "-"): value for name, value in wishes.items() if value is not None}


def _add(
    found: dict[str, tuple[Any, str]], name: str, value: Any, place: str, param: str | None
) -> None:
    """Enter a wish.

    Raises:
        ApiError: If it cannot be read, or another place says otherwise.
    """
    read = _read(name, value, place, param)
    if name in found and found[name][0] != read:
        raise ApiError(
            400,
            f"The request contradicts itself: {found[name][1]} and {place} ask for different "
            "things.",
            code="contradiction",
            param=param,
        )
    found.setdefault(name, (read, place))


def _read(name: str, value: Any, place: str, param: str | None) -> Any:
    wrong = ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        wrong = "must be a text" if name in ("option", "policy") else "must be a number"
    elif name in ("option", "policy"):
        if not isinstance(value, str) or not value:
            wrong = "must be a text"
    else:
        try:
            value = float(value) if name == "budget" else fraction(_text(value))
        except (ValueError, OverflowError, typer.BadParameter):
            value = math.nan
        if not (math.isfinite(value) and value > 0):
            wrong = (
                "must be a number above 0"
                if name == "budget"
                else "must be a fraction, such as 1% or 0.01"
            )
    if wrong:
        shown = place[0].upper() + place[1:]
        raise ApiError(400, f"{shown}: {name.replace('-', '_')} {wrong}.", param=param)
    return value


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else repr(value)

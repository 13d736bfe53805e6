"""How each option is asked: read from a file of TOML or JSON, or made of a preset."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from m3router.data.errors import DataError
from m3router.data.json_files import parse_json
from m3router.data.paths import StrPath, as_path_or_none
from m3router.data.prices import Prices
from m3router.data.registry import unknown_name
from m3router.m3core.endpoint.merge_patch import joined_patches
from m3router.m3core.endpoint.presets import PRESETS
from m3router.m3core.endpoint.sent_images import Sending

LENGTH_FIELDS = ("max_tokens", "max_completion_tokens")
OURS = {
    "model": "write it as the option's `model`",
    "messages": "they are made of the image and the question",
    "input": "it is made of the image and the question",
    "stream": "write `stream = true` at the top of the file",
    "stream_options": "write `stream = true` at the top of the file",
    "n": "one answer is asked for",
    "max_tokens": "give --max-new-tokens",
    "max_completion_tokens": 'give --max-new-tokens, and `length_field = "max_completion_tokens"`',
}
"""Fields of a body that a patch may not set, and what does it instead."""


@dataclass(frozen=True, kw_only=True)
class EndpointOption:
    """One way to ask a server.

    Attributes:
        name: What logs, policies and users call it.
        model: The server's name of the model; None for the only one that it has.
        reports: What the server calls this model in its responses, where that is another name.
        body: JSON merge patch (RFC 7396) of the request's body.
        image: JSON merge patch of the ``image_url`` object of the image's part.
        sending: How images are made smaller and encoded before they are sent.
        length_field: The body's field for the longest answer.
        prices: None where unknown.
    """

    name: str
    model: str | None = None
    reports: str | None = None
    body: Mapping[str, Any] = field(default_factory=dict)
    image: Mapping[str, Any] = field(default_factory=dict)
    sending: Sending = field(default_factory=Sending)
    length_field: str = "max_tokens"
    prices: Prices | None = None

    def deciding(self) -> dict[str, Any]:
        """All that may change an answer, as JSON values."""
        return {
            "model": self.model,
            "body": self.body,
            "image": self.image,
            "longest_side": self.sending.longest_side,
            "max_pixels": self.sending.max_pixels,
            "encoding": self.sending.encoding,
        }

    def as_json(self) -> dict[str, Any]:
        """The option as a table of a file of options."""
        table = {
            "name": self.name,
            **self.deciding(),
            "reports": self.reports,
            "length_field": self.length_field,
            "price": None if self.prices is None else self.prices.as_json(),
        }
        return {name: value for name, value in table.items() if value not in (None, {})}


@dataclass(frozen=True, kw_only=True)
class EndpointOptions:
    """What a file of options says.

    Attributes:
        options: From the coarsest to the finest.
        stream: Whether answers are streamed.
        logprobs: Whether log-probabilities are asked for.
        preset: Which preset the options are, for the log; None for the file's own.
    """

    options: tuple[EndpointOption, ...]
    stream: bool = False
    logprobs: bool = True
    preset: str | None = None

    def as_json(self) -> dict[str, Any]:
        """What :func:`parse_options` makes these options of; the preset is written out."""
        return {
            "stream": self.stream,
            "logprobs": self.logprobs,
            "option": [one.as_json() for one in self.options],
        }

    def with_model(self, name: str) -> EndpointOptions:
        """These options, those without a model asking this one."""
        filled = (one if one.model else replace(one, model=name) for one in self.options)
        return replace(self, options=tuple(filled))


def read_options(
    path: StrPath | None = None,
    *,
    preset: str | None = None,
    model: str | None = None,
    prices: Mapping[str, float] | None = None,
) -> EndpointOptions:
    """Options from a file, from a preset, or from a file that says more about a preset.

    Args:
        path: A file of TOML, or of JSON where its name ends in ``.json``.
        preset: A name of :data:`m3router.m3core.endpoint.presets.PRESETS`; goes before the file's.
        model: The model of every option that names none; goes before the file's own default.
        prices: As for `Prices.of`; each goes before the file's default.

    Raises:
        DataError: If the file cannot be read, or anything in it is wrong; the message has all
            that is wrong.
    """
    path = as_path_or_none(path)
    content = {} if path is None else _content(path)
    where = "the options" if path is None else str(path)
    content |= {name: value for name, value in (("preset", preset), ("model", model)) if value}
    if prices:
        known = content.get("price")
        content["price"] = {**(known if isinstance(known, dict) else {}), **prices}
    return parse_options(content, where=where)


def _content(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        content = parse_json(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Check --options.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as options: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} must be an object with the key option, got a {type(content)}")
    return content


def parse_options(content: Mapping[str, Any], *, where: str = "the options") -> EndpointOptions:
    """Options from the content of a file.

    >>> parse_options({"model": "m", "option": [{"name": "low"}, {"name": "high",
    ...     "longest_side": 512}]}).options[1].sending.longest_side
    512

    Args:
        content: ``option`` (tables, from the coarsest), or ``preset``; beside them defaults for
            all options (every key of a table but ``name``), ``stream`` and ``logprobs``.
        where: What messages call it.

    Raises:
        DataError: With everything that is wrong.
    """
    problems: list[str] = []
    known = {*_KINDS, "option", "preset", "stream", "logprobs"} - {"name"}
    for name in content:
        if name not in known:
            problems.append(unknown_name("key", name, known))
    switches = {}
    for name, otherwise in (("stream", False), ("logprobs", True)):
        switches[name] = content.get(name, otherwise)
        if type(switches[name]) is not bool:
            problems.append(f"{name} must be true or false, got {switches[name]!r}")
    preset, tables = _tables(content, problems)
    usual = {name: content[name] for name in _KINDS if name in content}
    _table_problems(usual, "the defaults", problems)
    options: list[EndpointOption] = []
    if not problems:
        for place, table in enumerate(tables, 1):
            option = _option(table, usual, f"option {place}", problems)
            options += [] if option is None else [option]
    problems += _together(options)
    if problems:
        lines = "".join(f"\n- {one}" for one in problems)
        raise DataError(f"{where} cannot be used:{lines}")
    return EndpointOptions(options=tuple(options), preset=preset, **switches)


def _tables(
    content: Mapping[str, Any], problems: list[str]
) -> tuple[str | None, Sequence[Mapping[str, Any]]]:
    """The preset's name, and the tables of the options."""
    preset, tables = content.get("preset"), content.get("option")
    if preset is not None and tables is not None:
        problems.append("a preset brings its own options: take out `preset`, or every [[option]]")
        return None, ()
    if preset is not None:
        if preset not in PRESETS:
            problems.append(unknown_name("preset", str(preset), PRESETS))
            return None, ()
        return preset, PRESETS[preset].options
    if not isinstance(tables, list) or not all(isinstance(one, dict) for one in tables):
        problems.append("there must be tables [[option]], or a preset")
        return None, ()
    if not tables:
        problems.append("there are no options: write at least one table [[option]]")
    return None, tables


_KINDS: dict[str, type] = {
    "name": str,
    "model": str,
    "reports": str,
    "body": dict,
    "image": dict,
    "remove": list,
    "longest_side": int,
    "max_pixels": int,
    "encoding": str,
    "length_field": str,
    "price": dict,
}
"""Keys of an option's table, and what their values are."""
_WORDS = {str: "a text", dict: "a table", list: "a list", int: "a whole number"}


def _table_problems(table: Mapping[str, Any], where: str, problems: list[str]) -> None:
    """Add what is wrong with a table's keys and their types."""
    for name, value in table.items():
        if name not in _KINDS:
            problems.append(f"{where}: {unknown_name('key', name, _KINDS)}")
        elif type(value) is not _KINDS[name]:
            problems.append(f"{where}: {name} must be {_WORDS[_KINDS[name]]}, got {value!r}")
        elif isinstance(value, str) and not value.strip():
            problems.append(f"{where}: {name} is empty")
        elif name in ("body", "image"):
            problems += [f"{where}: {name}{one}" for one in _json_problems(value)]
    body = table.get("body")
    for name in body if isinstance(body, dict) else ():
        if name in OURS:
            problems.append(f"{where}: body may not set {name}: {OURS[name]}")
    image = table.get("image")
    if isinstance(image, dict) and "url" in image:
        problems.append(f"{where}: image may not set url: it is the image itself")
    removed = table.get("remove")
    for one in removed if isinstance(removed, list) else ():
        if not isinstance(one, str) or not all(one.split(".")):
            problems.append(f"{where}: remove lists fields of the body, such as 'a.b', got {one!r}")
        elif one in OURS:
            problems.append(f"{where}: remove may not name {one}: {OURS[one]}")


def _json_problems(value: Any, path: str = "") -> list[str]:
    """What of a value JSON cannot say, such as TOML's dates and infinities."""
    if isinstance(value, dict):
        return [one for name, inner in value.items() for one in _json_problems(inner, f".{name}")]
    if isinstance(value, list):
        return [one for inner in value for one in _json_problems(inner, f"{path}[]")]
    finite = not isinstance(value, float) or math.isfinite(value)
    if finite and (value is None or isinstance(value, str | int | float)):
        return []
    return [f"{path} is nothing that JSON can say: {value!r}"]


def _option(
    table: Mapping[str, Any], usual: Mapping[str, Any], where: str, problems: list[str]
) -> EndpointOption | None:
    """An option of its table and the defaults; None where something is wrong."""
    if isinstance(table.get("name"), str) and table["name"].strip():
        where = f"option {table['name']!r}"
    before = len(problems)
    _table_problems(table, where, problems)
    if "name" not in table:
        problems.append(f"{where} has no name")
    whole = {**usual, **table}
    if {"longest_side", "max_pixels"} & set(table):  # an option's own limit replaces the other one
        whole = {**whole, **{name: table.get(name) for name in ("longest_side", "max_pixels")}}
    if whole.get("length_field", LENGTH_FIELDS[0]) not in LENGTH_FIELDS:
        problems.append(
            f"{where}: {unknown_name('length_field', str(whole['length_field']), LENGTH_FIELDS)}"
        )
    if len(problems) > before:
        return None
    patches = []
    for one in (usual, table):
        patches += [_nothing(path) for path in one.get("remove", ())] + [one.get("body", {})]
    body: Any = {}
    for patch in patches:
        body = joined_patches(body, patch)
    price = {**usual.get("price", {}), **table.get("price", {})}
    try:
        return EndpointOption(
            name=table["name"],
            model=whole.get("model"),
            reports=whole.get("reports"),
            body=body,
            image=joined_patches(usual.get("image", {}), table.get("image", {})),
            sending=Sending(
                longest_side=whole.get("longest_side"),
                max_pixels=whole.get("max_pixels"),
                encoding=whole.get("encoding", "png"),
            ),
            length_field=whole.get("length_field", LENGTH_FIELDS[0]),
            prices=Prices.of(price) if price else None,
        )
    except DataError as error:
        problems.append(f"{where}: {error}")
        return None


def _nothing(path: str) -> Any:
    """The merge patch that removes one field."""
    patch: Any = None
    for name in reversed(path.split(".")):
        patch = {name: patch}
    return patch


def _together(options: Sequence[EndpointOption]) -> list[str]:
    """What is wrong with options beside each other."""
    problems = []
    for place, one in enumerate(options):
        if one.name != one.name.strip():
            problems.append(f"option {one.name!r}: its name has spaces around it")
        for other in options[:place]:
            if one.name == other.name:
                problems.append(f"the option {one.name!r} is there twice: give each another name")
            elif one.deciding() == other.deciding():
                problems.append(
                    f"the options {other.name!r} and {one.name!r} ask the same: change one's "
                    "model, body, image, size or encoding"
                )
    return problems

"""Which server answers at which option, and how it is asked there."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m3router.data.errors import DataError
from m3router.data.registry import unknown_name
from m3router.m3core.endpoint.endpoint_options import (
    EndpointOption,
    EndpointOptions,
    parse_options,
    read_options,
)
from m3router.m3core.endpoint.keys import Key, base_url
from m3router.m3core.options import SPEC

ENDPOINT = "endpoint"
"""What a spec calls a model behind a server; see :mod:`m3router.m3core.opening`."""
ONLY = "upstream"
"""Name of the upstream where there is one only."""
_KINDS: dict[str, type] = {"name": str, "url": str, "key_env": str, "options": list}


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """A server that answers.

    Attributes:
        name: What metrics and messages call it.
        url: As :func:`m3router.m3core.endpoint.keys.base_url` gives it.
        key: Sent to it instead of the client's; None for none.
    """

    name: str
    url: str
    key: Key | None = None


@dataclass(frozen=True, kw_only=True)
class Upstreams:
    """All that may be asked.

    Attributes:
        options: Name of an option -> how it is asked, from the coarsest to the finest.
        serving: Name of an option -> who answers there.
    """

    options: Mapping[str, EndpointOption]
    serving: Mapping[str, Upstream]

    @property
    def finest(self) -> str:
        """The option of everything that is not judged."""
        return list(self.options)[-1]

    @property
    def servers(self) -> tuple[Upstream, ...]:
        """Every upstream once, in the order of the options."""
        return tuple({one.name: one for one in self.serving.values()}.values())

    @property
    def models(self) -> frozenset[str]:
        """The servers' own names of the options' models."""
        return frozenset(one.model for one in self.options.values() if one.model is not None)

    def alike(self, one: str, other: str) -> bool:
        """Whether two options may meet in one request: they differ in the image alone."""
        mine, theirs = self.options[one], self.options[other]
        return (
            self.serving[one] == self.serving[other]
            and mine.model == theirs.model
            and mine.body == theirs.body
        )


def upstreams_of(
    metadata: Mapping[str, Any],
    options: Sequence[str],
    *,
    upstream: str | None = None,
    file: Path | None = None,
    preset: str | None = None,
    model: str | None = None,
    key_env: str | None = None,
) -> Upstreams | None:
    """What a run's options are asked of, and how.

    Args:
        metadata: Of the router.
        options: Of the router, from the coarsest to the finest.
        upstream: Address of a server, or a TOML file of several; None for the endpoint that the
            run was labelled with.
        file: Says how options are asked; None for as the run was labelled.
        preset: In place of a file's options.
        model: The server's name of the model, for options that name none.
        key_env: Environment variable with the key of upstreams that name none of their own.

    Returns:
        None where there is no upstream: the run's model answers in this process.

    Raises:
        DataError: If something is missing, cannot be read, or does not fit the router.
    """
    spec = metadata.get("log", {}).get(SPEC)
    spec = spec if isinstance(spec, Mapping) else {}
    labelled = spec if spec.get("kind") == ENDPOINT else None
    if upstream is None and labelled is None:
        _refuse_without(spec, file, preset, key_env)
        return None
    if upstream is not None:  # what cannot be asked is said before how it is asked
        _ = base_url(upstream) if _is_address(upstream) else _served_tables(Path(upstream))
    asked = _asked(labelled, options, file, preset, model)
    default = None if key_env is None else _key(key_env)
    if upstream is None:
        assert labelled is not None
        source = labelled.get("key")
        key = default or (Key.again(source) if isinstance(source, Mapping) else None)
        url = labelled.get("url")
        if not isinstance(url, str):
            raise DataError("the run does not say where its endpoint is: give --upstream URL")
        return _one(asked, Upstream(name=ONLY, url=base_url(url), key=key))
    if _is_address(upstream):
        return _one(asked, Upstream(name=ONLY, url=base_url(upstream), key=default))
    return Upstreams(options=asked, serving=_served(Path(upstream), tuple(options), default))


def _refuse_without(
    spec: Mapping[str, Any], file: Path | None, preset: str | None, key_env: str | None
) -> None:
    """Refuse what goes with an upstream only, and models that are not served here.

    Raises:
        DataError: If it is so.
    """
    given = {"--options": file, "--preset": preset, "--upstream-key-env": key_env}
    for flag, value in given.items():
        if value is not None:
            raise DataError(
                f"{flag} says how an upstream is asked, but there is none: give --upstream URL"
            )
    if spec.get("kind"):
        raise DataError(
            f"The run was labelled with a model of the kind {spec['kind']!r}, which is not served "
            "here. Serve the model by another server, such as vLLM, and give its address "
            "(--upstream http://gpu-1:8000/v1) and how each option is asked there (--preset NAME "
            "or --options FILE, see docs/gateway.md)."
        )


def _asked(
    labelled: Mapping[str, Any] | None,
    names: Sequence[str],
    file: Path | None,
    preset: str | None,
    model: str | None,
) -> dict[str, EndpointOption]:
    """How each of the router's options is asked, in the router's order."""
    if file is not None or preset is not None:
        told = read_options(file, preset=preset, model=model)
    elif labelled is None:
        raise DataError(
            "The run does not say how a server is asked at its options "
            f"({', '.join(names)}): give --preset NAME or --options FILE, see docs/gateway.md."
        )
    else:
        content = labelled.get("options")
        if not isinstance(content, Mapping):
            raise DataError("the run does not say how its endpoint was asked: give --options FILE")
        told = parse_options(content, where="the options that the run was labelled with")
        told = told if model is None else _renamed(told, model)
    found = {one.name: one for one in told.options}
    if set(found) != set(names):
        raise DataError(
            f"The router chooses between the options {', '.join(names)}, but the upstream is asked "
            f"at {', '.join(found)}: give the same names, as the run was labelled."
        )
    return {name: found[name] for name in names}


def _renamed(told: EndpointOptions, model: str) -> EndpointOptions:
    """Options of one model, which this server calls otherwise.

    Raises:
        DataError: If there are several.
    """
    models = sorted({str(one.model) for one in told.options})
    if len(models) > 1:
        raise DataError(
            f"The options ask several models ({', '.join(models)}), so that one name (--model) "
            "cannot stand for them: write the names into a file and give --options FILE."
        )
    content = told.as_json()
    for table in content["option"]:
        table["model"] = model
    return parse_options(content)


def _is_address(upstream: str) -> bool:
    return upstream.lower().startswith(("http://", "https://"))


def _one(options: dict[str, EndpointOption], server: Upstream) -> Upstreams:
    return Upstreams(options=options, serving=dict.fromkeys(options, server))


def _served(path: Path, options: tuple[str, ...], default: Key | None) -> dict[str, Upstream]:
    """Who answers at which option, as a file says.

    Raises:
        DataError: With everything that is wrong.
    """
    content = _served_tables(path)
    tables = content.get("upstream")
    problems = [unknown_name("key", one, ["upstream"]) for one in content if one != "upstream"]
    if not isinstance(tables, list) or not tables:
        problems.append("there must be tables [[upstream]]")
        tables = []
    serving: dict[str, Upstream] = {}
    names: set[str] = set()
    for place, table in enumerate(tables, 1):
        try:
            server, served = _table(table, options, default, alone=len(tables) == 1)
            if server.name in names:
                raise DataError(f"the name {server.name!r} is used twice")
            names.add(server.name)
            for one in served:
                if one in serving:
                    raise DataError(f"the option {one!r} has the upstream {serving[one].name!r}")
                serving[one] = server
        except DataError as error:
            problems.append(f"upstream {place}: {error}")
    missing = [one for one in options if one not in serving]
    if missing and not problems:
        problems.append(f"no upstream has the options {', '.join(missing)}")
    if problems:
        lines = "".join(f"\n- {one}" for one in problems)
        raise DataError(f"The upstreams in {path} cannot be used:{lines}")
    return {one: serving[one] for one in options}


def _served_tables(path: Path) -> dict[str, Any]:
    """What a file of upstreams holds.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        cause = error.strerror if isinstance(error, OSError) else error
        raise DataError(
            f"--upstream {path} is neither an address that begins with http:// or https:// nor a "
            f"TOML file of upstreams: {cause}."
        ) from error


def _table(
    table: Any, options: tuple[str, ...], default: Key | None, *, alone: bool
) -> tuple[Upstream, list[str]]:
    if not isinstance(table, dict):
        raise DataError("it must be a table")
    for name, value in table.items():
        if name not in _KINDS:
            raise DataError(unknown_name("key", name, _KINDS))
        if type(value) is not _KINDS[name]:
            raise DataError(f"{name} must be a {_KINDS[name].__name__}, got {value!r}")
    if "url" not in table:
        raise DataError("it has no url")
    served = table.get("options", list(options) if alone else [])
    if not served:
        raise DataError("it lists no options")
    for one in served:
        if one not in options:
            raise DataError(unknown_name("option", str(one), options))
    name = table.get("name", ONLY if alone else None)
    if not name or not name.strip():
        raise DataError("it has no name")
    key = _key(table["key_env"]) if "key_env" in table else default
    return Upstream(name=name, url=base_url(table["url"]), key=key), served


def _key(variable: str) -> Key:
    """The key in an environment variable.

    Raises:
        DataError: If there is none.
    """
    if not os.environ.get(variable, "").strip():
        raise DataError(
            f"the environment variable {variable}, which the upstream's key is read from, is not "
            "set, or is empty: export it, or name another one"
        )
    return Key.from_environment(variable)


def with_models(upstreams: Upstreams, listed: Callable[[Upstream], Sequence[str]]) -> Upstreams:
    """These upstreams, where options that name no model ask the only one of their server.

    Args:
        upstreams: As read.
        listed: The models that a server names.

    Raises:
        DataError: If it names none or several.
    """
    filled = dict(upstreams.options)
    known: dict[str, Sequence[str]] = {}
    for name, option in upstreams.options.items():
        if option.model is not None:
            continue
        server = upstreams.serving[name]
        if server.name not in known:
            known[server.name] = listed(server)
        models = known[server.name]
        if len(models) != 1:
            said = f"it lists {', '.join(models)}" if models else "it lists no models"
            raise DataError(
                f"The options name no model, and the server {server.url} has not exactly one "
                f"({said}): give --model NAME, or write `model` into the file of options."
            )
        content = EndpointOptions(options=(option,)).with_model(models[0])
        filled[name] = content.options[0]
    return Upstreams(options=filled, serving=upstreams.serving)

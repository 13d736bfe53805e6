"""What server this is, which model answers, and whether either changes while it is asked."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from m3router.data.errors import DataError, M3RouterError, ModelError
from m3router.data.registry import unknown_name
from m3router.m3core.endpoint.completions import Completion
from m3router.m3core.endpoint.endpoint_options import EndpointOption
from m3router.m3core.endpoint.model_names import same_model
from m3router.m3core.endpoint.transport import Transport

VERSION_SECONDS = 60.0
"""A server's version is looked up again after so long."""


@dataclass(frozen=True, kw_only=True)
class ServerFacts:
    """What a server says of itself.

    Attributes:
        name: Who owns its models, as it says, such as ``"vllm"``; None where it does not.
        version: Of the server; None where it does not say.
        reported: Model that was asked -> its name in the responses.
        fingerprints: Model that was asked -> its ``system_fingerprint``.
        no_logprobs: Models that refuse to give log-probabilities.
        unchecked: What probing could not check.
    """

    name: str | None = None
    version: str | None = None
    reported: Mapping[str, str] = field(default_factory=dict)
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    no_logprobs: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Name and version, for messages."""
        if self.name is None:
            return "the server"
        return f"the server ({self.name}{f' {self.version}' if self.version else ''})"

    def as_json(self) -> dict[str, Any]:
        """What :meth:`of` makes these facts of."""
        return {
            "name": self.name,
            "version": self.version,
            "reported": dict(self.reported),
            "fingerprints": dict(self.fingerprints),
            "no_logprobs": list(self.no_logprobs),
            "unchecked": list(self.unchecked),
        }

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> ServerFacts:
        """Facts from JSON values.

        Raises:
            DataError: If they are none.
        """
        try:
            lists = {name: tuple(found[name]) for name in ("no_logprobs", "unchecked")}
            return cls(**{**found, **lists})
        except (KeyError, TypeError) as error:
            raise DataError(f"these are no facts about a server: {found!r}") from error


class ServerWatch:
    """Collects facts about a server, and sees where they change.

    Args:
        transport: To the endpoint.
        facts: What is known already.
        warn: Told what is odd.
    """

    def __init__(
        self, transport: Transport, facts: ServerFacts, *, warn: Callable[[str], None]
    ) -> None:
        self._transport = transport
        self._warn = warn
        self._lock = threading.Lock()
        self._facts = facts
        self._looked_at = time.monotonic()

    @property
    def facts(self) -> ServerFacts:
        """All that is known now."""
        return self._facts

    def note(self, **found: Any) -> None:
        """Replace facts by newer ones."""
        with self._lock:
            self._facts = replace(self._facts, **found)

    def look(self) -> None:
        """Ask the server for its name and version, where it has them."""
        self.note(name=_owner(self._transport), version=self._version() or self._facts.version)

    def look_again(self) -> None:
        """See once in a while whether the server was exchanged for another version."""
        before = self._facts.version
        if before is None or time.monotonic() - self._looked_at < VERSION_SECONDS:
            return
        now = self._version()
        if now is not None and now != before:
            self._warn(f"the server's version changed from {before} to {now}")

    def check(self, option: EndpointOption, completion: Completion) -> None:
        """Compare what a response says of its model with what was asked, and with before.

        Raises:
            ModelError: If it is another model.
        """
        model, reported, mark = str(option.model), completion.model, completion.fingerprint
        expected = option.reports or model
        if reported is not None and not same_model(expected, reported):
            raise ModelError(
                f"the endpoint was asked for the model {expected!r} and answered as {reported!r}: "
                "name the right model, or, where that is another name of it, write "
                f'`reports = "{reported}"` into option {option.name!r}. What was answered before '
                "is kept."
            )
        with self._lock:
            facts = self._facts
            known = facts.reported.get(model)
            before = facts.fingerprints.get(model)
            if reported is not None and known is None:
                facts = replace(facts, reported={**facts.reported, model: reported})
            if mark is not None and before is None:
                facts = replace(facts, fingerprints={**facts.fingerprints, model: mark})
            self._facts = facts
        if None not in (known, reported) and known != reported:
            raise ModelError(
                f"the model behind the name {model!r} changed from {known!r} to {reported!r}: "
                "answers of two models are not mixed. Ask for one of the two by its own name; what "
                "was answered before is kept."
            )
        if None not in (before, mark) and mark != before:
            self._warn(f"system_fingerprint of {model} changed from {before} to {mark}")

    def _version(self) -> str | None:
        """What vLLM says at ``/version``."""
        self._looked_at = time.monotonic()
        found = _json(self._transport, "/version", root=True)
        version = found.get("version") if isinstance(found, dict) else None
        return version if isinstance(version, str) else None


def listed_models(transport: Transport) -> list[str]:
    """The names of a server's models; empty where it does not list them."""
    return [one["id"] for one in _models(transport)]


def known_models(transport: Transport, asked: str) -> str:
    """What a message says about a model that a server does not have."""
    names = listed_models(transport)
    if not names:
        return f"it was asked for {asked!r}"
    if asked in names:
        return f"it lists {asked!r}, so check the path of its address, which usually ends in /v1"
    return unknown_name("model", asked, names)


def _owner(transport: Transport) -> str | None:
    """Who owns the models, which tells vLLM and SGLang."""
    owners = {one.get("owned_by") for one in _models(transport)}
    owner = owners.pop() if len(owners) == 1 else None
    return owner if isinstance(owner, str) else None


def _models(transport: Transport) -> list[dict[str, Any]]:
    found = _json(transport, "/models")
    data = found.get("data") if isinstance(found, dict) else None
    entries = data if isinstance(data, list) else []
    return [one for one in entries if isinstance(one, dict) and isinstance(one.get("id"), str)]


def _json(transport: Transport, path: str, *, root: bool = False) -> Any:
    """What a path has, None where it has no JSON: these are extras, which many servers lack."""
    try:
        reply = transport.get(path, root=root)
        return json.loads(reply.body) if reply.status == 200 else None
    except (M3RouterError, ValueError, RecursionError):
        return None

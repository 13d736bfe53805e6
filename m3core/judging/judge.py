"""A judge: a language model behind an endpoint, asked by a protocol, and its verdicts."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from m3router.data.prices import Prices
from m3router.m3core.endpoint.caller import Called, Caller, GaveUpError, RefusedError
from m3router.m3core.endpoint.keys import Key, base_url
from m3router.m3core.endpoint.merge_patch import merge_patch
from m3router.m3core.endpoint.meter import Meter
from m3router.m3core.endpoint.retries import RetryPolicy
from m3router.m3core.endpoint.server_facts import known_models
from m3router.m3core.endpoint.transport import Transport
from m3router.m3core.judging.protocols.base import JudgeRequest, Protocol
from m3router.m3core.options import Failure, Usage

IN_FLIGHT = 8
"""Requests at a time, where nothing else is asked for."""
_SHOWN = 120


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a judge said of one answer.

    Attributes:
        score: In [0, 1].
        numbers: The protocol's own numbers.
        reply: The judge's words.
        model: What the server calls the model that replied; empty where it does not say.
        usage: What it cost, all requests for it together.
    """

    score: float
    numbers: Mapping[str, float]
    reply: str
    model: str
    usage: Usage


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Asks a model for verdicts; safe to use from several threads.

    Attributes:
        caller: Sends requests to it, again where that may help.
        model: The name by which the server knows it.
        protocol: What it is told, and how its replies are read.
        url: Where it is, without secrets, for the log.
        patch: JSON merge patch of the body, for servers that need other fields.
        prices: None where unknown.
        stop: Ends waiting for what has no reply yet.
    """

    caller: Caller
    model: str
    protocol: Protocol
    url: str = ""
    patch: Mapping[str, Any] = field(default_factory=dict)
    prices: Prices | None = None
    stop: threading.Event = field(default_factory=threading.Event, repr=False)

    @property
    def settings(self) -> dict[str, Any]:
        """All that verdicts depend on; JSON values, no secrets."""
        return {
            "name": self.model,
            "protocol": self.protocol.name,
            "prompt_sha256": self.protocol.prompt_sha256,
            "temperature": 0,
            "max_tokens": self.protocol.max_tokens,
            "patch": dict(self.patch),
        }

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the settings; verdicts with another one are another judge's."""
        settings = json.dumps(self.settings, sort_keys=True)
        return hashlib.sha256(settings.encode("ascii")).hexdigest()

    def key(self, request: JudgeRequest) -> str:
        """SHA-256 of what the judge is told: equal requests are judged once."""
        told = json.dumps(self.protocol.messages(request), sort_keys=True)
        return hashlib.sha256(told.encode("ascii")).hexdigest()

    def judge(self, request: JudgeRequest) -> Verdict | Failure:
        """Ask for one verdict, and once more where the protocol does so.

        Raises:
            ModelError: If nothing can be asked any more.
            StoppedError: If :attr:`stop` was set.
        """
        usage, cause = Usage(attempts=0), ""
        for again in (False, True) if self.protocol.again else (False,):
            try:
                called = self.caller.call(self._body(request, again=again), stop=self.stop)
            except (RefusedError, GaveUpError) as error:
                sent = Usage(attempts=error.attempts)
                return Failure(message=str(error), usage=_sum(usage, sent))
            usage = _sum(usage, self._usage(called))
            reply = called.completion.text
            grade = self.protocol.parse(reply)
            if grade is not None:
                return Verdict(
                    score=grade.score,
                    numbers=grade.numbers,
                    reply=reply,
                    model=called.completion.model or "",
                    usage=usage,
                )
            cause = self._unreadable(reply, called.completion.finish)
        return Failure(message=cause, usage=usage)

    def _body(self, request: JudgeRequest, *, again: bool) -> dict[str, Any]:
        body = {
            "model": self.model,
            "messages": self.protocol.messages(request, again=again),
            "temperature": 0,
            "max_tokens": self.protocol.max_tokens,
        }
        changed: dict[str, Any] = merge_patch(body, self.patch)
        return changed

    def _unreadable(self, reply: str, finish: str) -> str:
        shown = reply if len(reply) <= _SHOWN else reply[: _SHOWN - 3] + "..."
        cut = " and was cut at its longest length" if finish == "length" else ""
        return f"the judge's reply is not as {self.protocol.name} asks for{cut}: {shown!r}"

    def _usage(self, called: Called) -> Usage:
        said = called.completion.usage or {}
        details = said.get("prompt_tokens_details")
        cached = _count(details.get("cached_tokens")) if isinstance(details, Mapping) else None
        prompt, answer = (_count(said.get(f"{kind}_tokens")) for kind in ("prompt", "completion"))
        usage = Usage(
            prompt_tokens=prompt,
            cached_tokens=cached,
            answer_tokens=answer,
            attempts=called.attempts,
            seconds=called.seconds,
        )
        if self.prices is None:
            return usage
        price = self.prices.of_answer(prompt=prompt, cached=cached, answer=answer, images=0)
        return replace(usage, price=price)


@contextmanager
def connect_judge(
    url: str,
    *,
    model: str,
    protocol: Protocol,
    key: Key | None = None,
    patch: Mapping[str, Any] | None = None,
    prices: Prices | None = None,
    in_flight: int = IN_FLIGHT,
    max_requests: int | None = None,
    timeout_s: float = 120.0,
    retry: RetryPolicy | None = None,
) -> Iterator[Judge]:
    """A judge at an OpenAI-compatible endpoint.

    Args:
        url: The endpoint's address, see :func:`m3router.m3core.endpoint.keys.base_url`.
        model: The name by which it knows the judge.
        protocol: What the judge is told, and how its replies are read.
        key: None for none.
        patch: JSON merge patch of the body of requests.
        prices: None where unknown.
        in_flight: Most requests at a time.
        max_requests: Most requests that may be sent, retries included; None for any number.
        timeout_s: Seconds in which a whole response must have come.
        retry: When requests are sent again; None for the usual.

    Raises:
        DataError: If the address is none, or may hold a secret; or the seconds are none.
        ModelError: If the package httpx is not installed.
    """
    address = base_url(url)
    transport = Transport(address, key=key, connections=in_flight, timeout=timeout_s)
    try:
        yield Judge(
            caller=Caller(
                transport,
                retry=retry or RetryPolicy(),
                meter=Meter(max_requests),
                key=key,
                models=lambda asked: known_models(transport, asked),
            ),
            model=model,
            protocol=protocol,
            url=address,
            patch=dict(patch or {}),
            prices=prices,
        )
    finally:
        transport.close()


COUNTS = ("prompt_tokens", "cached_tokens", "answer_tokens", "attempts", "seconds", "price")
"""What of a usage is summed."""


def _count(value: Any) -> int | None:
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return value if whole else None


def _sum(one: Usage, other: Usage) -> Usage:
    """The usage of both; what only one of them knows is taken for all."""
    totals: dict[str, Any] = {}
    for name in COUNTS:
        known = [x for x in (getattr(one, name), getattr(other, name)) if x is not None]
        totals[name] = sum(known) if known else None
    return Usage(**totals)

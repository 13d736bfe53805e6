"""What a server says: chat completions, whole or as a stream, and its errors."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from m3router.data.errors import M3RouterError

SHOWN = 300
"""Characters of a server's error that a message repeats."""
DONE = "[DONE]"
CERTAIN = 1e-6
"""By how much a log-probability may be above 0, from rounding."""


class BrokenReplyError(M3RouterError):
    """A response that breaks off, or is no chat completion; the request may be sent again.

    Attributes:
        html: Whether it is a page for people.
    """

    def __init__(self, message: str, *, html: bool = False) -> None:
        super().__init__(message)
        self.html = html


@dataclass(frozen=True, kw_only=True)
class Completion:
    """A complete answer.

    Attributes:
        text: Stripped.
        finish: The server's reason for its end, such as ``"stop"`` or ``"length"``.
        logprobs: Natural logarithms of the probabilities of the answer's tokens; () where unknown.
        usage: As the server says it, unchecked; None where it says nothing.
        model: The model's name in the response; None where there is none.
        fingerprint: ``system_fingerprint``; None where there is none.
    """

    text: str
    finish: str
    logprobs: tuple[float, ...] = ()
    usage: Mapping[str, Any] | None = None
    model: str | None = None
    fingerprint: str | None = None

    @property
    def confidence(self) -> float | None:
        """Probability of the first token, in [0, 1]; None where unknown."""
        return min(1.0, math.exp(self.logprobs[0])) if self.logprobs else None

    @property
    def logprob(self) -> float | None:
        """Sum of the log-probabilities; None where unknown."""
        return math.fsum(self.logprobs) if self.logprobs else None


@dataclass(kw_only=True)
class _Parts:
    """A completion while its pieces come."""

    texts: list[str] = field(default_factory=list)
    logprobs: list[float] | None = field(default_factory=list)
    finish: str | None = None
    usage: Mapping[str, Any] | None = None
    model: str | None = None
    fingerprint: str | None = None

    def take(self, payload: Any, piece: str) -> None:
        """Add a whole response (``piece`` is "message") or an event of a stream ("delta").

        Raises:
            BrokenReplyError: If it is something else.
        """
        if not isinstance(payload, dict):
            raise BrokenReplyError(f"the server's answer is no object of JSON: {_start(payload)}")
        if payload.get("error"):
            raise BrokenReplyError(f"the server broke off: {error_text(payload)}")
        choices = payload.get("choices")
        if not isinstance(choices, list) or (piece == "message" and len(choices) != 1):
            raise BrokenReplyError(f"the server's answer is no chat completion: {_start(payload)}")
        for name, key in (("model", "model"), ("fingerprint", "system_fingerprint")):
            if isinstance(payload.get(key), str) and payload[key]:
                setattr(self, name, payload[key])
        if isinstance(payload.get("usage"), dict):
            self.usage = payload["usage"]
        for choice in choices:
            self._choice(choice, piece)

    def _choice(self, choice: Any, piece: str) -> None:
        message = choice.get(piece) if isinstance(choice, dict) else None
        content = message.get("content") if isinstance(message, dict) else None
        if not isinstance(message, dict) or not isinstance(content, str | None):
            raise BrokenReplyError(f"the server's answer has no text: {_start(choice)}")
        self.texts.append(content or "")
        found = choice.get("logprobs")
        tokens = found.get("content") if isinstance(found, dict) else None
        for token in tokens if isinstance(tokens, list) else ():
            value: Any = token.get("logprob") if isinstance(token, dict) else None
            number = float(value) if type(value) in (int, float) else math.nan
            if self.logprobs is None or not -math.inf < number <= CERTAIN:
                self.logprobs = None  # a sum without one of its terms would be wrong
            else:
                self.logprobs.append(min(0.0, number))
        if isinstance(choice.get("finish_reason"), str):
            self.finish = choice["finish_reason"]

    def completion(self) -> Completion:
        """What was said.

        Raises:
            BrokenReplyError: If the answer did not end.
        """
        if self.finish is None:
            raise BrokenReplyError("the answer was cut: it has no finish_reason")
        return Completion(
            text="".join(self.texts).strip(),
            finish=self.finish,
            logprobs=tuple(self.logprobs or ()),
            usage=self.usage,
            model=self.model,
            fingerprint=self.fingerprint,
        )


def read_completion(body: bytes, *, content_type: str) -> Completion:
    """A response as a completion; whether it is a stream, its content type says.

    Args:
        body: All of it.
        content_type: The header; what is neither JSON nor a stream is tried as JSON.

    Raises:
        BrokenReplyError: If it is none, or not complete.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "text/event-stream":
        try:
            return read_stream(body.decode("utf-8").splitlines())
        except UnicodeDecodeError as error:
            raise BrokenReplyError("the stream was cut, or is no UTF-8") from error
    if is_html(body, content_type):
        raise BrokenReplyError("the server answered a page of HTML and no JSON", html=True)
    parts = _Parts()
    parts.take(_json(body.decode("utf-8", errors="replace")), "message")
    return parts.completion()


def read_stream(lines: Iterable[str]) -> Completion:
    """The lines of a stream of events as a completion.

    A stream is complete when a ``finish_reason`` came and ``[DONE]`` at its end: where a server or
    a gateway breaks off, clients that wait for less take half an answer for a whole one.

    Raises:
        BrokenReplyError: If it is not complete, or an event is none.
    """
    parts, done = _Parts(), False
    for line in lines:
        name, _, value = line.partition(":")
        if name != "data":  # comments, empty lines and other fields of server-sent events
            continue
        value = value.removeprefix(" ").rstrip()
        if value == DONE:
            done = True
            break
        parts.take(_json(value), "delta")
    if not done:
        raise BrokenReplyError(
            "the stream was cut: [DONE] is missing at its end; where the server never sends it, as "
            "`transformers serve`, leave `stream` out"
        )
    return parts.completion()


def error_text(body: Any) -> str:
    """What a server's error says, short.

    vLLM and OpenAI say ``{"error": {"message": ...}}``, ``transformers serve`` ``{"detail": ...}``
    or a bare text.

    Args:
        body: Bytes or text of a response, or JSON that was read already.
    """
    if isinstance(body, bytes):
        body = body.decode("utf-8", errors="replace")
    if isinstance(body, str):
        try:
            body = json.loads(body)
        except (ValueError, RecursionError):
            return _start(body)
    for name in ("error", "detail", "message", "msg"):
        if isinstance(body, dict) and body.get(name):
            return error_text(body[name] if not isinstance(body[name], list) else body[name][0])
    return _start(body)


def is_html(body: bytes, content_type: str) -> bool:
    """Whether a response is a page for people."""
    begins = body[:200].lstrip().lower()
    return "html" in content_type.lower() or begins.startswith((b"<!doctype", b"<html"))


def _start(value: Any) -> str:
    text = " ".join((value if isinstance(value, str) else repr(value)).split())
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BrokenReplyError(
            f"the server's answer is no JSON, or was cut: {_start(text)!r}"
        ) from error

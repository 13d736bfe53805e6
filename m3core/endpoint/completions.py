"""What a server says: chat completions, whole or as a stream, and its errors."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from m3router.data.errors import M3RouterError

SHOWN = 300
"""Characters of a server's error that a message repeats."""
DONE = "[DONE]"
CERTAIN = 1e-6
"""By how much a log-probability may be above 0, from rounding."""
UNLIKELY = -9999.0
"""What OpenAI and vLLM write for a log-probability that they do not give."""
CUT = ("length", "max_tokens", "model_length")
"""Reasons for an answer's end that stand for its longest length."""
BROKEN_OFF = ("error", "abort")
"""Reasons that stand for no end at all."""
FILTERED = "content_filter"


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
        missing: Why this is no answer, though it ended; None where it is one.
        always: Whether all answers will probably be missing in the same way.
    """

    text: str
    finish: str
    logprobs: tuple[float, ...] = ()
    usage: Mapping[str, Any] | None = None
    model: str | None = None
    fingerprint: str | None = None
    missing: str | None = None
    always: bool = False

    @property
    def confidence(self) -> float | None:
        """Probability of the first token, in [0, 1]; None where unknown."""
        return min(1.0, math.exp(self.logprobs[0])) if self.logprobs else None

    @property
    def logprob(self) -> float | None:
        """Sum of the log-probabilities; None where unknown."""
        return math.fsum(self.logprobs) if self.logprobs else None

    @property
    def cut(self) -> bool:
        """Whether the longest length ended the answer."""
        return self.finish in CUT


@dataclass(kw_only=True)
class _Parts:
    """A completion while its pieces come.

    What is no answer leaves a mark: ``silent`` where the content is null, ``thought`` and
    ``called`` where the model wrote elsewhere, ``refusal`` in its words.
    """

    texts: list[str] = field(default_factory=list)
    logprobs: list[float] | None = field(default_factory=list)
    finish: str | None = None
    usage: Mapping[str, Any] | None = None
    model: str | None = None
    fingerprint: str | None = None
    silent: bool = False
    thought: bool = False
    called: bool = False
    refusal: str = ""

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
        if not isinstance(message, dict):
            raise BrokenReplyError(f"the server's answer has no text: {_start(choice)}")
        content = _text_of(message.get("content"))
        self.texts.append(content or "")
        self.silent |= content is None and piece == "message"
        self.thought |= any(message.get(name) for name in ("reasoning_content", "reasoning"))
        self.called |= bool(message.get("tool_calls") or message.get("function_call"))
        self.refusal += message["refusal"] if isinstance(message.get("refusal"), str) else ""
        found = choice.get("logprobs")
        tokens = found.get("content") if isinstance(found, dict) else None
        for token in tokens if isinstance(tokens, list) else ():
            value: Any = token.get("logprob") if isinstance(token, dict) else None
            number = value if type(value) in (int, float) else math.nan
            if self.logprobs is None or not UNLIKELY < number <= CERTAIN:
                self.logprobs = None  # a sum without one of its terms would be wrong
            else:
                self.logprobs.append(min(0.0, float(number)))
        if isinstance(choice.get("finish_reason"), str):
            self.finish = choice["finish_reason"]

    def completion(self) -> Completion:
        """What was said.

        Raises:
            BrokenReplyError: If the answer did not end.
        """
        if self.finish is None:
            raise BrokenReplyError("the answer was cut: it has no finish_reason")
        if self.finish in BROKEN_OFF:
            raise BrokenReplyError(f"the server broke off: finish_reason {self.finish!r}")
        text = "".join(self.texts).strip()
        missing, always = self._missing(text)
        return Completion(
            text=text,
            missing=missing,
            always=always,
            finish=self.finish,
            logprobs=tuple(self.logprobs or ()),
            usage=self.usage,
            model=self.model,
            fingerprint=self.fingerprint,
        )

    def _missing(self, text: str) -> tuple[str | None, bool]:
        """Why this is no answer, and whether that is so of all answers."""
        if self.finish == FILTERED:
            return "the server filtered the answer (content_filter)", False
        if text:
            return None, False
        if self.refusal:
            return f"the model refused to answer: {_start(self.refusal)}", False
        if self.thought:
            return (
                "the model thought and did not come to an answer: allow more with "
                "--max-new-tokens, or switch its thinking off in the file of options, such as "
                "body = {chat_template_kwargs = {enable_thinking = false}}"
            ), True
        if self.called:
            return "the model called a tool instead of answering: leave `tools` out", True
        if self.silent:
            return f"the answer has no text (content is null, finish_reason {self.finish!r})", True
        return None, False


def _text_of(content: Any) -> str | None:
    """The text of a message, which some servers give in parts.

    Raises:
        BrokenReplyError: If it is something else.
    """
    if isinstance(content, list):
        parts = [one.get("text") for one in content if isinstance(one, dict)]
        return "".join(one for one in parts if isinstance(one, str))
    if not isinstance(content, str | None):
        raise BrokenReplyError(f"the server's answer has no text: {_start(content)}")
    return content


def read_completion(body: bytes, *, content_type: str) -> Completion:
    """A response as a completion; whether it is a stream, its content type says.

    Args:
        body: All of it.
        content_type: The header; what is neither JSON nor a stream is tried as JSON.

    Raises:
        BrokenReplyError: If it is none, or not complete.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "text/event-stream" or body.lstrip().startswith(b"data:"):
        try:
            # Only these end a line; a text may hold others of Unicode's line ends.
            return read_stream(re.split(r"\r\n|\r|\n", body.decode("utf-8-sig")))
        except UnicodeDecodeError as error:
            raise BrokenReplyError("the stream was cut, or is no UTF-8") from error
    if is_html(body, content_type):
        raise BrokenReplyError("the server answered a page of HTML and no JSON", html=True)
    parts = _Parts()
    parts.take(_json(body.decode("utf-8-sig", errors="replace")), "message")
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
        found = body.get(name) if isinstance(body, dict) else None
        if isinstance(found, list) and found:  # of `transformers serve`: what is wrong, and where
            found = found[0]
            place = found.get("loc") if isinstance(found, dict) else None
            if isinstance(place, list) and isinstance(found.get("msg"), str):
                inside = ".".join(str(one) for one in place if one != "body")
                return _start(found["msg"] + (f" ({inside})" if inside else ""))
        if found:
            return error_text(found)
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

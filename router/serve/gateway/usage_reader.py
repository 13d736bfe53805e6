"""What an answer says of its usage, read on the side while its bytes go on.

Whole answers and streams of events, of chat completions and of responses. What is kept of an answer
is bounded; what cannot be read is not known, and nothing else depends on it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from m3router.m3core.endpoint.token_counts import MOST, TokenCounts, read_usage

LONGEST_WHOLE = 4 << 20
"""Bytes of a whole answer that is read."""
LONGEST_EVENT = 1 << 20
"""Bytes of an event that is read."""
LONGEST_TEXT = 100_000
"""Characters of an answer's text that are kept."""
_NO_USAGE = (b'"usage":null', b'"usage": null')


@dataclass(kw_only=True)
class Said:
    """What was read of an answer.

    Attributes:
        id: Of the answer; "" where it has none.
        usage: As the server says it; None where it says nothing.
        text: The first choice's text, shortened; "" where it was not wanted.
        finish: Why it ended; "" where that is not known.
    """

    id: str = ""
    usage: Mapping[str, Any] | None = None
    text: str = ""
    finish: str = ""

    @property
    def counts(self) -> TokenCounts:
        """Tokens; None where they are not told or cannot be."""
        usage = dict(self.usage or {})
        for theirs, ours in (("input", "prompt"), ("output", "completion")):
            if f"{ours}_tokens" not in usage and f"{theirs}_tokens" in usage:
                usage[f"{ours}_tokens"] = usage[f"{theirs}_tokens"]
                usage[f"{ours}_tokens_details"] = usage.get(f"{theirs}_tokens_details")
        return read_usage(usage, max_tokens=MOST)


class UsageReader:
    """Reads an answer's pieces as they pass.

    Args:
        content_type: Of the answer.
        texts: Whether the text is wanted, too.
    """

    def __init__(self, content_type: str, *, texts: bool = False) -> None:
        self.said = Said()
        self._texts = texts
        self._events = content_type.partition(";")[0].strip().lower() == "text/event-stream"
        self._rest = bytearray()
        self._skips = False

    def feed(self, piece: bytes) -> None:
        """Take the next bytes."""
        if not self._events:
            if not self._skips:
                self._rest += piece
                self._skips = len(self._rest) > LONGEST_WHOLE
                if self._skips:
                    self._rest.clear()
            return
        *lines, rest = piece.split(b"\n")
        for line in lines:
            if not self._skips:
                self._rest += line
                self._line(bytes(self._rest))
            self._rest.clear()
            self._skips = False
        if self._skips:
            return
        self._rest += rest
        if len(self._rest) > LONGEST_EVENT:
            self._rest.clear()
            self._skips = True

    @property
    def waiting(self) -> int:
        """Bytes that :meth:`end` has to read."""
        return len(self._rest)

    def end(self) -> Said:
        """What was read, once the answer ended; parses a whole answer."""
        if self._rest and not self._skips:
            if self._events:
                self._line(bytes(self._rest))
            else:
                self._take(bytes(self._rest))
        self._rest.clear()
        return self.said

    def _line(self, line: bytes) -> None:
        if not line.startswith(b"data:"):
            return
        data = line[5:].strip()
        told = b'"usage"' in data and not any(one in data for one in _NO_USAGE)
        if told or self._texts or not self.said.id:
            self._take(data)

    def _take(self, data: bytes) -> None:
        if data == b"[DONE]":
            return
        try:
            payload = json.loads(data)
        except (ValueError, RecursionError):
            return
        if not isinstance(payload, dict):
            return
        inner = payload.get("response")  # of an event of `/v1/responses`
        if isinstance(inner, dict):
            self._object(inner)
        self._object(payload)
        if self._texts:
            self._add(payload)

    def _object(self, payload: Mapping[str, Any]) -> None:
        if isinstance(payload.get("id"), str) and not self.said.id:
            self.said.id = payload["id"]
        if isinstance(payload.get("usage"), dict):
            self.said.usage = payload["usage"]

    def _add(self, payload: Mapping[str, Any]) -> None:
        choices = payload.get("choices")
        texts: list[Any] = []
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict) or choice.get("index") not in (0, None):
                continue
            for name in ("message", "delta"):
                message = choice.get(name)
                texts.append(message.get("content") if isinstance(message, dict) else None)
            if isinstance(choice.get("finish_reason"), str):
                self.said.finish = choice["finish_reason"]
        if payload.get("type") == "response.output_text.delta":
            texts.append(payload.get("delta"))
        if payload.get("object") == "response":
            texts += _texts_of(payload.get("output"))
            if isinstance(payload.get("status"), str):
                self.said.finish = payload["status"]
        for text in texts:
            if isinstance(text, str) and len(self.said.text) < LONGEST_TEXT:
                self.said.text = (self.said.text + text)[:LONGEST_TEXT]


def _texts_of(output: Any) -> list[Any]:
    """Texts of a whole response."""
    found: list[Any] = []
    for item in output if isinstance(output, list) else ():
        content = item.get("content") if isinstance(item, dict) else None
        for part in content if isinstance(content, list) else ():
            found.append(part.get("text") if isinstance(part, dict) else None)
    return found

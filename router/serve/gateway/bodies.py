"""What a request asks: the last user turn's words and images, as far as they are understood.

Chat bodies (``messages``) and those of responses (``input``) are read alike. Nothing here refuses a
body: the upstream is the judge of its own schema. What is not understood is passed on, and the
request cannot be judged then. A field that is null was not given.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from m3router.router.serve.errors import ApiError
from m3router.router.serve.images.decoding import file_in, is_data_url

Json = dict[str, Any]
Place = tuple[str | int, ...]
"""Where a part is in a body: keys and indices from the outside."""

MESSAGES, INPUT = "messages", "input"
"""The field that a conversation is in: of `/v1/chat/completions`, and of `/v1/responses`."""
TEXTS = ("text", "input_text", "output_text")
IMAGES = ("image_url", "input_image")
SILENT = ("refusal", "thinking", "reasoning", "reasoning_text", "summary_text")
"""Kinds of parts that are neither text of a user nor anything to look at."""

MOST_FIELDS = 1_000
"""Of a body itself, and not of what is in them."""
_LONGEST_KIND = 40


@dataclass(frozen=True, kw_only=True)
class ImagePart:
    """An image in a body.

    Attributes:
        place: Of its part.
        url: A data URL or an address; None for an image that is named by a server's file id.
        file: That id, "" without.
        current: Whether it is in the last user turn.
    """

    place: Place
    url: str | None
    file: str = ""
    current: bool = False


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What a body asks.

    Attributes:
        question: Text of the last user turn; its parts are joined by line ends.
        images: Of the whole body, in its order.
        other: Kind of a part in the last user turn that is neither text nor image; "" without.
        earlier_other: Whether there is such a part anywhere else.
        user: Whether there is a user's turn at all.
        previous: Id of the response that this one follows, "" without.
        conversation: Id of the conversation that the upstream keeps, "" without.
    """

    question: str
    images: tuple[ImagePart, ...] = ()
    other: str = ""
    earlier_other: bool = False
    user: bool = True
    previous: str = ""
    conversation: str = ""

    @property
    def follows(self) -> str:
        """By what the upstream knows what came before; "" where the body has all of it."""
        return self.previous or self.conversation

    @property
    def current(self) -> tuple[ImagePart, ...]:
        """Images of the last user turn."""
        return tuple(one for one in self.images if one.current)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number that is too large")
    return value


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON")


_SCAN = json.JSONDecoder(parse_float=_number, parse_constant=_no_constant).raw_decode
_WHITE = re.compile(r"[ \t\n\r]*")


@dataclass(frozen=True, kw_only=True)
class ReadBody:
    """A body as JSON, with how its fields were written.

    Attributes:
        fields: The body.
        text: All of it as it came.
        spans: Field -> where its value begins and ends in the text.
    """

    fields: Json
    text: str = ""
    spans: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def text_of(self, name: str, value: Any) -> str | None:
        """How a field's value was written; None where it is another than came."""
        if name not in self.spans or self.fields[name] is not value:
            return None
        begin, end = self.spans[name]
        return self.text[begin:end]


def read_body(raw: bytes) -> ReadBody:
    """Read a body as JSON, as :func:`json.loads` does.

    Raises:
        ApiError: 400 if it is no JSON object, or has a number that is none, or more fields than any
            conversation.
    """
    try:
        text = raw.decode(json.detect_encoding(raw), "surrogatepass")
        at = _blank(text, 0)
        if text[at : at + 1] != "{":
            json.loads(text)
            raise ApiError(400, "The body must be a JSON object.", code="invalid_json")
        return _read_object(text, at)
    except (ValueError, RecursionError):
        raise ApiError(400, "The body is not valid JSON.", code="invalid_json") from None


def _read_object(text: str, at: int) -> ReadBody:
    """The object that begins at a place and is all of the text.

    Raises:
        ValueError: It is not valid.
    """
    fields: Json = {}
    spans: dict[str, tuple[int, int]] = {}
    at = _blank(text, at + 1)
    mark = "}" if text[at : at + 1] == "}" else ","
    for _ in range(MOST_FIELDS):
        if mark == "}":
            break
        name, at = _SCAN(text, at)
        at = _blank(text, at)
        if not isinstance(name, str) or text[at : at + 1] != ":":
            raise ValueError("a field without a name or a value")
        begin = _blank(text, at + 1)
        fields[name], at = _SCAN(text, begin)
        spans[name] = begin, at
        at = _blank(text, at)
        mark = text[at : at + 1]
        if mark not in ("}", ","):
            raise ValueError("a field without an end")
        at = _blank(text, at + 1) if mark == "," else at
    if mark == ",":
        raise ApiError(400, f"The body has more than {MOST_FIELDS:,} fields.".replace(",", " "))
    if _blank(text, at + 1) != len(text):
        raise ValueError("something after the end")
    return ReadBody(fields=fields, text=text, spans=spans)


def _blank(text: str, at: int) -> int:
    """Where the white space that begins at a place ends."""
    found = _WHITE.match(text, at)
    return found.end() if found else at


def parsed(raw: bytes) -> Json:
    """A body as JSON; raises as :func:`read_body`."""
    return read_body(raw).fields


def written(body: Mapping[str, Any], came: ReadBody | None = None) -> bytes:
    """A body as bytes of JSON.

    Args:
        body: To be written.
        came: Of what it was made: what nobody changed is written as it came, letter by letter.
    """
    came = came or ReadBody(fields={})
    pieces = []
    for name, value in body.items():
        if (text := came.text_of(name, value)) is None:
            text = json.dumps(value, separators=(",", ":"), allow_nan=False)
        pieces.append(f"{json.dumps(name)}:{text}")
    return f"{{{','.join(pieces)}}}".encode("utf-8", "surrogatepass")


def read_turn(body: Mapping[str, Any], field: str) -> Turn:
    """What a body asks; whatever the body is.

    The last user turn is the last run of messages by the user: several messages in a row, or one,
    whatever an assistant or a tool said after them.

    Args:
        body: Of a request.
        field: :data:`MESSAGES` or :data:`INPUT`.

    >>> read_turn({"messages": [{"role": "user", "content": "Hi"}]}, MESSAGES).question
    'Hi'
    """
    content = body.get(field)
    previous, conversation = _kept_elsewhere(body) if field == INPUT else ("", "")
    if isinstance(content, str):
        return Turn(question=content, previous=previous, conversation=conversation)
    items = content if isinstance(content, list) else []
    turn = _last_turn(items)
    texts: list[str] = []
    images: list[ImagePart] = []
    other, earlier_other = "", False
    for index, item in enumerate(items):
        current = index in turn
        for place, part in _parts(item, (field, index)):
            kind = _kind(part)
            if kind in TEXTS:
                text = part if isinstance(part, str) else part.get("text")
                if current and isinstance(text, str):
                    texts.append(text)
            elif kind in IMAGES:
                images.append(_image(part, place, current=current))
            elif kind not in SILENT:
                other = other or (kind if current else "")
                earlier_other |= not current
    return Turn(
        question="\n".join(texts),
        images=tuple(images),
        other=other,
        earlier_other=earlier_other,
        user=bool(turn),
        previous=previous,
        conversation=conversation,
    )


def _kept_elsewhere(body: Mapping[str, Any]) -> tuple[str, str]:
    """Ids of the response, and of the conversation, that a body goes on from; "" without."""
    conversation = body.get("conversation")
    if isinstance(conversation, Mapping):
        conversation = conversation.get("id")
    found = (body.get("previous_response_id"), conversation)
    previous, conversation = (one if isinstance(one, str) else "" for one in found)
    return previous, conversation


def _last_turn(items: Sequence[Any]) -> range:
    """Indices of the last run of a user's messages."""
    last = next((at for at in reversed(range(len(items))) if _of_user(items[at])), -1)
    first = last
    while first > 0 and _of_user(items[first - 1]):
        first -= 1
    return range(max(first, 0), last + 1)


def _of_user(item: Any) -> bool:
    return isinstance(item, Mapping) and item.get("role") == "user"


def _parts(item: Any, place: Place) -> Iterator[tuple[Place, Any]]:
    """Parts of a message; a tool's output has its own in ``output``."""
    if not isinstance(item, Mapping):
        return
    for name in ("content", "output"):
        content = item.get(name)
        if isinstance(content, str | Mapping):  # a screenshot stands there by itself
            yield (*place, name), content
        for at, part in enumerate(content if isinstance(content, list) else ()):
            if part is not None:
                yield (*place, name, at), part


def _kind(part: Any) -> str:
    """A part's kind, also where it does not say."""
    if isinstance(part, str):
        return TEXTS[0]
    if not isinstance(part, Mapping):
        return "?"
    kind = part.get("type")
    if isinstance(kind, str):
        return kind[:_LONGEST_KIND]
    if kind is None:
        for name in ("text", "image_url"):
            if part.get(name) is not None:
                return name
    return "?"


def _image(part: Any, place: Place, *, current: bool) -> ImagePart:
    found = part.get("image_url") if isinstance(part, Mapping) else None
    url = found.get("url") if isinstance(found, Mapping) else found
    file = part.get("file_id") if isinstance(part, Mapping) else None
    return ImagePart(
        place=place,
        url=url if isinstance(url, str) else None,
        file=file if isinstance(file, str) else "",
        current=current,
    )


@dataclass(frozen=True, kw_only=True)
class ImageFile:
    """What is known of an image without looking at it.

    Attributes:
        digest: By which it is remembered; "" where it cannot be told.
        content: SHA-256 of the file; "" where that is elsewhere.
        data: The file; None where it is elsewhere or cannot be read.
        problem: Why it cannot be read, one sentence; "" where it can, or is elsewhere.
    """

    digest: str = ""
    content: str = ""
    data: bytes | None = None
    problem: str = ""


def image_file(part: ImagePart, max_bytes: int) -> ImageFile:
    """The file of an image, where the body has it.

    What is a bit wrong is read all the same, as upstreams do; see
    :func:`m3router.router.serve.images.decoding.file_in`.

    Args:
        part: Of a body.
        max_bytes: Of the file.
    """
    if part.url is None:
        if part.file:
            return ImageFile(digest=_digest("file", part.file.encode("utf-8", "surrogatepass")))
        return ImageFile(problem="The image has no URL.")
    if not is_data_url(part.url):
        return ImageFile(digest=_digest("address", part.url.encode("utf-8", "surrogatepass")))
    try:
        data = file_in(part.url, max_bytes)
    except ApiError as error:
        return ImageFile(problem=str(error))
    if not data:
        return ImageFile(problem="The image is empty.")
    content = hashlib.sha256(data).hexdigest()
    return ImageFile(digest=content, content=content, data=data)


def _digest(kind: str, name: bytes) -> str:
    return f"{kind}:{hashlib.sha256(name).hexdigest()}"

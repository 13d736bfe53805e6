"""What is kept of a served request: a line of JSON and an image.

A line is an example as :mod:`m3router.data.sources.jsonl` reads it, without reference answers, with
further fields about how it was served, and with a checksum as in :mod:`m3router.data.log.journal`.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

from PIL import Image

from m3router.data.errors import DataError
from m3router.data.example import Example
from m3router.data.scoring.metrics import AGREEMENT
from m3router.data.texts import writable

DATASET = "traffic"
LONGEST_TEXT = 100_000
"""Characters from which on a question or an answer is not kept: it may be the beginning of one."""
_EXAMPLE = frozenset(field.name for field in fields(Example))
_KINDS = {
    **dict.fromkeys(("id", "image", "question", "time", "key", "answer", "option"), str),
    **dict.fromkeys(("estimates", "usage", "asked", "made_by"), dict),
}
_OLD_USAGE = ("visual_tokens", "spent_tokens", "text_tokens", "answer_tokens")


@dataclass(frozen=True, kw_only=True, eq=False)
class ServedRequest:
    """A request about one image that was answered, whoever answered it.

    Attributes:
        id: Of the request, unique; the record has it.
        answer_id: The id that stands in the answer, where that is another; "" for the same.
        key: Who asked: the name of the API key, :meth:`Recorder.owner` of a key that belongs to
            an upstream, "" where no keys are needed. Never a key itself.
        image: The image, RGB.
        question: What was asked about it.
        asked: How it wanted to be answered, such as ``{"budget": 64.0}``; JSON values.
        option: The option that gave the answer.
        estimates: Option to the estimated probability that it answers rightly; empty where none was
            estimated.
        answer: What was said, whole.
        usage: What it cost, such as ``{"image_tokens": 9.0}``, as the server counts it.
        reason: Why this option was asked.
        escalated: Answers that were thrown away before this one.
        fallback: Why the reference option was used where no policy met what was asked for.
        finish: Why the answer ended, such as "stop" or "length"; "" for not known.
        consented: What the request says about being recorded; None for nothing.
    """

    id: str
    answer_id: str = ""
    key: str = ""
    image: Image.Image
    question: str
    asked: Mapping[str, Any]
    option: str
    estimates: Mapping[str, float]
    answer: str
    usage: Mapping[str, float]
    reason: str = ""
    escalated: int = 0
    fallback: str = ""
    finish: str = ""
    consented: bool | None = None


@dataclass(frozen=True, kw_only=True)
class MadeBy:
    """What answers and what decides; recorded with each request.

    Attributes:
        model: Name of the model.
        revision: Its revision; "" for not known.
        router: Fingerprint of the router.
        policy: Name of the policy.
        options: Names of what can be asked, in the router's order.
    """

    model: str
    revision: str
    router: str
    policy: str
    options: tuple[str, ...]


def record_of(request: ServedRequest, made_by: MadeBy, *, time: datetime) -> dict[str, Any]:
    """The line of a request, JSON values.

    Args:
        request: What was asked and answered.
        made_by: By what.
        time: When it was answered, with its zone.

    Raises:
        DataError: The id or the question cannot be an example's, such as half of a surrogate pair,
            or a text is too long.
        ValueError: Another text holds half of a surrogate pair.
    """
    if max(len(request.question), len(request.answer)) >= LONGEST_TEXT:
        raise DataError(f"A text of a record has fewer than {LONGEST_TEXT} characters.")
    served = {
        "answer": writable(request.answer),
        "option": request.option,
        "estimates": dict(request.estimates),
        "usage": dict(request.usage),
        "escalated": request.escalated,
        "reason": request.reason,
        "finish": writable(request.finish),
        "fallback": request.fallback,
    }
    if request.answer_id not in ("", request.id):
        served["answer_id"] = request.answer_id
    record = {
        "id": request.id,
        "image": image_name(request.image),
        "question": request.question,
        "answers": [],
        "metric": AGREEMENT,
        "dataset": DATASET,
        "time": time.isoformat(timespec="seconds"),
        "key": request.key,
        "asked": dict(request.asked),
        "served": served,
        "made_by": {**asdict(made_by), "options": list(made_by.options)},
    }
    example_of(record)
    json.dumps(record, ensure_ascii=False).encode()
    return record


def upgraded(record: dict[str, Any]) -> dict[str, Any]:
    """A line as this version writes it; earlier ones knew scales of one model only.

    >>> upgraded({"served": {"answer": "a cat", "scale": 9}})["served"]["option"]
    '9'
    """
    served = record["served"]
    if "option" in served:
        return _checked(record)
    now = {
        "answer": served["answer"],
        "option": str(served["scale"]),
        "estimates": served.get("sufficiency", {}),
        "usage": {name: served[name] for name in _OLD_USAGE if name in served},
        "escalated": served.get("escalated", 0),
        "reason": "",
        "finish": served.get("reason", ""),
        "fallback": served.get("fallback", ""),
    }
    return _checked({**record, "served": now})


def _checked(record: dict[str, Any]) -> dict[str, Any]:
    """A line whose values are of the kinds that are read.

    Raises:
        TypeError: One is of another.
    """
    given = record | record["served"]
    for name, kind in _KINDS.items():
        if not isinstance(given.get(name, kind()), kind):
            raise TypeError(f"{name} cannot be {given[name]!r:.60}")
    return record


def example_of(record: dict[str, Any]) -> Example:
    """The example in a line.

    Raises:
        DataError: It is none.
    """
    return Example.from_dict({name: record[name] for name in record if name in _EXAMPLE})


def image_name(image: Image.Image) -> str:
    """Name an image by its pixels: equal images share a name, and so a group.

    >>> image_name(Image.new("RGB", (2, 1)))
    '0cbeef50dca02eaf2521744b9d513003.png'
    """
    digest = hashlib.sha256(f"{image.mode} {image.width} {image.height} ".encode())
    digest.update(image.tobytes())
    return f"{digest.hexdigest()[:32]}.png"


def encoded(image: Image.Image) -> bytes:
    """The image as a PNG file: the pixels alone, nothing that the client's file held beside."""
    buffer = io.BytesIO()
    bare = Image.frombytes(image.mode, image.size, image.tobytes())
    bare.save(buffer, "PNG")
    return buffer.getvalue()

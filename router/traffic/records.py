"""What is kept of a served request: a line of JSON and an image.

A line is an example as :mod:`m3router.data.sources.jsonl` reads it, without reference answers, with
further fields about how it was served, and with a checksum as in :mod:`m3router.data.log.journal`.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import fields
from datetime import datetime
from typing import TYPE_CHECKING, Any

from PIL import Image

from m3router.data.example import Example
from m3router.data.scoring.metrics import AGREEMENT

if TYPE_CHECKING:
    from m3router.router.inference.query import Query, Served
    from m3router.router.inference.result import RoutedAnswer

DATASET = "traffic"
_EXAMPLE = frozenset(field.name for field in fields(Example))


def record_of(
    query: Query, routed: RoutedAnswer, served: Served, *, key: str, time: datetime
) -> dict[str, Any]:
    """The line of a request, JSON values.

    Args:
        query: What was asked.
        routed: What was answered.
        served: By what.
        key: Name of the API key that it came with; empty without one.
        time: When it was answered, with its zone.

    Raises:
        DataError: The id or the question cannot be an example's, such as half of a surrogate pair.
    """
    record = {
        "id": query.id,
        "image": image_name(query.image),
        "question": query.question,
        "answers": [],
        "metric": AGREEMENT,
        "dataset": DATASET,
        "time": time.isoformat(timespec="seconds"),
        "key": key,
        "asked": {
            name: value
            for name in ("scale", "budget", "max_regret", "max_tokens")
            if (value := getattr(query, name)) is not None
        },
        "served": {
            "answer": routed.answer.text,
            "scale": routed.scale,
            "sufficiency": {str(scale): p for scale, p in routed.sufficiency.items()},
            "visual_tokens": routed.answer.visual_tokens,
            "spent_tokens": routed.spent_tokens,
            "text_tokens": routed.answer.text_tokens,
            "answer_tokens": routed.answer.answer_tokens,
            "escalated": len(routed.earlier),
            "reason": routed.reason,
            "fallback": routed.fallback,
        },
        "made_by": {
            name: getattr(served, name) for name in ("model", "revision", "router", "policy")
        },
    }
    example_of(record)
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

"""What is asked of a server under load: seeded, mixed, and known beforehand.

Imports no model library: the process of the clients reads this.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question about one image.

    Attributes:
        id: Unique within a workload.
        image: File of the image, a PNG.
        text: What is asked.
        kind: Of question, such as "tag".
    """

    id: str
    image: Path
    text: str
    kind: str


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request.

    Attributes:
        question: Id of the question.
        model: "m3-auto", or "m3-" and a scale.
        streamed: Whether the answer is asked for in pieces.
    """

    question: str
    model: str
    streamed: bool


def apart(questions: Sequence[Question], *, seed: int) -> Iterator[str]:
    """Ids without end: an image comes again only after every other image.

    Args:
        questions: At least one.
        seed: Of the order of images and of where it starts.
    """
    images = _shuffled(questions, seed)
    turn = 0
    while True:
        for asked in images:
            yield asked[turn % len(asked)]
        turn += 1


def together(questions: Sequence[Question], *, seed: int) -> Iterator[str]:
    """Ids without end: all questions about one image, then all about another."""
    images = _shuffled(questions, seed)
    while True:
        for asked in images:
            yield from asked


ORDERS: dict[str, Callable[..., Iterator[str]]] = {"apart": apart, "together": together}


def _shuffled(questions: Sequence[Question], seed: int) -> list[list[str]]:
    """Ids by image, images in any order."""
    by_image: dict[Path, list[str]] = {}
    for one in questions:
        by_image.setdefault(one.image, []).append(one.id)
    images = list(by_image.values())
    random.Random(seed).shuffle(images)
    return images


def calls(order: Iterator[str], models: Sequence[str], *, seed: int) -> Iterator[Call]:
    """Requests without end; half of them are streamed, and models are equally likely.

    Args:
        order: Ids of questions.
        models: At least one.
        seed: Of what is drawn for each.
    """
    draw = random.Random(seed)
    for question in order:
        yield Call(question=question, model=draw.choice(models), streamed=draw.random() < 0.5)


def data_url(image: Path) -> str:
    """An image's file as it travels inside a request."""
    return "data:image/png;base64," + base64.b64encode(image.read_bytes()).decode("ascii")


def body(text: str, url: str, *, model: str, streamed: bool, max_tokens: int) -> bytes:
    """A request as OpenAI's clients write it.

    Args:
        text: The question.
        url: The image as a data URL.
        model: Name that the server knows.
        streamed: Whether the answer is asked for in pieces.
        max_tokens: Longest answer.
    """
    content = [
        {"type": "text", "text": text},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    request = {
        "model": model,
        "stream": streamed,
        "max_tokens": max_tokens,
        "messages": [{"role": "user", "content": content}],
    }
    return json.dumps(request).encode("ascii")


def repeats(images: Sequence[str], *, within: int | None = None) -> float:
    """Share of requests whose image was asked about shortly before.

    Args:
        images: Of each request, in the order in which they were sent.
        within: How many requests back count; None for all.

    >>> repeats(["a", "b", "a", "a"], within=1)
    0.25
    """
    again = 0
    for place, image in enumerate(images):
        first = 0 if within is None else max(0, place - within)
        again += image in images[first:place]
    return again / len(images) if images else 0.0

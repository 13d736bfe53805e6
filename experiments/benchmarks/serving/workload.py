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
    """One question about one picture.

    Attributes:
        id: Unique within a workload.
        picture: File of the picture, a PNG.
        text: What is asked.
        kind: Of question, such as "tag".
    """

    id: str
    picture: Path
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
    """Ids without end: a picture comes again only after every other picture.

    Args:
        questions: At least one.
        seed: Of the order of pictures and of where it starts.
    """
    pictures = _shuffled(questions, seed)
    turn = 0
    while True:
        for asked in pictures:
            yield asked[turn % len(asked)]
        turn += 1


def together(questions: Sequence[Question], *, seed: int) -> Iterator[str]:
    """Ids without end: all questions about one picture, then all about another."""
    pictures = _shuffled(questions, seed)
    while True:
        for asked in pictures:
            yield from asked


ORDERS: dict[str, Callable[..., Iterator[str]]] = {"apart": apart, "together": together}


def _shuffled(questions: Sequence[Question], seed: int) -> list[list[str]]:
    """Ids by picture, pictures in any order."""
    by_picture: dict[Path, list[str]] = {}
    for one in questions:
        by_picture.setdefault(one.picture, []).append(one.id)
    pictures = list(by_picture.values())
    random.Random(seed).shuffle(pictures)
    return pictures


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


def data_url(picture: Path) -> str:
    """A picture's file as it travels inside a request."""
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode("ascii")


def body(text: str, url: str, *, model: str, streamed: bool, max_tokens: int) -> bytes:
    """A request as OpenAI's clients write it.

    Args:
        text: The question.
        url: The picture as a data URL.
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


def repeats(pictures: Sequence[str], *, within: int | None = None) -> float:
    """Share of requests whose picture was asked about shortly before.

    Args:
        pictures: Of each request, in the order in which they were sent.
        within: How many requests back count; None for all.

    >>> repeats(["a", "b", "a", "a"], within=1)
    0.25
    """
    again = 0
    for place, picture in enumerate(pictures):
        first = 0 if within is None else max(0, place - within)
        again += picture in pictures[first:place]
    return again / len(pictures) if pictures else 0.0

"""Answered requests as a server would offer them."""

from __future__ import annotations

from dataclasses import replace

from PIL import Image

from m3router.m3core.matryoshka.base import Answer
from m3router.router.inference.pipeline import RoutedAnswer
from m3router.router.inference.query import Query
from m3router.router.serve.http.recording import served_request
from m3router.router.traffic import MadeBy, ServedRequest

SERVED = MadeBy(model="fake", revision="r1", options=("1", "9"), router="f" * 64, policy="default")


def offered(
    name: str, image: Image.Image, text: str = "a cat", *, answer_id="", **changes
) -> ServedRequest:
    """What a server of a Matryoshka model offers; `changes` as for `served_request`."""
    made = served_request(asked(name, image), finished(text), **changes)
    return replace(made, answer_id=answer_id)


def asked(name: str, image: Image.Image, **changes) -> Query:
    return Query(**{"id": name, "image": image, "question": f"what is {name}?", **changes})


def finished(text: str = "a cat", *, earlier: int = 0) -> RoutedAnswer:
    answer = Answer(
        text=text, logprob=-0.5, confidence=0.8, answer_tokens=2, visual_tokens=9, text_tokens=5
    )
    return RoutedAnswer(
        answer=answer,
        scale=9,
        sufficiency={1: 0.25, 9: 0.75},
        milliseconds={},
        flops={},
        earlier=(answer,) * earlier,
    )

"""An answer in one line, and as a notebook shows it; the same for all pipelines."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Protocol

from PIL import Image

from m3router.data.cards import Html, bars, card, soft, strong
from m3router.m3core.options import Usage
from m3router.router.text.familiarity import image_note
from m3router.router.text.numbers import number, plain

THUMBNAIL = 160
"""Pixels of the longer side."""


class Answered(Protocol):
    """What answers of all pipelines have."""

    @property
    def text(self) -> str:
        """What was answered."""

    @property
    def option(self) -> str:
        """The option that answered."""

    @property
    def estimates(self) -> Mapping[str, float]:
        """Option to the estimated probability that it answers correctly."""

    @property
    def usage(self) -> Usage:
        """What it cost in all."""

    @property
    def question(self) -> str:
        """What was asked."""

    @property
    def familiarity(self) -> float | None:
        """How unlike the training images this one is."""

    @property
    def outside(self) -> bool:
        """Whether the image is outside what the model can read."""


def answer_line(answer: Answered) -> str:
    """The ``repr`` of an answer."""
    estimates = ", ".join(f"{name}: {share:.2f}" for name, share in answer.estimates.items())
    cost = answer.usage.cost
    spent = "" if cost is None else f", cost={plain(cost)}"
    return (
        f"{type(answer).__name__}({answer.text!r}, option={answer.option!r}, "
        f"estimates={{{estimates}}}{spent})"
    )


def answer_card(answer: Answered, image: Image.Image | None, *, cost_unit: str) -> str:
    """The ``_repr_html_`` of an answer."""
    cost = answer.usage.cost
    spent = "" if cost is None else f", {number(cost)} {cost_unit} in all"
    shown = "" if image is None else _thumbnail(image)
    return card(
        answer.question or "Answer",
        shown,
        strong(answer.text),
        f"answered at option {answer.option}{spent}",
        bars(answer.estimates, chosen=answer.option) if answer.estimates else "",
        soft(image_note(answer.familiarity, outside=answer.outside)),
    )


def _thumbnail(image: Image.Image) -> Html:
    small = image.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    written = io.BytesIO()
    small.save(written, format="JPEG", quality=80)
    data = base64.b64encode(written.getvalue()).decode("ascii")
    return Html(f"<img alt='the image' style='max-width:100%' src='data:image/jpeg;base64,{data}'>")

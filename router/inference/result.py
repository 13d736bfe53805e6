"""A routed answer: what was said, why at this scale, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from PIL import Image

from m3router.m3core.matryoshka.base import Answer, MultiScaleModel, VisualEncoding
from m3router.m3core.options import Usage
from m3router.router.inference.answer_card import answer_card, answer_line


@dataclass(frozen=True, kw_only=True, repr=False)
class RoutedAnswer:
    """An answer, the scale it was given at and why.

    Attributes:
        answer: The answer with its token counts.
        scale: The chosen scale; what it really cost is in ``answer.visual_tokens``.
        sufficiency: Scale to the estimated probability that it answers rightly; empty where the
            caller fixed the scale.
        milliseconds: Wall-clock time by stage (``vision``, ``features``, ``peek``, ``route``,
            ``language``); a batch's time is shared equally. Where a peek became the answer, its
            prefill is in ``peek`` and only the decoding in ``language``. Behind a server also
            ``queue``, waiting for others.
        flops: Operations of the ``language`` model for the answer, its prefill included, of the
            ``vision`` tower, which sees an image of a high-resolution model several times, and
            of a ``peek`` that was thrown away (0 where there was none, or it became the answer),
            and of ``earlier`` answers.
        peek_tokens: Visual tokens that the language model read in a peek that was thrown away.
        earlier: Answers at coarser scales that looked wrong, in the order in which they came.
        encoding: What the vision tower made of the image, so that it can be asked again or drawn
            without running the tower once more; None where another process answered.
            NOTE: of a large model it has megabytes; who keeps many answers drops it with
            ``dataclasses.replace(answer, encoding=None)``.
        fallback: Why the reference scale was used where no policy meets what was asked for; else
            "".
        guarantee: What is certified about answers that are routed so, one sentence; "" without.
        familiarity: How unlike the training images this one is, see
            :attr:`m3router.router.inference.decision.Decision.familiarity`.
        outside: Whether the image is outside what the model can read, see
            :attr:`m3router.router.inference.decision.Decision.outside`.
        question: What was asked; "" where another process answered.
        image: What it was asked about, RGB; None where another process answered.
    """

    answer: Answer
    scale: int
    sufficiency: dict[int, float]
    milliseconds: dict[str, float]
    flops: dict[str, float]
    peek_tokens: int = 0
    earlier: tuple[Answer, ...] = ()
    # Tensors have no truth value: they would break == and fill a screen in repr().
    encoding: VisualEncoding | None = field(default=None, compare=False, repr=False)
    fallback: str = ""
    guarantee: str = ""
    familiarity: float | None = None
    outside: bool = False
    question: str = field(default="", compare=False)
    image: Image.Image | None = field(default=None, compare=False)

    def __str__(self) -> str:
        """What was answered."""
        return self.text

    def __repr__(self) -> str:
        """Text, option, estimates and cost in one line."""
        return answer_line(self)

    def _repr_html_(self) -> str:
        """What a notebook shows: image, text, option and estimates."""
        return answer_card(self, self.image, cost_unit="visual tokens")

    @property
    def reason(self) -> Literal["stop", "length"]:
        """Why the answer ended: "stop" where the model ended it, else "length"."""
        return "length" if self.answer.cut else "stop"

    @property
    def text(self) -> str:
        """What was answered."""
        return self.answer.text

    @property
    def option(self) -> str:
        """Name of the chosen scale."""
        return str(self.scale)

    @property
    def estimates(self) -> dict[str, float]:
        """Name of a scale to the estimated probability that it answers rightly; see above."""
        return {str(scale): likely for scale, likely in self.sufficiency.items()}

    @property
    def usage(self) -> Usage:
        """What it cost in all, with a peek and earlier answers that were thrown away."""
        said, tokens = [self.answer, *self.earlier], self.spent_tokens
        return Usage(
            cost=float(tokens),
            image_tokens=tokens,
            image_tokens_from="counted",
            prompt_tokens=tokens + self.spent_text_tokens,
            answer_tokens=sum(one.answer_tokens for one in said),
            tower_flops=self.flops["vision"],
            language_flops=sum(self.flops.values()) - self.flops["vision"],
            seconds=sum(self.milliseconds.values()) / 1000,
            attempts=len(said),
        )

    @property
    def spent_tokens(self) -> int:
        """Visual tokens that the language model read in all, for what was thrown away too."""
        thrown_away = sum(answer.visual_tokens for answer in self.earlier)
        return self.answer.visual_tokens + self.peek_tokens + thrown_away

    @property
    def spent_text_tokens(self) -> int:
        """Other prompt tokens that it read in all; a peek reads the answer's own."""
        peeked = self.answer.text_tokens if self.peek_tokens else 0
        return self.answer.text_tokens + peeked + sum(one.text_tokens for one in self.earlier)


def flops_of(model: MultiScaleModel, answer: Answer) -> float:
    """Operations of the language model for an answer, its prefill included."""
    prompt = answer.visual_tokens + answer.text_tokens
    return model.shape.answer_flops(prompt, answer.answer_tokens)

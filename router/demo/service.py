"""Answers for the demo's page; knows nothing of browsers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from m3router.m3core.matryoshka.base import Answer, Request, VisualEncoding
from m3router.m3core.matryoshka.batching import answer_all
from m3router.router.demo.answering import Service
from m3router.router.demo.budgets import Budgets
from m3router.router.demo.session_stats import Spending, spent_on
from m3router.router.inference.pipeline import AutoScalePipeline
from m3router.router.inference.result import RoutedAnswer, flops_of
from m3router.router.inference.session import Session
from m3router.router.visualize.token_grid import shown_at

TOKENS = "visual tokens"
"""The unit of cost that the budget's slider speaks of, as logs name it."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """One answer with what the page shows beside it.

    Attributes:
        routed: The answer, its scale and why.
        image: What each visual token stands for, drawn over the image; RGB.
        note: What the image is, in words.
        spending: What it cost.
    """

    routed: RoutedAnswer
    image: Image.Image
    note: str
    spending: Spending


@dataclass(frozen=True, kw_only=True)
class AtScale:
    """An answer at one scale of a comparison.

    Attributes:
        scale: Of the grid.
        answer: What was said there.
        flops: Of the language model.
        image: As in :class:`Told`.
        note: As in :class:`Told`.
    """

    scale: int
    answer: Answer
    flops: float
    image: Image.Image
    note: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One question at every scale.

    Attributes:
        told: The answer that was asked for, as of :meth:`DemoService.ask`.
        answers: By scale, coarsest first.
        chosen: The scale that the router takes.
    """

    told: Told
    answers: tuple[AtScale, ...]
    chosen: int

    @property
    def settled(self) -> int:
        """The coarsest scale from which on every answer is that of the finest."""
        last = self.answers[-1]
        found = last.scale
        for one in reversed(self.answers):
            if one.answer.text != last.answer.text:
                break
            found = one.scale
        return found


class DemoService(Service[AutoScalePipeline]):
    """Takes questions about images for a Matryoshka model that is read for routing."""

    @classmethod
    def load(
        cls, run: Path, *, model: str | None = None, policy: str = "default", device: str = "auto"
    ) -> DemoService:
        """Open a run with a router and a policy.

        Args:
            run: A run folder after ``train`` and ``calibrate``.
            model: The model that was labelled; None for the run's, where its name is enough.
            policy: Name of the policy.
            device: Where the model is loaded.

        Raises:
            DataError: When something is missing or damaged.
            MismatchError: When the parts do not belong together.
        """
        pipeline = AutoScalePipeline.load(run, model=model, policy=policy, device=device)
        return cls.of(pipeline, run, policy=policy)

    @classmethod
    def of(cls, pipeline: AutoScalePipeline, run: Path, *, policy: str) -> DemoService:
        """The service of a pipeline that was loaded from a run."""
        if pipeline.router.cost_unit != TOKENS:
            why = f"this run counts {pipeline.router.cost_unit}, not {TOKENS}"
            return cls(pipeline, budgets=Budgets(why_none=why), policy=policy)
        return cls(pipeline, budgets=Budgets.of(run), policy=policy)

    @property
    def scales(self) -> tuple[int, ...]:
        """The model's grid, coarsest first."""
        return tuple(self.pipeline.model.grid.scales)

    def budgets(self) -> tuple[int, int] | None:
        """The least budget and the one above which nothing changes, in mean visual tokens.

        None where no policy can be made.
        """
        limits = self._budgets.limits()
        if limits is None:
            return None
        least, most = map(math.ceil, limits)
        return least, max(most, least + 1)

    def ask(
        self,
        image: Image.Image,
        question: str,
        *,
        scale: int | None = None,
        budget: float | None = None,
    ) -> Told:
        """Answer a question.

        Args:
            image: RGB.
            question: The question.
            scale: Answer at this scale instead of routing.
            budget: Or: route within so many visual tokens on average, not by the run's policy.

        Raises:
            DataError: If the question is empty or too long, or the budget cannot be kept.
            MismatchError: If the model has no such scale.
        """
        policy = self._policy(question, budget)
        with self._one_at_a_time:
            (routed,) = self.pipeline.answer([image], [question], scale=scale, policy=policy)
            return self._told(image, routed)

    def compare(
        self,
        image: Image.Image,
        question: str,
        *,
        scale: int | None = None,
        budget: float | None = None,
    ) -> Comparison:
        """Answer a question as :meth:`ask` does, and at every scale; the image is encoded once.

        Raises:
            DataError: As in :meth:`ask`; also where the question fits no more at a finer scale.
            MismatchError: As in :meth:`ask`.
        """
        policy = self._policy(question, budget)
        with self._one_at_a_time:
            (routed,) = self.pipeline.answer([image], [question], scale=scale, policy=policy)
            encoding, chosen = encoding_of(routed), routed.scale
            if scale is not None:  # what would the router have taken?
                session = Session(image=image, question=question, rule=policy, encoding=encoding)
                chosen = self.pipeline.run([session])[0].scale
            told = self._told(image, routed)
            answers = self._everywhere(image, encoding, question)
        return Comparison(told=told, answers=answers, chosen=chosen)

    def _told(self, image: Image.Image, routed: RoutedAnswer) -> Told:
        model, encoding = self.pipeline.model, encoding_of(routed)
        (drawn,), (note,) = shown_at(model, image, encoding, [routed.scale])
        finest = encoding.tokens(self.scales[-1])
        spending = spent_on(routed, finest_tokens=finest, shape=model.shape)
        return Told(routed=routed, image=drawn, note=note, spending=spending)

    def _everywhere(
        self, image: Image.Image, encoding: VisualEncoding, question: str
    ) -> tuple[AtScale, ...]:
        model = self.pipeline.model
        asked = [Request(encoding=encoding, question=question, scale=one) for one in self.scales]
        answers = answer_all(model, asked)
        images, notes = shown_at(model, image, encoding, self.scales)
        return tuple(
            AtScale(
                scale=scale,
                answer=answer,
                flops=flops_of(model, answer),
                image=drawn,
                note=note,
            )
            for scale, answer, drawn, note in zip(self.scales, answers, images, notes, strict=True)
        )


def encoding_of(routed: RoutedAnswer) -> VisualEncoding:
    """The encoding of an answer of this process's pipeline."""
    assert routed.encoding is not None, "a pipeline's answers bring their encodings"
    return routed.encoding

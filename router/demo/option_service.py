"""Answers for the demo's page where the router decides before the model sees the image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from PIL import Image

from m3router.data.errors import DataError
from m3router.m3core.matryoshka.base import MultiScaleModel
from m3router.m3core.options import Answer, Failure, StreamingOptionModel, Usage
from m3router.router.demo.answering import Service
from m3router.router.demo.session_stats import OptionSpending
from m3router.router.inference.option_pipeline import OptionAnswer, OptionPipeline
from m3router.router.text.usage import usage_text


@dataclass(frozen=True, kw_only=True)
class OptionTold:
    """One answer with what the page shows beside it.

    Attributes:
        answer: The answer, its option and why.
        image: The image that was asked about; RGB.
        spending: What it cost.
    """

    answer: OptionAnswer
    image: Image.Image
    spending: OptionSpending


@dataclass(frozen=True, kw_only=True)
class OptionComparison:
    """One question at every option.

    Attributes:
        told: The answer that was asked for, as of :meth:`OptionDemoService.ask`.
        answers: By option, coarsest first.
        chosen: The option whose answer routing gives.
    """

    told: OptionTold
    answers: Mapping[str, Answer | Failure]
    chosen: str


class OptionDemoService(Service[OptionPipeline]):
    """Takes questions about images for a model that is asked by option."""

    @property
    def sends(self) -> bool:
        """Whether questions go to a server, where each request may cost money."""
        return isinstance(self.pipeline.model, StreamingOptionModel)

    def budgets(self) -> tuple[float, float] | None:
        """The least mean cost, and the one above which nothing changes; None without budgets."""
        return self._budgets.limits()

    def ask(
        self,
        image: Image.Image,
        question: str,
        *,
        option: str | None = None,
        budget: float | None = None,
    ) -> OptionTold:
        """Answer a question.

        Args:
            image: RGB.
            question: The question.
            option: Answer at this option instead of routing.
            budget: Or: route within so much mean cost, not by the run's policy.

        Raises:
            DataError: If the question is empty or too long, the budget cannot be kept, or the
                model fails to answer.
            MismatchError: If the model has no such option.
            ModelError: If the model cannot be asked.
        """
        policy = self._policy(question, budget)
        with self._one_at_a_time:
            (answer,) = self.pipeline.answer_each([image], [question], option=option, policy=policy)
            return self._told(image, answer)

    def compare(
        self,
        image: Image.Image,
        question: str,
        *,
        option: str | None = None,
        budget: float | None = None,
    ) -> OptionComparison:
        """Answer a question as :meth:`ask` does, and at every option: one request for each.

        Raises:
            DataError: As in :meth:`ask`.
            MismatchError: As in :meth:`ask`.
            ModelError: As in :meth:`ask`.
        """
        policy = self._policy(question, budget)
        with self._one_at_a_time:
            answer, answers = self.pipeline.answer_everywhere(
                image, question, option=option, policy=policy
            )
            told = self._told(image, answer)
        return OptionComparison(told=told, answers=answers, chosen=told.answer.option)

    def _told(self, image: Image.Image, answer: OptionAnswer | Failure) -> OptionTold:
        if isinstance(answer, Failure):
            paid = answer.usage and usage_text(answer.usage, self.pipeline.model.cost_unit)
            raise DataError(answer.message + (f" (It was paid for: {paid}.)" if paid else ""))
        spending = OptionSpending(
            questions=1, spent=answer.usage, finest=self._finest(image, answer)
        )
        return OptionTold(answer=answer, image=image, spending=spending)

    def _finest(self, image: Image.Image, answer: OptionAnswer) -> Usage:
        """What the finest option would have cost, as far as it is known without asking it."""
        model, name = self.pipeline.model, self.pipeline.options[-1]
        if answer.option == name:
            return answer.answer.usage
        # A Matryoshka model counts by running its tower.
        known = Usage() if isinstance(model, MultiScaleModel) else model.count(image, name)
        cost = known.cost
        if cost is None and answer.decision.cost_unit == answer.cost_unit:
            cost = answer.decision.costs[name]
        return replace(known, cost=cost)

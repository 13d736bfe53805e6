"""Answer questions at the option that a router chooses before the model sees the image.

For every model (:class:`m3router.m3core.options.OptionModel`): local vision-language models,
endpoints, functions; and Matryoshka models whose router reads a small encoder of its own. The
vision tower of the model runs once, at the chosen option.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypedDict, Unpack, overload

import numpy as np
from PIL import Image

from m3router.data.errors import DataError, MismatchError, ModelError
from m3router.m3core.labelling.rows import SPEC, longest_in
from m3router.m3core.opening import ENDPOINT, open_model, reopen
from m3router.m3core.options import (
    EMPTY_QUESTION,
    Answer,
    Failure,
    OptionModel,
    Request,
    Usage,
    total_usage,
)
from m3router.router.cascade.rule import STEPS, Cascade
from m3router.router.inference.answer_card import answer_card, answer_line
from m3router.router.inference.decision import Decision
from m3router.router.inference.images import AnyImage, OpenedImages, is_one_image, opened, paired
from m3router.router.inference.router import Router, counted_costs
from m3router.router.monitoring.scenes import combined, is_outside, scene_likeness
from m3router.router.policies.policy import Policy
from m3router.router.runs.run import AnyRun
from m3router.router.training.scale_router import ScaleRouter

UNSURE = (
    "the policy may escalate, which needs the probability of each answer, but the model gave none "
    "for this one: choose a policy that does not escalate, or a server that returns "
    "log-probabilities"
)


@dataclass(frozen=True, kw_only=True, repr=False)
class OptionAnswer:
    """An answer, the option it was given at and why.

    Attributes:
        answer: The answer and its own usage.
        option: The option that gave it.
        decision: Which option was asked first, and why.
        cost_unit: What costs in `usage` count.
        earlier: Answers at other options before, which looked wrong: (option, answer).
        failed: The option that was asked last and did not answer, and why, so that the answer
            before it is given although it looked wrong; None where nothing failed.
        milliseconds: Wall-clock time by stage (``vision`` of the router's small encoder,
            ``features``, ``route``, ``answer``); a batch's time is shared equally.
        question: What was asked.
        image: What it was asked about, RGB; None where that is not at hand.
    """

    answer: Answer
    option: str
    decision: Decision
    cost_unit: str
    earlier: tuple[tuple[str, Answer], ...] = ()
    failed: tuple[str, Failure] | None = None
    milliseconds: dict[str, float] = field(default_factory=dict)
    question: str = ""
    image: Image.Image | None = field(default=None, compare=False)

    @property
    def text(self) -> str:
        """What was answered."""
        return self.answer.text

    @property
    def scale(self) -> str:
        """The option again: what a Matryoshka model calls it."""
        return self.option

    @property
    def sufficiency(self) -> Mapping[str, float]:
        """The estimates again, see `estimates`."""
        return self.decision.estimates

    @property
    def estimates(self) -> Mapping[str, float]:
        """Option to the estimated probability that it answers rightly."""
        return self.decision.estimates

    @property
    def familiarity(self) -> float | None:
        """How unlike the training images this one is, see `Decision.familiarity`."""
        return self.decision.familiarity

    @property
    def outside(self) -> bool:
        """Whether the image is outside what the model can read, see `Decision.outside`."""
        return self.decision.outside

    @property
    def usage(self) -> Usage:
        """What it cost in all, with the answers that looked wrong and a request that failed."""
        paid = [*(one.usage for _, one in self.earlier), self.answer.usage]
        if self.failed is not None and self.failed[1].usage is not None:
            paid.append(self.failed[1].usage)
        return total_usage(paid)

    def __str__(self) -> str:
        """What was answered."""
        return self.text

    def __repr__(self) -> str:
        """Text, option, estimates and cost in one line."""
        return answer_line(self)

    def _repr_html_(self) -> str:
        """What a notebook shows: image, text, option and estimates."""
        return answer_card(self, self.image, cost_unit=self.cost_unit)


class HowToAnswer(TypedDict, total=False):
    """What may be said of how to answer, see :meth:`OptionPipeline.answer`."""

    option: str | None
    policy: Policy | Cascade | str | None
    budget: float | None
    max_new_tokens: int | None


class OptionPipeline:
    """A model, and a router that decides before the model is asked.

    Attributes:
        max_new_tokens: Tokens of an answer where a call names no other limit: the longest that the
            router's log allowed any example. None for the model's own.

    Args:
        model: The model.
        router: Trained on a log of this model, with a policy.

    Raises:
        MismatchError: If they do not belong together.
    """

    def __init__(self, *, model: OptionModel, router: Router) -> None:
        trained = router.router
        names = tuple(option.name for option in model.options)
        trained.check_options(names, of=f"the model {model.name}")
        labelled = str(trained.metadata.get("log", {}).get("revision", ""))
        if labelled and labelled != model.revision:
            raise MismatchError(
                f"The router was trained on answers of another model than {model.name}: its "
                "weights, options, prompt or image encoding differ. Label and train with this "
                f"model, or load the other one. ({trained.model}@{labelled[:16]}, not "
                f"{model.name}@{model.revision[:16]})"
            )
        self.model = model
        self.router = router
        self.max_new_tokens = longest_in(trained.metadata.get("log", {}))

    @classmethod
    def load(
        cls,
        run: AnyRun,
        *,
        model: OptionModel | str | None = None,
        policy: str = "default",
        encoder: str | None = None,
        device: str = "auto",
    ) -> OptionPipeline:
        """Load router, policy and encoder from a run folder, and the model that was labelled.

        Args:
            run: A run folder after ``train`` and ``calibrate``.
            model: The model, or its name, folder or hub id; None for the run's own.
            policy: Name of the policy; where a cascade goes with it, that decides.
            encoder: Folder or hub id of the router's image encoder; None for the one it was
                trained with.
            device: Where local models run.

        Raises:
            DataError: When a part is missing or damaged, or the model must be given.
            ModelError: When a model cannot be loaded.
            MismatchError: When the parts do not belong together.
        """
        router = Router.load(run, policy=policy, encoder=encoder, device=device)
        if model is None or isinstance(model, str):
            model = _labelled_model(router.router, model, device)
        return cls(model=model, router=router)

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the options, coarsest first."""
        return self.router.options

    @property
    def frames(self) -> int:
        """Frames of a video's collage, as many as the router was trained on."""
        return self.router.frames

    def ask(self, image: AnyImage, question: str, **how: Unpack[HowToAnswer]) -> OptionAnswer:
        """Answer one question about one image, at the option that suffices.

        Args:
            image: A PIL image, the path of an image or video, a uint8 array (height, width, 3) or
                (height, width), or the bytes of an image file.
            question: What is asked.
            how: As in :meth:`answer`: option, policy, budget, max_new_tokens.

        Raises:
            DataError: As :meth:`answer`.
        """
        (told,) = self.answer([image], [question], **how)
        return told

    @overload
    def answer(  # type: ignore[overload-overlap]  # a text is a sequence of texts
        self, images: AnyImage, questions: str, **how: Unpack[HowToAnswer]
    ) -> OptionAnswer: ...

    @overload
    def answer(
        self,
        images: AnyImage | Sequence[AnyImage],
        questions: Sequence[str],
        **how: Unpack[HowToAnswer],
    ) -> list[OptionAnswer]: ...

    def answer(
        self,
        images: AnyImage | Sequence[AnyImage],
        questions: str | Sequence[str],
        *,
        option: str | None = None,
        policy: Policy | Cascade | str | None = None,
        budget: float | None = None,
        max_new_tokens: int | None = None,
    ) -> OptionAnswer | list[OptionAnswer]:
        """Answer question i about image i, each at its own option.

        Args:
            images: As in :meth:`ask`. What comes several times (the same object, or equal paths)
                is opened once. A single image goes with all questions.
            questions: One for each image; a single one goes with all images. A single image and
                a single question give a single answer, as :meth:`ask` does.
            option: Answer everything at this option instead of routing.
            policy: Route by this policy or cascade, or by the run's of this name, instead of the
                pipeline's own.
            budget: Route within so much mean cost.
            max_new_tokens: Tokens of the longest answer; None for :attr:`max_new_tokens`.

        Raises:
            MismatchError: If the lengths differ, or there is no such option or policy.
            DataError: If a question is empty, a file cannot be read, or the model fails to answer
                one of them; the first two before anything is asked.
            ModelError: If the model cannot be asked any more.
        """
        alone = isinstance(questions, str) and is_one_image(images)
        images, questions = paired(images, questions)
        for row, question in enumerate(questions):
            if not question.strip():
                raise DataError(f"Question {row + 1} is empty; ask something")
        answers: list[OptionAnswer] = []
        for place, told in enumerate(
            self.answer_each(
                opened(images, frames=self.frames),
                questions,
                option=option,
                policy=policy,
                budget=budget,
                max_new_tokens=max_new_tokens,
            )
        ):
            if isinstance(told, Failure):
                raise DataError(f"Question {place + 1} was not answered: {told.message}")
            answers.append(told)
        return answers[0] if alone else answers

    def answer_each(
        self,
        images: Sequence[AnyImage],
        questions: Sequence[str],
        *,
        option: str | None = None,
        policy: Policy | Cascade | str | None = None,
        budget: float | None = None,
        max_new_tokens: int | None = None,
    ) -> list[OptionAnswer | Failure]:
        """As :meth:`answer`, but a question that fails does not stop the others.

        Raises:
            MismatchError: If the lengths differ, or there is no such option or policy.
            DataError: If more than one of option, policy and budget is given, or none decides.
            ModelError: If the model cannot be asked any more, and nothing was answered yet.
        """
        images, questions = paired(images, questions)
        if not images:
            return []
        option = None if option is None else str(option)
        rule = self.router.rule(policy=policy, budget=budget, option=option)
        told: dict[int, OptionAnswer | Failure] = {}
        usable: dict[int, Image.Image] = {}
        open_one = OpenedImages(frames=self.frames)
        for place, (image, question) in enumerate(zip(images, questions, strict=True)):
            try:
                usable[place] = open_one(image)
            except DataError as error:
                told[place] = Failure(message=str(error))
            if not question.strip():
                usable.pop(place, None)
                told[place] = Failure(message=EMPTY_QUESTION)
        asked = self._decided(list(usable.values()), [questions[one] for one in usable], rule)
        self._settle(asked, rule, lambda waiting: self._ask(waiting, max_new_tokens))
        told.update(zip(usable, [one.result(self.model.cost_unit) for one in asked], strict=True))
        return [told[place] for place in range(len(images))]

    def answer_everywhere(
        self,
        image: AnyImage,
        question: str,
        *,
        option: str | None = None,
        policy: Policy | Cascade | str | None = None,
        budget: float | None = None,
        max_new_tokens: int | None = None,
    ) -> tuple[OptionAnswer | Failure, dict[str, Answer | Failure]]:
        """Ask at every option, in one batch.

        Args:
            image: As in :meth:`answer`.
            question: As in :meth:`answer`, not empty.
            option: As in :meth:`answer`.
            policy: As in :meth:`answer`.
            budget: As in :meth:`answer`.
            max_new_tokens: As in :meth:`answer`.

        Returns:
            What :meth:`answer_each` gives where the model answers so, with what that alone would
            have cost; and what every option answers, coarsest first.

        Raises:
            MismatchError: If there is no such option or policy.
            DataError: If the question is empty or a file cannot be read.
            ModelError: If the model cannot be asked any more.
        """
        if not question.strip():
            raise DataError(EMPTY_QUESTION)
        rule = self.router.rule(policy=policy, budget=budget, option=option)
        (one,) = self._decided(opened([image], frames=self.frames), [question], rule)
        longest = max_new_tokens or self.max_new_tokens
        requests = [one.request(name, longest) for name in self.options]
        began = time.perf_counter()
        answers = dict(zip(self.options, self.model.answer(requests), strict=True))
        self._settle([one], rule, lambda waiting: [answers[each.option] for each in waiting])
        one.milliseconds = 1000 * (time.perf_counter() - began)
        return one.result(self.model.cost_unit), answers

    def _decided(
        self,
        images: Sequence[Image.Image],
        questions: Sequence[str],
        rule: Policy | Cascade | str,
    ) -> list[_Asked]:
        """Questions with the option that each is asked at first."""
        if isinstance(rule, str):
            decisions = self.router.decide_many(images, questions, option=rule)
        else:
            costs = counted_costs(self.model, images) if self.router.counts else None
            decisions = self.router.decide_many(images, questions, policy=rule, costs=costs)
        return [
            _Asked(
                image=image,
                question=question,
                decision=self._compared(decision, image),
                option=decision.option,
            )
            for image, question, decision in zip(images, questions, decisions, strict=True)
        ]

    def _compared(self, decision: Decision, image: Image.Image) -> Decision:
        """The decision, knowing what the model can read."""
        likeness = scene_likeness(self.model, image)
        if likeness is None:
            return decision
        familiarity = combined(decision.familiarity, likeness)
        return replace(decision, familiarity=familiarity, outside=is_outside(likeness))

    def _ask(self, waiting: Sequence[_Asked], max_new_tokens: int | None) -> list[Answer | Failure]:
        longest = max_new_tokens or self.max_new_tokens
        return self.model.answer([one.request(one.option, longest) for one in waiting])

    def _settle(
        self,
        asked: Sequence[_Asked],
        rule: Policy | Cascade | str,
        ask: Callable[[Sequence[_Asked]], Sequence[Answer | Failure]],
    ) -> None:
        """Ask, and ask again what looks wrong, until each has its last answer or its failure."""
        cascade = rule if isinstance(rule, Cascade) else None
        began = time.perf_counter()
        waiting = list(asked)
        while waiting:
            try:
                answers = ask(waiting)
            except ModelError as error:
                if not waiting[0].earlier:
                    raise
                # All of these have an answer that was paid for.
                answers = [Failure(message=str(error))] * len(waiting)
            for one, told in zip(waiting, answers, strict=True):
                one.take(told, cascade, self.options)
            waiting = [one for one in waiting if one.told is None]
        for one in asked:
            one.milliseconds = 1000 * (time.perf_counter() - began) / len(asked)


@dataclass(kw_only=True)
class _Asked:
    """A question on its way: asked at `option`, after `earlier` answers that looked wrong."""

    image: Image.Image
    question: str
    decision: Decision
    option: str
    earlier: tuple[tuple[str, Answer], ...] = ()
    failed: tuple[str, Failure] | None = None
    told: Answer | Failure | None = None
    milliseconds: float = 0.0

    def request(self, option: str, max_new_tokens: int | None) -> Request:
        """What the model is asked at an option."""
        return Request(
            image=self.image,
            question=self.question,
            option=option,
            max_new_tokens=max_new_tokens,
        )

    def take(self, told: Answer | Failure, cascade: Cascade | None, options: Sequence[str]) -> None:
        """Take an answer: it is the one to give, or another option is asked next."""
        following = None
        if isinstance(told, Answer) and cascade is not None and self._may_go_on(cascade, options):
            confidence, logprob = told.confidence, told.logprob
            if confidence is not None and logprob is not None and math.isfinite(logprob):
                following = self._following(cascade, options, confidence, logprob)
            elif not self.earlier:
                told = Failure(message=UNSURE, usage=told.usage)
        if isinstance(told, Failure) and self.earlier:
            # The answer before looked wrong, but it is an answer.
            self.failed = (self.option, told)
            self.option, self.told = self.earlier[-1]
            self.earlier = self.earlier[:-1]
        elif following is not None and isinstance(told, Answer):
            self.earlier = (*self.earlier, (self.option, told))
            self.option = following
        else:
            self.told = told

    def _may_go_on(self, cascade: Cascade, options: Sequence[str]) -> bool:
        """Whether another option may be asked, depending on how sure the answer is."""
        return bool(cascade.rule.start) and len(self.earlier) < STEPS and self.option != options[-1]

    def _following(
        self, cascade: Cascade, options: Sequence[str], confidence: float, logprob: float
    ) -> str | None:
        place = cascade.decide_after(
            np.array(list(self.decision.estimates.values())),
            np.array(list(self.decision.costs.values())),
            options.index(self.option),
            confidence=confidence,
            logprob=logprob,
            step=len(self.earlier),
        )
        return None if place is None else options[place]

    def result(self, cost_unit: str) -> OptionAnswer | Failure:
        """The answer with its reasons, once `take` has taken the last one."""
        assert self.told is not None, "all are answered before results are made"
        if isinstance(self.told, Failure):
            return self.told
        return OptionAnswer(
            answer=self.told,
            option=self.option,
            decision=self.decision,
            cost_unit=cost_unit,
            earlier=self.earlier,
            failed=self.failed,
            milliseconds={**self.decision.milliseconds, "answer": self.milliseconds},
            question=self.question,
            image=self.image,
        )


def _labelled_model(router: ScaleRouter, name: str | None, device: str) -> OptionModel:
    """The model of a router's log.

    Raises:
        DataError: When it must be given.
        ModelError: When it cannot be opened again.
    """
    log = router.metadata.get("log", {})
    spec = log.get(SPEC)
    if spec is not None and name is None:
        try:
            model = reopen(spec, device=device)
        except ModelError as error:
            raise ModelError(
                f"the model that the run was labelled with cannot be opened again: {error}. If it "
                "is elsewhere now, give its folder, hub id or address (--model)."
            ) from error
    elif spec is not None:
        place = "url" if spec.get("kind") == ENDPOINT else "name"
        model = reopen({**spec, place: name}, device=device)
    elif name or router.model:
        # A log of a Matryoshka model, or an imported one whose model is named now.
        model = open_model(name or router.model, device=device, max_new_tokens=longest_in(log))
    else:
        raise DataError(
            "The run's log was imported and does not say how to load its model: give its folder, "
            "hub id or address (--model)."
        )
    if not isinstance(model, OptionModel):
        raise MismatchError(f"{name or router.model} cannot be asked by option")
    return model

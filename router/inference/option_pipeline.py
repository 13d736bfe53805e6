"""Answer questions at the option that a router chooses before the model sees the image.

For every model (:class:`m3router.m3core.options.OptionModel`): local vision-language models,
endpoints, functions; and Matryoshka models whose router reads a small encoder of its own. The
vision tower of the model runs once, at the chosen option.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from m3router.data.errors import DataError, MismatchError
from m3router.data.videos import open_media
from m3router.m3core.labelling.rows import SPEC, longest_in
from m3router.m3core.opening import open_model, reopen
from m3router.m3core.options import Answer, Failure, OptionModel, Request, Usage, total_usage
from m3router.router.cascade.rule import STEPS, Cascade
from m3router.router.inference.router import Decision, Router
from m3router.router.policies.policy import Policy
from m3router.router.training.scale_router import ScaleRouter

Images = Sequence[Image.Image | Path | str]

UNSURE = (
    "the policy may escalate, which needs the probability of each answer, but the model gave none "
    "for this one: choose a policy that does not escalate, or a server that returns "
    "log-probabilities"
)


@dataclass(frozen=True, kw_only=True)
class OptionAnswer:
    """An answer, the option it was given at and why.

    Attributes:
        answer: The answer and its own usage.
        option: The option that gave it.
        decision: Which option was asked first, and why.
        earlier: Answers at other options before, which looked wrong: (option, answer).
        milliseconds: Wall-clock time by stage (``vision`` of the router's small encoder,
            ``features``, ``route``, ``answer``); a batch's time is shared equally.
    """

    answer: Answer
    option: str
    decision: Decision
    earlier: tuple[tuple[str, Answer], ...] = ()
    milliseconds: dict[str, float] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """What was answered."""
        return self.answer.text

    @property
    def usage(self) -> Usage:
        """What it cost in all, the answers that looked wrong included."""
        return total_usage([*(one.usage for _, one in self.earlier), self.answer.usage])


class OptionPipeline:
    """A model, and a router that decides before the model is asked.

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
                f"the router was trained on answers of {trained.model}@{labelled[:16]}, but the "
                f"model is {model.name}@{model.revision[:16]}: its weights, options, prompt or "
                "image encoding differ. Label and train with this model, or load the other one."
            )
        self.model = model
        self.router = router

    @classmethod
    def load(
        cls,
        run: Path | str,
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

    def answer(
        self,
        images: Images,
        questions: Sequence[str],
        *,
        option: str | None = None,
        policy: Policy | str | None = None,
        budget: float | None = None,
        max_new_tokens: int | None = None,
    ) -> list[OptionAnswer]:
        """Answer question i about image i, each at its own option.

        Args:
            images: RGB images, or files of images and videos. What comes several times (the same
                object, or equal paths) is opened once.
            questions: One for each image.
            option: Answer everything at this option instead of routing.
            policy: Route by this policy, or by the run's policy of this name, instead of the
                pipeline's own.
            budget: Route within so much mean cost.
            max_new_tokens: Tokens of the longest answer; None for the model's own limit.

        Raises:
            MismatchError: If the lengths differ, or there is no such option or policy.
            DataError: If a question is empty, a file cannot be read, or the model fails to answer.
            ModelError: If the model cannot be asked any more.
        """
        for place, told in enumerate(
            answers := self.answer_each(
                images,
                questions,
                option=option,
                policy=policy,
                budget=budget,
                max_new_tokens=max_new_tokens,
            )
        ):
            if isinstance(told, Failure):
                raise DataError(f"question {place} was not answered: {told.message}")
        return [one for one in answers if isinstance(one, OptionAnswer)]

    def answer_each(
        self,
        images: Images,
        questions: Sequence[str],
        *,
        option: str | None = None,
        policy: Policy | str | None = None,
        budget: float | None = None,
        max_new_tokens: int | None = None,
    ) -> list[OptionAnswer | Failure]:
        """As :meth:`answer`, but a question that fails does not stop the others."""
        opened = self._opened(images)
        costs = self._counted(opened) if self.router.counts and option is None else None
        decisions = self.router.decide_many(
            opened, questions, policy=policy, budget=budget, option=option, costs=costs
        )
        asked = [
            _Asked(image=image, question=question, decision=decision, option=decision.option)
            for image, question, decision in zip(opened, questions, decisions, strict=True)
        ]
        cascade = self.router.cascade if policy is None and budget is None else None
        began = time.perf_counter()
        waiting = list(asked)
        while waiting:
            requests = [
                Request(
                    image=one.image,
                    question=one.question,
                    option=one.option,
                    max_new_tokens=max_new_tokens,
                )
                for one in waiting
            ]
            for one, told in zip(waiting, self.model.answer(requests), strict=True):
                one.take(told, cascade if option is None else None, self.options)
            waiting = [one for one in waiting if one.told is None]
        spent = 1000 * (time.perf_counter() - began) / max(1, len(asked))
        return [one.result(spent) for one in asked]

    def _counted(self, images: Sequence[Image.Image]) -> npt.NDArray[np.float64]:
        """Costs (N, K) as the model counts them before it is asked."""
        known: dict[int, list[float]] = {}
        for image in images:
            if id(image) not in known:
                usages = [self.model.count(image, name) for name in self.options]
                known[id(image)] = [np.nan if one.cost is None else one.cost for one in usages]
        return np.array([known[id(image)] for image in images], dtype=np.float64)

    def _opened(self, images: Images) -> list[Image.Image]:
        opened: dict[Path, Image.Image] = {}
        found = []
        for image in images:
            if isinstance(image, Image.Image):
                found.append(image)
                continue
            path = Path(image)
            if path not in opened:
                opened[path] = open_media(path, frames=self.frames)
            found.append(opened[path])
        return found


@dataclass(kw_only=True)
class _Asked:
    """A question on its way: asked at `option`, after `earlier` answers that looked wrong."""

    image: Image.Image
    question: str
    decision: Decision
    option: str
    earlier: tuple[tuple[str, Answer], ...] = ()
    told: Answer | Failure | None = None

    def take(self, told: Answer | Failure, cascade: Cascade | None, options: Sequence[str]) -> None:
        """Take an answer: it is the one to give, or another option is asked next."""
        following = None
        if isinstance(told, Answer) and cascade is not None and cascade.rule.start:
            if told.confidence is None or told.logprob is None:
                told = Failure(message=UNSURE, usage=told.usage)
            else:
                following = self._following(told, cascade, options)
        if isinstance(told, Failure) and self.earlier:
            # The answer before looked wrong, but it is an answer.
            self.option, self.told = self.earlier[-1]
            self.earlier = self.earlier[:-1]
        elif following is None:
            self.told = told
        elif isinstance(told, Answer):
            self.earlier = (*self.earlier, (self.option, told))
            self.option = following

    def _following(self, told: Answer, cascade: Cascade, options: Sequence[str]) -> str | None:
        if len(self.earlier) >= STEPS or told.confidence is None or told.logprob is None:
            return None
        place = cascade.decide_after(
            np.array(list(self.decision.estimates.values())),
            np.array(list(self.decision.costs.values()), dtype=np.float64),
            options.index(self.option),
            confidence=told.confidence,
            logprob=told.logprob,
            step=len(self.earlier),
        )
        return None if place is None else options[place]

    def result(self, milliseconds: float) -> OptionAnswer | Failure:
        assert self.told is not None, "all are answered before results are made"
        if isinstance(self.told, Failure):
            return self.told
        return OptionAnswer(
            answer=self.told,
            option=self.option,
            decision=self.decision,
            earlier=self.earlier,
            milliseconds={**self.decision.milliseconds, "answer": milliseconds},
        )


def _labelled_model(router: ScaleRouter, name: str | None, device: str) -> OptionModel:
    """The model of a router's log.

    Raises:
        DataError: When it must be given.
    """
    log = router.metadata.get("log", {})
    spec = log.get(SPEC)
    if spec is not None:
        model = reopen({**spec, "name": name} if name else spec, device=device)
    elif name or router.model:
        # A log of a Matryoshka model, or an imported one whose model is named now.
        model = open_model(name or router.model, device=device, max_new_tokens=longest_in(log))
    else:
        raise DataError(
            "the run's log was imported and does not say how to load its model: give the model"
        )
    if not isinstance(model, OptionModel):
        raise MismatchError(f"{name or router.model} cannot be asked by option")
    return model

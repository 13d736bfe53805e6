"""Answer questions at the scale that a router and a policy choose."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from data.errors import DataError, MismatchError
from data.videos import open_picture
from m3core.batching import answer_all, limits_for, peek_in_batches
from m3core.checkpoints import load_model
from m3core.models.base import Answer, MultiScaleModel, Request, VisualEncoding
from m3core.pooling import AVERAGE
from router.asking_again import Tried, ask_again
from router.cascade import Cascade, cascade_path
from router.costs import routed_costs
from router.features.featurizer import check_source, live_featurizer
from router.features.tiers import PEEK
from router.policy import Policy
from router.router import ScaleRouter


@dataclass(frozen=True, kw_only=True)
class RoutedAnswer:
    """An answer, the scale it was given at and why.

    Attributes:
        answer: The answer with its token counts.
        scale: The chosen scale; what it really cost is in ``answer.visual_tokens``.
        sufficiency: Scale to the estimated probability that it answers rightly; empty where the
            caller fixed the scale.
        milliseconds: Wall-clock time by stage (``vision``, ``features``, ``peek``, ``route``,
            ``language``); a batch's time is shared equally. Where a peek became the answer, its
            prefill is in ``peek`` and only the decoding in ``language``.
        flops: Operations of the ``language`` model for the answer, its prefill included, of the
            ``vision`` tower, which sees a picture of a high-resolution model several times, and
            of a ``peek`` that was thrown away (0 where there was none, or it became the answer),
            and of ``earlier`` answers.
        peek_tokens: Visual tokens that the language model read in a peek that was thrown away.
        earlier: Answers at coarser scales that looked wrong, in the order in which they came.
    """

    answer: Answer
    scale: int
    sufficiency: dict[int, float]
    milliseconds: dict[str, float]
    flops: dict[str, float]
    peek_tokens: int = 0
    earlier: tuple[Answer, ...] = ()

    @property
    def spent_tokens(self) -> int:
        """Visual tokens that the language model read in all, for what was thrown away too."""
        thrown_away = sum(answer.visual_tokens for answer in self.earlier)
        return self.answer.visual_tokens + self.peek_tokens + thrown_away


@dataclass(frozen=True, kw_only=True)
class _Decided:
    """What was decided for one question.

    Attributes:
        request: At the chosen scale.
        estimate: Scale to probability; empty where the caller fixed the scale.
        answer: Where the peek became the answer.
        peek: Where it was thrown away: its visual and other tokens.
        earlier: Answers that looked wrong.
    """

    request: Request
    estimate: dict[int, float]
    answer: Answer | None = None
    peek: tuple[int, int] = (0, 0)
    earlier: tuple[Answer, ...] = ()


_STAGES = ("vision", "features", "peek", "route", "language")


class _Clock:
    """Adds up the time of the stages of one batch."""

    def __init__(self) -> None:
        self.milliseconds = dict.fromkeys(_STAGES, 0.0)
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.milliseconds[stage] += (now - self._last) * 1000
        self._last = now


class AutoScalePipeline:
    """A frozen model, a router that knows it, and a policy calibrated for that router.

    Attributes:
        frames: Frames of a video's collage, as many as the router was trained on.

    Args:
        model: The model.
        router: Trained on a log and on features of this very model.
        policy: Calibrated for this router.
        cascade: In place of the policy: asks a finer scale where an answer looks wrong.

    Raises:
        MismatchError: If they do not belong together.
    """

    def __init__(
        self,
        *,
        model: MultiScaleModel,
        router: ScaleRouter,
        policy: Policy,
        cascade: Cascade | None = None,
    ) -> None:
        router.check_options(model.grid.names, of=f"the model {model.name}")
        features = router.metadata.get("features", {})
        check_source(str(features.get("source", "unknown")), model)
        policy.check_fits(options=router.options, router=router.fingerprint)
        if cascade is not None:
            cascade.check_fits(options=router.options, router=router.fingerprint)
        self.cascade = cascade
        self.model = model
        self.router = router
        self.policy = policy
        self.featurizer = live_featurizer(model, router.blocks, features)
        self.frames = self.featurizer.frames

    @classmethod
    def load(
        cls,
        run: Path | str,
        *,
        model: MultiScaleModel | str = "embedded",
        policy: str = "default",
        device: str = "auto",
    ) -> AutoScalePipeline:
        """Load router and policy from a run folder, and the policy's cascade if it has one.

        Args:
            run: A run folder after ``train`` and ``calibrate``.
            model: The model that the run labelled, or its name; by name it is loaded with the
                pooling that the run was labelled with.
            policy: Name of the policy.
            device: Where a model given by name is loaded.
        """
        folder = Path(run)
        router = ScaleRouter.read(folder / "router")
        if isinstance(model, str):
            visual = router.metadata.get("features", {}).get("visual", {})
            model = load_model(
                model,
                device=device,
                pooling=visual.get("pooling", AVERAGE),
                grids=visual["grids"].split() if "grids" in visual else None,
                unlisted_grids=True,  # the run was labelled with these
            )
        escalates = cascade_path(folder, policy)
        return cls(
            model=model,
            router=router,
            policy=Policy.read(folder / "policies" / f"{policy}.json"),
            cascade=Cascade.read(escalates) if escalates.is_file() else None,
        )

    def answer(
        self,
        images: Sequence[Image.Image | Path],
        questions: Sequence[str],
        *,
        scale: int | None = None,
        policy: Policy | None = None,
    ) -> list[RoutedAnswer]:
        """Answer question i about image i, each at its own scale, batched by length.

        Args:
            images: RGB pictures, or files of pictures and videos. What comes several times (the
                same object, or equal paths) is encoded once.
            questions: One for each picture.
            scale: Answer everything at this scale instead of routing.
            policy: Route by this policy, without asking again, instead of by the pipeline's own.

        Raises:
            MismatchError: If the lengths differ, the scale is not in the grid, or the policy
                belongs to another router.
            DataError: If a question is empty or does not fit the model's context, or a file
                cannot be read.
        """
        if len(images) != len(questions):
            raise MismatchError(f"{len(images)} images but {len(questions)} questions were given")
        if not images:
            return []
        fewest = self.model.grid.scales[0] if scale is None else self.model.check_scale(scale)
        for question in questions:
            self.model.prompt_length(question, fewest)  # a scale costs at least its name
        pictures = self._opened(images)
        clock = _Clock()
        distinct = list({id(picture): picture for picture in pictures}.values())
        place = {id(picture): number for number, picture in enumerate(distinct)}
        encodings = self.model.encode(distinct)
        clock.lap("vision")
        own = [encodings[place[id(picture)]] for picture in pictures]
        if policy is not None:
            policy.check_fits(options=self.router.options, router=self.router.fingerprint)
        if scale is None:
            decided = self._decide(pictures, own, questions, clock, policy)
        else:
            asked = zip(own, questions, strict=True)
            decided = [_Decided(request=_at(scale, *one), estimate={}) for one in asked]
        open_ones = [one.request for one in decided if one.answer is None]
        rest = iter(answer_all(self.model, open_ones))
        answers = [one.answer or next(rest) for one in decided]
        if self.cascade is not None and scale is None and policy is None:
            given = zip(decided, answers, strict=True)
            tries = [Tried(one.request, one.estimate, answer) for one, answer in given]
            tries = ask_again(self.model, self.cascade, tries)
            decided = [
                replace(one, request=last.request, earlier=last.earlier)
                for one, last in zip(decided, tries, strict=True)
            ]
            answers = [last.answer for last in tries]
        clock.lap("language")
        share = {stage: spent / len(images) for stage, spent in clock.milliseconds.items()}
        return [
            self._result(answer, one, share) for answer, one in zip(answers, decided, strict=True)
        ]

    def _opened(self, images: Sequence[Image.Image | Path]) -> list[Image.Image]:
        """The pictures themselves; equal paths give the same object."""
        paths = {image for image in images if isinstance(image, Path)}
        opened = {path: open_picture(path, frames=self.frames) for path in paths}
        return [opened[image] if isinstance(image, Path) else image for image in images]

    def _decide(
        self,
        pictures: Sequence[Image.Image],
        encodings: Sequence[VisualEncoding],
        questions: Sequence[str],
        clock: _Clock,
        policy: Policy | None,
    ) -> list[_Decided]:
        """Choose a scale for each; what stays at a peek's scale is answered from there."""
        blocks = self.featurizer.blocks(pictures, encodings, questions)
        clock.lap("features")
        asked = list(zip(encodings, questions, strict=True))
        if not self.featurizer.peeks:
            decided = [
                self._choose(*one, own, policy) for one, own in zip(asked, blocks, strict=True)
            ]
            clock.lap("route")
            return decided
        found: dict[int, _Decided] = {}
        coarsest = self.model.grid.scales[0]
        requests = [_at(coarsest, *one) for one in asked]
        for batch in peek_in_batches(self.model, requests, limits_for(self.model)):
            if batch.error:
                raise DataError(f"{batch.error}; choose a smaller number format")
            clock.lap("peek")
            stay = []
            for place, peek in zip(batch.indices, batch.answers, strict=True):
                own = blocks[place] | {PEEK: self.featurizer.of_peek(PEEK, peek)}
                one = self._choose(*asked[place], own, policy)
                if one.request.scale == coarsest:
                    stay.append((place, peek))
                else:
                    one = replace(one, peek=(peek.visual_tokens, peek.text_tokens))
                found[place] = one
            clock.lap("route")
            answers = self.model.finish([peek for _, peek in stay])
            for (place, _), answer in zip(stay, answers, strict=True):
                found[place] = replace(found[place], answer=answer)
            clock.lap("language")
        return [found[place] for place in range(len(asked))]

    def _choose(
        self,
        encoding: VisualEncoding,
        question: str,
        blocks: dict[str, np.ndarray],
        policy: Policy | None,
    ) -> _Decided:
        """What the policy decides, with the cost of a peek that would be thrown away."""
        p = self.router.predict_one(blocks)
        scales = self.model.grid.scales
        costs = np.array([[encoding.tokens(one) for one in scales]], dtype=np.float64)
        routed = routed_costs(costs, self.router.blocks)[0]
        chosen = (policy or self.cascade or self.policy).decide(p, routed)
        return _Decided(
            request=_at(scales[chosen], encoding, question),
            estimate=dict(zip(scales, p.tolist(), strict=True)),
        )

    def _result(self, answer: Answer, one: _Decided, share: dict[str, float]) -> RoutedAnswer:
        prompt = answer.visual_tokens + answer.text_tokens
        shape, peeked = self.model.shape, sum(one.peek)
        earlier = [
            shape.answer_flops(other.visual_tokens + other.text_tokens, other.answer_tokens)
            for other in one.earlier
        ]
        return RoutedAnswer(
            answer=answer,
            scale=one.request.scale,
            sufficiency=one.estimate,
            milliseconds=dict(share),
            flops={
                "language": shape.answer_flops(prompt, answer.answer_tokens),
                "vision": shape.vision_flops(one.request.encoding.views),
                "peek": shape.answer_flops(peeked, 1) if peeked else 0.0,
                "earlier": float(sum(earlier)),
            },
            peek_tokens=one.peek[0],
            earlier=one.earlier,
        )


def _at(scale: int, encoding: VisualEncoding, question: str) -> Request:
    return Request(encoding=encoding, question=question, scale=scale)

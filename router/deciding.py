"""From pictures and questions to the scale that each is asked at."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from data.errors import DataError
from m3core.batching import limits_for, peek_in_batches
from m3core.models.base import MultiScaleModel, Peek, Request, VisualEncoding
from router.cascade.rule import Cascade
from router.features.featurizer import Featurizer
from router.features.tiers import PEEK
from router.policies.costs import routed_costs
from router.policies.policy import Policy
from router.scale_router import ScaleRouter

STAGES = ("vision", "features", "peek", "route", "language")


class Clock:
    """Adds up the time of the stages of one batch.

    Attributes:
        milliseconds: Wall-clock time by stage.
    """

    def __init__(self) -> None:
        self.milliseconds = dict.fromkeys(STAGES, 0.0)
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Everything since the last lap was this stage."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.milliseconds[stage] += (now - self._last) * 1000
        self._last = now


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One question to be decided.

    Attributes:
        picture: RGB.
        encoding: What the model made of it.
        question: What is asked.
        rule: A scale of the model, a policy, or None for the decider's own.
    """

    picture: Image.Image
    encoding: VisualEncoding
    question: str
    rule: int | Policy | None = None


@dataclass(frozen=True, kw_only=True)
class Decided:
    """What was decided for one question.

    Attributes:
        request: At the chosen scale.
        estimate: Scale to probability; empty where the scale was given.
        escalates: Whether a cascade may ask a finer scale after the answer.
        peek: Goes on to the answer; None where the request must be read.
        lost: Visual and other tokens of a peek that was thrown away.
    """

    request: Request
    estimate: dict[int, float]
    escalates: bool = False
    peek: Peek | None = None
    lost: tuple[int, int] = (0, 0)


class Decider:
    """A router at work; see :class:`router.pipeline.AutoScalePipeline` for what belongs together.

    Args:
        model: The model.
        router: Knows it.
        policy: Calibrated for the router.
        cascade: In place of the policy, if not None.
        featurizer: Computes what the router reads.
    """

    def __init__(
        self,
        *,
        model: MultiScaleModel,
        router: ScaleRouter,
        policy: Policy,
        cascade: Cascade | None,
        featurizer: Featurizer,
    ) -> None:
        self.model = model
        self.router = router
        self.policy = policy
        self.cascade = cascade
        self.featurizer = featurizer

    def decide(self, asked: Sequence[Asked], clock: Clock) -> Iterator[dict[int, Decided]]:
        """Choose a scale for each question.

        Args:
            asked: The questions.
            clock: Told what the time went into.

        Yields:
            Place of a question to what was decided, each place once. Peeks hold the keys and
            values of their batch: finish them, and let go, before the next part.

        Raises:
            DataError: If a peek does not fit into memory.
        """
        fixed = {p: one.rule for p, one in enumerate(asked) if isinstance(one.rule, int)}
        if fixed:
            yield {place: _at_scale(asked[place], scale) for place, scale in fixed.items()}
        places = [place for place in range(len(asked)) if place not in fixed]
        routed = [asked[place] for place in places]
        if not routed:
            return
        blocks = self.featurizer.blocks(
            [one.picture for one in routed],
            [one.encoding for one in routed],
            [one.question for one in routed],
        )
        clock.lap("features")
        if self.featurizer.peeks:
            for part in self._behind_peeks(routed, blocks, clock):
                yield {places[number]: one for number, one in part.items()}
        else:
            chosen = [self._choose(one, own) for one, own in zip(routed, blocks, strict=True)]
            clock.lap("route")
            yield dict(zip(places, chosen, strict=True))

    def _behind_peeks(
        self, asked: Sequence[Asked], blocks: Sequence[dict[str, np.ndarray]], clock: Clock
    ) -> Iterator[dict[int, Decided]]:
        """Read each at the coarsest scale first; what stays there goes on from what was read."""
        coarsest = self.model.grid.scales[0]
        requests = [_at(coarsest, one) for one in asked]
        for batch in peek_in_batches(self.model, requests, limits_for(self.model)):
            if batch.error:
                raise DataError(f"{batch.error}; choose a smaller number format")
            clock.lap("peek")
            found = {}
            for place, peek in zip(batch.indices, batch.answers, strict=True):
                own = blocks[place] | {PEEK: self.featurizer.of_peek(PEEK, peek)}
                found[place] = self._choose(asked[place], own, peek)
            clock.lap("route")
            yield found

    def _choose(
        self, one: Asked, blocks: dict[str, np.ndarray], peek: Peek | None = None
    ) -> Decided:
        """What the rule decides, with the cost of a peek that would be thrown away."""
        p = self.router.predict_one(blocks)
        scales = self.model.grid.scales
        costs = np.array([[one.encoding.tokens(scale) for scale in scales]], dtype=np.float64)
        routed = routed_costs(costs, self.router.blocks)[0]
        own = one.rule if isinstance(one.rule, Policy) else None
        chosen = (own or self.cascade or self.policy).decide(p, routed)
        kept = peek if chosen == 0 else None
        return Decided(
            request=_at(scales[chosen], one),
            estimate=dict(zip(scales, p.tolist(), strict=True)),
            escalates=own is None and self.cascade is not None,
            peek=kept,
            lost=(peek.visual_tokens, peek.text_tokens) if peek and not kept else (0, 0),
        )


def _at(scale: int, one: Asked) -> Request:
    return Request(encoding=one.encoding, question=one.question, scale=scale)


def _at_scale(one: Asked, scale: int) -> Decided:
    return Decided(request=_at(scale, one), estimate={})

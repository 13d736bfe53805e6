"""From encoded images and questions to the scale that each is asked at."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch

from m3router.data.errors import DataError
from m3router.m3core.matryoshka.base import MultiScaleModel, Peek
from m3router.m3core.matryoshka.batching import limits_for, peek_in_batches
from m3router.router.cascade.rule import Cascade
from m3router.router.features.featurizer import Featurizer
from m3router.router.features.groups import PEEK
from m3router.router.inference.session import Session
from m3router.router.monitoring.familiarity import Parts
from m3router.router.monitoring.scenes import combined, is_outside, scene_likeness
from m3router.router.policies.costs import routed_costs
from m3router.router.policies.policy import Policy
from m3router.router.training.scale_router import ScaleRouter

STAGES = ("vision", "features", "peek", "route", "language")

AnySession = TypeVar("AnySession", bound=Session)


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


class Decider:
    """A router at work.

    What belongs together is checked by
    :class:`m3router.router.inference.pipeline.AutoScalePipeline`.

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

    @property
    def own(self) -> Policy | Cascade:
        """What decides where a session brings no rule of its own."""
        return self.cascade or self.policy

    def decide(self, sessions: Sequence[AnySession], clock: Clock) -> Iterator[list[AnySession]]:
        """Choose a scale for each session: its `request` is what the model is asked first.

        Args:
            sessions: With their encodings.
            clock: Told what the time went into.

        Yields:
            Sessions that are decided, each session once. Peeks hold the keys and values of their
            batch: finish them, and let go, before the next part.

        Raises:
            DataError: If a peek does not fit into memory.
        """
        self._compare_with_scenes(sessions)
        fixed = [one for one in sessions if isinstance(one.rule, int)]
        for one in fixed:
            assert isinstance(one.rule, int)
            one.peek = None
            one.ask(one.rule)
        if fixed:
            self._compare_undecided(fixed)
            clock.lap("features")
            yield fixed
        routed = [one for one in sessions if not isinstance(one.rule, int)]
        if not routed:
            return
        blocks = self.featurizer.blocks(
            [one.image for one in routed],
            [one.encoded for one in routed],
            [one.question for one in routed],
        )
        clock.lap("features")
        if self.featurizer.peeks:
            yield from self._behind_peeks(routed, blocks, clock)
        else:
            for one, own in zip(routed, blocks, strict=True):
                self._choose(one, own)
            clock.lap("route")
            yield routed

    def _behind_peeks(
        self,
        sessions: Sequence[AnySession],
        blocks: Sequence[dict[str, np.ndarray]],
        clock: Clock,
    ) -> Iterator[list[AnySession]]:
        """Read each at the coarsest scale first; what stays there goes on from what was read."""
        for one in sessions:
            one.ask(self.model.grid.scales[0])
        requests = [one.prompt for one in sessions]
        for batch in peek_in_batches(self.model, requests, limits_for(self.model)):
            if batch.error:
                raise DataError(f"{batch.error}; choose a smaller number format")
            clock.lap("peek")
            for place, peek in zip(batch.indices, batch.answers, strict=True):
                own = blocks[place] | {PEEK: self.featurizer.of_peek(PEEK, peek)}
                self._choose(sessions[place], own, peek)
            clock.lap("route")
            yield [sessions[place] for place in batch.indices]

    def _choose(
        self, one: Session, blocks: dict[str, np.ndarray], peek: Peek | None = None
    ) -> None:
        """What the rule decides, with the cost of a peek that would be thrown away."""
        p = self.router.predict_one(blocks)
        scales = self.model.grid.scales
        costs = np.array([[one.encoded.tokens(scale) for scale in scales]], dtype=np.float64)
        routed = routed_costs(costs, self.router.blocks)[0]
        one.decided_by = one.rule if isinstance(one.rule, Policy | Cascade) else self.own
        chosen = one.decided_by.decide(p, routed)
        one.estimate = dict(zip(scales, p.tolist(), strict=True))
        self._compare(one, blocks)
        one.peek = peek if chosen == 0 else None
        one.lost = (peek.visual_tokens, peek.text_tokens) if peek and chosen != 0 else (0, 0)
        one.ask(scales[chosen])

    def _compare_with_scenes(self, sessions: Sequence[Session]) -> None:
        """See which images are outside what the model can read; each image once."""
        images = {id(one.image): one.image for one in sessions}
        found = {key: scene_likeness(self.model, image) for key, image in images.items()}
        for one in sessions:
            one.familiarity = found[id(one.image)]
            one.outside = is_outside(one.familiarity)

    def _compare_undecided(self, sessions: Sequence[Session]) -> None:
        """Compare images whose scale was given with those of the training; each image once."""
        if self.router.familiarity is None:
            return
        seen: dict[int, Parts] = {}
        for one in sessions:
            if id(one.image) not in seen:
                seen[id(one.image)] = self.featurizer.parts(one.image, one.encoded)
            self._compare(one, seen[id(one.image)])

    def _compare(self, one: Session, parts: Parts) -> None:
        """Compare an image with those of the training."""
        known = self.router.familiarity
        if known is not None:
            one.familiarity = combined(known.of(parts), one.familiarity)

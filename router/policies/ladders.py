"""How losses against the reference are counted and tested, for whatever gives the answers.

Notation for shapes: N questions of one part, G images, L rungs.

A ladder is a list of rules from safe to cheap, made without the labels that judge it; its rungs are
tested in order until one is not certified (fixed-sequence testing; Angelopoulos et al., Learn then
Test, 2021, arXiv:2110.01052). Which ladder is climbed, and how its losses are tested, may be
chosen by the labels of other images: those of the tune split.

A net loss s_reference - s_given counts gains as losses below 0. To count a gain of more than
`gains` only as `gains` makes the mean larger and less noisy, and so may be certified more easily:
what is certified of it holds for the net loss all the more. With gains 0 it is the regret.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from m3router.router.estimators.base import Floats
from m3router.router.policies import risk_bounds as risk
from m3router.router.policies.thinning import Thinned

Array = npt.NDArray[np.float64]
AT_ONCE = 125
"""Rungs that are tested together."""
GAINS = (0.0, 0.5, 1.0)
"""How much of a gain may be counted where a net loss is to be certified."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Counted:
    """A part whose losses are counted by image.

    Attributes:
        thinned: which questions count, and for which image.
        against: (N,) scores of the reference.
    """

    thinned: Thinned
    against: Floats

    def losses(self, given: Floats, *, gains: float = 0.0) -> risk.Losses:
        """What answers with these scores (N,) lose, a gain counting as at most `gains`."""
        lost = np.maximum(0.0 - gains, np.asarray(self.against) - given)
        one = self.thinned
        return risk.of_sums(one.sums(lost), one.sizes, most=one.most, low=0.0 - gains)


@dataclass(frozen=True, kw_only=True, eq=False)
class Ladder:
    """Rules from safe to cheap, with what they do on the tune split.

    Attributes:
        cost: (L,) mean cost on the tune split.
        expected: for each, its losses on the tune split, by `gains`.
            None where nothing is known of it.
        gains: how much of a gain counts.
        free: whether rungs at the safe end may be left out.
        first: the first rung that is tested.
    """

    cost: Array
    expected: Sequence[risk.Losses | None]
    gains: float = 0.0
    free: bool = False
    first: int = 0


def promising(
    ladders: Sequence[Ladder], *, alpha: float, delta: float, images: int, fallback: float
) -> tuple[int, Ladder]:
    """Which ladder will lead to the cheapest rule on the average calibration, and where it begins.

    A ladder of which rungs may be left out begins where that is best: its safe end may be riskier
    than what follows, where it is not the reference.

    Args:
        ladders: to choose among; at least one.
        alpha: the target.
        delta: 1 - confidence.
        images: of the calibration split.
        fallback: cost where nothing is certified.

    Returns:
        The place of the chosen one, and it, with its `first` rung.
    """
    best, found = math.inf, (0, ladders[0])
    for place, ladder in enumerate(ladders):
        if not len(ladder.cost):
            continue
        chance = chances(ladder, alpha=alpha, delta=delta, images=images)
        cost = np.minimum(ladder.cost, fallback)
        for first in range(len(cost)) if ladder.free else (0,):
            reach = np.minimum.accumulate(chance[first:])
            ends = np.append(reach[:-1] - reach[1:], reach[-1])
            mean = float(fallback * (1 - reach[0]) + ends @ cost[first:])
            if mean < best - 1e-12:
                best, found = mean, (place, replace(ladder, first=first))
    return found


def chances(ladder: Ladder, *, alpha: float, delta: float, images: int) -> Array:
    """(L,) about how probably each rung is certified, from its losses on the tune split.

    By the normal law for both parts: what the tune split tells is itself a draw.
    """
    known = [losses for losses in ladder.expected if losses is not None]
    stand = np.array([risk.standing(losses, alpha) for losses in known])
    z, tune = -stand[:, 0] / np.sqrt(stand[:, 1]), known[0].images
    noise = math.sqrt(1 + images / tune)
    found: Array = ndtr((z * math.sqrt(images) - float(ndtri(1 - delta))) / noise)
    return found


def climbed(
    scores_of: Callable[[int], Floats],
    ladder: Ladder,
    part: Counted,
    *,
    alpha: float,
    delta: float,
    bound: str,
) -> int:
    """How many rungs from the ladder's first one on are certified, one after the other.

    Args:
        scores_of: from a rung to the scores (N,) of its answers on the part.
        ladder: what is climbed.
        part: the calibration split.
        alpha: the target.
        delta: 1 - confidence.
        bound: a name in `risk.BOUNDS`.
    """
    certified = 0
    for start in range(ladder.first, len(ladder.expected), AT_ONCE):
        rungs = range(start, min(start + AT_ONCE, len(ladder.expected)))
        losses = [part.losses(scores_of(rung), gains=ladder.gains) for rung in rungs]
        plans = [risk.Plan(delta=delta, expected=ladder.expected[rung]) for rung in rungs]
        p = risk.p_values(bound, losses, [alpha] * len(losses), plans)
        passed = risk.fixed_sequence(p.tolist(), delta=delta)
        certified += passed
        if passed < len(losses):
            break
    return certified

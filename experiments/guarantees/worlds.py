"""Questions about images, and a ladder of policies whose true losses are known.

Notation for shapes: T simulated calibrations, G images, m questions an image, L rungs.

There are two options, of 1 and 576 tokens. The router orders questions by how safely they go to
the cheap one; the policy of rung j sends the share q_j of all questions there that is safest. A
question at place t of that order (uniform in [0, 1]) is lost by it with probability `harm` t^power,
and gained, where the expensive option is wrong and the cheap one right, with probability `HELP`. So
the regret of a policy is `harm` q^(power + 1) / (power + 1), and its net loss smaller by `HELP` q.

In the steep world nearly all losses are of the last questions, and tokens fall by the same factor
from rung to rung, as they do where options are far apart: there a rung that is not certified costs
many times what the next one does.

Questions about one image are at similar places and are lost together: a normal of the image has the
share `together` in both, which changes no single question's probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

CHEAP, EXPENSIVE = 1.0, 576.0
HELP = 0.02
RUNGS = 24


Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class World:
    """How losses depend on a question's place; see the module.

    Attributes:
        harm: of the last question.
        power: how steeply it gets there.
        steep: whether tokens fall by a factor from share to share, instead of evenly.
    """

    harm: float
    power: float
    steep: bool

    def risk(self, shares: Array, *, net: bool) -> Array:
        """Regret, or net loss, of policies that send these shares to the cheap option."""
        regret = self.harm * shares ** (self.power + 1) / (self.power + 1)
        return regret - (HELP * shares if net else 0.0)

    def cost(self, shares: Array) -> Array:
        """Mean tokens of such policies."""
        if self.steep:
            return np.asarray(EXPENSIVE * (CHEAP / EXPENSIVE) ** shares)
        return EXPENSIVE - (EXPENSIVE - CHEAP) * shares


EVEN = World(harm=0.6, power=2.0, steep=False)
STEEP = World(harm=0.9, power=8.0, steep=True)


@dataclass(frozen=True)
class Ladder:
    """Policies, from safe to cheap.

    Attributes:
        shares: (L,) share of questions that go to the cheap option.
        risk: (L,) true regret, or net loss.
        cost: (L,) true mean tokens.
    """

    shares: Array
    risk: Array
    cost: Array


def ladder(world: World, target: float, *, net: bool) -> Ladder:
    """Rungs around a target; one has a true loss that is just above it."""
    shares = np.linspace(0.0, 1.0, 4001)
    above = shares[world.risk(shares, net=net) > 1.01 * target][0]
    even = np.linspace(0.05, 1.0, RUNGS - 1)
    listed = np.unique(np.append(even[np.abs(even - above) > 0.005], above))
    return Ladder(shares=listed, risk=world.risk(listed, net=net), cost=world.cost(listed))


@dataclass(frozen=True)
class Draw:
    """What happened to questions: (T, G, m) each.

    Attributes:
        rung: the first rung that sends it to the cheap option; L where none does.
        lost: whether the cheap option loses it.
        gained: whether the cheap option gains it.
    """

    rung: np.ndarray
    lost: np.ndarray
    gained: np.ndarray

    def sums(self, rungs: int, *, gains: float, questions: int | None = None) -> Array:
        """Losses of an image at each rung (T, G, L), of its first questions, all by default."""
        kept = slice(0, questions)
        rung, lost, gained = (one[..., kept] for one in (self.rung, self.lost, self.gained))
        times, images = rung.shape[:2]
        flat = np.arange(times * images).reshape(times, images, 1) * (rungs + 1) + rung
        value = np.where(lost, 1.0, np.where(gained, -gains, 0.0))
        counted = np.bincount(
            flat.ravel(), weights=value.ravel(), minlength=times * images * (rungs + 1)
        )
        found = counted.reshape(times, images, rungs + 1)[..., :rungs]
        return np.asarray(np.cumsum(found, axis=-1))


def draw(
    generator: np.random.Generator,
    world: World,
    listed: Ladder,
    *,
    times: int,
    images: int,
    questions: int,
    together: float,
) -> Draw:
    """Draw images."""

    def place() -> Array:
        shared = generator.standard_normal((times, images, 1))
        own = generator.standard_normal((times, images, questions))
        return np.asarray(ndtr(np.sqrt(together) * shared + np.sqrt(1 - together) * own))

    order, luck = place(), place()
    harm = world.harm * order**world.power
    return Draw(
        rung=np.searchsorted(listed.shares, order),
        lost=luck < harm,
        gained=luck > 1 - HELP,
    )

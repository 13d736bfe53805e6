"""Bounds on the risk of a rule, from labelled questions that share images.

Notation for shapes: N questions about G images of R kinds.

The unit is the image: questions about one image are not independent, images are. The risk
is that of a question, E[S] / E[m] for an image with m questions whose losses sum to S. With M
the most questions that an image counts with (`thinning` sees to it), X = (S + alpha (M -
m)) / M lies in [0, 1], and E[X] <= alpha exactly when the risk is at most alpha; so bounds on the
mean of independent values in [0, 1] hold for it, whatever the dependence inside of images.

Losses lie in [low, 1]: low is 0 for regret, and -1 for a net loss, which gains make up for; between
the two, gains make up for a part. Where a bound needs values from 0 on, losses are taken for
(l - low) / (1 - low).

Every p-value here is for the hypothesis "the risk is above alpha" (Angelopoulos et al., Learn
then Test, 2021, arXiv:2110.01052): where it is at most delta, the risk is at most alpha with
confidence 1 - delta. The hypothesis "the risk is below alpha" is the same for `flipped` losses and
`Losses.mirrored` alpha.

Some bounds bet on images one after the other ("deadline", "wsr"). Their p-values depend on the
order of the images, which must not depend on losses; `by_image` orders them by hashed names.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr, gammaincc, ndtr, ndtri, pdtrik

from m3router.data.errors import DataError
from m3router.data.registry import unknown_name
from m3router.router.estimators.base import Floats
from m3router.router.policies.betting import Shape, agrapa, deadline
from m3router.router.policies.thinning import thin

Array = npt.NDArray[np.float64]
MOST_IMAGES = 10**9
"""Where the search for a sufficient number of images ends."""
MOST_SIMULATED = 10**6
"""Where it ends for a bound that must go through them."""
MOST_TRIED, DRAWS = 10_000, 200
"""Up to how many images bets with a deadline are tried out, and on how many samples of them."""
PRIOR = 0.25
"""Weight, in images, of the loss that is always thought possible; see `shape_of`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Losses:
    """Losses of questions, summed by image.

    Attributes:
        sums: (R,) summed losses S of an image, each in [low * m, m].
        sizes: (R,) number of questions m of that image.
        counts: (R,) how many images are like that; where all are 1, rows are in the order in
            which they are bet on.
        most: M, the most questions that any image counts with; it must be known before losses are
            looked at.
        low: least loss of a question, from -1 to 0; the largest is 1.
    """

    sums: Array
    sizes: Array
    counts: Array
    most: int
    low: float = 0.0

    @property
    def images(self) -> int:
        """Number of images G."""
        return round(float(self.counts.sum()))

    @property
    def questions(self) -> int:
        """Number of questions N."""
        return round(float(self.counts @ self.sizes))

    @property
    def risk(self) -> float:
        """Mean loss of a question, in [low, 1]."""
        return float((self.counts @ self.sums) / (self.counts @ self.sizes))

    def flipped(self) -> Losses:
        """The losses 1 + low - l in place of l."""
        return replace(self, sums=(1 + self.low) * self.sizes - self.sums)

    def mirrored(self, alpha: float) -> float:
        """What alpha is for `flipped` losses."""
        return 1 + self.low - alpha

    def without(self) -> Losses:
        """The same images without any loss."""
        return replace(self, sums=np.zeros_like(self.sums))

    def excess(self, alpha: float) -> Array:
        """(R,) how far each image is above alpha, 1 at most: (S - alpha m) / (M (1 - alpha))."""
        return np.asarray((self.sums - alpha * self.sizes) / (self.most * (1 - alpha)))


def by_image(
    losses: Floats,
    groups: Sequence[str] | npt.NDArray,
    *,
    most: int | None = None,
    low: float = 0.0,
) -> Losses:
    """Sum losses (N,) in [low, 1] by image.

    Args:
        losses: of each question.
        groups: image of each question, (N,).
        most: M of `Losses`; None takes the most questions of an image found here.
        low: least loss of a question.

    Raises:
        DataError: for no losses, losses outside of [low, 1], or more than `most` questions.
    """
    values = np.asarray(losses, dtype=np.float64)
    if values.ndim != 1 or not len(values) or len(values) != len(groups):
        raise DataError(
            f"A bound needs the losses (N,) and images (N,) of at least one question; it got "
            f"{values.shape} losses and {len(groups)} images."
        )
    if not np.all((values >= low) & (values <= 1)):
        raise DataError(
            f"A bound holds for losses in [{low:g}, 1]; some are outside, or not numbers."
        )
    counted = thin(np.arange(len(values)), groups, most=len(values))
    largest = int(counted.sizes.max())
    if most is not None and largest > most:
        raise DataError(
            f"An image has {largest} questions, but the bound was to hold for at most {most} "
            "questions about an image. Give the most that any image has."
        )
    return of_sums(
        counted.sums(values), counted.sizes, most=largest if most is None else most, low=low
    )


def of_sums(sums: Array, sizes: Array, *, most: int, low: float = 0.0) -> Losses:
    """Losses from sums (G,) and sizes (G,) of images in the order in which they are bet on."""
    within = np.clip(sums, low * sizes, sizes)  # sums are rounded
    return Losses(sums=within, sizes=sizes, counts=np.ones(len(sizes)), most=most, low=low)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a bound may know before it sees losses.

    Attributes:
        delta: 1 - confidence: where p-values above it are not told apart.
        expected: losses of the same rule on other images, such as the tune split's; None where
            there are none. They shape bets and never decide whether a p-value is valid.
    """

    delta: float = 0.05
    expected: Losses | None = None


UNTOLD = Plan()


class Bound(Protocol):
    """From losses to a p-value for "the risk is above alpha"."""

    def __call__(self, losses: Losses, alpha: float, plan: Plan = ..., /) -> float:
        """The p-value."""
        ...


def binomial_p_value(losses: Losses, alpha: float, plan: Plan = UNTOLD) -> float:
    """P(Bin(n, alpha) <= number of losses): exact for losses of 0 or 1, one question an image.

    Raises:
        DataError: when images have several questions, or losses are neither 0 nor 1.
    """
    if losses.most > 1 or not np.all((losses.sums == 0) | (losses.sums == 1)):
        raise DataError(
            "The binomial bound needs one question for each image, right or wrong. Let images "
            "count with one question (most = 1), or use the bound 'deadline' or 'betting' for "
            "several questions, partial scores or net losses."
        )
    n = losses.images
    return float(bdtr(math.ceil(n * losses.risk - 1e-9), n, alpha))


def bentkus_p_value(losses: Losses, alpha: float, plan: Plan = UNTOLD) -> float:
    """The Hoeffding-Bentkus p-value (Bates et al. 2021, arXiv:2101.02703, theorem 4)."""
    n, level = losses.images, _unit_level(losses, alpha)
    if not 0 < level < 1:
        return 1.0
    mean = level + (1 - level) * float(losses.counts @ losses.excess(alpha)) / n
    mean = min(max(mean, 0.0), 1.0)
    hoeffding = math.exp(-n * _relative_entropy(min(mean, level), level))
    bentkus = math.e * float(bdtr(math.ceil(n * mean - 1e-9), n, level))
    return min(1.0, hoeffding, bentkus)


def betting_p_value(losses: Losses, alpha: float, plan: Plan = UNTOLD) -> float:
    """One over the wealth of a gambler who bets on every image that the risk is below alpha.

    Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting, 2020,
    arXiv:2010.09686: the wealth prod_g (1 - b e_g) of a fixed bet b in [0, 1] on the excess e of
    `Losses.excess` is a nonnegative supermartingale when the risk is above alpha, and so is a
    mixture over bets (their section 5.3, "grid Kelly"). By Ville's inequality it ever reaches 1 /
    delta with probability at most delta: looking again and again at a growing sample is allowed.
    """
    wealth = np.asarray(losses.counts @ np.log1p(-np.outer(losses.excess(alpha), _BETS)))
    most = float(wealth.max())  # taken out, so that nothing overflows
    return math.exp(min(0.0, -most - math.log(_WEIGHTS @ np.exp(wealth - most))))


def deadline_p_value(losses: Losses, alpha: float, plan: Plan = UNTOLD) -> float:
    """Bets that aim at 1 / delta by the last image, made by `policies.betting.deadline`.

    The p-value is delta where they arrive, and above it where they do not: it belongs to the plan's
    delta and to one look at a sample of a size that was fixed before.

    Raises:
        DataError: when the images are in no order.
    """
    return float(p_values("deadline", [losses], [alpha], [plan])[0])


def wsr_p_value(losses: Losses, alpha: float, plan: Plan = UNTOLD) -> float:
    """Bets that follow mean and variance of the images so far; see `betting.agrapa`.

    Raises:
        DataError: when the images are in no order.
    """
    return float(p_values("wsr", [losses], [alpha], [plan])[0])


BOUNDS: dict[str, Bound] = {
    "binomial": binomial_p_value,
    "bentkus": bentkus_p_value,
    "betting": betting_p_value,
    "deadline": deadline_p_value,
    "wsr": wsr_p_value,
}
ORDERED = ("deadline", "wsr")
"""Bounds that bet on images in their order."""


def bound_named(name: str) -> Bound:
    """The p-value of a name in `BOUNDS`.

    Raises:
        DataError: when there is none.
    """
    if name not in BOUNDS:
        raise DataError(unknown_name("bound", name, BOUNDS))
    return BOUNDS[name]


def p_values(
    bound: str, losses: Sequence[Losses], alphas: Sequence[float], plans: Sequence[Plan]
) -> Array:
    """P-values (L,) of several rules on the same images, or of one at several alphas, together.

    Args:
        bound: a name in `BOUNDS`.
        losses: of each.
        alphas: for each.
        plans: for each, of one delta.

    Raises:
        DataError: for an unknown bound, losses that it does not hold for, or images in no order
            where it needs one.
    """
    each = list(zip(losses, alphas, plans, strict=True))
    if bound not in ORDERED or not each:
        p_value = bound_named(bound)
        return np.array([p_value(one, alpha, plan) for one, alpha, plan in each])
    if not all(np.all(one.counts == 1) for one in losses):
        raise DataError(
            f"The bound {bound!r} bets on images one after the other, but these losses are "
            "counted by kind, without an order. Sum them by `by_image`."
        )
    excess = np.stack([one.excess(alpha) for one, alpha, _ in each], axis=1)
    if bound == "wsr":
        levels = np.array([_unit_level(one, alpha) for one, alpha, _ in each])
        inside = (levels > 0) & (levels < 1)
        wealth = np.ones(len(each))
        wealth[inside] = agrapa(excess[:, inside], levels[inside])
        return np.minimum(1.0, 1 / wealth)
    delta = plans[0].delta
    shapes = [shape_of(one, alpha, plan.expected) for one, alpha, plan in each]
    shape = Shape(*np.array(shapes).T)
    wealth = deadline(excess, shape, delta=delta)
    return np.minimum(1.0, delta / np.maximum(wealth, delta))


def default_bound(scores: Floats, most: int, *, low: float = 0.0) -> str:
    """The bound with the most power as a rule, by the data's form alone, before losses are seen.

    With one question for each image, right or wrong, the binomial is exact. Else bets with a
    deadline come closest to what an exact test would do (measured in docs/guarantees.md).

    Args:
        scores: (N, K) of all options; scores of 0 and 1 alone give losses of 0 and 1.
        most: M of `Losses`.
        low: of `Losses`; net losses are not 0 or 1 alone.
    """
    binary = np.all((np.asarray(scores) == 0) | (np.asarray(scores) == 1))
    return "binomial" if most == 1 and low == 0 and binary else "deadline"


def fixed_sequence(p_values: Iterable[float], *, delta: float) -> int:
    """How many leading hypotheses are rejected: those before the first p-value above delta.

    The order must be fixed before losses are seen; then the probability of any false rejection
    is at most delta (Learn then Test, section 3.2.2). Later p-values are not computed.
    """
    return sum(1 for _ in takewhile(lambda p: p <= delta, p_values))


def upper_limit(
    losses: Losses,
    *,
    delta: float,
    bound: str,
    expected: Losses | None = None,
    start: float | None = None,
) -> float:
    """Least alpha that the bound certifies: the risk is at most this with confidence 1 - delta.

    For a rule that was fixed before these losses were seen.

    Args:
        losses: of the rule.
        delta: 1 - confidence.
        bound: a name in `BOUNDS`.
        expected: see `Plan`.
        start: an alpha that was fixed beforehand and is certified, to go down from; None for 1. It
            keeps the limit below it for bounds whose p-values are not quite monotone in alpha.
    """
    plan = Plan(delta=delta, expected=expected)
    if bound in ORDERED:
        return _scanned_limit(losses, plan, bound, start)
    p_value = bound_named(bound)
    low, high = losses.risk, 1.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (low, middle) if p_value(losses, middle, plan) <= delta else (middle, high)
    return high


def _scanned_limit(losses: Losses, plan: Plan, bound: str, start: float | None) -> float:
    """The end of the run of certified alphas that goes down from `start`, or from 1."""
    floor = losses.risk
    if start is None:
        alphas = floor + (1 - 1e-9 - floor) * np.geomspace(1.0, 1e-5, 160)
    else:
        alphas = floor + (start - floor) * np.geomspace(1.0, 1e-2, 40)[1:]
    p = p_values(bound, [losses] * len(alphas), alphas.tolist(), [plan] * len(alphas))
    certified = fixed_sequence(p.tolist(), delta=plan.delta)
    if not certified:
        return 1.0 if start is None else start
    return float(alphas[certified - 1])


def lower_limit(losses: Losses, *, delta: float, bound: str) -> float:
    """The risk is at least this with confidence 1 - delta; see `upper_limit`."""
    return losses.mirrored(upper_limit(losses.flipped(), delta=delta, bound=bound))


def images_needed(
    losses: Losses,
    alpha: float,
    *,
    delta: float,
    bound: str,
    power: float = 0.8,
    expected: Losses | None = None,
) -> int | None:
    """About how many images like these certify alpha, with probability `power`.

    Takes the observed distribution of images for the true one and the normal law for the mean
    loss of the next sample (for the bound "deadline", the Poisson law). None where no number helps:
    the observed risk is not below alpha.
    """
    plan = Plan(delta=delta, expected=expected)
    if not losses.risk < alpha:
        return None

    def enough(images: int) -> bool:
        if bound == "deadline":
            return _reaches(losses, alpha, plan, images) >= power
        made = _enlarged(losses, images, power)
        if bound in ORDERED:
            made = _in_turn(made, images)
        return bound_named(bound)(made, alpha, plan) <= delta

    low, high = 0, 1
    while not enough(high):
        low, high = high, 2 * high
        if high > MOST_IMAGES or (bound == "wsr" and high > MOST_SIMULATED):
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    if bound == "deadline" and losses.risk != 0:  # where stakes are high, the law says too little
        while high <= MOST_TRIED and _arrivals(losses, alpha, plan, high) < power:
            high = math.ceil(1.15 * high)
    return high


def _reaches(losses: Losses, alpha: float, plan: Plan, count: int) -> float:
    """About how probably bets with a deadline reach their goal on so many images like these."""
    spread, jump, _ = shape_of(losses, alpha, plan.expected or losses)
    images = float(losses.counts.sum())
    drift = float(losses.counts @ losses.excess(alpha)) / images
    if losses.low < 0:
        certain = float(ndtri(1 - plan.delta))
        return float(ndtr(-drift * math.sqrt(count / spread) - certain))
    growth = float(losses.counts @ np.log1p(-_lossless(losses, alpha))) / images
    if count * growth < -math.log(plan.delta) - 1e-9:
        return 0.0  # not even without any loss
    if losses.risk == 0:
        return 1.0
    rate = spread / jump**2
    null, true = count * rate, count * max(0.0, rate + drift / jump)
    if plan.delta <= math.exp(-null):
        return math.exp(-true)
    return float(gammaincc(pdtrik(plan.delta, null) + 1, true)) if true > 0 else 1.0


def _arrivals(losses: Losses, alpha: float, plan: Plan, images: int) -> float:
    """How often bets with a deadline reach their goal on so many images drawn like these."""
    generator, shares = np.random.default_rng(0), losses.counts / losses.counts.sum()
    drawn = generator.choice(len(shares), size=(images, DRAWS), p=shares)
    shape = Shape(*np.tile(shape_of(losses, alpha, plan.expected or losses), (DRAWS, 1)).T)
    wealth = deadline(losses.excess(alpha)[drawn], shape, delta=plan.delta)
    return float((wealth >= 1).mean())


def _enlarged(losses: Losses, images: int, power: float) -> Losses:
    """So many images like these, with the risk that is exceeded with chance 1 - `power`.

    The risk is raised by more images with losses among them, not by larger losses.
    """
    risk, shares = losses.risk, losses.counts / losses.counts.sum()
    lost = losses.sums > 0
    if lost.any() and not lost.all():
        excess = losses.sums - risk * losses.sizes
        spread = math.sqrt(float(shares @ excess**2)) / float(shares @ losses.sizes)
        worse = min(1.0, risk + float(ndtri(power)) * spread / math.sqrt(images))
        wrong = shares[lost] @ (losses.sums - worse * losses.sizes)[lost]
        right = shares[~lost] @ (worse * losses.sizes - losses.sums)[~lost]
        if wrong > 0 and right > 0:  # so that factor * wrong = right, which is a risk of `worse`
            shares = np.where(lost, shares * right / wrong, shares)
    return replace(losses, counts=images * shares / shares.sum())


def _in_turn(losses: Losses, images: int) -> Losses:
    """So many single images, kinds spread evenly as their counts tell."""
    turns = (np.arange(images) + 0.5) * (math.sqrt(5) - 1) / 2 % 1
    kind = np.searchsorted(np.cumsum(losses.counts), turns * losses.counts.sum())
    kind = np.minimum(kind, len(losses.counts) - 1)
    return replace(losses, sums=losses.sums[kind], sizes=losses.sizes[kind], counts=np.ones(images))


def standing(losses: Losses, alpha: float) -> tuple[float, float]:
    """Mean of the images' excess over alpha, and its spread were the risk alpha; see `shape_of`.

    With the quarter of an image that `shape_of` adds, so that the spread is above 0.
    """
    half = math.ceil(losses.most / 2)
    added = PRIOR * (half - alpha * losses.most) / (losses.most * (1 - alpha))
    total = float(losses.counts @ losses.excess(alpha)) + added
    return total / (float(losses.counts.sum()) + PRIOR), shape_of(losses, alpha, losses)[0]


def shape_of(losses: Losses, alpha: float, expected: Losses | None) -> tuple[float, float, float]:
    """Spread, jump and growth for `Shape`, from losses that are expected, or from their form alone.

    What is expected is brought to a risk of alpha first: by a factor of more images with losses,
    and of fewer with gains. Then an image is a sum of Poisson events of one size: the size that
    an event has for what moves, and as many as give the second moment that was found. A quarter of
    an image that loses half of its questions is added, so that no losses do not pass for losses
    that cannot be.
    """
    most = losses.most
    half = math.ceil(most / 2)
    sums, sizes, counts = np.array([half]), np.array([most]), np.array([PRIOR])
    growth = -math.log1p(-alpha)
    if expected is not None:
        lossless = np.log1p(-_lossless(expected, alpha))
        growth = float(expected.counts @ lossless) / float(expected.counts.sum())
        sums = np.append(expected.sums, half)
        sizes, counts = np.append(expected.sizes, most), np.append(expected.counts, PRIOR)
    moved = sums / (most * (1 - alpha))
    lost, gained = float(counts @ np.maximum(moved, 0)), float(counts @ np.maximum(-moved, 0))
    wanted = alpha * float(counts @ sizes) / (most * (1 - alpha))
    # factor * lost - gained / factor = wanted
    factor = (wanted + math.sqrt(wanted**2 + 4 * lost * gained)) / (2 * lost)
    if not factor > 0:
        factor = 1.0
    weights = counts * np.where(moved > 0, factor, 1 / factor) / counts.sum()
    spread, size = float(weights @ moved**2), float(weights @ np.abs(moved))
    return spread, min(1.0, spread / size), growth


def _lossless(losses: Losses, alpha: float) -> Array:
    """(R,) the excess of images of these sizes without any loss."""
    return losses.without().excess(alpha)


def _unit_level(losses: Losses, alpha: float) -> float:
    """Alpha where losses are taken from 0 to 1."""
    return (alpha - losses.low) / (1 - losses.low)


def _relative_entropy(a: float, b: float) -> float:
    """Of Bernoulli(a) against Bernoulli(b)."""
    left = a * math.log(a / b) if a > 0 else 0.0
    right = (1 - a) * math.log((1 - a) / (1 - b)) if a < 1 else 0.0
    return left + right


# Shares of the money: on the boldest bet, which is best where losses rarely fall on one image
# together; on bets of all sizes; and on bets of all magnitudes, for risks close to alpha.
_EVEN = (np.arange(16) + 0.5) / 16
_TINY = np.geomspace(1e-4, 1.0, 25)[:-1]
_BETS = np.concatenate([[1 - 1e-6], _EVEN, _TINY])
_WEIGHTS = np.concatenate([[0.6], np.full(16, 0.3 / 16), np.full(24, 0.1 / 24)])

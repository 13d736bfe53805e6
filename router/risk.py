"""Bounds on the risk of a rule, from labelled questions that share pictures.

Notation for shapes: N questions about G pictures of R kinds.

The unit is the picture: questions about one picture are not independent, pictures are. The risk
is that of a question, E[S] / E[m] for a picture with m questions whose losses sum to S. With M
the most questions that any picture has, X = (S + alpha (M - m)) / M lies in [0, 1], and E[X] <=
alpha exactly when the risk is at most alpha; so bounds on the mean of independent values in
[0, 1] hold for it, whatever the dependence inside of pictures.

Every p-value here is for the hypothesis "the risk is above alpha" (Angelopoulos et al., Learn
then Test, 2021, arXiv:2110.01052): where it is at most delta, the risk is at most alpha with
confidence 1 - delta. The hypothesis "the risk is below alpha" is the same for `flipped` losses
and 1 - alpha.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr, ndtri

from data.errors import DataError
from data.registry import unknown_name
from router.estimators.base import Floats

Array = npt.NDArray[np.float64]
MOST_PICTURES = 10**9
"""Where the search for a sufficient number of pictures ends."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Losses:
    """Losses of questions, summed by picture; pictures with equal sums and sizes are one row.

    Attributes:
        sums: (R,) summed losses S of a picture, each in [0, its number of questions].
        sizes: (R,) number of questions m of that picture.
        counts: (R,) how many pictures are like that.
        most: M, the most questions that any picture has, here or elsewhere; it must be known
            before losses are looked at.
    """

    sums: Array
    sizes: Array
    counts: Array
    most: int

    @property
    def pictures(self) -> int:
        """Number of pictures G."""
        return round(float(self.counts.sum()))

    @property
    def questions(self) -> int:
        """Number of questions N."""
        return round(float(self.counts @ self.sizes))

    @property
    def risk(self) -> float:
        """Mean loss of a question, in [0, 1]."""
        return float((self.counts @ self.sums) / (self.counts @ self.sizes))

    def flipped(self) -> Losses:
        """The losses 1 - l in place of l."""
        return replace(self, sums=self.sizes - self.sums)

    def without(self) -> Losses:
        """The same pictures without any loss."""
        return replace(self, sums=np.zeros_like(self.sums))


def by_picture(
    losses: Floats, groups: Sequence[str] | npt.NDArray, *, most: int | None = None
) -> Losses:
    """Sum losses (N,) in [0, 1] by picture.

    Args:
        losses: of each question.
        groups: picture of each question, (N,).
        most: M of `Losses`; None takes the most questions of a picture found here.

    Raises:
        DataError: for no losses, losses outside of [0, 1], or more than `most` questions.
    """
    values = np.asarray(losses, dtype=np.float64)
    if values.ndim != 1 or not len(values) or len(values) != len(groups):
        raise DataError(
            f"A bound needs the losses (N,) and pictures (N,) of at least one question; it got "
            f"{values.shape} losses and {len(groups)} pictures."
        )
    if not np.all((values >= 0) & (values <= 1)):
        raise DataError("A bound holds for losses in [0, 1]; some are outside, or not numbers.")
    _, member, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    largest = int(sizes.max())
    if most is not None and largest > most:
        raise DataError(
            f"A picture has {largest} questions, but the bound was to hold for at most {most} "
            "questions about a picture. Give the most that any picture has."
        )
    sums = np.minimum(np.bincount(member.reshape(-1), weights=values), sizes)
    kinds, counts = np.unique(sums + 1j * sizes, return_counts=True)
    return Losses(
        sums=kinds.real.copy(),
        sizes=kinds.imag.copy(),
        counts=counts.astype(np.float64),
        most=largest if most is None else most,
    )


def binomial_p_value(losses: Losses, alpha: float) -> float:
    """P(Bin(n, alpha) <= number of losses): exact for losses of 0 or 1, one question a picture.

    Raises:
        DataError: when pictures have several questions, or losses are between 0 and 1.
    """
    if losses.most > 1 or not np.all((losses.sums == 0) | (losses.sums == 1)):
        raise DataError(
            "The binomial bound needs one question for each picture, right or wrong. Use the "
            "bound 'betting' or 'bentkus' for several questions or for partial scores."
        )
    n = losses.pictures
    return float(bdtr(math.ceil(n * losses.risk - 1e-9), n, alpha))


def bentkus_p_value(losses: Losses, alpha: float) -> float:
    """The Hoeffding-Bentkus p-value (Bates et al. 2021, arXiv:2101.02703, theorem 4)."""
    n, mean = losses.pictures, _mean(losses, alpha)
    hoeffding = math.exp(-n * _relative_entropy(min(mean, alpha), alpha))
    bentkus = math.e * float(bdtr(math.ceil(n * mean - 1e-9), n, alpha))
    return min(1.0, hoeffding, bentkus)


def betting_p_value(losses: Losses, alpha: float) -> float:
    """One over the wealth of a gambler who bets on every picture that the risk is below alpha.

    Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting, 2020,
    arXiv:2010.09686: the wealth prod_g (1 - b (X_g - alpha)) of a fixed bet b in [0, 1 / (1 -
    alpha)] is a nonnegative supermartingale when the risk is above alpha, and so is a mixture
    over bets (their section 5.3, "grid Kelly"). By Ville's inequality it ever reaches 1 / delta
    with probability at most delta: looking again and again at a growing sample is allowed.

    NOTE: Their bets that follow the variance seen so far are not used: they are far too bold for
    rare losses, and depend on the order of the pictures. These do not.
    """
    wealth = _log_wealth(losses, alpha)
    most = float(wealth.max())  # taken out, so that nothing overflows
    return math.exp(min(0.0, -most - math.log(_WEIGHTS @ np.exp(wealth - most))))


BOUNDS: dict[str, Callable[[Losses, float], float]] = {
    "binomial": binomial_p_value,
    "bentkus": bentkus_p_value,
    "betting": betting_p_value,
}


def bound_named(name: str) -> Callable[[Losses, float], float]:
    """The p-value of a name in `BOUNDS`.

    Raises:
        DataError: when there is none.
    """
    if name not in BOUNDS:
        raise DataError(unknown_name("bound", name, BOUNDS))
    return BOUNDS[name]


def default_bound(scores: Floats, most: int) -> str:
    """The strongest bound that is valid: known from the data's form, before losses are seen.

    Args:
        scores: (N, K) of all options; scores of 0 and 1 alone give losses of 0 and 1.
        most: M of `Losses`.
    """
    binary = bool(np.all((np.asarray(scores) == 0) | (np.asarray(scores) == 1)))
    return "binomial" if binary and most == 1 else "betting"


def fixed_sequence(p_values: Iterable[float], *, delta: float) -> int:
    """How many leading hypotheses are rejected: those before the first p-value above delta.

    The order must be fixed before losses are seen; then the probability of any false rejection
    is at most delta (Learn then Test, section 3.2.2). Later p-values are not computed.
    """
    return sum(1 for _ in takewhile(lambda p: p <= delta, p_values))


def upper_limit(losses: Losses, *, delta: float, bound: str) -> float:
    """Least alpha that the bound certifies: the risk is at most this with confidence 1 - delta.

    For a rule that was fixed before these losses were seen.
    """
    p_value = bound_named(bound)
    low, high = losses.risk, 1.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (low, middle) if p_value(losses, middle) <= delta else (middle, high)
    return high


def lower_limit(losses: Losses, *, delta: float, bound: str) -> float:
    """The risk is at least this with confidence 1 - delta; see `upper_limit`."""
    return 1 - upper_limit(losses.flipped(), delta=delta, bound=bound)


def pictures_needed(
    losses: Losses, alpha: float, *, delta: float, bound: str, power: float = 0.8
) -> int | None:
    """About how many pictures like these certify alpha, with probability `power`.

    Takes the observed distribution of pictures for the true one and the normal law for the mean
    loss of the next sample. None where no number helps: the observed risk is not below alpha.
    """
    p_value = bound_named(bound)
    if not losses.risk < alpha:
        return None
    low, high = 0, 1
    while p_value(_enlarged(losses, high, power), alpha) > delta:
        low, high = high, 2 * high
        if high > MOST_PICTURES:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        enough = p_value(_enlarged(losses, middle, power), alpha) <= delta
        low, high = (low, middle) if enough else (middle, high)
    return high


def _enlarged(losses: Losses, pictures: int, power: float) -> Losses:
    """So many pictures like these, with the risk that is exceeded with chance 1 - `power`.

    The risk is raised by more pictures with losses among them, not by larger losses.
    """
    risk, shares = losses.risk, losses.counts / losses.counts.sum()
    lost = losses.sums > 0
    if risk > 0 and not lost.all():
        excess = losses.sums - risk * losses.sizes
        spread = math.sqrt(float(shares @ excess**2)) / float(shares @ losses.sizes)
        worse = min(1.0, risk + float(ndtri(power)) * spread / math.sqrt(pictures))
        wrong = shares[lost] @ (losses.sums - worse * losses.sizes)[lost]
        right = worse * float(shares[~lost] @ losses.sizes[~lost])
        if wrong > 0:  # so that factor * wrong = right, which is a risk of `worse`
            shares = np.where(lost, shares * right / wrong, shares)
    return replace(losses, counts=pictures * shares / shares.sum())


def _mean(losses: Losses, alpha: float) -> float:
    """Mean of X."""
    filled = losses.sums + alpha * (losses.most - losses.sizes)
    return float(losses.counts @ filled / losses.counts.sum()) / losses.most


def _log_wealth(losses: Losses, alpha: float) -> Array:
    """Logarithm of the wealth of each bet (bets,), whose bet is b = bet / (1 - alpha)."""
    excess = (losses.sums - alpha * losses.sizes) / (losses.most * (1 - alpha))
    return np.asarray(losses.counts @ np.log1p(-np.outer(excess, _BETS)))


def _relative_entropy(a: float, b: float) -> float:
    """Of Bernoulli(a) against Bernoulli(b)."""
    left = a * math.log(a / b) if a > 0 else 0.0
    right = (1 - a) * math.log((1 - a) / (1 - b)) if a < 1 else 0.0
    return left + right


# Shares of the money: on the boldest bet, which is best where losses rarely fall on one picture
# together; on bets of all sizes; and on bets of all magnitudes, for risks close to alpha.
_EVEN = (np.arange(16) + 0.5) / 16
_TINY = np.geomspace(1e-4, 1.0, 25)[:-1]
_BETS = np.concatenate([[1 - 1e-6], _EVEN, _TINY])
_WEIGHTS = np.concatenate([[0.6], np.full(16, 0.3 / 16), np.full(24, 0.1 / 24)])

"""The rule of a policy at every price at once: exact breakpoints instead of a grid.

Notation for shapes: N examples, K options, M distinct outcomes.

The rule is argmax_k worth_k(x) - w * cost_k(x), ties to the cheaper option; the worth of an option
is its probability p_k(x), or what `worths` says. For one example the winner as a function of the
price w is the upper envelope of K lines, so it changes at most K - 1 times, each time to a
cheaper option. Mean cost is therefore a non-increasing step function of w with at most N (K - 1)
steps, all of which are enumerated here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from m3router.data.errors import DataError
from m3router.router.estimators.base import Floats
from m3router.router.text.numbers import plain

Choice = npt.NDArray[np.intp]
Kind = Literal["price", "regret", "fixed"]
LAST = -1
"""The reference where none is named: the last option in rank."""


@dataclass(frozen=True)
class Sweep:
    """Every distinct outcome of the rule on some data, from price 0 upwards.

    Attributes:
        prices: (M,) one price inside each interval in which no choice changes, ascending.
        cost: (M,) mean cost there, non-increasing up to rounding.
        accuracy: (M,) mean score there, NaN when no scores were given.
    """

    prices: npt.NDArray[np.float64]
    cost: npt.NDArray[np.float64]
    accuracy: npt.NDArray[np.float64]


def allowed(costs: Floats, cap: float | None) -> npt.NDArray[np.bool_]:
    """Which options (N, K) cost at most `cap`; all when None.

    Raises:
        DataError: when an example has no such option.
    """
    inside: npt.NDArray[np.bool_] = costs <= (np.inf if cap is None else cap)
    rows = np.flatnonzero(~inside.any(axis=1))
    if len(rows):
        raise beyond_cap(cap, costs[rows[0]].min(), f"row {rows[0]}")
    return inside


def beyond_cap(cap: float | None, least: float, where: str = "this example") -> DataError:
    """What to say where even the cheapest option, of cost `least`, exceeds the cap."""
    return DataError(
        f"The cap of {plain(cap or 0)} is below the cheapest option of {where}, which costs "
        f"{plain(least)}. Raise the cap, or leave such examples out."
    )


def reference_allowed(
    inside: npt.NDArray[np.bool_], costs: Floats, reference: int = LAST
) -> Choice:
    """What stands for the reference option where a cap may forbid it: option indices (N,).

    The reference itself where it is allowed; else the last allowed option before it in rank; else
    the cheapest allowed.

    Args:
        inside: which options (N, K) are allowed, at least one for each example.
        costs: (N, K).
        reference: its index; -1 for the last option.
    """
    k = inside.shape[1]
    upto = inside[:, : reference % k + 1]
    last: Choice = upto.shape[1] - 1 - np.argmax(upto[:, ::-1], axis=1)
    if upto.any(axis=1).all():
        return last
    cheapest = np.argmin(np.where(inside, costs, np.inf), axis=1)
    return np.where(upto.any(axis=1), last, cheapest)


def worths(
    p: Floats,
    costs: Floats,
    *,
    regret: bool = False,
    cap: float | None = None,
    reference: int = LAST,
) -> npt.NDArray[np.float64]:
    """What the options are worth before their price: (N, K), -inf where the cap forbids them.

    Args:
        p: probabilities (N, K).
        costs: (N, K).
        regret: False for p itself; True for 1 - P(right at the reference r and wrong at k), which
            is 1 at r itself. The probabilities are only of single options, so being right is taken
            for independent between options: P = p_r (1 - p_k). No option is worth more than r, so
            that none which costs more is ever chosen.
        cap: most cost of an option.
        reference: index of the reference option, -1 for the last; see `reference_allowed` for what
            stands for it where the cap forbids it.

    Raises:
        DataError: when an example has no option within the cap.
    """
    inside = allowed(costs, cap)
    worth = np.array(p, dtype=np.float64)
    if regret:
        against = reference_allowed(inside, costs, reference)[:, None]
        worth = 1 - np.take_along_axis(worth, against, axis=1) * (1 - worth)
        np.put_along_axis(worth, against, 1.0, axis=1)
    worth[~inside] = -np.inf
    return worth


def choose_at(worth: Floats, costs: Floats, price: float) -> Choice:
    """The rule at one price per unit of cost: option indices (N,) from (N, K) inputs."""
    value = worth - price * costs
    tied = value == value.max(axis=1, keepdims=True)
    choice: Choice = np.argmin(np.where(tied, costs, np.inf), axis=1)
    return choice


def decide_at(
    p: Sequence[float],
    costs: Sequence[float],
    price: float,
    *,
    kind: Kind,
    cap: float | None,
    reference: int = LAST,
) -> int:
    """The rule for one example, with K probabilities and costs; as `choose_at` on one row.

    Plain floats: at a handful of options this is several times faster than NumPy.

    Raises:
        DataError: for a probability outside [0, 1], a cost that is negative or not finite, or a
            cap below the cheapest option.
    """
    last = -1
    for k, (chance, cost) in enumerate(zip(p, costs, strict=True)):
        if not (0 <= chance <= 1 and 0 <= cost < math.inf):
            raise DataError(
                "Probabilities must lie in [0, 1], and costs be finite and at least 0; option "
                f"{k} has {chance} and {cost}."
            )
        if cap is None or cost <= cap:
            last = k
    if last < 0:
        raise beyond_cap(cap, min(costs))
    against = -1 if kind == "price" else _stands_for(reference % len(costs), costs, cap)
    if kind == "fixed":
        return against
    best, best_value, best_cost = last, -math.inf, math.inf
    for k in range(last + 1):
        worth, cost = p[k], costs[k]
        if cap is not None and cost > cap:
            continue
        if kind == "regret":
            worth = 1.0 if k == against else 1 - p[against] * (1 - worth)
        value = worth - price * cost
        if value > best_value or (value == best_value and cost < best_cost):
            best, best_value, best_cost = k, value, cost
    return best


def _stands_for(reference: int, costs: Sequence[float], cap: float | None) -> int:
    """As `reference_allowed` on one row of which some option is within the cap."""
    for k in range(reference, -1, -1):
        if cap is None or costs[k] <= cap:
            return k
    return min(range(len(costs)), key=lambda k: costs[k])  # it is within the cap, as one is


def sweep(
    p: Floats,
    costs: Floats,
    *,
    scores: Floats | None = None,
    paid: Floats | None = None,
    regret: bool = False,
    cap: float | None = None,
    reference: int = LAST,
) -> Sweep:
    """All distinct mean costs (and accuracies) that the rule can reach, exactly.

    Args:
        p: probabilities (N, K) in [0, 1].
        costs: (N, K).
        scores: (N, K), to get the accuracy too.
        paid: (N, K) what the mean costs are of, where choices go by other costs; the means may
            then rise in places.
        regret: see `worths`.
        cap: see `worths`.
        reference: see `worths`.

    Raises:
        DataError: when the input is empty, misshapen or not finite, or for a cap below the
            cheapest option of an example.
    """
    p, costs = check_inputs(p, costs)
    p = worths(p, costs, regret=regret, cap=cap, reference=reference)
    rows = np.arange(len(p))
    gain = np.full_like(costs, np.nan) if scores is None else np.asarray(scores, np.float64)
    spent = costs if paid is None else np.asarray(paid, np.float64)
    current = choose_at(p, costs, 0.0)
    start = np.array([spent[rows, current].mean(), gain[rows, current].mean()])
    prices, steps = [np.zeros(0)], [np.zeros((0, 2))]
    for _ in range(p.shape[1] - 1):
        following = _next_choice(p, costs, current)
        moved = np.flatnonzero(following != current)
        before, after = (moved, current[moved]), (moved, following[moved])
        saved = costs[before] - costs[after]
        prices.append((p[before] - p[after]) / saved)
        steps.append(np.stack([spent[after] - spent[before], gain[after] - gain[before]], axis=1))
        current = following
    breaks, moves = np.concatenate(prices), np.concatenate(steps)
    if not len(breaks):
        return Sweep(np.zeros(1), start[:1], start[1:])
    order = np.argsort(breaks, kind="stable")
    breaks = breaks[order]
    last = np.append(breaks[1:] != breaks[:-1], True)  # of each run of equal breakpoints
    edges = breaks[last]
    beyond = 2 * edges[-1] + 1 / costs.max()
    inside = np.concatenate([[0.0], (edges[:-1] + edges[1:]) / 2, [beyond]])
    outcome = np.vstack([start, start + np.cumsum(moves[order], axis=0)[last] / len(p)])
    return Sweep(inside, outcome[:, 0], outcome[:, 1])


def check_inputs(p: Floats, costs: Floats) -> tuple[Floats, Floats]:
    """Validate probabilities and costs, both (N, K); returns them as float64.

    Raises:
        DataError: when they are empty, misshapen or not finite, probabilities are outside
            [0, 1] or costs negative.
    """
    p, costs = np.asarray(p, dtype=np.float64), np.asarray(costs, dtype=np.float64)
    if p.ndim != 2 or p.shape != costs.shape or 0 in p.shape:
        raise DataError(
            "A policy needs probabilities and costs of one shape (N, K), neither empty; it got "
            f"{p.shape} and {costs.shape}."
        )
    if not np.all((p >= 0) & (p <= 1)):
        row, k = np.argwhere(~((p >= 0) & (p <= 1)))[0]
        raise DataError(f"Probabilities must lie in [0, 1]; row {row}, option {k} has {p[row, k]}.")
    if not np.all(np.isfinite(costs) & (costs >= 0)):
        row, k = np.argwhere(~(np.isfinite(costs) & (costs >= 0)))[0]
        raise DataError(
            f"Costs must be finite and at least 0; row {row}, option {k} has {costs[row, k]}."
        )
    return p, costs


def _next_choice(p: Floats, costs: Floats, current: Choice) -> Choice:
    """The option that overtakes `current` (N,) first as the price rises; itself if none does."""
    at = current[:, None]
    saved = np.take_along_axis(costs, at, axis=1) - costs  # (N, K)
    lost = np.take_along_axis(p, at, axis=1) - p
    overtakes = np.divide(lost, saved, out=np.full_like(lost, np.inf), where=saved > 0)
    first = overtakes.min(axis=1)
    tied = np.where(overtakes == first[:, None], costs, np.inf)
    return np.where(np.isfinite(first), np.argmin(tied, axis=1), current)

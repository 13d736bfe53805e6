"""Ways to certify a rung of a ladder, each on many simulated calibrations at once.

Notation for shapes: T calibrations, G images, L rungs.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr

from m3router.router.policies import risk_bounds as risk
from m3router.router.policies.betting import Shape, agrapa, deadline
from m3router.router.policies.ladders import GAINS, Ladder, promising

Array = npt.NDArray[np.float64]
Passed = npt.NDArray[np.bool_]

_BETS = np.concatenate([[1 - 1e-6], (np.arange(16) + 0.5) / 16, np.geomspace(1e-4, 1.0, 25)[:-1]])
WEIGHTS = {
    "fixed bets": np.concatenate([[0.6], np.full(16, 0.3 / 16), np.full(24, 0.1 / 24)]),
    "fixed bets, 0.95 on the boldest": np.concatenate(
        [[0.95], np.full(16, 0.0375 / 16), np.full(24, 0.0125 / 24)]
    ),
}
DELTA = 0.05


def excess(sums: Array, *, target: float, most: int) -> Array:
    """Of images with `most` questions each; see `risk.Losses.excess`."""
    return np.asarray((sums - target * most) / (most * (1 - target)))


def by_fixed_bets(sums: Array, *, target: float, most: int, weights: Array) -> Passed:
    """The method that this project had: a mixture of fixed bets, (T, L) whether certified."""
    values = np.unique(sums)
    logs = np.log1p(-np.outer(excess(values, target=target, most=most), _BETS))
    wealth = np.zeros((sums.shape[0], sums.shape[2], len(_BETS)))
    for value, row in zip(values, logs, strict=True):
        wealth += (sums == value).sum(axis=1)[..., None] * row
    top = wealth.max(axis=-1)
    return np.asarray(top + np.log(np.exp(wealth - top[..., None]) @ weights) >= -np.log(DELTA))


def by_one_question(sums: Array, *, target: float) -> Passed:
    """The exact binomial on one question of each image, lost or not (T, L)."""
    return np.asarray(bdtr(sums.sum(axis=1), sums.shape[1], target) <= DELTA)


def by_agrapa(sums: Array, *, target: float, most: int, low: float) -> Passed:
    """Bets of Waudby-Smith and Ramdas (T, L), by the product's own code."""
    times, images, rungs = sums.shape
    level = (target - low) / (1 - low)
    flat = excess(sums, target=target, most=most).transpose(1, 0, 2).reshape(images, -1)
    return np.asarray(agrapa(flat, np.full(times * rungs, level)) >= 1 / DELTA).reshape(
        times, rungs
    )


def by_deadline(
    sums: Array, expected: list[list[risk.Losses]], *, target: float, most: int
) -> Passed:
    """Bets with a deadline, shaped by each calibration's own tune split (T, L)."""
    times, images, rungs = sums.shape
    shapes = [risk.shape_of(one, target, one) for of_times in expected for one in of_times]
    flat = excess(sums, target=target, most=most).transpose(1, 0, 2).reshape(images, -1)
    wealth = deadline(flat, Shape(*np.array(shapes).T), delta=DELTA)
    return np.asarray(wealth.reshape(times, rungs) >= 1)


def losses(sums: Array, *, most: int, low: float) -> list[list[risk.Losses]]:
    """For every calibration and rung."""
    sizes = np.full(sums.shape[1], float(most))
    return [
        [risk.of_sums(one[:, rung], sizes, most=most, low=low) for rung in range(one.shape[1])]
        for one in sums
    ]


def gains_of(
    tune: dict[float, list[list[risk.Losses]]],
    cost: Array,
    *,
    target: float,
    images: int,
    fallback: float,
) -> list[float]:
    """How much of a gain the product counts in each calibration."""
    found = []
    for time in range(len(tune[0.0])):
        listed = [Ladder(cost=cost, expected=tune[gains][time], gains=gains) for gains in GAINS]
        place, _ = promising(listed, alpha=target, delta=DELTA, images=images, fallback=fallback)
        found.append(listed[place].gains)
    return found


def passed(certified: Passed) -> npt.NDArray[np.intp]:
    """How many leading rungs (T,) are certified, from (T, L)."""
    return np.asarray(np.cumprod(certified, axis=1).sum(axis=1), dtype=np.intp)

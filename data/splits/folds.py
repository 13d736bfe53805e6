"""What a trial is fitted and judged on: folds of `fit` and `tune`, by image.

A hundred trials compared on the tune split alone, a tenth of the images, are ranked in part by
luck, and the winner by more of it than the others. So each trial is judged on all images of
`fit` and `tune`, each by a model that never saw it (cross-fitting). The images that stop a
boosting early, and that probabilities are calibrated on, are a third set: neither fitted nor judged
on, so that a model that stops well on its judges gains nothing by it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from m3router.data.errors import DataError
from m3router.data.splits.split import spread

Rows = npt.NDArray[np.intp]
STOP_SHARE = 1 / 6
"""Of the images that are not judged on; as `tune` is of `fit` and `tune` by default."""
RUNG_SHARE = 1 / 4
"""Of the fitted images that the first, cheap look at a trial is fitted on."""


@dataclass(frozen=True)
class Fold:
    """Rows of one fit, with no image in two of the three.

    Attributes:
        fit: rows to fit on, ascending.
        stop: rows for early stopping and calibration.
        judge: rows to predict.
    """

    fit: Rows
    stop: Rows
    judge: Rows


def cross_fit(
    groups: npt.NDArray[np.object_], parts: dict[str, Rows], *, folds: int, seed: int
) -> list[Fold]:
    """Folds of the rows of `fit` and `tune`, every row judged once.

    Args:
        groups: the group of each row of the log, shape (N,).
        parts: the rows of "fit" and of "tune".
        folds: how many; with 1, `tune` is judged and `fit` is fitted on.
        seed: of the draw.

    Raises:
        DataError: when there are too few groups.
    """
    if folds < 1:
        raise DataError(f"Tuning needs at least one fold, not {folds}.")
    if folds == 1:
        return [_fold(groups, parts["fit"], parts["tune"], seed=seed)]
    rows = np.sort(np.concatenate([parts["fit"], parts["tune"]]))
    names = [str(number) for number in range(folds)]
    fold_of = spread(groups[rows], names, (1 / folds,) * folds, seed=seed)
    number = np.array([int(fold_of[group]) for group in groups[rows]])
    return [_fold(groups, rows[number != n], rows[number == n], seed=seed) for n in range(folds)]


def quarter(groups: npt.NDArray[np.object_], fold: Fold, *, seed: int) -> Fold:
    """The same fold with `RUNG_SHARE` of the images to fit on."""
    some, _ = _divide(groups, fold.fit, RUNG_SHARE, seed=f"{seed}:rung")
    return Fold(some, fold.stop, fold.judge)


def group_folds(groups: Sequence[str] | npt.NDArray[Any], folds: int, *, seed: int) -> Rows:
    """Fold of each example (N,), from 0 on: whole groups, in a random order."""
    names, member = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(names))
    found: Rows = (order % folds)[member.reshape(-1)]
    return found


def _fold(groups: npt.NDArray[np.object_], rows: Rows, judge: Rows, *, seed: int) -> Fold:
    stop, fit = _divide(groups, rows, STOP_SHARE, seed=f"{seed}:stop")
    return Fold(fit, stop, judge)


def _divide(
    groups: npt.NDArray[np.object_], rows: Rows, share: float, *, seed: str
) -> tuple[Rows, Rows]:
    """Rows of a share of the groups, at least one, and the others."""
    ranked = sorted(
        {str(group) for group in groups[rows]},
        key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest(),
    )
    if len(ranked) < 2:
        raise DataError(
            f"Tuning needs more groups: {len(ranked)} cannot be divided into those to fit on and "
            "those to stop at. Label more, or give the parts other shares."
        )
    first = set(ranked[: max(1, round(share * len(ranked)))])
    inside = np.array([str(group) in first for group in groups[rows]])
    return rows[inside], rows[~inside]

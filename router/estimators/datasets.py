"""Which dataset an example is from, recognised in its features, and the mean scores of each.

Notation for shapes: N examples, D features, C components, K options, T datasets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from m3router.router.estimators.base import Floats, lay_out
from m3router.router.estimators.components import Components

Array = npt.NDArray[np.float64]
Classes = npt.NDArray[Any]

RARE = 5
"""Datasets with fewer examples are recognised as one."""
SHRINKAGE = 10.0
"""Examples that the mean over all datasets counts for in the mean of each."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Datasets:
    """Recognises datasets, and holds the mean scores of each.

    Attributes:
        components: that they are recognised in.
        recognise: (C + 1, T) weights and biases of each dataset's logit.
        names: T; the rare ones are one, "".
        means: (T, K) mean scores.
        told: whether names are features, too.
    """

    components: Components
    recognise: Array
    names: tuple[str, ...]
    means: Array
    told: bool

    def __post_init__(self) -> None:
        """Lay arrays out as they are stored."""
        lay_out(self, "recognise", "means")

    def shares(self, logits: Floats, datasets: Classes | None) -> Array:
        """How likely each row is from each dataset, (N, T); 1 for those that are told.

        Args:
            logits: (N, T) of the datasets.
            datasets: (N,) names; None where nobody says.
        """
        shares = np.asarray(softmax(logits, axis=1))
        if datasets is None or not self.told:
            return shares
        place = {name: number for number, name in enumerate(self.names) if name}
        known = np.array([place.get(str(name), -1) for name in datasets], dtype=np.intp)
        rows = np.flatnonzero(known >= 0)
        shares[rows] = np.eye(len(self.names))[known[rows]]
        return shares


def merged(datasets: Classes) -> tuple[tuple[str, ...], npt.NDArray[np.intp]]:
    """Names of the datasets, the rare ones as one that is called "", and each example's place."""
    names, member, size = np.unique(
        np.asarray(datasets).astype(str), return_inverse=True, return_counts=True
    )
    member = member.reshape(-1)
    kept = np.flatnonzero(size >= RARE)
    place = np.full(len(names), len(kept), dtype=np.intp)
    place[kept] = np.arange(len(kept))
    found = tuple(str(names[number]) for number in kept)
    return (found if len(kept) == len(names) else (*found, "")), place[member]


def recogniser(Z: Array, member: npt.NDArray[np.intp], weights: Array, datasets: int) -> Array:
    """Weights and biases (C + 1, T) of a multinomial logistic regression; -inf for absent ones."""
    present = np.unique(member)
    found = np.zeros((Z.shape[1] + 1, datasets))
    found[-1, np.setdiff1d(np.arange(datasets), present)] = -np.inf
    if len(present) < 2:
        return found
    from sklearn.linear_model import LogisticRegression  # not needed to load and predict

    # Components of a block have a mean square of 1 together; C is for that size.
    model = LogisticRegression(C=10.0, max_iter=2000).fit(Z, member, sample_weight=weights)
    coef, bias = model.coef_, model.intercept_
    if len(present) == 2:  # scikit-learn keeps one logit of two
        coef, bias = np.vstack([-coef, coef]) / 2, np.array([-bias[0], bias[0]]) / 2
    found[:, present] = np.vstack([coef.T, bias])
    return found


def recognised(Z: Floats, recognise: Array) -> Array:
    """Probabilities (N, T) of the datasets."""
    return np.asarray(softmax(Z @ recognise[:-1] + recognise[-1], axis=1))


def mean_scores(Y: Array, member: npt.NDArray[np.intp], weights: Array, datasets: int) -> Array:
    """Mean scores (T, K) of each dataset, drawn to the mean over all."""
    base = np.average(Y, axis=0, weights=weights)
    size = np.bincount(member, weights=weights, minlength=datasets)[:, None]
    total = np.zeros((datasets, Y.shape[1]))
    np.add.at(total, member, Y * weights[:, None])
    return np.asarray((total + SHRINKAGE * base) / (size + SHRINKAGE))

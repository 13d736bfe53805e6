"""Mixing several estimates by what each was worth on examples that it had not seen.

Stacked regression (Breiman, Machine Learning 1996; van der Laan et al., Super Learner, 2007):
weights that are not negative and sum to 1, of least squared error of held-out estimates. The mean
over the options and the differences between options have weights of their own: how hard a question
is and whether a more expensive option helps are learned from different members, and only the
second decides what is asked.

Notation for shapes: M members, N examples, K options.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from m3router.router.estimators.base import Floats

Array = npt.NDArray[np.float64]
FIRM = 1e3
"""How strongly the weights are held to a sum of 1 before they are divided by it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Mixture:
    """Weights of the members, each (M,), summing to 1.

    Attributes:
        level: for the mean over the options.
        spread: for what each option has above that mean.
    """

    level: Array
    spread: Array

    @classmethod
    def fit(cls, parts: Floats, Y: Floats, weights: Floats) -> Mixture:
        """Weights of least squared error.

        Args:
            parts: (M, N, K) held-out estimates.
            Y: (N, K) scores.
            weights: (N,) of the examples.
        """
        level, spread = _divided(parts)
        right, apart = _divided(Y)
        root = np.sqrt(weights)[:, None]
        found = _simplex((level * root).reshape(len(parts), -1).T, (right * root).ravel())
        if Y.shape[1] == 1:  # there is no difference to learn
            return cls(level=found, spread=found)
        differences = _simplex((spread * root).reshape(len(parts), -1).T, (apart * root).ravel())
        return cls(level=found, spread=differences)

    def drawn_to(self, prior: Floats, share: float) -> Mixture:
        """The same with a share of the weight given to `prior` (M,), which sums to 1."""
        prior = np.asarray(prior, dtype=np.float64)
        return Mixture(
            level=(1 - share) * self.level + share * prior,
            spread=(1 - share) * self.spread + share * prior,
        )

    def apply(self, parts: Floats) -> Array:
        """The mixed estimate (N, K) of estimates (M, N, K)."""
        level, spread = _divided(parts)
        mixed: Array = np.tensordot(self.level, level, axes=1)
        return np.asarray(mixed + np.tensordot(self.spread, spread, axes=1))

    def apply_two(self, first: Array, second: Array) -> Array:
        """`apply` of two estimates (N, K), with few calls: for one row, calls take the time."""
        apart = self.level - self.spread
        middle = (apart[0] * first + apart[1] * second).mean(axis=1, keepdims=True)
        return np.asarray(self.spread[0] * first + self.spread[1] * second + middle)


def _divided(parts: Floats) -> tuple[Array, Array]:
    """The mean over the options (..., 1), and what each option has above it (..., K)."""
    level = np.asarray(parts, dtype=np.float64).mean(axis=-1, keepdims=True)
    return level, parts - level


def _simplex(parts: Floats, target: Floats) -> Array:
    """Weights (M,) >= 0 with sum 1 of least squares for estimates (n, M) of a target (n,)."""
    size = max(float(np.square(parts).mean()), 1e-12)
    firm = FIRM * np.sqrt(size)
    gram = parts.T @ parts / len(target) + firm**2
    toward = parts.T @ target / len(target) + firm**2
    # nnls takes a square root of the normal equations: (M, M) in place of (n, M).
    values, vectors = np.linalg.eigh(gram)
    root = np.sqrt(np.maximum(values, 1e-14 * values[-1]))
    weights, _ = nnls(root[:, None] * vectors.T, (vectors.T @ toward) / root, maxiter=10_000)
    return np.asarray(weights / weights.sum())

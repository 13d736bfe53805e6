"""Ridge regression of all options' scores, at many penalties at once.

Scores are regressed as they are, without a link function: what routing needs is the difference
of two options' expected scores, and least squares estimates just that.

Notation for shapes: N examples, C components, K options, P penalties.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from m3router.router.estimators.base import Floats

PENALTIES = (1e-4, 1e-3, 4e-3, 2e-2, 8e-2, 0.4, 1.6, 7.0, 30.0)
"""Per example; the components of a block together have a mean square of 1."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class RidgePath:
    """Fits at all `PENALTIES`.

    Attributes:
        centre: (C,) mean of the components.
        level: (K,) mean of the scores.
        weights: (P, C, K).
    """

    centre: Array
    level: Array
    weights: Array

    @classmethod
    def fit(cls, Z: Floats, Y: Floats, weights: Floats) -> RidgePath:
        """Fit on components (N, C), scores (N, K) and weights (N,) of the examples."""
        share = weights / weights.sum()
        centre, level = share @ Z, share @ Y
        inside, targets = Z - centre, Y - level
        weighted = inside * share[:, None]
        values, vectors = np.linalg.eigh(weighted.T @ inside)
        rotated = vectors.T @ (weighted.T @ targets)
        values = np.maximum(values, 0.0)
        paths = [vectors @ (rotated / (values + one)[:, None]) for one in PENALTIES]
        return cls(centre=centre, level=level, weights=np.stack(paths))

    def predict(self, Z: Floats) -> Array:
        """Scores (P, N, K) for components (N, C); they may leave [0, 1]."""
        return np.asarray(self.level + (Z - self.centre) @ self.weights)

    def mixed(self, shares: Sequence[float] | Floats) -> tuple[Array, Array]:
        """Weights (C, K) and bias (K,) of a mixture of the fits, whose shares (P,) sum to any s.

        The bias holds s times the level.
        """
        shares = np.asarray(shares)
        mixed = np.tensordot(shares, self.weights, axes=1)
        return mixed, shares.sum() * self.level - self.centre @ mixed

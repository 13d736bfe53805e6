"""Principal components of feature blocks, for models that are fitted on few examples.

Notation for shapes: N examples, D features in blocks, C components.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from m3router.router.estimators.base import Floats, column_moments, inverse, lay_out, row_blocks

EXACT = 2048
"""Up to so many features or examples, components come from an exact decomposition."""
OVERSAMPLED, PASSES = 16, 4
"""Of the randomised one (Halko et al., SIAM Review 2011, arXiv 0909.4061, algorithm 4.4)."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Components:
    """A centred and scaled projection: z = (x - mean) @ directions.

    Attributes:
        mean: (D,).
        directions: (D, C), the scale of each feature times an orthonormal direction.
    """

    mean: Array
    directions: Array

    def __post_init__(self) -> None:
        """Lay the directions out as they are stored, so that loading changes no bit."""
        lay_out(self, "directions")

    @classmethod
    def fit(
        cls, X: Floats, widths: tuple[int, ...], *, standardise: bool, most: int, seed: int
    ) -> Components:
        """The first components of X (N, D), whose scaled blocks all have a mean square of 1.

        Args:
            X: no labels are looked at, so that held-out examples may be among them.
            widths: columns of each block.
            standardise: whether each feature is divided by its deviation first; if not, features
                keep their sizes relative to others of their block, so that rare words of a
                hashed question stay small.
            most: C at most; also at most D and N - 1.
            seed: of the randomised decomposition.
        """
        mean, spread = column_moments(X)
        scale = inverse(spread) if standardise else (spread > 0).astype(np.float64)
        power = np.square(spread * scale)
        start = 0
        for width in widths:
            block = slice(start, start + width)
            scale[block] /= np.sqrt(max(float(power[block].sum()), 1e-12))
            start += width
        most = max(1, min(most, X.shape[1], len(X) - 1))
        directions = _principal(X, mean, scale, most=most, seed=seed)
        # The sign of a direction is arbitrary; a fixed one gives equal bytes.
        largest = directions[np.abs(directions).argmax(axis=0), np.arange(directions.shape[1])]
        return cls(mean=mean, directions=scale[:, None] * directions * np.where(largest < 0, -1, 1))

    def project(self, X: Floats) -> Array:
        """Components (N, C) of X (N, D), by blocks of rows."""
        if len(X) == 1:
            return np.asarray((X - self.mean) @ self.directions)
        parts = [(X[rows] - self.mean) @ self.directions for rows in row_blocks(X)]
        return np.concatenate(parts) if parts else np.zeros((0, self.directions.shape[1]))


def _principal(X: Floats, mean: Array, scale: Array, *, most: int, seed: int) -> Array:
    """Orthonormal directions (D, C) of the largest variance of (X - mean) * scale."""
    n, d = X.shape
    if d <= EXACT:
        second = np.zeros((d, d))
        for rows in row_blocks(X):
            Z = (X[rows] - mean) * scale
            second += Z.T @ Z / n
        return np.asarray(np.linalg.eigh(second)[1][:, ::-1][:, :most])
    if n <= EXACT:
        Z = (X - mean) * scale
        values, left = np.linalg.eigh(Z @ Z.T)
        values, left = values[::-1][:most], left[:, ::-1][:, :most]
        kept = values > 1e-10 * max(float(values[0]), 1e-300)
        return np.asarray(Z.T @ (left[:, kept] / np.sqrt(values[kept])))
    basis = np.random.default_rng(seed).standard_normal((d, min(most + OVERSAMPLED, d, n)))
    for _ in range(PASSES):
        found = np.zeros_like(basis)
        for rows in row_blocks(X):
            Z = (X[rows] - mean) * scale
            found += Z.T @ (Z @ basis)
        basis = np.linalg.qr(found)[0]
    inside = np.zeros((basis.shape[1],) * 2)
    for rows in row_blocks(X):
        Z = ((X[rows] - mean) * scale) @ basis
        inside += Z.T @ Z
    return np.asarray(basis @ np.linalg.eigh(inside)[1][:, ::-1][:, :most])

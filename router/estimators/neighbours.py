"""Nearest neighbours: the scores of the most similar examples, by exact search in NumPy.

Notation for shapes: N examples, D features in B blocks, K options, n stored examples, C
components.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from m3router.data.errors import DataError
from m3router.router.estimators.base import (
    Choice,
    Floats,
    Range,
    SufficiencyEstimator,
    Validation,
    check_fit,
    check_validation,
    check_widths,
    column_moments,
    constant_columns,
    inverse,
    read_header,
    read_tensors,
    row_blocks,
)
from m3router.router.estimators.bilinear_network import standardised

STORED = "knn.safetensors"
HEADER = "knn.json"
PRIOR = 2.0
"""Weight of the mean score, in neighbours."""
FLOOR = 1e-6
"""Squared distance, in parts of the mean squared one, below which examples count as equal."""
FLOAT32 = float(np.finfo(np.float32).eps)


@dataclass(kw_only=True, eq=False)
class NeighboursEstimator(SufficiencyEstimator):
    """Kernel-weighted mean of the scores of about k neighbours, shrunk to the mean score.

    Features are standardised, each block is divided by the root of its width, so that a wide
    block does not drown a narrow one, and all are projected on their first principal components.
    With d the distance and h that to the k-th neighbour (both Euclidean; for "cosine" after
    bringing every example to length 1), neighbour i weighs w_i = max(0, 1 - d_i^2 / h^2), and

        p = (sum_i w_i y_i + prior * base) / (sum_i w_i + prior)

    where base is the mean score. The weight falls to zero at h, so that estimates are continuous
    in the features, and examples at equal distance count equally however many they are.

    Every fitted example is kept: more than `most` are refused, not sampled in silence.

    Args:
        k: neighbours that the kernel reaches, at most a quarter of the examples.
        metric: "euclidean" or "cosine".
        components: C, most principal components that are kept.
        prior: weight of the mean score, in neighbours.
        most: examples beyond which a fit is refused; each takes 4 C bytes in the file.
        widths: columns of each feature block, side by side; None for one block.
    """

    k: int = 100
    metric: str = "euclidean"
    components: int = 64
    prior: float = PRIOR
    most: int = 200_000
    widths: tuple[int, ...] | None = None

    FILES = (HEADER, STORED)
    SPACE = MappingProxyType(
        {
            "k": Range(low=5, high=1000, log=True),
            "metric": Choice(values=("euclidean", "cosine")),
            "components": Range(low=4, high=128, log=True),
            "prior": Range(low=0.1, high=30.0, log=True),
        }
    )

    @classmethod
    def candidates(cls, *, seed: int, widths: tuple[int, ...]) -> list[Self]:
        """Several k and both metrics; nothing is drawn, so the seed changes nothing."""
        return [
            cls(k=k, metric=metric, widths=widths)
            for metric in ("euclidean", "cosine")
            for k in (20, 50, 100, 200, 400)
        ]

    def fit(
        self,
        X: Floats,
        Y: Floats,
        *,
        weights: Floats | None = None,
        validation: Validation | None = None,
    ) -> Self:
        """Store X (N, D) and Y (N, K); `validation` is checked, but not needed.

        Raises:
            DataError: see `SufficiencyEstimator.fit`; for more than `most` examples; or for a
                hyper-parameter that makes no sense.
            MismatchError: when `widths` do not sum to D.
        """
        self._check_parameters()
        if len(X) > self.most:
            raise DataError(
                f"Nearest neighbours keep every example: {len(X)} are more than the {self.most} "
                "of `most`. Raise `most` if there is memory for them, fit on fewer examples, or "
                "use another estimator."
            )
        X, Y, weights = check_fit(X, Y, weights)
        widths = check_widths(self.widths, X.shape[1])
        check_validation(validation, X.shape[1])
        constant, base = constant_columns(Y, weights)
        mean, spread = column_moments(X)
        balance = np.repeat(1 / np.sqrt(widths), widths)
        directions = _principal(X, mean, inverse(spread), balance, most=self.components)
        self.mean_, self.scale_ = mean, inverse(spread)
        self.directions_ = directions.astype(np.float32).astype(np.float64)
        self.cosine_, self.constant_ = self.metric == "cosine", constant
        self.n_features_ = X.shape[1]
        projected = np.concatenate([self._project(X[rows]) for rows in row_blocks(X)])
        self.neighbours_ = Neighbourhood(
            projected.astype(np.float32),  # as they are stored
            Y.astype(np.float32),
            weights,
            reach=self.k,
            base=base,
            prior=float(self.prior),
        )
        return self

    def dump(self) -> dict[str, bytes]:
        """The stored examples as float32 safetensors, and the settings as JSON."""
        self._check_fitted()
        near = self.neighbours_
        tensors = {
            "mean": self.mean_,
            "scale": self.scale_,
            "directions": self.directions_.astype(np.float32),
            "stored": near.stored.astype(np.float32),
            "scores": near.scores,
            "weights": near.weights,
            "base": near.base,
        }
        header = {
            "k": near.reach,
            "prior": near.prior,
            "cosine": self.cosine_,
            "constant": self.constant_.tolist(),
        }
        contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
        return {STORED: save(contiguous), HEADER: json.dumps(header, sort_keys=True).encode()}

    @classmethod
    def restore(cls, files: Mapping[str, bytes]) -> Self:
        """The estimator whose files these are, checked before anything is built from them."""
        estimator, header = cls(), read_header(files, HEADER)
        try:
            tensors = read_tensors(files[STORED], STORED)
            estimator.cosine_ = bool(header["cosine"])
            estimator.constant_ = np.asarray(header["constant"], dtype=bool)
            estimator.mean_, estimator.scale_ = tensors["mean"], tensors["scale"]
            estimator.directions_ = tensors["directions"].astype(np.float64)
            estimator.neighbours_ = Neighbourhood(
                tensors["stored"],
                tensors["scores"],
                tensors["weights"],
                reach=int(header["k"]),
                base=tensors["base"],
                prior=float(header["prior"]),
            )
            estimator.n_features_ = len(estimator.mean_)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(f"{STORED} does not hold nearest neighbours: {error}.") from error
        return estimator

    def _predict(self, X: Floats) -> npt.NDArray[np.float64]:
        """Exact search by blocks of rows."""
        base = self.neighbours_.base
        p = np.empty((len(X), len(base)))
        for rows in row_blocks(X):
            p[rows] = self.neighbours_.predict(self._project(X[rows]))
        p[:, self.constant_] = base[self.constant_]
        return np.clip(p, 0.0, 1.0)

    def _project(self, X: Floats) -> npt.NDArray[np.float64]:
        Z = standardised(X, self.mean_, self.scale_) @ self.directions_
        if self.cosine_:
            Z /= np.maximum(np.sqrt(np.square(Z).sum(axis=1, keepdims=True)), 1e-12)
        return np.asarray(Z, dtype=np.float64)

    def _check_parameters(self) -> None:
        if self.metric not in ("euclidean", "cosine"):
            raise DataError(f"The metric must be 'euclidean' or 'cosine', not {self.metric!r}.")
        if self.k < 1 or self.components < 1 or not self.prior > 0:
            raise DataError(
                "Nearest neighbours need k and components of at least 1 and a positive prior; got "
                f"k={self.k}, components={self.components}, prior={self.prior}."
            )


class Neighbourhood:
    """Examples to look for neighbours among, and the mean scores of the nearest.

    Args:
        stored: (n, C) components of theirs.
        scores: (n, K).
        weights: (n,).
        reach: neighbours that the kernel reaches; a quarter of the examples at most.
        base: (K,) what the mean is drawn to; None for the mean of the scores.
        prior: weight of `base`, in neighbours.
    """

    def __init__(
        self,
        stored: Floats,
        scores: Floats,
        weights: Floats,
        *,
        reach: int,
        base: Floats | None = None,
        prior: float = PRIOR,
    ) -> None:
        # Laid out as they are stored, so that loading changes no bit.
        self.stored = np.ascontiguousarray(stored, dtype=np.float64)
        self.scores, self.weights = np.ascontiguousarray(scores), np.ascontiguousarray(weights)
        self.reach = min(reach, max(1, len(stored) // 4))
        self.base = np.average(scores, axis=0, weights=weights) if base is None else base
        self.prior = prior
        self._lengths = np.square(self.stored).sum(axis=1)
        self._floor = FLOOR * max(float(self._lengths.mean()), 1e-12)
        # For `_one`: half as many bytes to read, and what rounding to them may cost.
        self._rough = self.stored.astype(np.float32)
        self._rough_lengths = self._lengths.astype(np.float32)
        self._longest = float(np.sqrt(self._lengths.max()))

    def predict(self, Z: Floats) -> npt.NDArray[np.float64]:
        """Kernel-weighted mean scores (N, K) near components (N, C), by blocks of rows."""
        if len(Z) == 1:
            return self._one(Z[0])
        step = max(1, (1 << 20) // len(self.stored))
        parts = [self._block(Z[at : at + step]) for at in range(0, len(Z), step)]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.base)))

    def _one(self, z: Floats) -> npt.NDArray[np.float64]:
        """The same (1, K) near z (C,), after most stored examples were ruled out in float32.

        Squared distances in float32 are wrong by `off` at most. So the k-th nearest is within
        `off` of the k-th smallest of them, and whatever is as near is within twice that.
        """
        squared = float(z @ z)
        off = 2 * (len(z) + 4) * FLOAT32 * self._longest * (self._longest + math.sqrt(squared))
        if not off < 1e30:  # near the end of what float32 holds
            return self._block(z[None])
        rough = self._rough @ z.astype(np.float32)
        rough *= -2
        rough += self._rough_lengths  # without z @ z, which all have in common
        reach = float(np.partition(rough, self.reach - 1)[self.reach - 1])
        some = np.flatnonzero(rough <= reach + 2 * off + self._floor)
        apart = self._lengths[some] - 2 * (self.stored.take(some, axis=0) @ z) + squared
        return self._mean(apart[None], self.scores[some], self.weights[some])

    def _block(self, Z: Floats) -> npt.NDArray[np.float64]:
        apart = np.square(Z).sum(axis=1)[:, None] + self._lengths - 2 * (Z @ self.stored.T)
        return self._mean(apart, self.scores, self.weights)

    def _mean(self, apart: Floats, scores: Floats, weights: Floats) -> npt.NDArray[np.float64]:
        return kernel_mean(
            apart,
            scores,
            weights,
            base=self.base,
            k=self.reach,
            prior=self.prior,
            floor=self._floor,
        )


def kernel_mean(
    apart: Floats,
    scores: Floats,
    weights: Floats,
    *,
    base: Floats,
    k: int,
    prior: float,
    floor: float,
) -> npt.NDArray[np.float64]:
    """The mean scores (N, K) of about k neighbours; see `NeighboursEstimator`.

    Args:
        apart: squared distances (N, n) to the stored examples.
        scores: of the stored examples, (n, K).
        weights: of the stored examples, (n,).
        base: (K,) what the mean is drawn to.
        k: neighbours that the kernel reaches, from 1 to n.
        prior: weight of `base`, in neighbours.
        floor: squared distance below which examples count as equal.
    """
    reach = np.partition(apart, k - 1, axis=1)[:, k - 1 : k]
    kernel = np.maximum(0.0, 1 - np.maximum(apart, 0.0) / (np.maximum(reach, 0) + floor))
    kernel *= weights
    mean: npt.NDArray[np.float64] = (kernel @ scores + prior * base) / (
        kernel.sum(axis=1, keepdims=True) + prior
    )
    return mean


def _principal(
    X: Floats, mean: Floats, scale: Floats, balance: Floats, *, most: int
) -> npt.NDArray[np.float64]:
    """Balance and first principal directions of the standardised features: (D, C)."""
    second = np.zeros((X.shape[1], X.shape[1]))
    for rows in row_blocks(X):
        Z = standardised(X[rows], mean, scale) * balance
        second += Z.T @ Z / len(X)
    _, vectors = np.linalg.eigh(second)  # ascending
    found = vectors[:, ::-1][:, : min(most, X.shape[1])]
    # The sign of a direction is arbitrary; a fixed one gives equal bytes.
    largest = found[np.abs(found).argmax(axis=0), np.arange(found.shape[1])]
    return np.asarray(balance[:, None] * found * np.where(largest < 0, -1, 1), dtype=np.float64)

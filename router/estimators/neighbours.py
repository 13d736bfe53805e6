"""Nearest neighbours: the scores of the most similar examples, by exact search in NumPy.

Notation for shapes: N examples, D features in B blocks, K options, n stored examples, C
components.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Self

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from data.errors import DataError
from router.estimators.base import (
    Floats,
    Validation,
    as_floats,
    check_finite,
    check_fit,
    check_validation,
    check_width,
    check_widths,
    column_moments,
    constant_columns,
    inverse,
    row_blocks,
)
from router.estimators.bilinear import read_header, standardised

STORED = "knn.safetensors"
HEADER = "knn.json"
PRIOR = 2.0
"""Weight of the mean score, in neighbours."""
FLOOR = 1e-6
"""Squared distance, in parts of the mean squared one, below which examples count as equal."""


class NeighboursEstimator:
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

    def __init__(
        self,
        *,
        k: int = 100,
        metric: str = "euclidean",
        components: int = 64,
        prior: float = PRIOR,
        most: int = 200_000,
        widths: tuple[int, ...] | None = None,
    ) -> None:
        self.k = k
        self.metric = metric
        self.components = components
        self.prior = prior
        self.most = most
        self.widths = widths

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
        self.cosine_ = self.metric == "cosine"
        self.k_, self.prior_ = min(self.k, max(1, len(X) // 4)), float(self.prior)
        self.base_, self.constant_ = base, constant
        self.scores_, self.weights_ = Y.astype(np.float32), weights
        projected = [self._project(X[rows]) for rows in row_blocks(X)]
        self._store(np.concatenate(projected).astype(np.float32))
        return self

    def predict(self, X: Floats) -> npt.NDArray[np.float64]:
        """Probabilities (N, K), exact search by blocks of rows; see `SufficiencyEstimator`."""
        self._check_fitted()
        X = as_floats(X)
        check_width(X, len(self.mean_))
        check_finite(X)
        p = np.empty((len(X), len(self.base_)))
        step = max(1, (1 << 22) // len(self.stored_))
        for start in range(0, len(X), step):
            rows = slice(start, start + step)
            p[rows] = self._block(self._project(X[rows]))
        return p

    def predict_one(self, x: Floats) -> npt.NDArray[np.float64]:
        """Probabilities (K,) for x (D,); see `SufficiencyEstimator.predict_one`."""
        probabilities: npt.NDArray[np.float64] = self.predict(x[None, :])[0]
        return probabilities

    def dump(self) -> dict[str, bytes]:
        """The stored examples as float32 safetensors, and the settings as JSON."""
        self._check_fitted()
        tensors = {
            "mean": self.mean_,
            "scale": self.scale_,
            "directions": self.directions_.astype(np.float32),
            "stored": self.stored_.astype(np.float32),
            "scores": self.scores_,
            "weights": self.weights_,
            "base": self.base_,
        }
        header = {
            "k": self.k_,
            "prior": self.prior_,
            "cosine": self.cosine_,
            "constant": self.constant_.tolist(),
        }
        contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
        return {STORED: save(contiguous), HEADER: json.dumps(header, sort_keys=True).encode()}

    @classmethod
    def restore(cls, files: Mapping[str, bytes]) -> Self:
        """Rebuild from verified bytes; the hyper-parameters are back at their defaults.

        Raises:
            DataError: when a part is missing or not what `dump` wrote.
        """
        estimator, header = cls(), read_header(files, HEADER)
        try:
            tensors = load(files[STORED])
            estimator.k_, estimator.prior_ = int(header["k"]), float(header["prior"])
            estimator.cosine_ = bool(header["cosine"])
            estimator.constant_ = np.asarray(header["constant"], dtype=bool)
            estimator.mean_, estimator.scale_ = tensors["mean"], tensors["scale"]
            estimator.directions_ = tensors["directions"].astype(np.float64)
            estimator.scores_, estimator.weights_ = tensors["scores"], tensors["weights"]
            estimator.base_ = tensors["base"]
            estimator._store(tensors["stored"])
        except (KeyError, TypeError, ValueError, SafetensorError) as error:
            raise DataError(f"{STORED} does not hold nearest neighbours: {error}.") from error
        return estimator

    def _store(self, stored: npt.NDArray[np.float32]) -> None:
        """Keep float64 of what is stored as float32: a row then gives what a batch gives."""
        self.stored_ = stored.astype(np.float64)  # (n, C)
        self.lengths_ = np.square(self.stored_).sum(axis=1)
        self.floor_ = FLOOR * max(float(self.lengths_.mean()), 1e-12)

    def _project(self, X: Floats) -> npt.NDArray[np.float64]:
        Z = standardised(X, self.mean_, self.scale_) @ self.directions_
        if self.cosine_:
            Z /= np.maximum(np.sqrt(np.square(Z).sum(axis=1, keepdims=True)), 1e-12)
        return np.asarray(Z, dtype=np.float64)

    def _block(self, Z: Floats) -> npt.NDArray[np.float64]:
        apart = np.square(Z).sum(axis=1)[:, None] + self.lengths_ - 2 * (Z @ self.stored_.T)
        p = kernel_mean(
            apart,
            self.scores_,
            self.weights_,
            base=self.base_,
            k=self.k_,
            prior=self.prior_,
            floor=self.floor_,
        )
        p[:, self.constant_] = self.base_[self.constant_]
        return np.clip(p, 0.0, 1.0)

    def _check_parameters(self) -> None:
        if self.metric not in ("euclidean", "cosine"):
            raise DataError(f"The metric must be 'euclidean' or 'cosine', not {self.metric!r}.")
        if self.k < 1 or self.components < 1 or not self.prior > 0:
            raise DataError(
                "Nearest neighbours need k and components of at least 1 and a positive prior; got "
                f"k={self.k}, components={self.components}, prior={self.prior}."
            )

    def _check_fitted(self) -> None:
        if not hasattr(self, "stored_"):
            raise DataError("NeighboursEstimator is not fitted; call fit(X, Y) first.")


class Neighbourhood:
    """Examples to look for neighbours among.

    Args:
        stored: (n, C) components of theirs.
        scores: (n, K).
        weights: (n,).
        reach: neighbours that the kernel reaches; a quarter of the examples at most.
    """

    def __init__(self, stored: Floats, scores: Floats, weights: Floats, *, reach: int) -> None:
        # Laid out as they are stored, so that loading changes no bit.
        self.stored = np.ascontiguousarray(stored, dtype=np.float64)
        self.scores, self.weights = np.ascontiguousarray(scores), np.ascontiguousarray(weights)
        self.reach = min(reach, max(1, len(stored) // 4))
        self._base = np.average(self.scores, axis=0, weights=self.weights)
        self._lengths = np.square(self.stored).sum(axis=1)
        self._floor = FLOOR * max(float(self._lengths.mean()), 1e-12)

    def predict(self, Z: Floats) -> npt.NDArray[np.float64]:
        """Kernel-weighted mean scores (N, K) near components (N, C), by blocks of rows."""
        step = max(1, (1 << 20) // len(self.stored))
        parts = [self._block(Z[at : at + step]) for at in range(0, len(Z), step)]
        return np.concatenate(parts) if parts else np.zeros((0, len(self._base)))

    def _block(self, Z: Floats) -> npt.NDArray[np.float64]:
        apart = np.square(Z).sum(axis=1)[:, None] + self._lengths - 2 * (Z @ self.stored.T)
        return kernel_mean(
            apart,
            self.scores,
            self.weights,
            base=self._base,
            k=self.reach,
            prior=PRIOR,
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

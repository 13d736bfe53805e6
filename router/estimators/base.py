"""What every estimator of P(correct | scale) offers, and the checks they share.

Notation for shapes: N examples, D features, K options (scales).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from data.errors import DataError, MismatchError

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Examples held back from fitting, for early stopping: X (N, D) and Y (N, K)."""

    X: Floats
    Y: Floats


class SufficiencyEstimator(Protocol):
    """Estimates P(correct at option k | features) for every option at once.

    Constructors only store their (keyword-only) hyper-parameters. `dump` and `restore` turn a
    fitted estimator into named byte strings and back; hashing and files are the caller's
    (`ScaleRouter`), so that nothing is parsed before it was verified.
    """

    @classmethod
    def candidates(cls, *, seed: int) -> list[Self]:
        """Unfitted estimators with the hyper-parameters worth trying on the tune split."""
        ...

    def fit(
        self,
        X: Floats,
        Y: Floats,
        *,
        weights: Floats | None = None,
        validation: Validation | None = None,
    ) -> Self:
        """Fit on X (N, D) and scores Y (N, K) in [0, 1], soft labels included.

        Raises:
            DataError: for empty, non-finite or misshapen input, or scores outside [0, 1].
        """
        ...

    def predict(self, X: Floats) -> npt.NDArray[np.float64]:
        """Probabilities (N, K) for X (N, D).

        Raises:
            DataError: when X is not finite, or the estimator was not fitted.
            MismatchError: when X has another number of features than the fit had.
        """
        ...

    def predict_one(self, x: Floats) -> npt.NDArray[np.float64]:
        """Probabilities (K,) for one example x (D,), on the fast path; raises as `predict`."""
        ...

    def dump(self) -> dict[str, bytes]:
        """The fitted estimator as file name -> content; equal fits give equal bytes."""
        ...

    @classmethod
    def restore(cls, files: Mapping[str, bytes]) -> Self:
        """Rebuild what `dump` gave; `files` must have been verified by their hash.

        Raises:
            DataError: when a part is missing or not what this estimator wrote.
        """
        ...


def check_fit(X: Floats, Y: Floats, weights: Floats | None) -> tuple[Floats, Floats, Floats]:
    """Validate the input of a fit; returns X, Y and weights (ones when None), as float64.

    Raises:
        DataError: when a shape, a value or a weight breaks the rule that the message names.
    """
    X, Y = np.asarray(X, dtype=np.float64), np.asarray(Y, dtype=np.float64)
    if X.ndim != 2 or Y.ndim != 2 or len(X) != len(Y):
        raise DataError(f"A fit needs X (N, D) and Y (N, K); it got {X.shape} and {Y.shape}.")
    if 0 in X.shape or 0 in Y.shape:
        raise DataError(f"A fit needs at least one row and column; got {X.shape} and {Y.shape}.")
    check_finite(X)
    if not np.all((Y >= 0) & (Y <= 1)):
        row, column = np.argwhere(~((Y >= 0) & (Y <= 1)))[0]
        raise DataError(
            f"Scores must lie in [0, 1]; row {row}, option {column} has {Y[row, column]}."
        )
    weights = np.ones(len(X)) if weights is None else np.asarray(weights, dtype=np.float64)
    if weights.shape != (len(X),) or not np.all(np.isfinite(weights) & (weights > 0)):
        raise DataError(f"Weights must be {len(X)} positive finite numbers, one per example.")
    return X, Y, weights


def check_finite(X: Floats) -> None:
    """Refuse NaN and infinite features of X (N, D) or x (D,).

    Raises:
        DataError: naming the first bad row and column.
    """
    # One pass over a sum is several times faster than isfinite().all() on the fast path.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(X.sum()):
            return
    bad = ~np.isfinite(X)
    if bad.any():
        row, column = np.argwhere(np.atleast_2d(bad))[0]
        raise DataError(
            f"Features must be finite; row {row}, column {column} is not. "
            "Remove the example, or compute its features again."
        )


def check_width(X: Floats, n_features: int) -> None:
    """Refuse features of another width than the fit saw.

    Raises:
        MismatchError: naming both widths.
    """
    if X.shape[-1] != n_features:
        raise MismatchError(
            f"The estimator was fitted on {n_features} features, but got {X.shape[-1]}."
        )


def constant_columns(
    Y: Floats, weights: Floats
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Which options have the same score everywhere, and the probability (K,) to give them.

    That probability is the posterior mean under Jeffreys' prior, (s + 1/2) / (n + 1): an option
    that was right on all of three examples is not certain to be right on the fourth.
    """
    constant = np.all(Y[0] == Y, axis=0)
    return constant, (weights @ Y + 0.5) / (weights.sum() + 1.0)


def log_loss(Y: Floats, p: Floats) -> float:
    """Mean cross-entropy of probabilities p against scores Y in [0, 1], in nats per cell."""
    q = np.clip(p, 1e-7, 1 - 1e-7)
    return float(-np.mean(Y * np.log(q) + (1 - Y) * np.log1p(-q)))

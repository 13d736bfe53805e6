"""Logistic regression per option on standardised features; a matrix product at inference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save
from scipy.special import expit, logit
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from m3router.data.errors import DataError
from m3router.router.estimators.base import (
    FeatureImportance,
    Floats,
    Range,
    SufficiencyEstimator,
    Validation,
    check_fit,
    column_moments,
    constant_columns,
    inverse,
    read_tensors,
)

FILE = "logistic.safetensors"


@dataclass(kw_only=True, eq=False)
class LogisticEstimator(SufficiencyEstimator):
    """One L2-regularised logistic regression per option (scikit-learn's, fitted with L-BFGS).

    Standardisation is folded into the weights, so that a prediction is one matrix product and
    a sigmoid. A soft score y in (0, 1) becomes two rows, right with weight y and wrong with
    weight 1 - y, which has the same loss as cross-entropy against y.

    Args:
        C: inverse strength of the L2 penalty on the standardised weights.
        max_iter: most L-BFGS steps.
    """

    C: float = 1.0
    max_iter: int = 1000

    FILES = (FILE,)
    # A search begins in the middle of what training tries.
    SPACE = MappingProxyType({"C": Range(low=1e-5, high=1.0, log=True, start=3e-3)})

    @classmethod
    def candidates(cls, *, seed: int, widths: tuple[int, ...]) -> list[Self]:
        """A grid of penalties; L-BFGS is deterministic, so the seed changes nothing."""
        return [cls(C=C) for C in (1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 1.0)]

    def fit(
        self,
        X: Floats,
        Y: Floats,
        *,
        weights: Floats | None = None,
        validation: Validation | None = None,
    ) -> Self:
        """Fit on X (N, D) and Y (N, K); `validation` is not needed, nothing stops early.

        Raises:
            DataError: see `SufficiencyEstimator.fit`.
        """
        X, Y, weights = check_fit(X, Y, weights)
        mean, spread = column_moments(X)
        scale = inverse(spread)
        standardised = (np.ascontiguousarray(X) - mean) * scale
        constant, chance = constant_columns(Y, weights)
        coef = np.zeros((X.shape[1], Y.shape[1]))
        bias = logit(chance)
        # One thread: on a busy small machine more of them are an order of magnitude slower, and
        # equal fits give equal bytes whatever the machine.
        with threadpool_limits(limits=1, user_api="blas"):
            for k in np.flatnonzero(~constant):
                coef[:, k], bias[k] = self._fit_option(standardised, Y[:, k], weights)
        self.n_features_ = X.shape[1]
        self.coef_ = scale[:, None] * coef
        self.bias_ = bias - mean @ self.coef_
        return self

    def predict_one(self, x: Floats) -> npt.NDArray[np.float64]:
        """Probabilities (K,) for x (D,); see `SufficiencyEstimator.predict_one`."""
        return self.predict(x)

    def feature_importance(self, X: Floats) -> FeatureImportance:
        """The norm of each feature's weights over the options, times its deviation on X (N, D)."""
        norm = np.linalg.norm(self.coef_ * X.std(axis=0)[:, None], axis=1)
        return FeatureImportance(measure="the size of their standardised weights", values=norm)

    def dump(self) -> dict[str, bytes]:
        """The weights (D, K) and biases (K,) as safetensors."""
        self._check_fitted()
        tensors = {"coef": np.ascontiguousarray(self.coef_), "bias": self.bias_}
        return {FILE: save(tensors)}

    @classmethod
    def restore(cls, files: Mapping[str, bytes]) -> Self:
        """The estimator whose files these are, checked before anything is built from them."""
        try:
            tensors = read_tensors(files[FILE], FILE)
            coef, bias = tensors["coef"], tensors["bias"]
        except KeyError as error:
            raise DataError(f"{FILE} does not hold a logistic estimator: {error}.") from error
        if coef.ndim != 2 or bias.shape != coef.shape[1:]:
            raise DataError(f"{FILE} holds weights {coef.shape} with biases {bias.shape}.")
        estimator = cls()
        estimator.coef_, estimator.bias_, estimator.n_features_ = coef, bias, len(coef)
        return estimator

    def _predict(self, X: Floats) -> npt.NDArray[np.float64]:
        X = np.asarray(X, dtype=np.float64)
        probabilities: npt.NDArray[np.float64] = expit(X @ self.coef_ + self.bias_)
        return probabilities

    def _fit_option(
        self, X: Floats, y: Floats, weights: Floats
    ) -> tuple[npt.NDArray[np.float64], float]:
        from sklearn.linear_model import LogisticRegression  # not needed to load and predict

        soft = np.flatnonzero((y > 0) & (y < 1))
        rows = np.concatenate([np.arange(len(y)), soft])
        labels = np.concatenate([y > 0, np.zeros(len(soft), dtype=bool)])
        share = np.concatenate([np.where(y > 0, y, 1.0), 1.0 - y[soft]])
        model = LogisticRegression(C=self.C, max_iter=self.max_iter)
        model.fit(X[rows], labels, sample_weight=weights[rows] * share)
        return model.coef_[0], float(model.intercept_[0])

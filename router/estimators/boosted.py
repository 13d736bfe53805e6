"""Gradient-boosted trees (LightGBM): one booster with one output per option."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from m3router.data.errors import DataError
from m3router.router.estimators.base import (
    FeatureImportance,
    Floats,
    Range,
    SufficiencyEstimator,
    Validation,
    check_fit,
    check_width,
    constant_columns,
    log_loss,
    read_header,
    varies,
)
from m3router.router.estimators.tree_audit import audited

TREES = "lightgbm.txt"
HEADER = "lightgbm.json"
MAX_BIN = 63
BIN_SAMPLE = 20_000
"""Examples that the borders of the bins are found from; each number of them takes 12 bytes."""


@dataclass(kw_only=True, eq=False)
class BoostedEstimator(SufficiencyEstimator):
    """LightGBM on soft cross-entropy, all options in one booster.

    Each round grows one tree per option on that option's own gradient, so the options are as
    independent as K separate boosters, but one single-row call answers all of them: at K = 5
    this is several times faster than five calls, whose overhead dominates. The objective is
    ours because LightGBM's cross-entropy takes soft labels for one output only.

    The text format is exact but its parser is not memory-safe: `restore` must only get bytes
    whose SHA-256 was verified, and judges every number first
    (`m3router.router.estimators.tree_audit`).

    Args:
        rounds: most boosting rounds.
        patience: rounds without a better validation loss before stopping; the best round is
            kept. Without a validation set all rounds are used.
        num_leaves: most leaves of a tree.
        learning_rate: shrinkage of each tree.
        min_leaf: fewest examples in a leaf.
        feature_fraction: share of the features that each tree may use.
        tree_rows: most examples that a round's trees are grown on (stochastic gradient boosting,
            Friedman 2002), so that a round takes no longer however many there are.
        seed: of the choice of features and examples.
        threads: for fitting; predictions use one.
    """

    rounds: int = 300
    patience: int = 30
    num_leaves: int = 7
    learning_rate: float = 0.06
    min_leaf: int = 20
    feature_fraction: float = 0.3
    tree_rows: int = 25_000
    seed: int = 0
    threads: int = 1

    FILES = (HEADER, TREES)
    # Early stopping chooses the number of rounds.
    SPACE = MappingProxyType(
        {
            "num_leaves": Range(low=3, high=63, log=True),
            "learning_rate": Range(low=0.02, high=0.3, log=True),
            "min_leaf": Range(low=5, high=300, log=True),
            "feature_fraction": Range(low=0.03, high=1.0, log=True),
        }
    )

    def fit(
        self,
        X: Floats,
        Y: Floats,
        *,
        weights: Floats | None = None,
        validation: Validation | None = None,
    ) -> Self:
        """Fit on X (N, D) and Y (N, K), stopping early on `validation` when it is given.

        Where no split is possible (fewer than 2 `min_leaf` examples, or constant features),
        every option keeps its mean score.

        Raises:
            DataError: see `SufficiencyEstimator.fit`; also for a bad validation set.
        """
        X, Y, weights = check_fit(X, Y, weights)
        constant, base = constant_columns(Y, weights)
        self.n_features_ = X.shape[1]
        self.base_ = base
        self.active_ = np.flatnonzero(~constant)
        self.booster_: lgb.Booster | None = None
        self.text_ = ""
        splittable = len(X) >= 2 * self.min_leaf and varies(X)
        if len(self.active_) and splittable:
            self._set_booster(self._train(X, Y[:, self.active_], weights, validation))
        return self

    def feature_importance(self, X: Floats) -> FeatureImportance:
        """The gain of each feature in the trees; X (N, D) is not looked at."""
        booster, gain = self.booster_, np.zeros(self.n_features_)
        if booster is not None:
            gain = np.asarray(booster.feature_importance("gain"), dtype=np.float64)
        return FeatureImportance(measure="their gain in the trees", values=gain)

    def dump(self) -> dict[str, bytes]:
        """The trees as LightGBM text and what is outside of them as JSON."""
        self._check_fitted()
        header = {
            "n_features": self.n_features_,
            "base": self.base_.tolist(),
            "active": self.active_.tolist(),
        }
        return {TREES: self.text_.encode(), HEADER: json.dumps(header, sort_keys=True).encode()}

    @classmethod
    def restore(cls, files: Mapping[str, bytes]) -> Self:
        """The estimator whose files these are, checked before anything is built from them."""
        estimator, header = cls(), read_header(files, HEADER)
        try:
            text = files[TREES].decode()
            estimator.n_features_ = int(header["n_features"])
            estimator.base_ = np.asarray(header["base"], dtype=np.float64)
            estimator.active_ = np.asarray(header["active"], dtype=np.intp)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(f"{HEADER} does not describe a boosted estimator: {error}.") from error
        estimator.booster_, estimator.text_ = None, ""
        if text:
            trees = audited(text, features=estimator.n_features_, outputs=len(estimator.active_))
            estimator.text_, estimator.booster_ = text, lgb.Booster(model_str=trees)
        return estimator

    def _predict(self, X: Floats) -> npt.NDArray[np.float64]:
        raw = np.broadcast_to(logit(self.base_), (len(X), len(self.base_))).copy()
        if self.booster_ is not None:
            margins = self.booster_.predict(X, raw_score=True, num_threads=1)
            raw[:, self.active_] += np.asarray(margins).reshape(len(X), -1)
        probabilities: npt.NDArray[np.float64] = expit(raw)
        return probabilities

    def _train(self, X: Floats, Y: Floats, weights: Floats, validation: Validation | None) -> str:
        start = logit(self.base_[self.active_])
        parameters = {
            "objective": _cross_entropy(Y, weights),
            "num_class": Y.shape[1],
            "num_leaves": self.num_leaves,
            "learning_rate": self.learning_rate,
            "min_data_in_leaf": self.min_leaf,
            "feature_fraction": self.feature_fraction,
            "max_bin": MAX_BIN,
            "lambda_l2": 1.0,
            "metric": "None",
            **_sampling(self.tree_rows, len(X)),
            "num_threads": self.threads,
            "seed": self.seed,
            "deterministic": True,
            "force_col_wise": True,  # by rows, every tree would copy its share of the features
            "verbosity": -1,
        }
        fitted = _dataset(X, start)
        stopping: dict[str, Any] = {}
        if validation is not None:
            held_X, held_Y, _ = check_fit(validation.X, validation.Y, None)
            check_width(held_X, self.n_features_)
            stopping = {
                "valid_sets": [_dataset(held_X, start, reference=fitted)],
                "feval": _held_back_loss(held_Y[:, self.active_]),
                "callbacks": [lgb.early_stopping(self.patience, verbose=False)],
            }
        try:
            booster = lgb.train(parameters, fitted, self.rounds, **stopping)
        except lgb.basic.LightGBMError as error:
            raise DataError(f"LightGBM cannot be fitted to {X.shape} features: {error}.") from error
        text: str = booster.model_to_string(num_iteration=booster.best_iteration)
        # How many threads fitted it is not part of the model: equal trees have equal bytes.
        return text.replace(f"[num_threads: {self.threads}]", "[num_threads: 1]")

    def _set_booster(self, text: str) -> None:
        # Predict from the text even right after fitting: a saved router is then bit-equal.
        self.text_ = text
        self.booster_ = lgb.Booster(model_str=text)


def _sampling(most: int, n: int) -> dict[str, float]:
    return {"bagging_fraction": most / n, "bagging_freq": 1} if n > most else {}


def _dataset(X: Floats, start: Floats, *, reference: lgb.Dataset | None = None) -> lgb.Dataset:
    return lgb.Dataset(
        X,
        label=np.zeros(len(X)),  # the scores (N, K) live in the objective
        init_score=np.tile(start, (len(X), 1)) if len(start) > 1 else np.full(len(X), start[0]),
        reference=reference,
        params={
            "max_bin": MAX_BIN,
            # a feature is only dropped when it is constant: LightGBM fails when none is left
            "min_data_in_bin": 1,
            "feature_pre_filter": False,
            "bin_construct_sample_cnt": BIN_SAMPLE,
            "verbosity": -1,
        },
    )


def _cross_entropy(
    Y: Floats, weights: Floats
) -> Callable[[Floats, lgb.Dataset], tuple[Floats, Floats]]:
    def objective(margins: Floats, _: lgb.Dataset) -> tuple[Floats, Floats]:
        p = expit(margins.reshape(Y.shape))
        gradient = weights[:, None] * (p - Y)
        curvature = weights[:, None] * np.maximum(p * (1 - p), 1e-6)
        if Y.shape[1] == 1:
            return gradient[:, 0], curvature[:, 0]
        return gradient, curvature

    return objective


def _held_back_loss(Y: Floats) -> Callable[[Floats, lgb.Dataset], tuple[str, float, bool]]:
    def evaluate(margins: Floats, _: lgb.Dataset) -> tuple[str, float, bool]:
        return "log_loss", log_loss(Y, expit(margins.reshape(Y.shape))), False

    return evaluate

"""A network that learns which option is better, mapped to probabilities afterwards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy.special import logit

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
    constant_columns,
    varies,
)
from router.estimators.bilinear import BilinearNetwork, read_header
from router.estimators.logistic import FILE as MAPPING
from router.estimators.logistic import LogisticEstimator

WEIGHTS = "rank.safetensors"
HEADER = "rank.json"


class RankEstimator:
    """`BilinearNetwork` on a pairwise logistic loss between the options of one example.

    A policy only asks which option is better and by how much, so the loss is about pairs: the
    margin between the utilities of one that is right and one that is wrong (see
    `router.estimators.bilinear_fitting.pairwise`). Utilities are no probabilities: a logistic
    regression per option, from all K utilities, maps them. It is fitted on the validation set
    where there is one, since the network fits its own examples too well.

    Args:
        rank: width of each block's projection.
        hidden: units of the hidden layer.
        dropout: share of units that training drops; half of it for the features themselves.
        learning_rate: of AdamW at its peak, after which it falls to zero along a cosine.
        weight_decay: of AdamW.
        batch_size: most examples per step; few examples make smaller steps.
        epochs: passes over the data; with a validation set the best one is kept.
        patience: passes without a better validation loss before stopping.
        members: networks from different seeds that are averaged.
        C: inverse strength of the mapping's penalty.
        seed: of weights, order and dropout.
        threads: of torch while fitting.
        widths: columns of each feature block, side by side; None for one block.
    """

    def __init__(
        self,
        *,
        rank: int = 64,
        hidden: int = 128,
        dropout: float = 0.3,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.1,
        batch_size: int = 128,
        epochs: int = 12,
        patience: int = 6,
        members: int = 3,
        C: float = 1.0,
        seed: int = 0,
        threads: int = 1,
        widths: tuple[int, ...] | None = None,
    ) -> None:
        self.rank = rank
        self.hidden = hidden
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.epochs = epochs
        self.patience = patience
        self.members = members
        self.C = C
        self.seed = seed
        self.threads = threads
        self.widths = widths

    @classmethod
    def candidates(cls, *, seed: int, widths: tuple[int, ...]) -> list[Self]:
        """The defaults: early stopping on the tune split chooses the number of passes."""
        return [cls(seed=seed, widths=widths)]

    def fit(
        self,
        X: Floats,
        Y: Floats,
        *,
        weights: Floats | None = None,
        validation: Validation | None = None,
    ) -> Self:
        """Fit on X (N, D) and Y (N, K); X may be memory-mapped, it is read batch by batch.

        Raises:
            DataError: see `SufficiencyEstimator.fit`; also for a bad validation set.
            MismatchError: when `widths` do not sum to D.
        """
        X, Y, weights = check_fit(X, Y, weights)
        widths = check_widths(self.widths, X.shape[1])
        held = check_validation(validation, X.shape[1])
        constant, base = constant_columns(Y, weights)
        self.n_features_, self.base_, self.constant_ = X.shape[1], base, constant
        self.network_: BilinearNetwork | None = None
        self.mapping_: LogisticEstimator | None = None
        if not constant.all() and varies(X):
            from router.estimators.bilinear_fitting import fit_network, pairwise, plan_of

            self.network_ = fit_network(
                X,
                Y,
                weights,
                plan=plan_of(self),
                widths=widths,
                start=logit(base),
                loss=pairwise,
                validation=held,
            )
            self.mapping_ = LogisticEstimator(C=self.C)
            if held is None:
                self.mapping_.fit(self.network_.outputs(X), Y, weights=weights)
            else:
                self.mapping_.fit(self.network_.outputs(held.X), held.Y)
        return self

    def predict(self, X: Floats) -> npt.NDArray[np.float64]:
        """Probabilities (N, K); see `SufficiencyEstimator.predict`."""
        self._check_fitted()
        X = as_floats(X)
        check_width(X, self.n_features_)
        check_finite(X)
        p = np.tile(self.base_, (len(X), 1))
        if self.network_ is not None and self.mapping_ is not None:
            mapped = self.mapping_.predict(self.network_.outputs(X))
            p[:, ~self.constant_] = mapped[:, ~self.constant_]
        return p

    def predict_one(self, x: Floats) -> npt.NDArray[np.float64]:
        """Probabilities (K,) for x (D,); see `SufficiencyEstimator.predict_one`."""
        probabilities: npt.NDArray[np.float64] = self.predict(x[None, :])[0]
        return probabilities

    def dump(self) -> dict[str, bytes]:
        """The weights as safetensors, and what is outside of them as JSON."""
        self._check_fitted()
        header = {
            "n_features": self.n_features_,
            "base": self.base_.tolist(),
            "constant": self.constant_.tolist(),
        }
        weights = mapping = b""
        if self.network_ is not None and self.mapping_ is not None:
            weights, described = self.network_.dump()
            header |= described
            mapping = self.mapping_.dump()[MAPPING]
        text = json.dumps(header, sort_keys=True).encode()
        return {WEIGHTS: weights, MAPPING: mapping, HEADER: text}

    @classmethod
    def restore(cls, files: Mapping[str, bytes]) -> Self:
        """Rebuild from verified bytes; the hyper-parameters are back at their defaults.

        Raises:
            DataError: when a part is missing or not what `dump` wrote.
        """
        estimator, header = cls(), read_header(files, HEADER)
        try:
            estimator.n_features_ = int(header["n_features"])
            estimator.base_ = np.asarray(header["base"], dtype=np.float64)
            estimator.constant_ = np.asarray(header["constant"], dtype=bool)
            content = files[WEIGHTS]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{HEADER} does not describe a rank model: {error}.") from error
        estimator.network_ = estimator.mapping_ = None
        if content:
            estimator.network_ = BilinearNetwork.restore(content, header)
            estimator.mapping_ = LogisticEstimator.restore(files)
        return estimator

    def _check_fitted(self) -> None:
        if not hasattr(self, "network_"):
            raise DataError("RankEstimator is not fitted; call fit(X, Y) first.")

"""The frame of `mlp` and `rank`: a network whose blocks of features multiply, as an estimator."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from scipy.special import logit

from m3router.data.errors import DataError
from m3router.router.estimators.base import (
    Floats,
    Range,
    SufficiencyEstimator,
    Validation,
    check_fit,
    check_validation,
    check_widths,
    constant_columns,
    read_header,
    varies,
)
from m3router.router.estimators.bilinear_network import BilinearNetwork


@dataclass(kw_only=True, eq=False)
class BilinearEstimator(SufficiencyEstimator):
    """A `BilinearNetwork` as an estimator: hyper-parameters, fit and files.

    A child says what the network learns (`LOSS`, `_taught`), and how its outputs become
    probabilities (`_predict`). Fitting needs torch; predicting is NumPy alone.

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
        seed: of weights, order and dropout.
        threads: of torch while fitting.
        widths: columns of each feature block, side by side; None for one block.

    Attributes:
        NAME: of the files.
        LOSS: a name in `m3router.router.estimators.bilinear_fitting.LOSSES`.
    """

    rank: int = 64
    hidden: int = 128
    dropout: float = 0.3
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    batch_size: int = 128
    epochs: int = 12
    patience: int = 6
    members: int = 3
    seed: int = 0
    threads: int = 1
    widths: tuple[int, ...] | None = None

    NAME: ClassVar[str]
    LOSS: ClassVar[str]
    # Early stopping on the tune split chooses the number of passes.
    SPACE = MappingProxyType(
        {
            "rank": Range(low=8, high=128, log=True),
            "hidden": Range(low=32, high=256, log=True),
            "dropout": Range(low=0.0, high=0.6),
            "learning_rate": Range(low=2e-4, high=5e-3, log=True),
            "weight_decay": Range(low=1e-3, high=1.0, log=True),
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
        """Fit on X (N, D) and Y (N, K); X may be memory-mapped, it is read batch by batch.

        Raises:
            DataError: see `SufficiencyEstimator.fit`; also for a bad validation set.
            MismatchError: when `widths` do not sum to D.
        """
        X, Y, weights = check_fit(X, Y, weights)
        widths = check_widths(self.widths, X.shape[1])
        held = check_validation(validation, X.shape[1])
        self.constant_, self.base_ = constant_columns(Y, weights)
        self.n_features_ = X.shape[1]
        self.network_: BilinearNetwork | None = None
        if not self.constant_.all() and varies(X):
            # torch, which only fitting needs
            from m3router.router.estimators.bilinear_fitting import LOSSES, fit_network, plan_of

            taught = self._taught()
            if held is not None:
                held = Validation(X=held.X, Y=held.Y[:, taught])
            self.network_ = fit_network(
                X,
                Y[:, taught],
                weights,
                plan=plan_of(self),
                widths=widths,
                start=logit(self.base_[taught]),
                loss=LOSSES[self.LOSS],
                validation=held,
            )
            self._fit_outputs(X, Y, weights, held)
        return self

    def dump(self) -> dict[str, bytes]:
        """The weights as safetensors, and what is outside of them as JSON."""
        self._check_fitted()
        header = {
            "n_features": self.n_features_,
            "base": self.base_.tolist(),
            **self._header(),
        }
        weights = b""
        if self.network_ is not None:
            weights, described = self.network_.dump()
            header |= described
        text = json.dumps(header, sort_keys=True).encode()
        return {f"{self.NAME}.safetensors": weights, f"{self.NAME}.json": text}

    @classmethod
    def restore(cls, files: Mapping[str, bytes]) -> Self:
        """The estimator whose files these are, checked before anything is built from them."""
        name = f"{cls.NAME}.json"
        estimator, header = cls(), read_header(files, name)
        try:
            estimator.base_ = np.asarray(header["base"], dtype=np.float64)
            estimator.constant_ = cls._constant(header)
            estimator.n_features_ = int(header["n_features"])
            content = files[f"{cls.NAME}.safetensors"]
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            raise DataError(f"{name} does not describe {cls.__name__}: {error}.") from error
        estimator.network_ = BilinearNetwork.restore(content, header) if content else None
        return estimator

    @abstractmethod
    def _taught(self) -> npt.NDArray[np.intp]:
        """Options that the network has an output for."""

    def _fit_outputs(self, X: Floats, Y: Floats, weights: Floats, held: Validation | None) -> None:
        """What is fitted to the network's outputs; nothing here."""

    @abstractmethod
    def _header(self) -> dict[str, Any]:
        """What the JSON file says about options whose scores are all equal."""

    @classmethod
    @abstractmethod
    def _constant(cls, header: Mapping[str, Any]) -> npt.NDArray[np.bool_]:
        """Which options (K,) have equal scores, by what `_header` gave."""

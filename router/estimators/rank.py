"""A network that learns which option is better, mapped to probabilities afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from m3router.router.estimators.base import Floats, Range, Validation
from m3router.router.estimators.bilinear import BilinearEstimator
from m3router.router.estimators.logistic import FILE as MAPPING
from m3router.router.estimators.logistic import LogisticEstimator


@dataclass(kw_only=True, eq=False)
class RankEstimator(BilinearEstimator):
    """`BilinearNetwork` on a pairwise logistic loss between the options of one example.

    A policy only asks which option is better and by how much, so the loss is about pairs: the
    margin between the utilities of one that is right and one that is wrong (see
    `m3router.router.estimators.bilinear_fitting.pairwise`). Utilities are not probabilities: a
    logistic regression per option, from all K utilities, maps them. It is fitted on the validation
    set where there is one, since the network fits its own examples too well.

    Args: those of `BilinearEstimator`, and

        C: inverse strength of the mapping's penalty.
    """

    C: float = 1.0

    NAME, LOSS = "rank", "pairwise"
    FILES = ("rank.json", "rank.safetensors", MAPPING)
    SPACE = MappingProxyType({**BilinearEstimator.SPACE, "C": Range(low=1e-3, high=10.0, log=True)})

    def dump(self) -> dict[str, bytes]:
        """The files of `BilinearEstimator` and the mapping's."""
        files = super().dump()
        return files | (self.mapping_.dump() if self.network_ is not None else {MAPPING: b""})

    @classmethod
    def restore(cls, files: Mapping[str, bytes]) -> Self:
        """The estimator whose files these are, checked before anything is built from them."""
        estimator = super().restore(files)
        if estimator.network_ is not None:
            estimator.mapping_ = LogisticEstimator.restore(files)
        return estimator

    def _taught(self) -> npt.NDArray[np.intp]:
        return np.arange(len(self.base_))  # a constant option is compared with the others, too

    def _fit_outputs(self, X: Floats, Y: Floats, weights: Floats, held: Validation | None) -> None:
        assert self.network_ is not None
        self.mapping_ = LogisticEstimator(C=self.C)
        if held is None:
            self.mapping_.fit(self.network_.outputs(X), Y, weights=weights)
        else:
            self.mapping_.fit(self.network_.outputs(held.X), held.Y)

    def _predict(self, X: Floats) -> npt.NDArray[np.float64]:
        p = np.tile(self.base_, (len(X), 1))
        if self.network_ is not None:
            mapped = self.mapping_.predict(self.network_.outputs(X))
            p[:, ~self.constant_] = mapped[:, ~self.constant_]
        return p

    def _header(self) -> dict[str, Any]:
        return {"constant": self.constant_.tolist()}

    @classmethod
    def _constant(cls, header: Mapping[str, Any]) -> npt.NDArray[np.bool_]:
        return np.asarray(header["constant"], dtype=bool)

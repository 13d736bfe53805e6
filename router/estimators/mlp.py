"""A small network in which image and question interact, with one head for all options."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from m3router.router.estimators.base import Floats, row_blocks
from m3router.router.estimators.bilinear import BilinearEstimator
from m3router.router.estimators.bilinear_network import standardised, view_slices


@dataclass(kw_only=True, eq=False)
class MlpEstimator(BilinearEstimator):
    """`BilinearNetwork` on cross-entropy, with a head that the options share.

    The head is logit_k = theta_k + s(x) + r_k(x): one score s that moves all options together,
    as in ordinal regression (McCullagh, 1980), so that neighbouring scales learn from each
    other, and a residual r_k per option under a stronger penalty, because a finer scale is not
    always better.

    Args: see `BilinearEstimator`.
    """

    NAME, LOSS = "mlp", "cross_entropy"
    FILES = ("mlp.json", "mlp.safetensors")

    def _taught(self) -> npt.NDArray[np.intp]:
        return np.flatnonzero(~self.constant_)

    def _predict(self, X: Floats) -> npt.NDArray[np.float64]:
        raw = np.tile(logit(self.base_), (len(X), 1))
        if self.network_ is not None:
            raw[:, ~self.constant_] = self.network_.outputs(X)
        probabilities: npt.NDArray[np.float64] = expit(raw)
        return probabilities

    def _header(self) -> dict[str, Any]:
        return {"active": self._taught().tolist()}

    @classmethod
    def _constant(cls, header: Mapping[str, Any]) -> npt.NDArray[np.bool_]:
        constant = np.ones(len(header["base"]), dtype=bool)
        constant[np.asarray(header["active"], dtype=np.intp)] = False
        return constant


class MlpStack:
    """The mean probability of several `MlpEstimator`s, each with a standardisation of its own.

    One batched product each for the projections, the hidden layers and the heads of all of them:
    for one row, calls and not numbers take the time.

    Notation for shapes: N examples, D features, S networks, V views, R rank, H hidden units, K
    options, F = R (V + V (V - 1) / 2).

    Args:
        estimators: fitted on the same features and options, of equal rank and width, each of one
            member.

    Raises:
        ValueError: when they are not.
    """

    def __init__(self, estimators: Sequence[MlpEstimator]) -> None:
        fitted = [one for one in estimators if one.network_ is not None]
        networks = [one.network_ for one in estimators if one.network_ is not None]
        self.count = len(estimators)
        # Where there was nothing to learn, the mean scores are all that one says.
        self.unfitted = sum((one.base_ for one in estimators if one.network_ is None), np.zeros(()))
        self.networks = len(networks)
        if not networks:
            return
        shapes = {(one.widths, one.hidden.shape) for one in networks}
        if len(shapes) > 1 or len(networks[0].hidden) > 1:
            raise ValueError(f"only networks of one member and equal shapes stack, not {shapes}")
        self.views = view_slices(networks[0].widths)
        self.mean = np.stack([one.mean for one in networks])[:, None]  # (S, 1, D)
        self.scale = np.stack([one.scale for one in networks])[:, None]
        ends = np.cumsum([view.stop - view.start for view in self.views])
        projections = np.stack([one.projection for one in networks])
        self.projections = [  # V times (S, d, R)
            np.ascontiguousarray(part) for part in np.split(projections, ends[:-1], axis=1)
        ]
        offsets = np.stack([one.offset for one in networks])  # (S, V, R)
        self.offsets = [offsets[:, None, view] for view in range(len(self.views))]
        self.hidden = np.concatenate([one.hidden for one in networks])  # (S, F, H)
        self.hidden_bias = np.stack([one.hidden_bias for one in networks])  # (S, 1, H)
        # An option of which a network saw one score only has no weights, only a bias.
        self.bias = np.stack([logit(one.base_) for one in fitted])[:, None]  # (S, 1, K)
        self.head = np.zeros((len(networks), self.hidden.shape[2], self.bias.shape[2]))
        for number, (one, network) in enumerate(zip(fitted, networks, strict=True)):
            self.head[number][:, ~one.constant_] = network.head
            self.bias[number, 0, ~one.constant_] = network.head_bias

    def predict(self, X: Floats) -> npt.NDArray[np.float64]:
        """Mean probabilities (N, K) for X (N, D), which is not checked."""
        if not self.networks:
            return np.tile(self.unfitted / self.count, (len(X), 1))
        if len(X) == 1:
            return self._block(X)
        cells = (1 << 22) // self.networks
        return np.concatenate([self._block(X[rows]) for rows in row_blocks(X, cells=cells)])

    def _block(self, X: Floats) -> npt.NDArray[np.float64]:
        Z = standardised(X[None], self.mean, self.scale)  # (S, N, D)
        seen = [
            Z[:, :, view] @ projection + offset  # (S, N, R)
            for view, projection, offset in zip(
                self.views, self.projections, self.offsets, strict=True
            )
        ]
        parts = [np.maximum(u, 0.0) for u in seen]
        parts += [a * b for a, b in itertools.combinations(seen, 2)]
        inside = np.concatenate(parts, axis=2)  # (S, N, F)
        hidden = np.maximum(inside @ self.hidden + self.hidden_bias, 0.0)  # (S, N, H)
        p = expit(hidden @ self.head + self.bias).sum(axis=0)  # (N, K)
        return np.asarray((p + self.unfitted) / self.count)

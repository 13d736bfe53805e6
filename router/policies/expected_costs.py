"""What options are expected to cost for an image, where the model that answers is not asked.

A Matryoshka model's encoding says exactly what every scale costs. Routers that decide before any
big tower runs, or for models that are not here at all, go by what was paid for images of the same
or of similar size. Policies are then fitted and certified by choices that go by these costs, while
what counts is what was really paid: the guarantee is about the rule that is run.

Notation for shapes: N examples, K options, M distinct image sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from m3router.data.errors import DataError
from m3router.router.estimators.base import Floats

NEAREST = 5
"""Sizes that the cost at a size that was never seen is the mean of."""

Array = npt.NDArray[np.float64]
Sizes = npt.NDArray[np.intp]


@dataclass(frozen=True, kw_only=True, eq=False)
class ExpectedCosts:
    """Costs by option and image size, as they were paid for the examples of the fit split.

    Attributes:
        means: (K,) over all of them.
        constant: whether every option always cost the same; then nothing depends on sizes.
        counted: whether the model itself counts the same costs before it is asked, so that whoever
            has the model decides by those, and policies are fitted by the log's own.
        sizes: (M, 2) widths and heights in pixels; M is 0 where sizes are not known or of no use.
        costs: (M, K) mean costs of images of these sizes.
    """

    means: Array
    constant: bool
    counted: bool
    sizes: Sizes
    costs: Array

    @classmethod
    def learn(cls, costs: Floats, sizes: Sizes | None, *, counted: bool = False) -> Self:
        """Learn from examples.

        Args:
            costs: (N, K) what was paid, finite.
            sizes: (N, 2) widths and heights of the images; None where they are not known.
            counted: see the class.

        Raises:
            DataError: when there are no examples, or a cost is not finite or negative.
        """
        costs = np.array(costs, dtype=np.float64)
        if not len(costs) or not np.all(np.isfinite(costs) & (costs >= 0)):
            raise DataError(
                f"Expected costs are learned from examples whose costs are finite and at least 0; "
                f"got {len(costs)} examples{', some without such costs' if len(costs) else ''}."
            )
        constant = bool((costs == costs[0]).all())
        k = costs.shape[1]
        found, by_size = np.zeros((0, 2), dtype=np.intp), np.zeros((0, k))
        if sizes is not None and not constant:
            found, place = np.unique(np.asarray(sizes, dtype=np.intp), axis=0, return_inverse=True)
            place = place.reshape(-1)
            by_size = np.stack([_mean(costs[place == one]) for one in range(len(found))])
        return cls(
            means=_mean(costs), constant=constant, counted=counted, sizes=found, costs=by_size
        )

    def of(self, sizes: Sizes | None, count: int) -> Array:
        """Expected costs (N, K) of images.

        Where a size was seen, the mean of what was paid for it; else the mean of the nearest
        sizes' costs in the logarithms of width and height, weighted by 1 / distance, which lies
        between the least and the most of them. Without sizes, the mean of all.

        Args:
            sizes: (N, 2) widths and heights in pixels, at least 1; None where not known.
            count: N.
        """
        if sizes is None or not len(self.sizes):
            return np.tile(self.means, (count, 1))
        asked, place = np.unique(np.asarray(sizes, dtype=np.intp), axis=0, return_inverse=True)
        each = np.stack([self._at(int(width), int(height)) for width, height in asked])
        return each[place.reshape(-1)]

    def is_exact(self, size: tuple[int, int] | None) -> bool:
        """Whether an image of that size costs what `of` says, as far as the examples tell."""
        return self.constant or (size is not None and self.counted and size in self._place)

    def payload(self) -> dict[str, Any]:
        """All of it as JSON values, for a sealed file."""
        return {
            "means": self.means.tolist(),
            "constant": self.constant,
            "counted": self.counted,
            "sizes": self.sizes.tolist(),
            "costs": self.costs.tolist(),
        }

    @classmethod
    def of_payload(cls, payload: Mapping[str, Any], *, options: int) -> Self:
        """What `payload` gave, for a router of so many options.

        Raises:
            DataError: when it is something else.
        """
        try:
            means = np.asarray(payload["means"], dtype=np.float64)
            sizes = np.asarray(payload["sizes"], dtype=np.intp).reshape(-1, 2)
            costs = np.asarray(payload["costs"], dtype=np.float64).reshape(len(sizes), options)
            constant, counted = bool(payload["constant"]), bool(payload["counted"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"The router's expected costs are damaged: {error!r}.") from error
        if means.shape != (options,) or (sizes < 1).any():
            raise DataError(
                f"The router's expected costs are damaged: {options} options need as many means "
                f"and sizes of at least 1 pixel; the means have shape {means.shape}."
            )
        return cls(means=means, constant=constant, counted=counted, sizes=sizes, costs=costs)

    def _at(self, width: int, height: int) -> Array:
        if (width, height) in self._place:
            return np.asarray(self.costs[self._place[width, height]])
        distance = np.hypot(*(self._logs - np.log([width, height])).T)
        near = np.argsort(distance, kind="stable")[:NEAREST]
        weights = 1 / distance[near]
        costs = self.costs[near]
        mean = (weights[:, None] * costs).sum(axis=0) / weights.sum()
        return np.asarray(np.clip(mean, costs.min(axis=0), costs.max(axis=0)))  # sums are rounded

    @cached_property
    def _place(self) -> dict[tuple[int, int], int]:
        return {(int(w), int(h)): place for place, (w, h) in enumerate(self.sizes)}

    @cached_property
    def _logs(self) -> Array:
        return np.asarray(np.log(self.sizes))


def _mean(costs: Floats) -> Array:
    """Means (K,) of costs (n, K); what is always the same is its own mean, to the last digit."""
    same = (costs == costs[0]).all(axis=0)
    return np.where(same, costs[0], costs.mean(axis=0)).astype(np.float64)

"""Cluster bootstrap: intervals that respect that questions about one image are not independent.

Notation for shapes: N examples in G groups, M columns of values, B draws.

A draw takes G groups with replacement (Davison and Hinkley, Bootstrap Methods and their
Application, 1997, section 3.8). Every statistic here is a function of column means, so a draw
is fully described by how often it took each group: one multinomial weight matrix times the
groups' sums gives the means of all columns in all draws. The columns of one call share their
draws: differences between columns are paired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from data.errors import DataError
from router.metrics.choices import Array, Floats
from router.metrics.intervals import percentile_interval

CHUNK_ENTRIES = 4_000_000  # of the weight matrix held at once: 32 MB


@dataclass(frozen=True)
class Estimate:
    """A value with its interval; None where it is undefined."""

    value: float | None
    low: float | None
    high: float | None

    def to_dict(self) -> dict[str, float | None]:
        """As a JSON-able mapping."""
        return asdict(self)


def group_sums(values: Floats, groups: Sequence[str] | npt.NDArray) -> tuple[Array, Array]:
    """Sums (G, M) of `values` (N, M) per group, and sizes (G,) of the groups.

    Raises:
        DataError: when there are no rows, or not one group per row.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or not len(values) or len(groups) != len(values):
        raise DataError(
            f"A bootstrap needs values (N, M) and N groups; it got {values.shape} values and "
            f"{len(groups)} groups."
        )
    _, member, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    order = np.argsort(member.reshape(-1), kind="stable")
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    sums = np.add.reduceat(values[order], starts, axis=0)
    return sums, sizes.astype(np.float64)


def cluster_means(
    values: Floats,
    groups: Sequence[str] | npt.NDArray,
    *,
    draws: int = 1000,
    seed: int = 0,
) -> Array:
    """Means (B, M) of the columns of `values` (N, M) in bootstrap draws of whole groups.

    All NaN for a single group, which says nothing about the spread between groups.

    Raises:
        DataError: when there are no rows, or not one group per row.
    """
    return draw_means(*group_sums(values, groups), draws=draws, seed=seed)


def draw_means(sums: Floats, sizes: Floats, *, draws: int = 1000, seed: int = 0) -> Array:
    """Means (B, M) in draws of groups with sums (G, M) and sizes (G,); see `cluster_means`."""
    n_groups = len(sizes)
    if n_groups < 2:
        return np.full((draws, sums.shape[1]), np.nan)
    generator = np.random.default_rng(seed)
    shares = np.full(n_groups, 1 / n_groups)
    chunk = max(1, CHUNK_ENTRIES // n_groups)
    means = [
        (weights @ sums) / (weights @ sizes)[:, None]
        for begin in range(0, draws, chunk)
        for weights in [generator.multinomial(n_groups, shares, size=min(chunk, draws - begin))]
    ]
    return np.concatenate(means)


def estimate(value: float, samples: Floats, *, level: float = 0.95) -> Estimate:
    """A value with the percentile interval of its draws (B,).

    An undefined value (NaN) has no interval.
    """
    if not np.isfinite(value):
        return Estimate(None, None, None)
    low, high = percentile_interval(samples, level=level)
    return Estimate(float(value), low, high)

"""The reference option: what losses, regrets and fallbacks are against.

The most expensive option need not be the best one. The reference is the option that is best on the
calibration split, or one that is named. Under a cap, what stands for option r is r where the cap
allows it, else the last allowed option before it in rank, else the cheapest allowed; the best is
then the best of these rules.

Notation for shapes: N examples of the calibration split, K options.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from m3router.data.errors import DataError
from m3router.data.registry import unknown_name
from m3router.router.estimators.base import Floats
from m3router.router.metrics.choices import best_fixed
from m3router.router.policies.price_sweep import allowed, reference_allowed


def under_cap(
    values: Floats, costs: Floats, *, cap: float | None = None
) -> npt.NDArray[np.float64]:
    """What each option, or what stands for it under the cap, has of `values`: (N, K).

    Args:
        values: (N, K), such as scores.
        costs: (N, K).
        cap: most cost of any single answer.

    Raises:
        DataError: when the cap is below the cheapest option of an example.
    """
    inside, rows = allowed(costs, cap), np.arange(len(costs))
    values = np.asarray(values, dtype=np.float64)
    each = [values[rows, reference_allowed(inside, costs, k)] for k in range(costs.shape[1])]
    return np.stack(each, axis=1)


def best_option(scores: Floats, costs: Floats, *, cap: float | None = None) -> int:
    """Index of the option that scores best, ties to the cheaper, both as they are under the cap.

    Raises:
        DataError: when the cap is below the cheapest option of an example.
    """
    costs = np.asarray(costs, dtype=np.float64)
    return best_fixed(under_cap(scores, costs, cap=cap), under_cap(costs, costs, cap=cap))


def index_of(name: str, options: Sequence[str]) -> int:
    """Index of the option that is named as reference.

    Raises:
        DataError: when there is none of that name, with the nearest and all that there are.
    """
    if name not in options:
        raise DataError(unknown_name("reference option", name, options))
    return list(options).index(name)


def chosen(
    name: str | None,
    options: Sequence[str],
    *,
    scores: Floats,
    costs: Floats,
    cap: float | None = None,
) -> str:
    """Name of the reference: the one that is given, else the best of scores (N, K) under the cap.

    Raises:
        DataError: for an unknown name, or a cap below the cheapest option of an example.
    """
    if name is not None:
        return options[index_of(name, options)]
    return options[best_option(scores, costs, cap=cap)]

"""A setting that tuning found, as training takes it; needs no Optuna."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data.splits import Split
from router.estimators import estimator_class
from router.parts import Gaps


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """A setting that tuning found, and the split that it was found on.

    Attributes:
        estimator: its name.
        blocks: feature blocks that it reads.
        hyperparameters: that were searched.
        split: only its `fit` and `tune` were read.
        seed, gaps, rule: as tuning was called.
        record: for the router's metadata.
    """

    estimator: str
    blocks: tuple[str, ...]
    hyperparameters: dict[str, Any]
    split: Split
    seed: int
    gaps: Gaps
    rule: str
    record: dict[str, Any]


def with_fixed(
    estimator: str, settings: Mapping[str, Any], *, seed: int, widths: Sequence[int]
) -> dict[str, Any]:
    """Add what a run fixes and no trial draws, where the estimator takes it.

    Args:
        estimator: a name in `router.estimators.ESTIMATORS`.
        settings: what a trial drew.
        seed: for the argument ``seed``.
        widths: columns of each feature block, for the argument ``widths``.
    """
    takes = inspect.signature(estimator_class(estimator)).parameters
    fixed: dict[str, Any] = {"seed": seed, "widths": tuple(widths)}
    return {**settings, **{name: value for name, value in fixed.items() if name in takes}}

"""A setting that tuning found, as training takes it; needs no Optuna."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from m3router.data.log.parts import Gaps
from m3router.data.splits.split import Split


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

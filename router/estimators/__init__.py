"""Estimators of P(correct | scale): one literal table, imported on demand."""

from __future__ import annotations

from typing import cast

from data.registry import load_entry
from router.estimators.base import SufficiencyEstimator

ESTIMATORS: dict[str, str] = {
    "blend": "router.estimators.blended:BlendedEstimator",
    "logistic": "router.estimators.logistic:LogisticEstimator",
    "lightgbm": "router.estimators.boosted:BoostedEstimator",
    "mlp": "router.estimators.mlp:MlpEstimator",
    "knn": "router.estimators.neighbours:NeighboursEstimator",
    "rank": "router.estimators.rank:RankEstimator",
}


DEFAULT = "blend"
"""Never far below the best of the others at any size; measured in experiments/real_logs."""


def estimator_class(name: str) -> type[SufficiencyEstimator]:
    """The estimator class called `name` in `ESTIMATORS`.

    Raises:
        DataError: when there is no such estimator; names the closest one.
    """
    return cast("type[SufficiencyEstimator]", load_entry(ESTIMATORS, name, kind="estimator"))


def estimator_files() -> tuple[str, ...]:
    """The name of every file that an estimator in `ESTIMATORS` may be stored as."""
    files = (file for name in ESTIMATORS for file in estimator_class(name).FILES)
    return tuple(dict.fromkeys(files))

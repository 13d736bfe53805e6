"""Estimators of P(correct | scale): one literal table, imported on demand."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from m3router.data.registry import exports, load_entry
from m3router.router.estimators.base import SufficiencyEstimator

ESTIMATORS: dict[str, str] = {
    "blend": "m3router.router.estimators.blended:BlendedEstimator",
    "logistic": "m3router.router.estimators.logistic:LogisticEstimator",
    "lightgbm": "m3router.router.estimators.boosted:BoostedEstimator",
    "mlp": "m3router.router.estimators.mlp:MlpEstimator",
    "knn": "m3router.router.estimators.neighbours:NeighboursEstimator",
    "rank": "m3router.router.estimators.rank:RankEstimator",
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


if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = exports(
        __name__, {}, also=["ESTIMATORS", "DEFAULT", "estimator_class", "estimator_files"]
    )

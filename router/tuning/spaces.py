"""What is searched: a literal table, estimator -> its hyper-parameters as a trial draws them.

An estimator in `router.estimators.ESTIMATORS` needs a line in `SPACES`. Names of parameters
begin with the estimator's, because one study searches several estimators.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from optuna.trial import BaseTrial

from data.errors import DataError
from router.estimators import estimator_class

Settings = dict[str, Any]
MOST_SUBSETS = 4
"""Up to so many feature blocks, every subset of them is searched."""


def _blend(trial: BaseTrial) -> Settings:
    return {
        "rank": trial.suggest_int("blend.rank", 8, 128, log=True),
        "hidden": trial.suggest_int("blend.hidden", 32, 256, log=True),
        "learning_rate": trial.suggest_float("blend.learning_rate", 2e-4, 5e-3, log=True),
    }


def _logistic(trial: BaseTrial) -> Settings:
    return {"C": trial.suggest_float("logistic.C", 1e-5, 1.0, log=True)}


def _lightgbm(trial: BaseTrial) -> Settings:
    return {
        "num_leaves": trial.suggest_int("lightgbm.num_leaves", 3, 63, log=True),
        "learning_rate": trial.suggest_float("lightgbm.learning_rate", 0.02, 0.3, log=True),
        "min_leaf": trial.suggest_int("lightgbm.min_leaf", 5, 300, log=True),
        "feature_fraction": trial.suggest_float("lightgbm.feature_fraction", 0.03, 1.0, log=True),
    }


def _bilinear(trial: BaseTrial, name: str) -> Settings:
    return {
        "rank": trial.suggest_int(f"{name}.rank", 8, 128, log=True),
        "hidden": trial.suggest_int(f"{name}.hidden", 32, 256, log=True),
        "dropout": trial.suggest_float(f"{name}.dropout", 0.0, 0.6),
        "learning_rate": trial.suggest_float(f"{name}.learning_rate", 2e-4, 5e-3, log=True),
        "weight_decay": trial.suggest_float(f"{name}.weight_decay", 1e-3, 1.0, log=True),
    }


def _mlp(trial: BaseTrial) -> Settings:
    return _bilinear(trial, "mlp")


def _knn(trial: BaseTrial) -> Settings:
    return {
        "k": trial.suggest_int("knn.k", 5, 1000, log=True),
        "metric": trial.suggest_categorical("knn.metric", ["euclidean", "cosine"]),
        "components": trial.suggest_int("knn.components", 4, 128, log=True),
        "prior": trial.suggest_float("knn.prior", 0.1, 30.0, log=True),
    }


def _rank(trial: BaseTrial) -> Settings:
    penalty = {"C": trial.suggest_float("rank.C", 1e-3, 10.0, log=True)}
    return _bilinear(trial, "rank") | penalty


SPACES: dict[str, Callable[[BaseTrial], Settings]] = {
    "blend": _blend,
    "logistic": _logistic,
    "lightgbm": _lightgbm,
    "mlp": _mlp,
    "knn": _knn,
    "rank": _rank,
}

_NETWORK = {
    "rank": 64,
    "hidden": 128,
    "dropout": 0.3,
    "learning_rate": 1e-3,
    "weight_decay": 0.1,
}

STARTS: dict[str, Settings] = {
    "blend": {f"blend.{name}": _NETWORK[name] for name in ("rank", "hidden", "learning_rate")},
    "logistic": {"logistic.C": 3e-3},
    "lightgbm": {
        "lightgbm.num_leaves": 7,
        "lightgbm.learning_rate": 0.06,
        "lightgbm.min_leaf": 20,
        "lightgbm.feature_fraction": 0.3,
    },
    "mlp": {f"mlp.{name}": value for name, value in _NETWORK.items()},
    "knn": {"knn.k": 100, "knn.metric": "euclidean", "knn.components": 64, "knn.prior": 2.0},
    "rank": {f"rank.{name}": value for name, value in (_NETWORK | {"C": 1.0}).items()},
}
"""The first trial of each estimator: its defaults, or the middle of what `train` tries."""


def known_estimators(names: Iterable[str]) -> tuple[str, ...]:
    """The estimators to search, each once.

    Raises:
        DataError: when there are none, or one does not exist or has no space.
    """
    found = tuple(dict.fromkeys(names))
    for name in found:
        estimator_class(name)
        if name not in SPACES:
            raise DataError(
                f"The estimator {name!r} has no search space; those with one are "
                f"{', '.join(sorted(SPACES))}."
            )
    if not found:
        raise DataError(f"Name at least one estimator to tune: {', '.join(sorted(SPACES))}.")
    return found


def block_choices(blocks: Sequence[str]) -> list[str]:
    """The sets of feature blocks that are tried, each as its names joined by ``+``.

    Every non-empty subset of up to `MOST_SUBSETS` blocks; of more, all of them, all but one, and
    each alone.

    >>> block_choices(["image", "question"])
    ['image+question', 'image', 'question']
    """
    sizes: Iterable[int] = range(len(blocks), 0, -1)
    if len(blocks) > MOST_SUBSETS:
        sizes = (len(blocks), len(blocks) - 1, 1)
    return ["+".join(chosen) for n in sizes for chosen in itertools.combinations(blocks, n)]


def draw(
    trial: BaseTrial, *, estimators: Sequence[str], blocks: Sequence[str]
) -> tuple[str, list[str], Settings]:
    """Let a trial choose an estimator, the feature blocks it reads and its hyper-parameters."""
    name = str(trial.suggest_categorical("estimator", list(estimators)))
    chosen = str(trial.suggest_categorical("blocks", block_choices(blocks)))
    return name, chosen.split("+"), SPACES[name](trial)

"""What is searched: estimators, the feature blocks they read, and the `SPACE` of each estimator.

Names of parameters begin with the estimator's, because one study searches several estimators.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from optuna.trial import BaseTrial

from m3router.data.errors import DataError
from m3router.router.estimators import ESTIMATORS, estimator_class
from m3router.router.estimators.base import Choice

Settings = dict[str, Any]
MOST_SUBSETS = 4
"""Up to so many feature blocks, every subset of them is searched."""


def searchable() -> tuple[str, ...]:
    """Estimators that have something to search."""
    return tuple(name for name in ESTIMATORS if estimator_class(name).SPACE)


def known_estimators(names: Iterable[str]) -> tuple[str, ...]:
    """The estimators to search, each once.

    Raises:
        DataError: when there are none, or one does not exist or has no space.
    """
    found = tuple(dict.fromkeys(names))
    for name in found:
        if not estimator_class(name).SPACE:
            raise DataError(
                f"The estimator {name!r} has no search space (`SPACE`); those with one are "
                f"{', '.join(sorted(searchable()))}."
            )
    if not found:
        raise DataError(f"Name at least one estimator to tune: {', '.join(sorted(searchable()))}.")
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
    return name, chosen.split("+"), drawn(trial, name)


def drawn(trial: BaseTrial, name: str) -> Settings:
    """The hyper-parameters of an estimator that a trial draws from its `SPACE`."""
    found: Settings = {}
    for key, space in estimator_class(name).SPACE.items():
        parameter = f"{name}.{key}"
        if isinstance(space, Choice):
            found[key] = trial.suggest_categorical(parameter, list(space.values))
        elif isinstance(space.low, int):
            found[key] = trial.suggest_int(parameter, space.low, int(space.high), log=space.log)
        else:
            found[key] = trial.suggest_float(parameter, space.low, space.high, log=space.log)
    return found


def start(name: str) -> Settings:
    """The parameters of an estimator's first trial: its defaults, unless its `SPACE` says else."""
    kind = estimator_class(name)
    defaults = inspect.signature(kind).parameters
    return {
        f"{name}.{key}": defaults[key].default if space.start is None else space.start
        for key, space in kind.SPACE.items()
    }

"""What trackers are told of a search: every trial as it ends, and what was chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from m3router.router.tracking.trackers import Trackers
from m3router.router.tuning.objective import OBJECTIVES, overall
from m3router.router.tuning.results import finished
from m3router.router.tuning.search import HYPERPARAMETERS, LOG_LOSS, Counts


class TrialLog:
    """Tells every trial of tuning once, as soon as it has ended; the trials before a start first.

    Args:
        trackers: are told.
        study: of the trials, of this and of other processes.
        progress: called as it would be without trackers.
    """

    def __init__(
        self,
        trackers: Trackers,
        study: Study,
        progress: Callable[[Counts, float | None], None] | None,
    ) -> None:
        self._trackers, self._study, self._progress = trackers, study, progress
        self._told: set[int] = set()
        self._best: float | None = None

    def __call__(self, counts: Counts, best: float | None) -> None:
        """Tell the trials that ended since the last call; as `progress` of `search`."""
        if self._progress:
            self._progress(counts, best)
        for trial in finished(self._study) if self._trackers else ():
            if trial.number not in self._told:
                self._trackers.metrics(self._values(trial), step=len(self._told))
                self._told.add(trial.number)

    def _values(self, trial: FrozenTrial) -> dict[str, float | None]:
        complete = trial.state == TrialState.COMPLETE
        values: dict[str, float | None] = {
            "trial": float(trial.number),
            "pruned": float(trial.state == TrialState.PRUNED),
            "failed": float(trial.state == TrialState.FAIL),
        }
        if complete:
            mean = overall(trial.values)
            self._best = mean if self._best is None else max(mean, self._best)
            values |= dict(zip(OBJECTIVES, trial.values, strict=True))
            values |= {"mean of both": mean, LOG_LOSS: trial.user_attrs.get(LOG_LOSS)}
        return values | {"best": self._best}


def log_tuning(trackers: Trackers, found: Mapping[str, Any]) -> None:
    """Tell what tuning chose."""
    chosen = next(row for row in found["trials"] if row["number"] == found["chosen"])
    trackers.settings(
        {
            "chosen": {
                "trial": chosen["number"],
                "estimator": chosen["estimator"],
                "feature_groups": chosen["blocks"],
                HYPERPARAMETERS: chosen["hyperparameters"],
            }
        }
    )
    values = dict(zip(found["objectives"], chosen["values"], strict=True))
    trackers.metrics({f"chosen/{name}": value for name, value in values.items()})

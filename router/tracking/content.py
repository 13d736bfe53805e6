"""What trackers are told of each stage: settings and numbers, never a question, answer or image."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from optuna import Study
from optuna.trial import FrozenTrial, TrialState
from PIL import Image

from m3router.data.log.parts import part_sizes
from m3router.router.reports.figures import png, still
from m3router.router.reports.plots import pareto
from m3router.router.runs.run import Run
from m3router.router.training.scale_router import ScaleRouter
from m3router.router.tracking.tracker import Setting
from m3router.router.tracking.trackers import Trackers
from m3router.router.tuning.objective import OBJECTIVES, overall
from m3router.router.tuning.results import finished
from m3router.router.tuning.search import HYPERPARAMETERS, LOG_LOSS, Counts

ENDS = ("low", "high")
"""Of an interval."""


def log_training(trackers: Trackers, run: Run, router: ScaleRouter) -> None:
    """Tell what was trained: log-loss of every candidate, and calibration errors."""
    run = run.opened()
    log = run.log()
    about = router.metadata
    trackers.settings(
        settings(
            {
                "estimator": router.estimator_name,
                "feature_groups": list(router.blocks),
                "options": list(router.options),
                "cost_unit": router.cost_unit,
                "model": about["log"].get("model"),
                "features": about["features"].get("source"),
                "split": about["split"],
                "examples": {
                    part: size["examples"] for part, size in part_sizes(log, run.split(log)).items()
                },
                "probability_calibration": about["calibration"]["method"],
                **{name: about.get(name) for name in ("seed", "gaps", "datasets")},
                "hyperparameters": about["hyperparameters"],
                "versions": about["versions"],
            }
        )
    )
    arms = {name: run.router(name).metadata for name in run.arms()}
    tried = {name: [one["log_loss"] for one in found["tuned"]] for name, found in arms.items()}
    for step in range(max(map(len, tried.values()))):
        losses = {f"{name}/log_loss": of[step] for name, of in tried.items() if step < len(of)}
        trackers.metrics(losses, step=step)
    for name, found in arms.items():
        trackers.metrics(_calibration(name, found["calibration"], router.options))
    for kind, shares in (about.get("members") or {}).items():
        trackers.metrics({f"members/{kind}/{name}": share for name, share in shares.items()})


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
        settings(
            {
                "chosen": {
                    "trial": chosen["number"],
                    "estimator": chosen["estimator"],
                    "feature_groups": chosen["blocks"],
                    HYPERPARAMETERS: chosen["hyperparameters"],
                }
            }
        )
    )
    values = dict(zip(found["objectives"], chosen["values"], strict=True))
    trackers.metrics({f"chosen/{name}": value for name, value in values.items()})


def log_evaluation(trackers: Trackers, run: Run, document: Mapping[str, Any]) -> None:
    """Tell the verdict, the numbers of every row with their intervals, and draw the trade-off."""
    told = document["provenance"]
    trackers.settings(
        settings(
            {
                "options": document["options"],
                "cost_unit": document["cost_unit"],
                "reference": document["reference"]["option"],
                "best_fixed": document["best_fixed"],
                "model": told["log"].get("model"),
                "estimator": told["router"].get("estimator"),
                "examples": document["n"],
                "bootstrap": document["bootstrap"],
                "versions": told["versions"],
            }
        )
    )
    trackers.text("verdict", document["verdict"]["text"])
    for row in document["rows"]:
        trackers.metrics(dict(estimates(f"{row['kind']}/{row['name']}", row)))
    trackers.metrics(dict(estimates("curve", document["metrics"])))
    trackers.metrics({"curve/ece": document["metrics"]["ece"]})
    with Image.open(io.BytesIO(png(still(pareto(document))))) as figure:
        trackers.figure("trade-off", figure.convert("RGB"))


def settings(values: Mapping[str, Any], prefix: str = "") -> dict[str, Setting]:
    """Nested settings as flat ones; what is not known is left out.

    >>> settings({"seed": 0, "n": {"fit": 3}, "options": ["low", "high"], "gaps": None})
    {'seed': 0, 'n.fit': 3, 'options': 'low, high'}
    """
    found: dict[str, Setting] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found |= settings(value, f"{name}.")
        elif isinstance(value, str | int | float | bool):
            found[name] = value
        elif value is not None:
            found[name] = ", ".join(map(str, value))
    return found


def estimates(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, float | None]]:
    """Name and value of every estimate in a mapping, and of the ends of its interval.

    >>> dict(estimates("row", {"cost": {"value": 2.0, "low": 1.0, "high": 3.0}, "name": "a"}))
    {'row/cost': 2.0, 'row/cost/low': 1.0, 'row/cost/high': 3.0}
    """
    for name, one in values.items():
        if isinstance(one, Mapping) and "value" in one:
            yield f"{prefix}/{name}", one["value"]
            for end in ENDS:
                yield f"{prefix}/{name}/{end}", one.get(end)


def _calibration(
    name: str, calibration: Mapping[str, Any], options: tuple[str, ...]
) -> dict[str, float | None]:
    """Calibration errors of a router, overall and by option, before and after calibration."""
    found: dict[str, float | None] = {}
    for when, errors in calibration["ece"].items():
        found[f"{name}/calibration_error/{when}"] = errors["overall"]
        for option, error in zip(options, errors["by_option"], strict=True):
            found[f"{name}/calibration_error/{when}/{option}"] = error
    return found

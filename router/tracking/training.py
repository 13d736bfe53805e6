"""What trackers are told of a training: settings and numbers, no question, answer or image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from m3router.data.log.parts import part_sizes
from m3router.router.runs.run import Run
from m3router.router.tracking.trackers import Trackers
from m3router.router.training.scale_router import ScaleRouter


def log_training(trackers: Trackers, run: Run, router: ScaleRouter) -> None:
    """Tell what was trained: log-loss of every candidate, and calibration errors."""
    run = run.opened()
    log = run.log()
    about = router.metadata
    trackers.settings(
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
    arms = {name: run.router(name).metadata for name in run.arms()}
    tried = {name: [one["log_loss"] for one in found["tuned"]] for name, found in arms.items()}
    for step in range(max(map(len, tried.values()))):
        losses = {f"{name}/log_loss": of[step] for name, of in tried.items() if step < len(of)}
        trackers.metrics(losses, step=step)
    for name, found in arms.items():
        trackers.metrics(_calibration(name, found["calibration"], router.options))
    for kind, shares in (about.get("members") or {}).items():
        trackers.metrics({f"members/{kind}/{name}": share for name, share in shares.items()})


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

"""MLflow: `MLFLOW_TRACKING_URI`, `MLFLOW_EXPERIMENT_NAME` and its login hold as usual."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from typing import Any

from PIL import Image

from m3router.router.tracking.tracker import PROJECT, Place, Setting

OTHERS = re.compile(r"[^\w.\- :/]")
"""What MLflow takes in no name (`mlflow/utils/validation.py`)."""
LONGEST_NAME, LONGEST_VALUE, MOST = 250, 6000, 100
"""Characters of a name and of a setting, and settings in one request, that MLflow takes."""


class MlflowTracker:
    """A run by MLflow's client; a run that the user may have opened is left alone."""

    def __init__(self, place: Place) -> None:
        import mlflow

        self._entities: Any = mlflow.entities
        self._client: Any = mlflow.MlflowClient()
        name = place.project or os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        known = self._client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self._client.create_experiment(name)
        tags = {"run": place.run, "stage": place.stage}
        run = self._client.create_run(experiment, run_name=place.name, tags=tags)
        self._run: str = run.info.run_id
        self._names: dict[str, str] = {}

    def settings(self, values: Mapping[str, Setting]) -> None:
        """Keep what the run was made with; long texts are cut."""
        params = [
            self._entities.Param(self._name(name), str(value)[:LONGEST_VALUE])
            for name, value in values.items()
        ]
        for start in range(0, len(params), MOST):
            self._client.log_batch(self._run, params=params[start : start + MOST])

    def metrics(self, values: Mapping[str, float], *, step: int | None = None) -> None:
        """Keep numbers; results of the whole run are at step 0."""
        now = int(1000 * time.time())
        metrics = [
            self._entities.Metric(self._name(name), value, now, step or 0)
            for name, value in values.items()
        ]
        for start in range(0, len(metrics), MOST):
            self._client.log_batch(self._run, metrics=metrics[start : start + MOST])

    def text(self, name: str, text: str) -> None:
        """Keep a text as a file."""
        self._client.log_text(self._run, text, f"{self._name(name)}.txt")

    def figure(self, name: str, image: Image.Image) -> None:
        """Keep a figure as a file."""
        self._client.log_image(self._run, image, f"{self._name(name)}.png")

    def close(self, *, failed: bool) -> None:
        """End the run."""
        self._client.set_terminated(self._run, "FAILED" if failed else "FINISHED")

    def _name(self, name: str) -> str:
        """A name that MLflow takes; two names never become one."""
        if name not in self._names:
            parts = OTHERS.sub("_", name).split("/")
            plain = "/".join("_" if part in ("", ".", "..") else part for part in parts)
            plain = found = plain[:LONGEST_NAME]
            number = 1
            while found in self._names.values():
                number += 1
                end = f"-{number}"
                found = plain[: LONGEST_NAME - len(end)] + end
            self._names[name] = found
        return self._names[name]

"""Weights & Biases: `WANDB_MODE`, `WANDB_PROJECT`, `WANDB_ENTITY` and its login hold as usual."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from PIL import Image

from m3router.router.tracking.tracker import PROJECT, Place, Setting


class WandbTracker:
    """A run of its own, beside one that the user may have opened."""

    def __init__(self, place: Place) -> None:
        import wandb

        self._wandb: Any = wandb
        self._run: Any = wandb.init(
            project=place.project or os.environ.get("WANDB_PROJECT") or PROJECT,
            name=place.name,
            group=place.run,
            job_type=place.stage,
            reinit="create_new",
            settings=wandb.Settings(console="off"),
        )

    def settings(self, values: Mapping[str, Setting]) -> None:
        """Keep what the run was made with."""
        self._run.config.update(dict(values))

    def metrics(self, values: Mapping[str, float], *, step: int | None = None) -> None:
        """Keep numbers; results of the whole run are in its summary."""
        if step is None:
            self._run.summary.update(dict(values))
        else:
            self._run.log(dict(values), step=step)

    def text(self, name: str, text: str) -> None:
        """Keep a text in the summary."""
        self._run.summary[name] = text

    def figure(self, name: str, image: Image.Image) -> None:
        """Keep a figure."""
        self._run.log({name: self._wandb.Image(image)})

    def close(self, *, failed: bool) -> None:
        """End the run, which waits for what has to be sent."""
        self._run.finish(exit_code=int(failed))

"""TensorBoard: event files in the run folder, which `tensorboard --logdir run/` shows."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from m3router.data.paths import as_path
from m3router.router.tracking.tracker import Place, Setting

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorboardTracker:
    """A folder of event files, `tensorboard/STAGE-TIME` in the run folder."""

    def __init__(self, place: Place) -> None:
        when = time.strftime("%Y%m%d-%H%M%S")
        self._folder = as_path(place.folder) / "tensorboard" / f"{place.stage}-{when}"

    @functools.cached_property
    def _writer(self) -> SummaryWriter:
        """Made when there is something to write: a stage that is refused leaves no folder."""
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self._folder))

    def settings(self, values: Mapping[str, Setting]) -> None:
        """Keep what the run was made with, as a text."""
        told = json.dumps(dict(values), indent=2, ensure_ascii=False)
        self.text("settings", f"```json\n{told}\n```")

    def metrics(self, values: Mapping[str, float], *, step: int | None = None) -> None:
        """Keep numbers as scalars; results of the whole run are at step 0."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step or 0)
        self._writer.flush()

    def text(self, name: str, text: str) -> None:
        """Keep a text."""
        self._writer.add_text(name, text)

    def figure(self, name: str, image: Image.Image) -> None:
        """Keep a figure."""
        self._writer.add_image(name, np.asarray(image.convert("RGB")), dataformats="HWC")

    def close(self, *, failed: bool) -> None:
        """Write what is left."""
        if "_writer" in vars(self):
            self._writer.close()

"""Trackio: a local database, or a Space; `TRACKIO_DIR` and `TRACKIO_SPACE_ID` hold as usual."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL import Image

from m3router.router.tracking.tracker import PROJECT, Place, Setting


class TrackioTracker:
    """A run of Trackio, which has one at a time: opening it ends one that the user has open."""

    def __init__(self, place: Place) -> None:
        import trackio

        self._trackio: Any = trackio
        self._run: Any = trackio.init(
            project=place.project or PROJECT,
            name=place.name,
            group=place.run,
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def settings(self, values: Mapping[str, Setting]) -> None:
        """Keep what the run was made with."""
        self._run.config.update(values)

    def metrics(self, values: Mapping[str, float], *, step: int | None = None) -> None:
        """Keep numbers."""
        self._run.log(dict(values), step=step)

    def text(self, name: str, text: str) -> None:
        """Keep a text."""
        self._run.log({name: self._trackio.Markdown(text)})

    def figure(self, name: str, image: Image.Image) -> None:
        """Keep a figure."""
        self._run.log({name: self._trackio.Image(image)})

    def close(self, *, failed: bool) -> None:
        """End the run."""
        self._trackio.finish()

"""What every experiment tracker offers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from m3router.data.paths import StrPath, as_path

PROJECT = "m3router"
"""Where runs are kept when neither the user nor the tracker's own settings name a project."""

Setting = str | int | float | bool


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a tracker keeps what it is told.

    Attributes:
        run: what the work belongs to, such as the name of the run folder.
        stage: what is being done, such as "train".
        folder: of the run, for trackers that write files beside it.
        project: name of the project or experiment; None for the tracker's own setting, or
            `PROJECT`.
    """

    run: str
    stage: str
    folder: StrPath
    project: str | None = None

    @classmethod
    def of(cls, folder: StrPath, stage: str, project: str | None = None) -> Place:
        """That of a stage's work in a folder, which gives its name."""
        folder = as_path(folder)
        return cls(run=folder.resolve().name or "run", stage=stage, folder=folder, project=project)

    @property
    def name(self) -> str:
        """Name of the tracker's run.

        >>> Place(run="receipts", stage="train", folder="receipts").name
        'receipts-train'
        """
        return f"{self.run}-{self.stage}"


class Tracker(Protocol):
    """One run of an experiment tracker.

    Constructed with a `Place`. Its package is imported in the constructor. What it raises, it
    raises: `m3router.router.tracking.trackers.Trackers` sees to it that no work is lost.
    """

    def settings(self, values: Mapping[str, Setting]) -> None:
        """Keep what the run was made with."""

    def metrics(self, values: Mapping[str, float], *, step: int | None = None) -> None:
        """Keep numbers, all finite.

        Args:
            values: name -> number. Names are divided by "/" and may hold any character.
            step: which step of a series they are of; None for results of the whole run. Steps
                never go down within a run.
        """

    def text(self, name: str, text: str) -> None:
        """Keep a text."""

    def figure(self, name: str, image: Image.Image) -> None:
        """Keep a figure."""

    def close(self, *, failed: bool) -> None:
        """End the run; `failed` when the work did not come to its end."""

"""What a model family is: one object that says everything the project must know of it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image

from m3router.data.errors import MismatchError, ModelError
from m3router.m3core.checkpoints.checkpoint import Checkpoint, Layout
from m3router.m3core.checkpoints.placement import Placement
from m3router.m3core.cost.operations import ModelShape
from m3router.m3core.matryoshka.base import MultiScaleModel, VisualEncoding
from m3router.m3core.matryoshka.models.anyres import CropGrid
from m3router.m3core.matryoshka.pooling import AVERAGE
from m3router.m3core.matryoshka.scales import ScaleGrid
from m3router.m3core.matryoshka.trainable import Trainable
from m3router.m3core.matryoshka.views import Sight, View


@dataclass(frozen=True, kw_only=True)
class Source:
    """What :meth:`Family.build` gets.

    Attributes:
        checkpoint: What was recognised.
        placement: Where the model goes.
        name: How the user called it.
        pooling: How coarser scales are made.
        grids: How images may be cut into crops; None leaves it to the checkpoint.
        unlisted_grids: Whether these may be others than the checkpoint's.
    """

    checkpoint: Checkpoint
    placement: Placement
    name: str
    pooling: str
    grids: tuple[CropGrid, ...] | None
    unlisted_grids: bool

    def refuse(self, what: str, why: str) -> None:
        """Raise the error about a setting that this family does not have."""
        raise MismatchError(
            f"{self.checkpoint.folder} is of the family {self.checkpoint.family!r}, {why}; "
            f"leave {what} out"
        )


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What a checkpoint's configuration says about costs, where an image is seen whole.

    Attributes:
        family: A key of :data:`m3router.m3core.checkpoints.families.table.FAMILIES`.
        grid: Its scales.
        shape: Its sizes.
    """

    family: str
    grid: ScaleGrid
    shape: ModelShape

    def views(self, image: tuple[int, int]) -> int:
        """Images that the tower runs on for one of (height, width) pixels."""
        return 1

    def tokens(self, scale: int, image: tuple[int, int]) -> int:
        """Visual tokens of an image of (height, width) pixels at a scale."""
        return self.grid.check(scale)


class Family(ABC):
    """One model family; a new one implements the three abstract methods, and what else it can do.

    Attributes:
        name: Its key in :data:`m3router.m3core.checkpoints.families.table.FAMILIES`.
        model: Class of its loaded models.
        loads: Which checkpoints it loads, in words, for messages.
        always_matryoshka: Whether every checkpoint of it was trained at several scales, so that
            nobody needs to be warned about one that does not say so.
    """

    name: ClassVar[str]
    model: ClassVar[type]
    loads: ClassVar[str]
    always_matryoshka: ClassVar[bool] = False

    @abstractmethod
    def recognise(self, folder: Path, config: Mapping[str, Any]) -> Layout | None:
        """The layout of a checkpoint of this family; None for any other checkpoint.

        Families are asked in the order of the table, and the first that knows a checkpoint gets it.

        Args:
            folder: The checkpoint's folder.
            config: Its ``config.json``.
        """

    def near_miss(self, config: Mapping[str, Any]) -> str | None:
        """Why a checkpoint that no family recognises is nearly one of this family, if it is."""
        return None

    @abstractmethod
    def sizes(self, checkpoint: Checkpoint) -> Sizes:
        """What it costs, from configurations alone; reads no weights.

        Raises:
            ModelError: If the configuration is not valid.
            MismatchError: If its scales do not fit its tower.
        """

    @abstractmethod
    def build(self, source: Source) -> MultiScaleModel:
        """Load the model; every tensor of the checkpoint is accounted for.

        Raises:
            ModelError: If any weight is missing, unexpected or of another shape, or the
                configuration is not valid.
            MismatchError: If a setting of the source does not fit this family.
        """

    def convert(self, checkpoint: Checkpoint, destination: Path, *, dtype: str | None) -> None:
        """Write a checkpoint in the Hugging Face layout.

        Args:
            checkpoint: Of this family.
            destination: A new folder.
            dtype: Number format of all tensors; None keeps each tensor's own.

        Raises:
            ModelError: If there is no such layout for this family, or the checkpoint is not
                complete.
        """
        raise ModelError(
            f"{checkpoint.folder} is of the family {self.name!r}, for which Hugging Face has no "
            "layout. Load it as it is"
        )

    def trainable(self, model: Any) -> Trainable:
        """The trainable side of a loaded model; training changes that model's own weights.

        Raises:
            MismatchError: If this family, or this model of it, cannot be trained.
        """
        raise MismatchError(
            f"a {type(model).__name__} cannot be trained: the family {self.name!r} has no training "
            "here; load a checkpoint of a family that has"
        )

    def write_trained(
        self,
        checkpoint: Checkpoint,
        weights: Mapping[str, torch.Tensor],
        destination: Path,
        *,
        scales: Sequence[int],
        dtype: str | None,
    ) -> None:
        """Write trained weights as a folder that loads; for families that can be trained.

        Args:
            checkpoint: What the training started from.
            weights: By their names in the trainable's module.
            destination: A new folder.
            scales: What it was trained at.
            dtype: Number format of all tensors; None keeps each tensor's own.

        Raises:
            MismatchError: If the weights are not those of the checkpoint's architecture.
        """
        raise MismatchError(
            f"{checkpoint.folder} is of the family {self.name!r}, which has no training here"
        )

    def visualize(self, model: Any, image: Image.Image, encoding: Any, *, side: int) -> Sight:
        """What the model's tower sees of an image, and what its tokens stand for.

        Args:
            model: Of this family.
            image: RGB.
            encoding: What the model made of it.
            side: Pixels along one side of a drawn square.
        """
        return stretched(model, image, encoding, side=side)


def stretched(
    model: MultiScaleModel, image: Image.Image, encoding: Any, *, side: int
) -> list[View]:
    """One view for models that squeeze the whole image into their square grid of tokens."""
    square = image.resize((side, side))
    return [whole_view("stretched square", square, model, encoding)]


def whole_view(
    name: str, square: Image.Image, model: MultiScaleModel, encoding: VisualEncoding
) -> View:
    """The view of a model that sees an image in one square."""
    return View(
        name=name,
        image=square,
        side=math.isqrt(len(encoding.features)),
        pooling=model.visual.get("pooling", AVERAGE),
    )

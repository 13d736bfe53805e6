"""What a checkpoint's models cost, from its configuration alone: no weights are read.

Reads ``config.json`` and, in the original layout, the config of the vision tower that it names.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError

from data.errors import MismatchError, ModelError
from m3core.checkpoints.layouts import Checkpoint, recognise
from m3core.checkpoints.loading import STOCK
from m3core.checkpoints.mqt import new_abstractor, text_config
from m3core.checkpoints.places import EMBEDDED, embedded_folder
from m3core.checkpoints.tower import tower_sizes
from m3core.checkpoints.translation import translate
from m3core.cost import ModelShape
from m3core.models.anyres import (
    SPATIAL_UNPAD,
    CropGrid,
    check_merge,
    choose_grid,
    crop_grids,
    merged_length,
)
from m3core.scales import MQT_SCALES, ScaleGrid


@dataclass(frozen=True, kw_only=True)
class Crops:
    """How LLaVA-NeXT cuts pictures.

    Attributes:
        grids: The grids that it chooses from.
        side: Side of a crop in pixels.
        merge: One of :data:`m3core.models.anyres.MERGES`.
    """

    grids: tuple[CropGrid, ...]
    side: int
    merge: str


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What a checkpoint's configuration says about costs.

    Attributes:
        family: A key of :data:`m3core.checkpoints.families.FAMILIES`.
        grid: Its scales.
        shape: Its sizes.
        crops: For ``llava_next``; None where a picture is seen whole.
    """

    family: str
    grid: ScaleGrid
    shape: ModelShape
    crops: Crops | None = None

    def views(self, picture: tuple[int, int]) -> int:
        """Pictures that the tower runs on for one of (height, width) pixels."""
        if self.crops is None:
            return 1
        grid = choose_grid(picture, self.crops.grids, self.crops.side)
        return 1 + grid.rows * grid.columns

    def tokens(self, scale: int, picture: tuple[int, int]) -> int:
        """Visual tokens of a picture of (height, width) pixels at a scale."""
        self.grid.check(scale)
        if self.crops is None:
            return scale
        grid = choose_grid(picture, self.crops.grids, self.crops.side)
        return merged_length(picture, grid, scale, self.crops.merge)


def read_sizes(name: str) -> Sizes:
    """Read what a model costs from its configuration.

    Args:
        name: ``embedded`` or a folder, in either layout.

    Raises:
        ModelError: If there is no such folder, or its configuration is not valid.
        MismatchError: If its scales do not fit its tower.
    """
    folder = embedded_folder() if name == EMBEDDED else Path(name)
    if not folder.is_dir():
        raise ModelError(
            f"model {name!r} is neither {EMBEDDED!r} nor a folder here; costs need only its "
            "config.json: put that file into a folder and name it"
        )
    checkpoint = recognise(folder)
    return _mqt(checkpoint) if checkpoint.family == "mqt" else _stock(checkpoint)


def _mqt(checkpoint: Checkpoint) -> Sizes:
    text, vision = text_config(checkpoint), tower_sizes(checkpoint)
    with torch.device("meta"):
        abstractor = new_abstractor(text, vision)
    grid = ScaleGrid(scales=tuple(checkpoint.settings.get("scales", MQT_SCALES)), side=None)
    abstractor.check(grid.finest)
    shape = ModelShape.of_parts(
        text, vision, connector=abstractor.cost(), tied=bool(text.tie_word_embeddings)
    )
    return Sizes(family="mqt", grid=grid, shape=shape)


def _stock(checkpoint: Checkpoint) -> Sizes:
    config = _stock_config(checkpoint)
    rows = checkpoint.settings.get("vocabulary")
    if rows:
        config.text_config.vocab_size = rows  # what loading cuts a padded vocabulary back to
    vision = config.vision_config
    grid = ScaleGrid(scales=checkpoint.scales, side=vision.image_size // vision.patch_size)
    crops = None
    if checkpoint.family == "llava_next":
        settings = dict(getattr(config, "matryoshka", None) or {})
        crops = Crops(
            grids=crop_grids(config.image_grid_pinpoints, vision.image_size),
            side=vision.image_size,
            merge=check_merge(settings.get("merge", SPATIAL_UNPAD)),
        )
    return Sizes(family=checkpoint.family, grid=grid, shape=ModelShape.of(config), crops=crops)


def _stock_config(checkpoint: Checkpoint) -> Any:
    if checkpoint.layout == "original":
        return translate(checkpoint, tower_sizes(checkpoint))
    config_class, _ = STOCK[checkpoint.family]
    try:
        return config_class.from_pretrained(checkpoint.folder, local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError, StrictDataclassError) as error:
        raise ModelError(f"{checkpoint.folder}/config.json is not valid: {error}") from error


def parse_picture(text: str) -> tuple[int, int]:
    """Read ``640x480`` (width x height in pixels) as (height, width).

    Raises:
        MismatchError: If it is written otherwise.

    >>> parse_picture("640x480")
    (480, 640)
    """
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise MismatchError(f"{text!r} is no picture size: write width x height, such as 640x480")
    return int(height), int(width)

"""LLaVA-NeXT-type models: an image is seen whole and in crops, each of which is pooled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from transformers import (
    BaseImageProcessor,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
)

from m3router.data.errors import ModelError
from m3router.data.json_files import parse_json
from m3router.m3core.checkpoints.checkpoint import Checkpoint
from m3router.m3core.checkpoints.families.base import Sizes, Source, whole_view
from m3router.m3core.checkpoints.families.stock import StockFamily, grid_of
from m3router.m3core.checkpoints.processors import shared_settings
from m3router.m3core.checkpoints.tensors import Tensors
from m3router.m3core.cost.operations import ModelShape
from m3router.m3core.matryoshka.models.anyres import (
    FLAT,
    SPATIAL_UNPAD,
    CropGrid,
    check_merge,
    choose_grid,
    crop_grids,
    cut_views,
    fit_and_pad,
    merged_length,
)
from m3router.m3core.matryoshka.models.llava_next import CropsEncoding, LlavaNextM3
from m3router.m3core.matryoshka.views import View


@dataclass(frozen=True, kw_only=True)
class CropSizes(Sizes):
    """What a configuration says about costs where an image is cut into crops.

    Attributes:
        grids: The grids that it chooses from.
        side: Side of a crop in pixels.
        merge: One of :data:`m3router.m3core.matryoshka.models.anyres.MERGES`.
    """

    grids: tuple[CropGrid, ...]
    side: int
    merge: str

    def views(self, image: tuple[int, int]) -> int:
        """The whole image and its crops."""
        grid = choose_grid(image, self.grids, self.side)
        return 1 + grid.rows * grid.columns

    def tokens(self, scale: int, image: tuple[int, int]) -> int:
        """Visual tokens of all views, line ends included."""
        self.grid.check(scale)
        return merged_length(image, choose_grid(image, self.grids, self.side), scale, self.merge)


class LlavaNext(StockFamily):
    """LLaVA-NeXT and its Matryoshka descendants (Liu et al., 2024; Cai et al., ICLR 2025)."""

    name = "llava_next"
    model = LlavaNextM3
    config_class = LlavaNextConfig
    stock_class = LlavaNextForConditionalGeneration
    processor_class = "LlavaNextProcessor"
    aspects = ("anyres",)

    def own_config(self, checkpoint: Checkpoint) -> tuple[dict[str, Any], dict[str, Any]]:
        """Its grids and how crops are merged.

        NOTE: LLaVA writes grids as (width, height), Hugging Face as (height, width).
        """
        pairs = grid_pinpoints(checkpoint)
        arguments = {"image_grid_pinpoints": [[height, width] for width, height in pairs]}
        return arguments, {"merge": checkpoint.config.get("mm_patch_merge_type", FLAT)}

    def implied(self, config: Any) -> Tensors:
        """The line end, which the flat merge never uses."""
        if config.matryoshka["merge"] != FLAT:
            return {}
        return {"model.image_newline": torch.zeros(config.text_config.hidden_size)}

    def sizes(self, checkpoint: Checkpoint) -> CropSizes:
        """Sizes whose tokens depend on the image's shape."""
        config = self.sized_config(checkpoint)
        settings = dict(getattr(config, "matryoshka", None) or {})
        side = config.vision_config.image_size
        return CropSizes(
            family=self.name,
            grid=grid_of(checkpoint, config),
            shape=ModelShape.of(config),
            grids=crop_grids(config.image_grid_pinpoints, side),
            side=side,
            merge=check_merge(settings.get("merge", SPATIAL_UNPAD)),
        )

    def build(self, source: Source) -> LlavaNextM3:
        """Load the model, with the crops' grids that were asked for."""
        arguments, settings = self.load(source)
        return LlavaNextM3(
            **arguments,
            merge=settings.get("merge", SPATIAL_UNPAD),
            grids=source.grids,
            unlisted_grids=source.unlisted_grids,
        )

    def plain_image_processor(
        self, config: Any, own: BaseImageProcessor, checkpoint: Checkpoint
    ) -> BaseImageProcessor:
        """LLaVA-NeXT's."""
        side = config.vision_config.image_size
        return LlavaNextImageProcessorPil(
            size={"shortest_edge": side},
            image_grid_pinpoints=config.image_grid_pinpoints,
            **shared_settings(own, side),
        )

    def visualize(
        self, model: LlavaNextM3, image: Image.Image, encoding: CropsEncoding, *, side: int
    ) -> list[View]:
        """The whole image stretched to a square, and its crops side by side."""
        grid = encoding.grid
        base = whole_view("base", cut_views(image, grid, side)[0], model, encoding)
        crops = View(
            name=f"{grid} crops",
            image=fit_and_pad(image, (grid.rows * side, grid.columns * side)),
            side=base.side,
            pooling=base.pooling,
            rows=grid.rows,
            columns=grid.columns,
            size=encoding.size if encoding.merge == SPATIAL_UNPAD else None,
        )
        return [base, crops]


def grid_pinpoints(checkpoint: Checkpoint) -> list[tuple[int, int]]:
    """The anyres resolutions of a config in the original layout, as (width, height) pixels.

    Raises:
        ModelError: If they are missing or no list of pairs.
    """
    found = checkpoint.config.get("image_grid_pinpoints")
    try:
        pairs = parse_json(found) if isinstance(found, str) else found
        sizes = [(int(width), int(height)) for width, height in pairs or ()]
    except (ValueError, TypeError):
        sizes = []
    if not sizes:
        raise ModelError(
            f"{checkpoint.folder}/config.json: image_grid_pinpoints must be a list of pairs such "
            f"as [[336, 672], [672, 336]], got {found!r}"
        )
    return sizes


LLAVA_NEXT = LlavaNext()

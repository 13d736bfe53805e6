"""LLaVA-NeXT-type models through stock Hugging Face classes: images cut into crops.

A scale names the tokens of *one* view. What the language model receives depends on the image's
shape, on the grid it is cut into and on the newline tokens, so costs are always asked from the
encoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from transformers import (
    BaseImageProcessor,
    LlavaNextForConditionalGeneration,
    PreTrainedTokenizerBase,
)

from m3router.data.errors import MismatchError
from m3router.m3core.cost.operations import ModelShape
from m3router.m3core.matryoshka.answering import AnsweringModel
from m3router.m3core.matryoshka.base import ANSWER_TOKENS, VisualEncoding, revision_with
from m3router.m3core.matryoshka.models.anyres import (
    SPATIAL_UNPAD,
    CropGrid,
    check_merge,
    choose_grid,
    crop_grids,
    cut_views,
    merge_views,
    merged_length,
)
from m3router.m3core.matryoshka.models.parts import project, tower_tokens
from m3router.m3core.matryoshka.pooling import AVERAGE, check_pooling, detail_by_region, pool
from m3router.m3core.matryoshka.prompts import PromptTemplate
from m3router.m3core.matryoshka.scales import ScaleGrid

VIEWS_PER_CALL = 32
"""The tower runs on so many views at once at most, to bound its memory."""


@dataclass(frozen=True, kw_only=True)
class Views:
    """What the tower sees of an image.

    Attributes:
        pixels: Normalised views, the base first, (1 + R * C, 3, side, side), float32.
        size: The image's (height, width) in pixels.
        grid: How it was cut.
    """

    pixels: torch.Tensor
    size: tuple[int, int]
    grid: CropGrid


class CropsPreparer:
    """Cuts an image into views and normalises them; worker processes may do it.

    Args:
        processor: Its scaling, mean and standard deviation are used.
        grids: To choose from.
        side: Of a view in pixels.
    """

    def __init__(self, processor: BaseImageProcessor, grids: Sequence[CropGrid], side: int) -> None:
        self.processor = processor
        self.grids = grids
        self.side = side

    def __call__(self, image: Image.Image) -> Views:
        """From an RGB image to its views."""
        size = (image.height, image.width)
        grid = choose_grid(size, self.grids, self.side)
        views = [np.asarray(view) for view in cut_views(image, grid, self.side)]
        raw = torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2).float()
        mean = torch.tensor(self.processor.image_mean).view(3, 1, 1)
        deviation = torch.tensor(self.processor.image_std).view(3, 1, 1)
        pixels = (raw * self.processor.rescale_factor - mean) / deviation
        return Views(pixels=pixels, size=size, grid=grid)


@dataclass(frozen=True, kw_only=True)
class CropsEncoding:
    """An image's base view and crops, pooled and merged on demand.

    Attributes:
        crops: Unpooled tokens of each view after the projector, (1 + R * C, S * S, D).
        size: The image's (height, width) in pixels.
        grid: How it was cut.
        newline: The model's newline token, (D,).
        merge: One of :data:`m3router.m3core.matryoshka.models.anyres.MERGES`.
        pooling: A name in :data:`m3router.m3core.matryoshka.pooling.POOLINGS`.
    """

    crops: torch.Tensor
    size: tuple[int, int]
    grid: CropGrid
    newline: torch.Tensor
    merge: str
    pooling: str

    @property
    def features(self) -> torch.Tensor:
        """Unpooled tokens of the base view, which shows the whole image, (S * S, D)."""
        return self.crops[0]

    @property
    def views(self) -> int:
        """The base and every crop."""
        return len(self.crops)

    def tokens(self, scale: int) -> int:
        """Tokens that the language model receives, newlines included."""
        return merged_length(self.size, self.grid, scale, self.merge)

    def at(self, scale: int) -> torch.Tensor:
        """The visual tokens of a scale, (tokens(scale), D)."""
        return merge_views(
            pool(self.crops, scale, self.pooling),
            size=self.size,
            grid=self.grid,
            newline=self.newline,
            merge=self.merge,
        )

    def detail(self, coarse: int, fine: int, *, regions: int) -> torch.Tensor:
        """Average-pooled detail of the base view, (regions, fine / regions, D)."""
        return detail_by_region(self.features, coarse, fine, regions=regions)


class LlavaNextM3(AnsweringModel):
    """A LLaVA-NeXT whose views are each pooled after the projector.

    Args:
        model: The loaded model, in evaluation mode. Its ``image_grid_pinpoints`` are (height,
            width); see :mod:`m3router.m3core.matryoshka.models.anyres` about original checkpoints.
        tokenizer: Its tokenizer.
        image_processor: Of either kind, CLIP's or LLaVA-NeXT's: only its scaling, mean and
            standard deviation are used, views are cut here.
        template: Prompt template.
        grid: Scales of one view; the finest one must be the tower's whole grid.
        name: How the user called the model.
        revision: Hash of its files.
        max_new_tokens: Longest answer.
        pooling: How coarser scales are made, a name in
            :data:`m3router.m3core.matryoshka.pooling.POOLINGS`.
        merge: The checkpoint's ``mm_patch_merge_type``; Hugging Face's layout knows one only.
        grids: Cut images into these grids (M3, Table 5) instead of all that the checkpoint
            lists.
        unlisted_grids: Allow grids that the checkpoint does not list, such as 3x3.

    Raises:
        MismatchError: If there is no such pooling or merge, or a grid is not listed.
    """

    def __init__(
        self,
        *,
        model: LlavaNextForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase,
        image_processor: BaseImageProcessor,
        template: PromptTemplate,
        grid: ScaleGrid,
        name: str,
        revision: str,
        max_new_tokens: int = ANSWER_TOKENS,
        pooling: str = AVERAGE,
        merge: str = SPATIAL_UNPAD,
        grids: Sequence[CropGrid] | None = None,
        unlisted_grids: bool = False,
    ) -> None:
        self.side = model.config.vision_config.image_size
        listed = crop_grids(model.config.image_grid_pinpoints, self.side)
        self.grids = listed if grids is None else _chosen(grids, listed, unlisted_grids)
        self.pooling = check_pooling(pooling)
        self.merge = check_merge(merge)
        usual = {"pooling": AVERAGE, "merge": SPATIAL_UNPAD, "grids": _text(listed)}
        visual = {"pooling": pooling, "merge": merge, "grids": _text(self.grids)}
        changes = {key: value for key, value in visual.items() if value != usual[key]}
        super().__init__(
            model=model,
            tokenizer=tokenizer,
            template=template,
            grid=grid,
            shape=ModelShape.of(model.config),
            visual=visual,
            name=name,
            revision=revision_with(revision, changes),
            max_new_tokens=max_new_tokens,
        )
        self.image_processor = image_processor
        self.prepare = CropsPreparer(image_processor, self.grids, self.side)

    @torch.inference_mode()
    def encode(self, images: Sequence[Image.Image | Views]) -> list[VisualEncoding]:
        """Run tower and projector once for each view; see :class:`MultiScaleModel`."""
        if not images:
            return []
        cut: list[Views] = [self.prepared(image) for image in images]
        pixels = torch.cat([one.pixels for one in cut]).to(self.model.dtype)
        parts = [
            project(self.model, tower_tokens(self.model, part.to(self.model.device)))
            for part in pixels.split(VIEWS_PER_CALL)
        ]
        features = torch.cat(parts).split([len(one.pixels) for one in cut])
        return [
            CropsEncoding(
                crops=crops,
                size=one.size,
                grid=one.grid,
                newline=self.model.model.image_newline.detach(),
                merge=self.merge,
                pooling=self.pooling,
            )
            for crops, one in zip(features, cut, strict=True)
        ]


def _text(grids: Sequence[CropGrid]) -> str:
    return " ".join(str(grid) for grid in grids)


def _chosen(
    grids: Sequence[CropGrid], listed: Sequence[CropGrid], unlisted: bool
) -> tuple[CropGrid, ...]:
    """The grids asked for, if the checkpoint knows them or others are allowed."""
    if not grids:
        raise MismatchError("no grid of crops was given; name at least one, such as 2x2")
    foreign = [grid for grid in grids if grid not in listed]
    if foreign and not unlisted:
        raise MismatchError(
            f"the checkpoint does not list the grid {_text(foreign)} of crops; it lists "
            f"{_text(listed)}. Choose among these, or allow others with unlisted_grids=True "
            "(--unlisted-grids)"
        )
    return tuple(grids)

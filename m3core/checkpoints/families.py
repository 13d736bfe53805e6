"""From a name to a multi-scale model: one literal table of families."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from data.errors import MismatchError
from m3core.checkpoints.layouts import Checkpoint, recognise
from m3core.checkpoints.loading import Placement, build_stock, read_contents
from m3core.checkpoints.mqt import build_mqt
from m3core.checkpoints.parts import load_image_processor, load_tokenizer
from m3core.checkpoints.places import EMBEDDED, FAKE, resolve, revision_of
from m3core.models.anyres import SPATIAL_UNPAD, CropGrid, parse_grid
from m3core.models.base import MultiScaleModel
from m3core.models.fake import FakeModel
from m3core.models.llava import LlavaM3
from m3core.models.llava_next import LlavaNextM3
from m3core.models.mqt import MqtLlava
from m3core.pooling import AVERAGE, check_pooling
from m3core.prompts import PromptTemplate, get_template
from m3core.scales import ScaleGrid

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a family's builder gets.

    Attributes:
        checkpoint: What was recognised.
        placement: Where the model shall go.
        name: How the user called it.
        pooling: How coarser scales are made.
        grids: How pictures may be cut into crops; None leaves it to the checkpoint.
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
class StockParts:
    """Everything that a family around a stock Hugging Face model needs.

    Attributes:
        model: The loaded stock model, in evaluation mode.
        tokenizer: Its tokenizer.
        image_processor: That of its tower (original layout) or of its folder.
        template: Prompt template.
        grid: Scales of one tower grid.
        revision: Hash of the files.
        settings: The config's entry ``matryoshka``; ``merge`` says how LLaVA-NeXT joins crops.
    """

    model: Any
    tokenizer: Any
    image_processor: Any
    template: PromptTemplate
    grid: ScaleGrid
    revision: str
    settings: dict[str, Any]

    def arguments(self, source: Source) -> dict[str, Any]:
        """What the models of both stock families are made with."""
        return {
            "model": self.model,
            "tokenizer": self.tokenizer,
            "image_processor": self.image_processor,
            "template": self.template,
            "grid": self.grid,
            "name": source.name,
            "revision": self.revision,
            "pooling": source.pooling,
        }


def load_stock_parts(source: Source) -> StockParts:
    """Load a ``llava`` or ``llava_next`` checkpoint of either layout.

    Raises:
        ModelError: If any file or weight is missing, unexpected, damaged or of another shape.
        MismatchError: If the scales do not nest in the tower's grid, or the prompt is unknown.
    """
    checkpoint = source.checkpoint
    contents = read_contents(checkpoint)
    config = contents.config
    settings = dict(getattr(config, "matryoshka", None) or {})
    vision = config.vision_config
    grid = ScaleGrid(scales=checkpoint.scales, side=vision.image_size // vision.patch_size)
    template = get_template(settings.get("prompt", "vicuna-1"))
    tokenizer = load_tokenizer(
        checkpoint, rows=config.text_config.vocab_size, image_token=config.image_token_index
    )
    image_processor = load_image_processor(checkpoint, vision, contents.tower)
    return StockParts(
        model=build_stock(checkpoint, contents, source.placement),
        tokenizer=tokenizer,
        image_processor=image_processor,
        template=template,
        grid=grid,
        revision=revision_of(checkpoint.folder, *contents.more_folders),
        settings=settings,
    )


def build_llava(source: Source) -> LlavaM3:
    """A LLaVA-1.5-type model."""
    if source.grids is not None:
        source.refuse("grids", "which sees a picture whole")
    parts = load_stock_parts(source)
    return LlavaM3(**parts.arguments(source), aspect=source.checkpoint.aspect)


def build_llava_next(source: Source) -> LlavaNextM3:
    """A LLaVA-NeXT-type model."""
    parts = load_stock_parts(source)
    return LlavaNextM3(
        **parts.arguments(source),
        merge=parts.settings.get("merge", SPATIAL_UNPAD),
        grids=source.grids,
        unlisted_grids=source.unlisted_grids,
    )


def build_mqt_llava(source: Source) -> MqtLlava:
    """A model with a query transformer."""
    if source.pooling != AVERAGE:
        source.refuse("pooling", "whose scales are its first queries and no poolings")
    if source.grids is not None:
        source.refuse("grids", "which sees a picture whole")
    return build_mqt(source.checkpoint, source.placement, name=source.name)


FAMILIES: dict[str, Callable[[Source], MultiScaleModel]] = {
    "llava": build_llava,
    "llava_next": build_llava_next,
    "mqt": build_mqt_llava,
}
"""Family to builder; a new family is one line here and one file in ``m3core.models``."""


def load_model(
    name: str,
    *,
    device: str = "auto",
    dtype: str = "float32",
    device_map: str | None = None,
    bits: int | None = None,
    pooling: str = AVERAGE,
    grids: Sequence[str] | None = None,
    unlisted_grids: bool = False,
    max_new_tokens: int | None = None,
) -> MultiScaleModel:
    """Load a multi-scale model.

    Args:
        name: ``embedded``, a folder, a hub id, or ``fake`` (no weights, for trying the tools).
            Folders and hub ids may have the original LLaVA layout or that of Hugging Face.
        device: A torch device, or ``auto``: a GPU where there is one.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        device_map: ``auto`` spreads a large model over all GPUs and the CPU's memory.
        bits: 8 or 4 to quantise the language model by bitsandbytes; needs a GPU.
        pooling: How coarser scales are made, a name in :data:`m3core.pooling.POOLINGS`.
        grids: For LLaVA-NeXT, how pictures may be cut into crops, such as ``["2x2", "3x3"]``
            (rows x columns; M3, Table 5); None takes the grids of the checkpoint.
        unlisted_grids: Allow ``grids`` that the checkpoint does not list.
        max_new_tokens: Tokens of its longest answer, where a request names no other limit; None
            for the usual :data:`m3core.models.base.ANSWER_TOKENS`.

    Raises:
        ModelError: If it cannot be found, read, or if any weight is missing, unexpected or of
            another shape.
        MismatchError: If its scales do not nest in its tower's grid, or there is no such pooling
            or grid for it.
    """
    check_pooling(pooling)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    placement = Placement(device=device, dtype=dtype, device_map=device_map, bits=bits)
    if name == FAKE:
        return _with_longest(FakeModel(pooling=pooling), max_new_tokens)
    checkpoint = recognise(resolve(name))
    if not checkpoint.says_matryoshka and checkpoint.family != "mqt":
        logger.warning(
            "%s does not say that it was trained at several scales (no matryoshka_vis_token_scale "
            "or matryoshka entry in config.json): its scales were not trained, and answers from "
            'few tokens will degrade. If it was, add {"matryoshka": {"scales": %s}} there.',
            checkpoint.folder,
            list(checkpoint.scales),
        )
    short = name if name == EMBEDDED else Path(name).name or name
    source = Source(
        checkpoint=checkpoint,
        placement=placement,
        name=short,
        pooling=pooling,
        grids=None if grids is None else tuple(map(parse_grid, grids)),
        unlisted_grids=unlisted_grids,
    )
    return _with_longest(FAMILIES[checkpoint.family](source), max_new_tokens)


def _with_longest(model: MultiScaleModel, max_new_tokens: int | None) -> MultiScaleModel:
    if max_new_tokens is not None:
        model.max_new_tokens = max_new_tokens
    return model

"""LLaVA-1.5-type models: an image is seen whole, and its tokens are pooled behind the projector."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import nn
from transformers import (
    BaseImageProcessor,
    CLIPImageProcessorPil,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaImageProcessorPil,
)

from m3router.data.errors import MismatchError
from m3router.m3core.checkpoints.checkpoint import Checkpoint
from m3router.m3core.checkpoints.families.base import Source, whole_view
from m3router.m3core.checkpoints.families.stock import StockFamily
from m3router.m3core.checkpoints.processors import shared_settings
from m3router.m3core.matryoshka.base import VisualEncoding
from m3router.m3core.matryoshka.models.llava import LlavaM3
from m3router.m3core.matryoshka.models.parts import project, tower_tokens
from m3router.m3core.matryoshka.pooling import AVERAGE, average_pool
from m3router.m3core.matryoshka.preprocessing import PAD, SQUARE, as_seen
from m3router.m3core.matryoshka.scales import check_nesting
from m3router.m3core.matryoshka.views import View


class LlavaTrainable:
    """A stock LLaVA in training: tokens are averaged behind the projector (M3, section 3.1).

    It has what :class:`m3router.m3core.matryoshka.trainable.Trainable` asks for.

    Args:
        model: The model.
    """

    def __init__(self, model: LlavaForConditionalGeneration) -> None:
        self.module = model

    @property
    def tower(self) -> Any:
        """CLIP."""
        return self.module.model.vision_tower

    @property
    def connector(self) -> nn.Module:
        """The projector."""
        return self.module.model.multi_modal_projector

    @property
    def language(self) -> Any:
        """The language model without its head."""
        return self.module.model.language_model

    @property
    def embeddings(self) -> nn.Module:
        """Of the language model."""
        return self.module.get_input_embeddings()

    @property
    def head(self) -> nn.Module:
        """Of the language model."""
        return self.module.lm_head

    def check_scale(self, scale: int) -> int:
        """Return a scale that nests in the tower's grid.

        Raises:
            MismatchError: If it does not.
        """
        vision = self.module.config.vision_config
        side = vision.image_size // vision.patch_size
        check_nesting((scale, side**2), side)
        return scale

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """All patches behind the projector, (B, P, D), from pixels or from tower tokens."""
        tokens = tower_tokens(self.module, images) if images.dim() == 4 else images
        return project(self.module, tokens)

    def at(self, features: torch.Tensor, scale: int) -> torch.Tensor:
        """The averages over a scale's windows, (B, scale, D)."""
        return average_pool(features, scale)


class Llava(StockFamily):
    """LLaVA-1.5 and its Matryoshka descendants (Liu et al., CVPR 2024; Cai et al., ICLR 2025)."""

    name = "llava"
    model = LlavaM3
    config_class = LlavaConfig
    stock_class = LlavaForConditionalGeneration
    processor_class = "LlavaProcessor"
    aspects = (None, PAD, SQUARE)

    def own_config(self, checkpoint: Checkpoint) -> tuple[dict[str, Any], dict[str, Any]]:
        """How an image is made square, where that is not by padding."""
        aspect = checkpoint.aspect
        return {}, {} if aspect == PAD else {"image_aspect_ratio": aspect}

    def build(self, source: Source) -> LlavaM3:
        """Load the model; it has no grids of crops."""
        if source.grids is not None:
            source.refuse("grids", "which sees an image whole")
        arguments, _ = self.load(source)
        return LlavaM3(**arguments, aspect=source.checkpoint.aspect)

    def plain_image_processor(
        self, config: Any, own: BaseImageProcessor, checkpoint: Checkpoint
    ) -> BaseImageProcessor:
        """LLaVA's where images are padded, CLIP's where the centre is cropped."""
        side = config.vision_config.image_size
        common = shared_settings(own, side)
        if checkpoint.aspect == PAD:
            size = {"height": side, "width": side}
            return LlavaImageProcessorPil(do_pad=True, do_center_crop=False, size=size, **common)
        return CLIPImageProcessorPil(size={"shortest_edge": side}, do_center_crop=True, **common)

    def trainable(self, model: LlavaM3) -> LlavaTrainable:
        """The stock model, unless it pools in another way than M3."""
        if model.pooling != AVERAGE:
            raise MismatchError(
                f"{model.name} is used with pooling {model.pooling!r}, and training averages; "
                "load it without a pooling"
            )
        return LlavaTrainable(model.model)

    def visualize(
        self, model: LlavaM3, image: Image.Image, encoding: VisualEncoding, *, side: int
    ) -> list[View]:
        """The square that the tower sees, with its pooled grid."""
        square = as_seen(image, model.image_processor.image_mean, model.aspect)
        name = "padded square" if model.aspect == PAD else "square in the centre"
        return [whole_view(name, square, model, encoding)]


LLAVA = Llava()

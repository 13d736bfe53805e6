"""Image encoders without a language model: what a router reads before any model is asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from PIL import Image

from m3router.data.errors import ModelError
from m3router.m3core.checkpoints.families.table import recognise
from m3router.m3core.checkpoints.file_checks import (
    UNREADABLE,
    check_files,
    check_finite,
    check_image_processor,
)
from m3router.m3core.checkpoints.loading import load_model
from m3router.m3core.checkpoints.places import EMBEDDED, FAKE, read_json, resolve, revision_of
from m3router.m3core.cost.operations import StackShape
from m3router.m3core.devices import chosen_device
from m3router.m3core.matryoshka.base import GridEncoding, MultiScaleModel, VisualEncoding
from m3router.m3core.matryoshka.scales import ScaleGrid

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ImageEncoder(Protocol):
    """Turns images into a square grid of tokens.

    Attributes:
        name: How the user called it.
        revision: Hash of its weights.
        grid: Pooling steps between which detail is measured.
    """

    name: str
    revision: str
    grid: ScaleGrid

    def encode(self, images: Sequence[Image.Image]) -> list[VisualEncoding]:
        """Encode each image once."""
        ...


TOWERS: dict[str, tuple[str, int]] = {
    "clip": ("CLIPVisionModel", 1),
    "clip_vision_model": ("CLIPVisionModel", 1),
    "siglip": ("SiglipVisionModel", 0),
    "siglip_vision_model": ("SiglipVisionModel", 0),
}
"""``model_type`` of a configuration -> class of its vision tower, and how many tokens stand before
those of the patches. SigLIP 2 of a fixed resolution is published as ``siglip``."""


class TowerEncoder:
    """A CLIP or SigLIP vision tower; its tokens are those of the last layer but one.

    LLaVA reads CLIP so; what a class token says is left out.

    Args:
        model: The tower, for square images.
        image_processor: Its image processor.
        name: How the user called it.
        revision: Hash of its files.
        leading: Tokens before those of the patches.
    """

    def __init__(
        self,
        *,
        model: PreTrainedModel,
        image_processor: object,
        name: str,
        revision: str,
        leading: int,
    ) -> None:
        self.model = model
        self.image_processor = image_processor
        self.name = name
        self.revision = revision
        self.leading = leading
        side = model.config.image_size // model.config.patch_size
        self.grid = ScaleGrid(scales=nested_scales(side), side=side)

    @property
    def flops(self) -> float:
        """Floating-point operations for one image, its pooling head included."""
        config = self.model.config
        heads = config.num_attention_heads
        stack = StackShape(
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            intermediate=config.intermediate_size,
            heads=heads,
            kv_heads=heads,
            head_dim=config.hidden_size // heads,
            gated=False,
        )
        patches = (config.image_size // config.patch_size) ** 2
        embedding = 2 * patches * config.num_channels * config.patch_size**2 * config.hidden_size
        head = 0
        if getattr(config, "vision_use_head", False):  # SigLIP: one query reads all patches
            width = config.hidden_size
            head = 4 * patches * width**2 + 4 * patches * width
            head += 4 * width**2 + 4 * width * config.intermediate_size
        return float(embedding + stack.flops(patches + self.leading) + head)

    @torch.inference_mode()
    def encode(self, images: Sequence[Image.Image]) -> list[VisualEncoding]:
        """Encode each image once, the whole image stretched to the tower's square."""
        side = self.model.config.image_size
        pixels = self.image_processor(  # type: ignore[operator]
            list(images),
            size={"height": side, "width": side},
            do_center_crop=False,
            return_tensors="pt",
        )["pixel_values"]
        seen = self.model(pixels.to(self.model.device), output_hidden_states=True)
        hidden = seen.hidden_states[-2][:, self.leading :]
        return [GridEncoding(features=one) for one in hidden]


def encoder_flops(model: ImageEncoder | MultiScaleModel) -> float | None:
    """Floating-point operations of an encoder for one image; None where they are not known.

    NOTE: those of a multi-scale model are of one view of the image.
    """
    if isinstance(model, MultiScaleModel):
        return model.shape.vision_flops()
    return model.flops if isinstance(model, TowerEncoder) else None


def nested_scales(side: int) -> tuple[int, ...]:
    """Up to five nested scales of a grid, from one token to all, each dividing the next.

    >>> nested_scales(24)
    (1, 9, 36, 144, 576)
    >>> nested_scales(16)
    (1, 4, 16, 64, 256)
    >>> nested_scales(7)
    (1, 49)
    """
    sides = [side]
    while sides[0] > 1 and len(sides) < 4:
        sides.insert(0, sides[0] // 2 if sides[0] % 2 == 0 else 1)
    return tuple(one * one for one in ([1, *sides] if sides[0] > 1 else sides))


def load_encoder(name: str, *, device: str = "auto") -> ImageEncoder:
    """Load an image encoder.

    Args:
        name: ``embedded`` (the shipped model's tower and projector), ``fake``, or the folder or
            hub id of a CLIP or SigLIP model.
        device: A torch device, or ``auto``: a GPU where there is one.

    Raises:
        ModelError: If it cannot be found, lacks weights, or is no such model.
    """
    if name in (EMBEDDED, FAKE):
        return load_model(name, device=device)
    folder = resolve(name)
    if not (folder / "config.json").is_file():
        raise ModelError(f"{name} cannot be loaded as an image encoder: it has no config.json")
    kind = read_json(folder / "config.json").get("model_type")
    if kind in TOWERS:
        return _load_tower(name, folder, *TOWERS[kind], device=device)
    try:
        recognise(folder)
    except ModelError as error:
        raise ModelError(
            f"{name} is a {kind!r} model; an image encoder is CLIP, SigLIP or a multi-scale model "
            f"of this project: {error}"
        ) from error
    return load_model(name, device=device)


def _load_tower(name: str, folder: Path, kind: str, leading: int, *, device: str) -> TowerEncoder:
    import transformers  # slow to import; many a router has no encoder
    from transformers import AutoImageProcessor

    device = chosen_device(device)
    check_files(folder)
    try:
        tower: Any = getattr(transformers, kind)
        model, info = tower.from_pretrained(folder, local_files_only=True, output_loading_info=True)
        processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, backend="pil")
    except (RuntimeError, *UNREADABLE) as error:
        raise ModelError(f"{name} cannot be loaded as an image encoder: {error}") from error
    check_finite(model.state_dict(), folder)
    check_image_processor(processor, folder)
    if info["missing_keys"]:
        raise ModelError(
            f"{name} lacks weights of a vision tower: {sorted(info['missing_keys'])[:5]}"
        )
    return TowerEncoder(
        model=model.eval().to(device),
        image_processor=processor,
        name=name,
        revision=revision_of(folder),
        leading=leading,
    )

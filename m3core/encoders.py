"""Image encoders without a language model, for logs that another system wrote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from PIL import Image
from transformers import AutoImageProcessor, CLIPVisionModel

from m3router.data.errors import ModelError
from m3router.m3core.checkpoints.families.table import recognise
from m3router.m3core.checkpoints.loading import load_model
from m3router.m3core.checkpoints.places import EMBEDDED, FAKE, read_json, resolve, revision_of
from m3router.m3core.matryoshka.base import GridEncoding, VisualEncoding
from m3router.m3core.matryoshka.scales import ScaleGrid


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


class ClipEncoder:
    """A CLIP vision tower; its tokens are those of the last layer but one, as LLaVA reads them.

    Args:
        model: The tower.
        image_processor: Its image processor.
        name: How the user called it.
        revision: Hash of its files.
    """

    def __init__(
        self, *, model: CLIPVisionModel, image_processor: object, name: str, revision: str
    ) -> None:
        self.model = model
        self.image_processor = image_processor
        self.name = name
        self.revision = revision
        side = model.config.image_size // model.config.patch_size
        self.grid = ScaleGrid(scales=nested_scales(side), side=side)

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
        hidden = self.model(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        return [GridEncoding(features=one) for one in hidden]


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


def load_encoder(name: str) -> ImageEncoder:
    """Load an image encoder.

    Args:
        name: ``embedded`` (the shipped model's tower and projector), ``fake``, or the folder or
            hub id of a CLIP model.

    Raises:
        ModelError: If it cannot be found or is not a CLIP model.
    """
    if name in (EMBEDDED, FAKE):
        return load_model(name)
    folder = resolve(name)
    if not (folder / "config.json").is_file():
        raise ModelError(f"{name} cannot be loaded as an image encoder: it has no config.json")
    kind = read_json(folder / "config.json").get("model_type")
    if kind not in ("clip", "clip_vision_model"):
        try:
            recognise(folder)
        except ModelError as error:
            raise ModelError(
                f"{name} is a {kind!r} model; an image encoder is CLIP or a multi-scale model "
                f"of this project: {error}"
            ) from error
        return load_model(name)
    try:
        model, info = CLIPVisionModel.from_pretrained(
            folder, local_files_only=True, output_loading_info=True
        )
        processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, backend="pil")
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{name} cannot be loaded as an image encoder: {error}") from error
    if info["missing_keys"]:
        raise ModelError(
            f"{name} lacks weights of a vision tower: {sorted(info['missing_keys'])[:5]}"
        )
    return ClipEncoder(
        model=model.eval(), image_processor=processor, name=name, revision=revision_of(folder)
    )

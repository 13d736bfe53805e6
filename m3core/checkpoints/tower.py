"""The vision tower of a checkpoint in the original LLaVA layout: inside it, or in its own folder.

The published LLaVA-1.5 leaves CLIP's weights out and names them; M3 keeps its tower inside
(``unfreeze_mm_vision_tower`` in mu-cai/matryoshka-mm, ``scripts/v1_5/finetune.sh``). NOTE: its
published code gives the tower no gradient (``clip_encoder.py``, ``@torch.no_grad()``), yet what is
inside is what is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPVisionConfig

from m3router.data.errors import ModelError
from m3router.m3core.checkpoints.checkpoint import Checkpoint
from m3router.m3core.checkpoints.file_checks import UNREADABLE, check_files
from m3router.m3core.checkpoints.places import local_tower, read_json, resolve
from m3router.m3core.checkpoints.tensors import Tensors, read_tensors

INSIDE = "model.vision_tower.vision_tower."
"""Where the original layout keeps a ``CLIPVisionModel``."""

_LARGE: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
    "projection_dim": 768,
}
KNOWN: dict[str, dict[str, Any]] = {
    "clip-vit-large-patch14-336": {**_LARGE, "image_size": 336},
    "clip-vit-large-patch14": {**_LARGE, "image_size": 224},
}
"""Sizes of OpenAI's towers, by the last part of their names (Radford et al., 2021, table 20)."""


def known_tower(name: str) -> CLIPVisionConfig:
    """Sizes of a tower in :data:`KNOWN`."""
    return CLIPVisionConfig(**KNOWN[name])


_REST_OF_CLIP = re.compile(r"^(text_model\.|text_projection\.|visual_projection\.|logit_scale$)")


@dataclass(frozen=True, kw_only=True)
class Tower:
    """A vision tower that was found.

    Attributes:
        config: Its sizes.
        folder: The folder of its own that was read, or None where all is in the checkpoint.
    """

    config: CLIPVisionConfig
    folder: Path | None


def find_tower(checkpoint: Checkpoint, tensors: Mapping[str, torch.Tensor]) -> Tower:
    """Find the tower that a checkpoint in the original layout names.

    Args:
        checkpoint: The checkpoint.
        tensors: Its tensors, by their published names.

    Raises:
        ModelError: If it names none, the folder cannot be found, or it is not a CLIP tower.
    """
    name = _tower_name(checkpoint)
    inside = any(key.startswith(INSIDE) for key in tensors)
    folder = local_tower(name, checkpoint.folder)
    if folder is None and inside and Path(name).name in KNOWN:
        return Tower(config=known_tower(Path(name).name), folder=None)
    if folder is None:
        folder = _fetch(name, checkpoint.folder, inside)
    return Tower(config=_tower_config(folder), folder=folder)


def tower_sizes(checkpoint: Checkpoint) -> CLIPVisionConfig:
    """Sizes of the tower that a checkpoint in the original layout names; reads no weights.

    Raises:
        ModelError: If it names none, or its sizes are neither here nor in :data:`KNOWN`.
    """
    name = _tower_name(checkpoint)
    folder = local_tower(name, checkpoint.folder)
    if folder is not None:
        return _tower_config(folder)
    last = Path(name).name
    if last not in KNOWN:
        raise ModelError(
            f"{checkpoint.folder} names the vision tower {name!r}, whose sizes are not known; put "
            f"its config.json into {checkpoint.folder / last}"
        )
    return known_tower(last)


def _tower_name(checkpoint: Checkpoint) -> str:
    name = checkpoint.config.get("mm_vision_tower", checkpoint.config.get("vision_tower"))
    if not isinstance(name, str) or not name:
        raise ModelError(
            f"{checkpoint.folder}/config.json names no vision tower; set mm_vision_tower to the "
            "CLIP model it was trained with"
        )
    return name


def read_with_tower(checkpoint: Checkpoint) -> tuple[Tensors, Tower]:
    """The tensors of a checkpoint in the original layout, those of its tower among them.

    Args:
        checkpoint: In the original layout, of any family.

    Returns:
        Tensors by their published names, the tower's under :data:`INSIDE` wherever they came
        from; and the tower.

    Raises:
        ModelError: If weights or tower cannot be found or read.
    """
    tensors = read_tensors(checkpoint.folder)
    tower = find_tower(checkpoint, tensors)
    if not any(key.startswith(INSIDE) for key in tensors):
        assert tower.folder is not None
        tensors |= {
            INSIDE + key: tensor
            for key, tensor in read_tensors(tower.folder).items()
            if not _REST_OF_CLIP.match(key)
        }
    return tensors, tower


def _fetch(name: str, folder: Path, inside: bool) -> Path:
    try:
        return resolve(name)
    except ModelError as error:
        what = "the sizes of its vision tower are" if inside else "its vision tower is"
        raise ModelError(
            f"{folder} says that {what} in {name!r}, which is neither a folder here or beside it "
            f"nor a hub id within reach; put that CLIP model into {folder / Path(name).name}"
        ) from error


def _tower_config(folder: Path) -> CLIPVisionConfig:
    check_files(folder)
    kind = read_json(folder / "config.json").get("model_type")
    if kind not in ("clip", "clip_vision_model"):
        raise ModelError(
            f"the vision tower {folder} is a {kind!r} model; LLaVA's tower must be CLIP"
        )
    try:
        return CLIPVisionConfig.from_pretrained(folder, local_files_only=True)
    except UNREADABLE as error:
        raise ModelError(
            f"the config of the vision tower {folder} is not valid: {error}"
        ) from error

"""The families, and which of them a checkpoint or a loaded model belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from m3router.data.errors import MismatchError, ModelError
from m3router.data.registry import load_entry
from m3router.m3core.checkpoints.checkpoint import Checkpoint
from m3router.m3core.checkpoints.families.base import Family, stretched
from m3router.m3core.checkpoints.places import read_json
from m3router.m3core.matryoshka.base import MultiScaleModel, VisualEncoding
from m3router.m3core.matryoshka.trainable import Trainable
from m3router.m3core.matryoshka.views import Sight

FAMILIES: dict[str, str] = {
    # MQT comes first: its checkpoints look like LLaVA's but for the names of some tensors.
    "mqt": "m3router.m3core.checkpoints.families.mqt:MQT",
    "llava": "m3router.m3core.checkpoints.families.llava:LLAVA",
    "llava_next": "m3router.m3core.checkpoints.families.llava_next:LLAVA_NEXT",
}
"""Name to ``module:object``; the first that recognises a checkpoint gets it."""


def get_family(name: str) -> Family:
    """A family by its name.

    Raises:
        DataError: If there is none of that name.
    """
    family: Family = load_entry(FAMILIES, name, kind="model family")
    return family


def families() -> list[Family]:
    """All of them, in the order of the table."""
    return [get_family(name) for name in FAMILIES]


def recognise(folder: Path) -> Checkpoint:
    """Say what a folder holds.

    Raises:
        ModelError: If it has no config, or one of a model that this project does not load.
    """
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{folder} is not a model: it has no config.json; name the folder that holds the "
            "weights"
        )
    config = read_json(folder / "config.json")
    known = families()
    for family in known:
        layout = family.recognise(folder, config)
        if layout is not None:
            return Checkpoint(folder=folder, config=config, layout=layout, family=family.name)
    raise ModelError(_why_unknown(folder, config, known))


def _why_unknown(folder: Path, config: Mapping[str, Any], known: list[Family]) -> str:
    for family in known:
        if why := family.near_miss(config):
            return f"{folder}/config.json has {why}"
    loads = "; ".join(dict.fromkeys(family.loads for family in known))
    return f"{folder} has model_type {config.get('model_type')!r}; this version loads {loads}"


def family_of(model: object) -> Family | None:
    """The family of a loaded model; None for one that comes from none, such as a user's own."""
    return next((family for family in families() if isinstance(model, family.model)), None)


def trainable_of(model: object) -> Trainable:
    """The trainable side of a loaded model; training changes that model's own weights.

    Raises:
        MismatchError: If it or its family cannot be trained.
    """
    family = family_of(model)
    if family is None:
        raise MismatchError(
            f"a {type(model).__name__} cannot be trained: it is of none of the families "
            f"{', '.join(FAMILIES)}; load a checkpoint of one that can be"
        )
    return family.trainable(model)


def visualize(
    model: MultiScaleModel, image: Image.Image, encoding: VisualEncoding, *, side: int
) -> Sight:
    """What a model's tower sees of an image, and what its tokens stand for.

    Args:
        model: Of any family, or of none: then its tokens are taken to pool the stretched image.
        image: RGB.
        encoding: What the model made of it.
        side: Pixels along one side of a drawn square.
    """
    family = family_of(model)
    if family is None:
        return stretched(model, image, encoding, side=side)
    return family.visualize(model, image, encoding, side=side)

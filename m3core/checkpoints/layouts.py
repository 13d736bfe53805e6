"""Which layout a checkpoint has and which family it belongs to, from its config and key names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from data.errors import ModelError
from m3core.checkpoints.weights import key_names, read_json
from m3core.models.preprocessing import ASPECTS, PAD, SQUARE
from m3core.scales import M3_SCALES

Layout = Literal["hugging_face", "original"]

_HUGGING_FACE = ("llava", "llava_next")
_ORIGINAL_CLASSES = {"LlavaLlamaForCausalLM"}
_OF_MQT = "query_abstractor"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A recognised checkpoint; nothing of its weights is read yet.

    Attributes:
        folder: Where it lies.
        config: Its ``config.json``.
        layout: ``original`` (haotian-liu/LLaVA and its descendants) or ``hugging_face``.
        family: ``llava``, ``llava_next`` or ``mqt``.
    """

    folder: Path
    config: dict[str, Any]
    layout: Layout
    family: str

    @property
    def settings(self) -> dict[str, Any]:
        """Our own entry in the config.

        It holds ``scales``, ``prompt``, ``vocabulary``, ``merge`` and ``image_aspect_ratio``. In
        the original layout the scales come from ``matryoshka_vis_token_scale``, which M3's
        training writes into the config (mu-cai/matryoshka-mm, ``llava/train/train.py``).
        """
        settings = dict(self.config.get("matryoshka") or {})
        trained = self.config.get("matryoshka_vis_token_scale")
        if trained:
            settings.setdefault("scales", _scales(trained, self.folder))
        return settings

    @property
    def aspect(self) -> str:
        """How an image is made square, one of :data:`m3core.models.preprocessing.ASPECTS`.

        The published code crops the centre unless the config says otherwise. The Hugging Face
        layout has no such entry; there ours says so, and without it images are padded.

        Raises:
            ModelError: If our entry has another value.
        """
        if self.layout == "original":
            return PAD if self.config.get("image_aspect_ratio") == PAD else SQUARE
        aspect = str(self.settings.get("image_aspect_ratio", PAD))
        if aspect not in ASPECTS:
            raise ModelError(
                f"{self.folder}/config.json: image_aspect_ratio in the entry matryoshka must be "
                f"one of {', '.join(ASPECTS)}, got {aspect!r}"
            )
        return aspect

    @property
    def says_matryoshka(self) -> bool:
        """Whether the checkpoint says that it was trained at several scales."""
        return bool(self.settings.get("scales"))

    @property
    def scales(self) -> tuple[int, ...]:
        """The scales it was trained at; those of M3 where it does not say."""
        return tuple(self.settings.get("scales", M3_SCALES))


def _scales(trained: object, folder: Path) -> list[int]:
    """Scales from a list, one number, or a text such as ``1,9,36``."""
    given: Any = re.split(r"[\s,;-]+", trained.strip()) if isinstance(trained, str) else trained
    try:
        return sorted(int(scale) for scale in (given if isinstance(given, list) else [given]))
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"{folder}/config.json: matryoshka_vis_token_scale must be a list of token counts such "
            f"as [1, 9, 36, 144, 576], got {trained!r}"
        ) from error


def recognise(folder: Path) -> Checkpoint:
    """Say what a folder holds.

    Raises:
        ModelError: If it has no config, or one of a model that this project does not load.
    """
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{folder} is no model: it has no config.json; name the folder that holds the weights"
        )
    config = read_json(folder / "config.json")
    kind = config.get("model_type")
    classes = set(config.get("architectures") or ())
    if kind == "llava_llama" or (kind == "llava" and _looks_original(config, classes)):
        return Checkpoint(
            folder=folder, config=config, layout="original", family=_family(folder, config)
        )
    if kind in _HUGGING_FACE:
        return Checkpoint(folder=folder, config=config, layout="hugging_face", family=str(kind))
    raise ModelError(
        f"{folder} has model_type {kind!r}; this version loads 'llava_llama' (the original LLaVA "
        "layout with a Llama or Vicuna inside), and 'llava' and 'llava_next' in either layout"
    )


def _looks_original(config: dict[str, Any], classes: set[str]) -> bool:
    # LLaVA's first releases call their own layout "llava" too, as Hugging Face does its own.
    return bool(classes & _ORIGINAL_CLASSES) or "mm_vision_tower" in config


def _family(folder: Path, config: dict[str, Any]) -> str:
    if _OF_MQT in " ".join(config) or any(_OF_MQT in key for key in key_names(folder)):
        return "mqt"
    ratio = config.get("image_aspect_ratio")
    families = {None: "llava", PAD: "llava", SQUARE: "llava", "anyres": "llava_next"}
    if ratio not in families:
        raise ModelError(
            f"{folder}/config.json has image_aspect_ratio {ratio!r}; this version prepares images "
            "as 'pad' (LLaVA-1.5), 'square' or no entry (the centre is cropped), or 'anyres' "
            "(LLaVA-NeXT) do"
        )
    return families[ratio]

"""A recognised checkpoint: where it lies, and what its config says of layout and scales."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from m3router.data.errors import ModelError
from m3router.m3core.matryoshka.preprocessing import ASPECTS, PAD, SQUARE
from m3router.m3core.matryoshka.scales import M3_SCALES

Layout = Literal["hugging_face", "original"]

_ORIGINAL_CLASSES = {"LlavaLlamaForCausalLM"}


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A recognised checkpoint; nothing of its weights is read yet.

    Attributes:
        folder: Where it lies.
        config: Its ``config.json``.
        layout: ``original`` (haotian-liu/LLaVA and its descendants) or ``hugging_face``.
        family: A key of :data:`m3router.m3core.checkpoints.families.table.FAMILIES`.
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
        """How an image is made square: one of `m3router.m3core.matryoshka.preprocessing.ASPECTS`.

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


def is_original(config: Mapping[str, Any]) -> bool:
    """Whether a config is of the original LLaVA layout, with a Llama or Vicuna inside.

    LLaVA's first releases call their own layout ``llava``, as Hugging Face does its own.
    """
    kind = config.get("model_type")
    classes = set(config.get("architectures") or ())
    marked = bool(classes & _ORIGINAL_CLASSES) or "mm_vision_tower" in config
    return kind == "llava_llama" or (kind == "llava" and marked)

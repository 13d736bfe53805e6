"""From a folder, a hub id or ``embedded`` to a loaded model, or an error that says what is wrong.

A checkpoint in the Hugging Face LLaVA layout may carry an entry ``matryoshka`` in its
``config.json``: ``{"scales": [1, 9, 36, 144, 576], "prompt": "vicuna-1"}``. Without it the
scales of M3 are taken and the conversation prompt of LLaVA-1.5.
"""

from __future__ import annotations

import hashlib
import json
import logging
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoImageProcessor, AutoTokenizer, LlavaForConditionalGeneration

from data.errors import ModelError
from data.manifest import sha256_file
from m3core.models.base import MultiScaleModel
from m3core.models.fake import FakeModel
from m3core.models.llava import LlavaM3
from m3core.pooling import AVERAGE, check_pooling
from m3core.prompts import get_template
from m3core.scales import M3_SCALES, ScaleGrid

logger = logging.getLogger(__name__)

EMBEDDED = "embedded"
FAKE = "fake"
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_MOST_LISTED = 12


def embedded_folder() -> Path:
    """Where the shipped checkpoint lies inside the package."""
    return Path(str(resources.files("m3core.embedded") / "checkpoint"))


def resolve(name: str) -> Path:
    """The local folder of a model; a hub id is looked up and downloaded by ``huggingface_hub``.

    Raises:
        ModelError: If there is neither such a folder nor such a hub id within reach.
    """
    if name == EMBEDDED:
        return embedded_folder()
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"model {name!r} is neither {EMBEDDED!r}, nor a folder here, nor a hub id that could "
            f"be fetched ({type(error).__name__}); check the spelling or the connection"
        ) from error


def revision_of(folder: Path) -> str:
    """SHA-256 over the files that decide a model's answers, in hexadecimal."""
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix in {".json", ".safetensors", ".model", ".bin", ".txt"}:
            digest.update(f"{file.name}:{sha256_file(file)}\n".encode())
    return digest.hexdigest()


def _read_config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.is_file():
        raise ModelError(f"{folder} is no model: it has no config.json")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{file} must hold a JSON object, found {type(config).__name__}")
    kind = config.get("model_type")
    if kind != "llava":
        raise ModelError(
            f"{folder} has model_type {kind!r}; this version loads 'llava' in the Hugging Face "
            "layout (LLaVA-1.5 type). Convert the checkpoint to that layout first"
        )
    return config


def _load_weights(folder: Path, dtype: str) -> LlavaForConditionalGeneration:
    try:
        model, info = LlavaForConditionalGeneration.from_pretrained(
            folder,
            dtype=_DTYPES[dtype],
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported below, with their names
            local_files_only=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelError(f"the weights in {folder} cannot be loaded: {error}") from error
    problems = []
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        keys = sorted(str(key) for key in info.get(what, ()))
        if keys:
            more = f" and {len(keys) - _MOST_LISTED} more" if len(keys) > _MOST_LISTED else ""
            problems.append(f"{what.replace('_', ' ')}: {', '.join(keys[:_MOST_LISTED])}{more}")
    if problems:
        raise ModelError(
            f"the weights in {folder} do not fit its config.json, and nothing may be left "
            f"randomly initialised. {'; '.join(problems)}"
        )
    return model


def load_model(
    name: str, *, device: str = "auto", dtype: str = "float32", pooling: str = AVERAGE
) -> MultiScaleModel:
    """Load a multi-scale model.

    Args:
        name: ``embedded``, a folder, a hub id, or ``fake`` (no weights, for trying the tools).
        device: A torch device, or ``auto``: a GPU where there is one.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        pooling: How coarser scales are made, a name in :data:`m3core.pooling.POOLINGS`.

    Raises:
        ModelError: If it cannot be found, read, or if any weight is missing, unexpected or of
            another shape.
        MismatchError: If its scales do not nest in its tower's grid, or there is no such pooling.
    """
    check_pooling(pooling)
    if dtype not in _DTYPES:
        raise ModelError(f"unknown dtype {dtype!r}; choose one of {', '.join(_DTYPES)}")
    if name == FAKE:
        return FakeModel(pooling=pooling)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    folder = resolve(name)
    config = _read_config(folder)
    settings = config.get("matryoshka", {})
    model = _load_weights(folder, dtype).to(device).eval()
    vision = model.config.vision_config
    grid = ScaleGrid(
        scales=tuple(settings.get("scales", M3_SCALES)), side=vision.image_size // vision.patch_size
    )
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, backend="pil")
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{folder} lacks a usable tokenizer or image processor: {error}"
        ) from error
    return LlavaM3(
        model=model,
        tokenizer=tokenizer,
        image_processor=processor,
        template=get_template(settings.get("prompt", "vicuna-1")),
        grid=grid,
        name=name if name == EMBEDDED else Path(name).name or name,
        revision=revision_of(folder),
        pooling=pooling,
    )

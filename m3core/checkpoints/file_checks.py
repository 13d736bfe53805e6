"""The small files of a checkpoint, judged before transformers reads them.

transformers takes ``NaN`` for a number, gives up on deep nesting by an error of another kind, and
replaces a ``generation_config.json`` that it cannot read by defaults without a word (where a model
is loaded by ``from_pretrained``): an answer would then never end where it should.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import torch
from huggingface_hub.errors import StrictDataclassError
from PIL import Image

from m3router.data.errors import ModelError
from m3router.data.plain_files import is_there
from m3router.m3core.checkpoints.places import read_json

GENERATION = "generation_config.json"
PREPROCESSOR = "preprocessor_config.json"
FILES = (
    "config.json",
    GENERATION,
    PREPROCESSOR,
    "processor_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.json",
    "chat_template.json",
)
"""JSON objects that transformers reads where they are there."""
UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
    RecursionError,
    StrictDataclassError,
)
"""What transformers raises for files or values that it cannot use."""
MOST_LAYERS = 1000
LARGEST_SIDE = 1 << 14
"""Pixels along one side of what a tower may ask for."""


def check_files(folder: Path) -> None:
    """Judge the JSON files of a checkpoint.

    Raises:
        ModelError: One cannot be read, is not strict JSON, or holds a value of another kind than
            its name says.
    """
    for name in FILES:
        if is_there(folder / name):
            content = read_json(folder / name)
            for problem in _problems(name, content):
                raise ModelError(f"{folder / name}: {problem}; download the file again")


def is_unreadable(error: Exception) -> bool:
    """Whether an error says that a file cannot be used; the tokenizers library has a bare one."""
    return isinstance(error, UNREADABLE) or type(error) is Exception


def check_image_processor(processor: Any, folder: Path) -> None:
    """Let an image processor prepare one white image.

    Raises:
        ModelError: It cannot, or gives numbers that are not finite.
    """
    try:
        pixels = processor(Image.new("RGB", (32, 32), "white"), return_tensors="pt")["pixel_values"]
        fine = bool(torch.isfinite(torch.as_tensor(pixels)).all())
    except (*UNREADABLE, RuntimeError, ArithmeticError) as error:
        raise ModelError(
            f"{folder} lacks a usable image processor: it cannot prepare an image ({error}); "
            f"download its {PREPROCESSOR} again"
        ) from error
    if not fine:
        raise ModelError(
            f"{folder} lacks a usable image processor: a white image becomes NaN or infinite; "
            f"download its {PREPROCESSOR} again"
        )


def check_finite(tensors: Mapping[str, torch.Tensor], where: Path) -> None:
    """Refuse weights that are NaN or infinite: every answer they take part in is void.

    One sum tells of nearly all tensors that they are fine, at the speed of memory.

    Raises:
        ModelError: With the tensors' names.
    """
    wrong = [name for name, tensor in tensors.items() if not _finite(tensor)]
    if wrong:
        shown = ", ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        raise ModelError(
            f"the weights in {where} hold NaN or infinite numbers in {shown}: the file is damaged, "
            "or a training ended in them; download it again, or take an earlier state"
        )


def _finite(tensor: torch.Tensor) -> bool:
    if tensor.is_meta or not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    if tensor.is_complex() or tensor.element_size() == 1:  # float8 has no sums
        return bool(
            torch.isfinite(
                tensor.to(torch.complex64 if tensor.is_complex() else torch.float32)
            ).all()
        )
    wide = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    return bool(torch.isfinite(tensor.sum(dtype=wide))) or bool(torch.isfinite(tensor).all())


def _problems(name: str, content: Mapping[str, Any]) -> list[str]:
    found = []
    if name in (GENERATION, "config.json"):
        for key in ("eos_token_id", "bos_token_id", "pad_token_id"):
            value = content.get(key)
            given = value if isinstance(value, list) else [value]
            if value is not None and not all(type(one) is int and one >= -1 for one in given):
                found.append(f"{key} must be a token's number, got {value!r:.60}")
    if name == "config.json":
        found += _config_problems(content)
    if name == PREPROCESSOR:
        for key in ("image_mean", "image_std"):
            value = content.get(key)
            given = value if isinstance(value, list) else [value]
            if value is not None and not (given and all(map(_number, given))):
                found.append(f"{key} must be numbers, got {value!r:.60}")
        for key in ("size", "crop_size"):
            value = content.get(key)
            given = list(value.values()) if isinstance(value, dict) else [value]
            if value is not None and not all(
                one is None or (_number(one) and 0 < one <= LARGEST_SIDE**2) for one in given
            ):
                found.append(f"{key} must be pixels, got {value!r:.60}")
    if name in ("tokenizer_config.json", PREPROCESSOR, "processor_config.json"):
        for key in ("tokenizer_class", "image_processor_type", "processor_class"):
            if not isinstance(content.get(key), str | None):
                found.append(f"{key} must be a name, got {content[key]!r:.60}")
    return found


def _config_problems(content: Mapping[str, Any]) -> list[str]:
    found = []
    classes = content.get("architectures") or []
    if not isinstance(classes, list) or not all(isinstance(one, str) for one in classes):
        found.append(f"architectures must be names, got {classes!r:.60}")
    for part in (content, content.get("text_config"), content.get("vision_config")):
        layers = part.get("num_hidden_layers") if isinstance(part, dict) else None
        if isinstance(layers, int) and layers > MOST_LAYERS:
            found.append(f"num_hidden_layers is {layers}, and at most {MOST_LAYERS} are loaded")
    own = content.get("matryoshka") or {}
    if not isinstance(own, dict):
        return [*found, f"matryoshka must be an object, got {own!r:.60}"]
    scales = own.get("scales", [1])
    if not isinstance(scales, list) or not all(type(one) is int for one in scales):
        found.append(f"scales in the entry matryoshka must be token counts, got {scales!r:.60}")
    for key, kind, what in (("vocabulary", int, "a number of tokens"), ("prompt", str, "a name")):
        if key in own and type(own[key]) is not kind:
            found.append(f"{key} in the entry matryoshka must be {what}, got {own[key]!r:.60}")
    return found


def _number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

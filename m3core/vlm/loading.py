"""From a name to a vision-language model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoConfig, AutoModelForImageTextToText

from m3router.data.errors import ModelError, listed
from m3router.data.paths import StrPath
from m3router.data.registry import unknown_name
from m3router.m3core.checkpoints.file_checks import UNREADABLE, check_files, check_finite
from m3router.m3core.checkpoints.placement import Placement
from m3router.m3core.checkpoints.places import read_json, resolve, revision_of
from m3router.m3core.devices import chosen_device
from m3router.m3core.matryoshka.base import revision_with
from m3router.m3core.options import options_named
from m3router.m3core.vlm.decoding import Reader
from m3router.m3core.vlm.families import FAMILIES
from m3router.m3core.vlm.model import VisionLanguageModel
from m3router.m3core.vlm.preparing import Preparer
from m3router.m3core.vlm.probing import check_keywords, probe
from m3router.m3core.vlm.processors import load_processor

KIND = "vlm"
"""In the model's ``spec``."""


def is_vlm(folder: StrPath) -> bool:
    """Whether a folder holds a model of one of the families, as its ``config.json`` says.

    Raises:
        ModelError: If that file is not valid JSON.
    """
    file = Path(folder) / "config.json"
    return file.is_file() and read_json(file).get("model_type") in FAMILIES


def load_vlm(
    name: str,
    *,
    device: str = "auto",
    dtype: str = "float32",
    options: Mapping[str, Mapping[str, Any]] | None = None,
    max_new_tokens: int | None = None,
) -> VisionLanguageModel:
    """Load a vision-language model of one of the families.

    Args:
        name: A folder or a hub id.
        device: A torch device, or ``auto``: a GPU where there is one.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        options: Name -> keyword arguments of the image processor, the coarsest first; None for
            the family's own ladder.
        max_new_tokens: Tokens of its longest answer, where a request names no other limit.

    Raises:
        ModelError: If it cannot be found or read, is of no known family, lacks weights or has
            others than its family, or something that it needs is not installed.
        MismatchError: If an option names an unknown argument, changes nothing, or stands in the
            wrong place.
    """
    folder = resolve(name)
    kind = str(read_json(folder / "config.json").get("model_type")) if _has(folder) else "none"
    if kind not in FAMILIES:
        raise ModelError(f"{name}: {unknown_name('model_type', kind, FAMILIES)}")
    family = FAMILIES[kind]
    check_files(folder)
    processor, backend = load_processor(folder, family)
    ladder = dict(family.ladder(processor) if options is None else options)
    options_named(ladder)
    check_keywords(processor.image_processor, ladder)
    device = chosen_device(device)
    placement = Placement(device=device, dtype=dtype)
    preparer = Preparer(processor, family, _config(folder), ladder)
    probe(preparer, ladder)  # before the weights, which may take minutes
    decides = {
        "image_backend": backend,
        "options": json.dumps(ladder, sort_keys=True),
        "prompt": preparer.prompt,
    }
    given = {"device": device, "dtype": dtype, "max_new_tokens": max_new_tokens}
    reader = Reader(_load_weights(folder, placement), processor)
    return VisionLanguageModel(
        reader=reader,
        preparer=preparer,
        family=family,
        options=ladder,
        name=Path(name).name or name,
        revision=revision_with(revision_of(folder), decides),
        provenance={
            "backend": f"transformers {transformers.__version__}",
            "family": kind,
            "image_backend": backend,
            "prompt": preparer.prompt,
            "decoding": ", ".join(["greedy", *reader.rules]),
            "dtype": dtype,
        },
        # A router's file sorts its keys, so the order of the options is kept beside them.
        spec={"kind": KIND, "name": name, "options": ladder, "order": list(ladder)} | given,
        max_new_tokens=max_new_tokens,
    )


def _has(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def _config(folder: Path) -> Any:
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True)
    except UNREADABLE as error:
        raise ModelError(f"{folder}/config.json cannot be used: {error}") from error


def _load_weights(folder: Path, placement: Placement) -> Any:
    """The stock class with every weight accounted for, in evaluation mode.

    Raises:
        ModelError: If a weight is missing, unexpected or of another shape.
    """
    try:
        model, info = AutoModelForImageTextToText.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, **placement.keywords()
        )
    except (RuntimeError, *UNREADABLE) as error:
        raise ModelError(f"{folder} cannot be loaded: {error}; download its files again") from error
    for what in ("missing", "unexpected", "mismatched"):
        wrong = sorted(map(str, info[f"{what}_keys"]))
        if wrong:
            raise ModelError(
                f"{folder} has {len(wrong)} {what} weights: {listed(wrong)}; its weights and its "
                "config.json do not belong together, or this version of transformers reads them "
                "otherwise"
            )
    check_finite(model.state_dict(), folder)
    return model.to(placement.device).eval()

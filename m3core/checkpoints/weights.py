"""The tensors of a checkpoint, from safetensors or ``.bin`` files, whole or in shards."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from data.errors import ModelError

Tensors = dict[str, torch.Tensor]
_LISTED = 8


class _Format(NamedTuple):
    single: str
    listing: str
    shards: str


_FORMATS = (  # safetensors first: where a folder has both they hold the same
    _Format("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors"),
    _Format("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin"),
)


def read_tensors(folder: Path) -> Tensors:
    """All tensors of a checkpoint by the names in its files, mapped into memory, not copied.

    Nothing is executed: ``.bin`` files are read through ``weights_only``. Where there is an
    index, it and the shards must name the same tensors.

    Raises:
        ModelError: If there are no weights, a shard is missing, truncated or is not what the
            index says.
    """
    for form in _FORMATS:
        if (folder / form.listing).is_file():
            return _sharded(folder, form.listing)
        if (folder / form.single).is_file():
            return _tensors_of(folder / form.single)
    raise ModelError(_why_none(folder))


def key_names(folder: Path) -> set[str]:
    """The names of a checkpoint's tensors as its index or files say; empty without weights.

    Raises:
        ModelError: If a file cannot be read.
    """
    for form in _FORMATS:
        if (folder / form.listing).is_file():
            return set(_weight_map(folder / form.listing))
        if (folder / form.single).is_file():
            return set(_tensors_of(folder / form.single))
    return set()


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ModelError: If the file is not valid JSON or holds something else.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{file} is not valid JSON: {error}; download the file again") from error
    if not isinstance(content, dict):
        raise ModelError(f"{file} must hold a JSON object, found {type(content).__name__}")
    return content


def _why_none(folder: Path) -> str:
    for form in _FORMATS:
        if shards := sorted(file.name for file in folder.glob(form.shards)):
            return (
                f"{folder} holds {len(shards)} shards ({shards[0]} ...) but no {form.listing}, "
                "which says what they contain; download that file"
            )
    names = " or ".join(form.single for form in _FORMATS)
    half = [
        name for name in ("adapter_config.json", "mm_projector.bin") if (folder / name).exists()
    ]
    mend = f"merge {half[0]} into its base model first" if half else "download the checkpoint again"
    return f"{folder} has no weights ({names}, whole or with an index); {mend}"


def _sharded(folder: Path, index: str) -> Tensors:
    weight_map = _weight_map(folder / index)
    names = sorted(set(weight_map.values()))
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise ModelError(
            f"{folder} lacks {len(missing)} of {len(names)} shards that {index} names: "
            f"{', '.join(missing)}; download them"
        )
    tensors: Tensors = {}
    problems = []
    for name in names:
        shard = _tensors_of(folder / name)
        promised = {key for key, file in weight_map.items() if file == name}
        for what, keys in (
            (f"is in {name} but not in the index", sorted(shard.keys() - promised)),
            (f"should be in {name} but is not", sorted(promised - shard.keys())),
        ):
            if keys:
                problems.append(f"{_some(keys)} {what}")
        tensors |= shard
    if problems:
        raise ModelError(
            f"{folder / index} does not fit its shards: {'; '.join(problems)}. Index and shards "
            "are of different versions, or a download was cut: fetch all of them again"
        )
    return tensors


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
    return ", ".join(keys[:_LISTED]) + more


def _weight_map(index: Path) -> dict[str, str]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"{index} has no entry 'weight_map'; download the file again")
    for file in weight_map.values():
        if not isinstance(file, str) or Path(file).name != file:
            raise ModelError(f"{index} names the shard {file!r}, which is no plain file name")
    return weight_map


def _tensors_of(file: Path) -> Tensors:
    try:
        tensors: Any
        if file.suffix == ".safetensors":
            with safe_open(str(file), framework="pt", device="cpu") as opened:
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        else:
            tensors = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{file} holds more than tensors and is not loaded, as that could run foreign code; "
            "get the checkpoint as safetensors"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise ModelError(
            f"the weights in {file} cannot be loaded: the file is truncated or damaged "
            f"({str(error).splitlines()[0]}); download it again"
        ) from error
    if not isinstance(tensors, dict) or not all(
        isinstance(value, torch.Tensor) for value in tensors.values()
    ):
        raise ModelError(f"{file} must hold tensors by name; it is no model's weights")
    return tensors

"""The tensors of a checkpoint: read from its files, renamed, and every one accounted for.

They come from safetensors or ``.bin`` files, whole or in shards. Their current names are
``model.vision_tower.*``, ``model.multi_modal_projector.linear_{1,2}.*``,
``model.language_model.*``, ``lm_head.weight`` and, for LLaVA-NeXT, ``model.image_newline``.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Collection, Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from m3router.data.errors import ModelError
from m3router.m3core.checkpoints.file_checks import check_finite
from m3router.m3core.checkpoints.places import read_json

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
            index says, or a tensor holds NaN or infinity.
    """
    for form in _FORMATS:
        if (folder / form.listing).is_file():
            return _sharded(folder, form.listing)
        if (folder / form.single).is_file():
            tensors = _tensors_of(folder / form.single)
            check_finite(tensors, folder / form.single)
            return tensors
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
    advice = "download the checkpoint again"
    if half:
        advice = f"merge {half[0]} into its base model first"
    return f"{folder} has no weights ({names}, whole or with an index); {advice}"


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
        check_finite(shard, folder / name)
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
            raise ModelError(f"{index} names the shard {file!r}, which is not a plain file name")
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
    except (
        SafetensorError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        OverflowError,
    ) as error:
        raise ModelError(
            f"the weights in {file} cannot be loaded: the file is truncated or damaged "
            f"({(str(error) or repr(error)).splitlines()[0]}); download it again"
        ) from error
    if not isinstance(tensors, dict) or not all(
        isinstance(value, torch.Tensor) for value in tensors.values()
    ):
        raise ModelError(f"{file} must hold tensors by name; these are not the weights of a model")
    return tensors


ORIGINAL = (
    # haotian-liu/LLaVA: LlavaLlamaForCausalLM with CLIPVisionTower inside.
    (r"^model\.vision_tower\.vision_tower\.", "model.vision_tower."),
    (r"^model\.mm_projector\.0\.", "model.multi_modal_projector.linear_1."),
    (r"^model\.mm_projector\.2\.", "model.multi_modal_projector.linear_2."),
    (r"^model\.mm_projector\.(weight|bias)$", r"model.multi_modal_projector.linear_1.\1"),
    (r"^model\.(embed_tokens|layers|norm)\.", r"model.language_model.\1."),
)
"""Patterns and replacements; the first that matches counts."""

HUGGING_FACE = (
    # Names up to transformers 4.51; the newer ones match none and stay.
    (r"^language_model\.lm_head\.", "lm_head."),
    (r"^language_model\.model\.", "model.language_model."),
    (r"^(vision_tower|multi_modal_projector)\.", r"model.\1."),
    (r"^image_newline$", "model.image_newline"),
)

DROPPED = re.compile(r"\.rotary_emb\.inv_freq$|\.position_ids$")
"""Buffers that old versions saved and that follow from the config."""

_LAYER = re.compile(r"\.layers\.(\d+)\.")
_TOWER = "model.vision_tower."
_INNER = "vision_model."


def rename(
    tensors: Mapping[str, torch.Tensor],
    patterns: Iterable[tuple[str, str]],
    *,
    expected: Collection[str],
    folder: Path,
) -> dict[str, torch.Tensor]:
    """Give tensors the names that a model expects; known leftovers are dropped.

    Args:
        tensors: By their published names.
        patterns: :data:`ORIGINAL` or :data:`HUGGING_FACE`.
        expected: The model's own names; they decide whether the tower's carry ``vision_model.``,
            which differs between versions of transformers.
        folder: For the message.

    Raises:
        ModelError: If two tensors claim one name.
    """
    patterns = list(patterns)
    renamed: dict[str, torch.Tensor] = {}
    origin: dict[str, str] = {}
    for key, tensor in tensors.items():
        if DROPPED.search(key):
            continue
        new = key
        for pattern, replacement in patterns:
            new, matched = re.subn(pattern, replacement, key)
            if matched:
                break
        new = _tower_name(new, expected)
        if new in renamed:
            raise ModelError(
                f"{folder} holds {new} twice, as {origin[new]} and as {key}; two versions of the "
                "checkpoint are mixed in it"
            )
        renamed[new], origin[new] = tensor, key
    return renamed


def _tower_name(key: str, expected: Collection[str]) -> str:
    if key in expected or not key.startswith(_TOWER):
        return key
    inner = key.removeprefix(_TOWER)
    other = inner.removeprefix(_INNER) if inner.startswith(_INNER) else _INNER + inner
    return _TOWER + other if _TOWER + other in expected else key


def as_published(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors by names that all readers of published checkpoints know.

    The published Hugging Face LLaVA says ``vision_tower.vision_model.``; newer versions of
    transformers read that and the shorter name, vLLM 0.32 only the longer one.
    """
    long = _TOWER + _INNER
    return {
        long + key.removeprefix(_TOWER)
        if key.startswith(_TOWER) and not key.startswith(long)
        else key: tensor
        for key, tensor in tensors.items()
    }


def account(
    expected: Mapping[str, torch.Size],
    found: Mapping[str, torch.Tensor],
    *,
    optional: Collection[str],
    folder: Path,
) -> None:
    """Every tensor must have its place and every place its tensor, of the same shape.

    Args:
        expected: Names and shapes of the model.
        found: What the checkpoint holds, renamed.
        optional: Names that may be missing, as they are tied to others.
        folder: For the message.

    Raises:
        ModelError: One error that lists all that is missing, unexpected or of another shape.
    """
    problems = []
    if missing := expected.keys() - found.keys() - set(optional):
        problems.append(f"missing keys: {folded(missing)}")
    if unexpected := found.keys() - expected.keys():
        problems.append(f"unexpected keys: {folded(unexpected)}")
    other = [key for key in expected.keys() & found.keys() if found[key].shape != expected[key]]
    if other:
        shapes = {
            key: f" is {tuple(found[key].shape)}, config.json says {tuple(expected[key])}"
            for key in other
        }
        problems.append(f"mismatched keys: {folded(other, shapes)}")
    if problems:
        raise ModelError(
            f"the weights in {folder} do not fit its config.json, and nothing may be left "
            f"randomly initialised. {'; '.join(problems)}. {_advice(missing, other)}"
        )


def _advice(missing: Collection[str], other: Collection[str]) -> str:
    if any("vision_tower" in key for key in other):
        return "This is another vision tower than the config names: correct mm_vision_tower"
    if any("multi_modal_projector" in key for key in other):
        return "The projector belongs to another tower or language model: correct the config"
    if missing:
        return "Download the checkpoint again, or use the config.json that belongs to it"
    return "Use the config.json that belongs to the weights"


def folded(keys: Iterable[str], notes: Mapping[str, str] | None = None) -> str:
    """All keys in a readable line: those that differ only in the layer's number are joined.

    >>> folded(["a.layers.0.w", "a.layers.1.w", "a.layers.3.w", "b"])
    'a.layers.{0-1,3}.w, b'
    """
    groups: dict[tuple[str, str], list[int]] = {}
    for key in keys:
        number = _LAYER.search(key)
        shape = _LAYER.sub(".layers.{}.", key) if number else key
        numbers = groups.setdefault((shape, (notes or {}).get(key, "")), [])
        numbers += [int(number[1])] if number else []
    lines = []
    for (shape, note), numbers in sorted(groups.items()):
        name = shape.replace("{}", _span(numbers), 1) if numbers else shape
        lines.append(name + note)
    return ", ".join(lines)


def _span(numbers: list[int]) -> str:
    if len(numbers) == 1:
        return str(numbers[0])
    runs = []
    for _, run in groupby(enumerate(sorted(numbers)), lambda pair: pair[1] - pair[0]):
        values = [value for _, value in run]
        runs.append(f"{values[0]}-{values[-1]}" if len(values) > 1 else str(values[0]))
    return "{" + ",".join(runs) + "}"

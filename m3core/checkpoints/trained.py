"""Write a fine-tuned checkpoint; all but its weights is taken from the one it came from."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict

from data.errors import MismatchError
from m3core.checkpoints.conversion import check_destination, whole_folder, write_stock
from m3core.checkpoints.keys import folded
from m3core.checkpoints.layouts import Checkpoint, recognise
from m3core.checkpoints.loading import DTYPES, STOCK, read_contents
from m3core.checkpoints.mqt import named, published_weights
from m3core.checkpoints.places import resolve
from m3core.checkpoints.tower import read_with_tower
from m3core.checkpoints.weights import Tensors

_TOKENIZER = ("tokenizer*", "special_tokens_map.json", "added_tokens.json")
_TOWER = ("config.json", "preprocessor_config.json")


def write_trained(
    source: str,
    weights: Mapping[str, torch.Tensor],
    destination: Path,
    *,
    scales: Sequence[int],
    dtype: str | None = None,
) -> Path:
    """Write trained weights as a folder that ``load_model`` reads.

    LLaVA is written in the Hugging Face layout, as ``m3router convert`` does, with its scales in
    the config; MQT-LLaVA, for which there is none, in the layout of its authors.

    Args:
        source: Folder or hub id that the training started from.
        weights: What :func:`m3core.training.train` returned.
        destination: A new folder.
        scales: What it was trained at.
        dtype: Number format of all tensors; by default that which each had in ``source``.

    Returns:
        The folder.

    Raises:
        ModelError: If the source cannot be read, or the destination is not empty.
        MismatchError: If the weights are not those of the source's architecture.
    """
    check_destination(destination, dtype=dtype)
    checkpoint = recognise(resolve(source))
    if checkpoint.family in STOCK:
        contents = read_contents(checkpoint)
        tensors = _replaced(contents.tensors, weights, dtype=dtype, folder=checkpoint.folder)
        settings = dict(getattr(contents.config, "matryoshka", None) or {})
        contents.config.matryoshka = settings | {"scales": list(scales)}
        contents = dataclasses.replace(contents, tensors=tensors)
        write_stock(destination, checkpoint, contents, dtype=None)
    else:
        _write_mqt(checkpoint, weights, destination, dtype=dtype)
    return destination


def _replaced(
    old: Tensors, new: Mapping[str, torch.Tensor], *, dtype: str | None, folder: Path
) -> Tensors:
    """New values in the old tensors' number formats; every old tensor must get its new one.

    Embeddings may have lost the rows behind the trained vocabulary when they were loaded; these
    are the mean of the others, as in a converted checkpoint.
    """
    missing = [
        key
        for key, tensor in old.items()
        if key not in new or new[key].shape[1:] != tensor.shape[1:]
    ]
    if missing:
        raise MismatchError(
            f"the trained weights do not fit {folder}, they lack or reshape {folded(missing)}; "
            "name the checkpoint that the training started from"
        )
    tensors = {}
    for key, tensor in old.items():
        value = new[key].detach().cpu().float()
        if (lost := len(tensor) - len(value) if tensor.ndim else 0) > 0:
            value = torch.cat([value, value.mean(0, keepdim=True).expand(lost, -1)])
        kind = tensor.dtype if dtype is None else DTYPES[dtype]
        tensors[key] = value.to(kind) if tensor.is_floating_point() else value.to(tensor.dtype)
    return tensors


def _write_mqt(
    checkpoint: Checkpoint,
    weights: Mapping[str, torch.Tensor],
    destination: Path,
    *,
    dtype: str | None,
) -> None:
    old, tower = read_with_tower(checkpoint)
    new = published_weights(weights)
    tensors = _replaced(named(old), new, dtype=dtype, folder=checkpoint.folder)
    with whole_folder(destination) as work:
        (work / "config.json").write_text(json.dumps(checkpoint.config, indent=2))
        for pattern in _TOKENIZER:
            for file in checkpoint.folder.glob(pattern):
                shutil.copy(file, work)
        if tower.folder is not None:
            beside = work / Path(checkpoint.config["mm_vision_tower"]).name
            beside.mkdir()
            for name in _TOWER:
                if (tower.folder / name).is_file():
                    shutil.copy(tower.folder / name, beside)
        save_torch_state_dict(tensors, work, metadata={"format": "pt"})

"""Writing a checkpoint: checked before, whole or not at all, with every old tensor replaced."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from m3router.data.errors import MismatchError, ModelError
from m3router.m3core.checkpoints.placement import DTYPES
from m3router.m3core.checkpoints.tensors import Tensors, folded


def check_destination(destination: Path, *, dtype: str | None) -> None:
    """Refuse what cannot be written, before any work is done for it.

    Raises:
        ModelError: If the number format is unknown, or the destination is not empty.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ModelError(f"unknown dtype {dtype!r}; choose one of {', '.join(DTYPES)}")
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise ModelError(f"{destination} is there and not empty; name a new folder")


@contextmanager
def whole_folder(destination: Path) -> Iterator[Path]:
    """Write beside the destination and rename, so that it is whole or not there.

    Args:
        destination: A new or empty folder.

    Yields:
        The folder to write into.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{destination.name}-", dir=destination.parent))
    try:
        yield work
        work.chmod(0o755)
        if destination.exists():
            destination.rmdir()  # it is empty: checked before
        work.rename(destination)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def replaced(
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

"""Checkpoints that are written: converted to the Hugging Face layout, or trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from m3router.data.paths import StrPath, as_path
from m3router.m3core.checkpoints.families.table import get_family, recognise
from m3router.m3core.checkpoints.file_checks import check_files
from m3router.m3core.checkpoints.places import resolve
from m3router.m3core.checkpoints.writing import check_destination


def convert(source: str, destination: StrPath, *, dtype: str | None = None) -> Path:
    """Write a checkpoint once in the Hugging Face layout, so that any tool can load it.

    Args:
        source: Folder or hub id, in either layout.
        destination: A new folder.
        dtype: Number format of all tensors; by default each keeps its own.

    Returns:
        The folder.

    Raises:
        ModelError: If the checkpoint is not complete, its family has no Hugging Face layout, the
            number format is unknown, or the destination is not empty.
    """
    destination = as_path(destination)
    check_destination(destination, dtype=dtype)
    folder = resolve(source)
    check_files(folder)
    checkpoint = recognise(folder)
    get_family(checkpoint.family).convert(checkpoint, destination, dtype=dtype)
    return destination


def write_trained(
    source: str,
    weights: Mapping[str, torch.Tensor],
    destination: Path,
    *,
    scales: Sequence[int],
    dtype: str | None = None,
) -> Path:
    """Write trained weights as a folder that ``load_model`` reads.

    All but the weights is taken from the checkpoint that they came from.

    Args:
        source: Folder or hub id that the training started from.
        weights: What :func:`m3router.m3core.training.loop.train` returned.
        destination: A new folder.
        scales: What it was trained at.
        dtype: Number format of all tensors; by default that which each had in ``source``.

    Returns:
        The folder.

    Raises:
        ModelError: If the source cannot be read, or the destination is not empty.
        MismatchError: If the weights are not those of the source's architecture, or its family
            has no training here.
    """
    check_destination(destination, dtype=dtype)
    checkpoint = recognise(resolve(source))
    family = get_family(checkpoint.family)
    family.write_trained(checkpoint, weights, destination, scales=scales, dtype=dtype)
    return destination

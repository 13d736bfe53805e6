"""Images with a word in black and white cells, and the reading of them at a limited resolution."""

from __future__ import annotations

import binascii

import numpy as np
from PIL import Image

from m3router.data.errors import DataError

SIDES = (8, 16, 32, 64)
"""Cells along each side of a coded image, coarsest first."""
_HEAD = 3  # bytes before the word: its length, and two of a check sum


def coded_image(word: str, *, cells: int = 8, size: tuple[int, int] = (512, 512)) -> Image.Image:
    """An image that says a word to whoever sees each of its cells.

    Args:
        word: ASCII, at most ``cells² / 8 - 3`` letters: 5 for 8 cells, 29 for 16.
        cells: Along each side, one of :data:`SIDES`; more cells need a finer look.
        size: Width and height, pixels.

    Returns:
        RGB, black and white.

    Raises:
        DataError: If the word does not fit, or an image of this size cannot have so many cells.
    """
    if cells not in SIDES:
        raise DataError(f"a coded image has {SIDES} cells along a side, got {cells}")
    room = cells * cells // 8 - _HEAD
    if not word.isascii() or not 1 <= len(word) <= room:
        raise DataError(f"{cells} x {cells} cells hold 1 to {room} ASCII letters, got {word!r}")
    if min(size) < cells:
        raise DataError(f"an image of {size[0]} x {size[1]} pixels has no room for {cells} cells")
    payload = _head(word.encode()) + word.encode()
    every = np.resize(np.unpackbits(np.frombuffer(payload, dtype=np.uint8)), (cells, cells))
    return (
        Image.fromarray(every * np.uint8(255)).resize(size, Image.Resampling.NEAREST).convert("RGB")
    )


def read_code(image: Image.Image, cell: int) -> str | None:
    """The word of a coded image, if its cells can be told apart.

    Args:
        image: As a model sees it, after all resizing.
        cell: Smallest side of a cell that is seen, pixels: what one image token covers.

    Returns:
        The word; None where there is none, or its cells are smaller than that.

    >>> read_code(coded_image("seven", cells=16, size=(512, 512)), 32) is None
    True
    >>> read_code(coded_image("seven", cells=16, size=(512, 512)), 16)
    'seven'
    """
    grey = image.convert("L")
    for cells in SIDES:
        if min(image.size) < cells * cell:
            return None
        seen = np.asarray(grey.resize((cells, cells), Image.Resampling.BOX)) > 127
        found = _decoded(np.packbits(seen.reshape(-1)).tobytes())
        if found is not None:
            return found
    return None


def _head(word: bytes) -> bytes:
    return bytes([len(word)]) + binascii.crc_hqx(word, 0xFFFF).to_bytes(2, "big")


def _decoded(raw: bytes) -> str | None:
    word = raw[_HEAD : _HEAD + raw[0]]
    if not word or len(word) != raw[0] or raw[:_HEAD] != _head(word) or not word.isascii():
        return None
    return word.decode()

"""An image as a table or dataset holds it: the path of a file, or the image itself."""

from __future__ import annotations

import base64
import binascii
import io
import re
from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any

import numpy as np
from PIL import Image

from m3router.data.errors import DataError
from m3router.data.json_files import parse_json
from m3router.data.tables.cells import Nested, text_of
from m3router.data.tables.image_cells import image_path, is_base64

_DATA_URL = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
_LOSSLESS = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
"""Modes of Pillow's that PNG keeps as they are."""


def image_in(value: Any) -> str | bytes | None:
    r"""Read what a cell holds.

    Args:
        value: A path; bytes of a file; base64 of these, also as a data URL; an object with
            ``bytes`` and ``path``, as the ``datasets`` library has images; an image of Pillow's; an
            array of bytes, height x width (x 3 or 4); or a list of one of these.

    Returns:
        The path, or the bytes of an image file; None for an empty cell.

    Raises:
        DataError: It holds something else; the message begins with "holds" or "has".

    >>> image_in("a.png"), image_in(["a.png"]), image_in({"bytes": None, "path": "a.png"})
    ('a.png', 'a.png', 'a.png')
    >>> image_in("data:image/png;base64,iVBORw0KGgo=")
    b'\x89PNG\r\n\x1a\n'
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value) or None
    if isinstance(value, Mapping) and {"bytes", "path"} & set(value) and set(value) <= _OBJECT:
        return image_in(value.get("bytes")) or image_in(value.get("path"))
    if isinstance(value, Image.Image):
        return _png(value)
    if isinstance(value, np.ndarray) and value.ndim > 1:
        return _png(_of_array(value))
    if isinstance(value, list | tuple | np.ndarray):
        if len(value) > 1:
            raise DataError(f"holds a list of {len(value)} images; an example has one")
        return image_in(value[0]) if len(value) else None
    if isinstance(value, PathLike):
        return image_in(fspath(value))
    cell = text_of(value)
    if isinstance(cell, Nested):
        raise DataError(f"holds {cell.kind}, no path or image")
    return None if cell is None else _of_text(cell)


_OBJECT = {"bytes", "path"}


def _of_text(text: str) -> str | bytes | None:
    if text.startswith("[") and text.endswith("]"):
        try:
            return image_in(parse_json(text))
        except ValueError:
            pass  # a name in brackets, which is told below
    url = _DATA_URL.match(text)
    if url or is_base64(text):
        return _decoded(text[url.end() :] if url else text)
    path, problem = image_path(text)
    if problem:
        raise DataError(problem)
    return path or None


def _decoded(text: str) -> bytes:
    bare = "".join(text.split()).translate(str.maketrans("-_", "+/")).rstrip("=")
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except binascii.Error as error:
        raise DataError(f"holds an image in base64 that is damaged ({error})") from error


def _of_array(values: np.ndarray) -> Image.Image:
    if values.dtype != np.uint8:
        raise DataError(f"holds an array of {values.dtype}; pixels are uint8")
    try:
        return Image.fromarray(values)
    except (TypeError, ValueError) as error:
        raise DataError(f"holds an array of shape {values.shape}, no image") from error


def _png(image: Image.Image) -> bytes:
    """The pixels of an image, without loss where PNG has its mode."""
    written = io.BytesIO()
    try:
        kept = image if image.mode in _LOSSLESS else image.convert("RGB")
        kept.save(written, format="PNG", compress_level=1)
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"holds an image that cannot be read ({error})") from error
    return written.getvalue()

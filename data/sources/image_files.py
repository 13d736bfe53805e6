"""Images that come as bytes, written as files whose names tell their content."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from m3router.data.errors import DataError
from m3router.data.manifest import write_failure

PRIVATE = 0o600
"""Mode of files of the user's own data."""
_SIGNATURES = (
    (b"\xff\xd8\xff", ".jpg"),
    (b"\x89PNG", ".png"),
    (b"GIF8", ".gif"),
    (b"RIFF", ".webp"),
    (b"BM", ".bmp"),
    (b"II*\x00", ".tif"),
    (b"MM\x00*", ".tif"),
)
_OTHER = ".img"


def save_image(folder: Path, image: Any, owner: str) -> str:
    """Write an image as it is, EXIF data included; one that is there already is kept.

    Args:
        folder: Receives the file; made when it is missing.
        image: A mapping with ``bytes``, as the ``datasets`` library gives undecoded images.
        owner: Whose image it is, for the message.

    Returns:
        The file's name, see :func:`content_name`.

    Raises:
        DataError: There are no bytes, or the file cannot be written.
    """
    data = image.get("bytes") if isinstance(image, Mapping) else None
    if not isinstance(data, bytes) or not data:
        got = f"only {', '.join(image)}" if isinstance(image, Mapping) else repr(image)[:60]
        raise DataError(f"{owner}: the image must be stored as bytes, got {got}.")
    return save_bytes(folder, data)


def save_bytes(folder: Path, data: bytes, *, mode: int = 0o666) -> str:
    """Write the bytes of an image file; one that is there already is kept.

    Args:
        folder: Receives the file; made when it is missing.
        data: All of them.
        mode: Of the file, of which the process's umask takes some away.

    Returns:
        The file's name, see :func:`content_name`.

    Raises:
        DataError: The file cannot be written.
    """
    path = folder / content_name(data)
    if not path.exists():
        _write(path, data, mode)
    return path.name


def content_name(data: bytes) -> str:
    """32 hexadecimal digits of the SHA-256, and the ending of the image's format."""
    endings = (ending for start, ending in _SIGNATURES if data.startswith(start))
    return hashlib.sha256(data).hexdigest()[:32] + next(endings, _OTHER)


def _write(path: Path, data: bytes, mode: int) -> None:
    """Write a file whole or not at all; not forced to the disk, for there are many of them."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb", opener=partial(os.open, mode=mode)) as file:
            file.write(data)
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise DataError(write_failure(path, error)) from error

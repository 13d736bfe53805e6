"""Paths of pictures in files that users bring."""

from __future__ import annotations

import posixpath
from pathlib import PurePosixPath, PureWindowsPath

_SHOWN, _LONGEST = 80, 1000


def brief(name: str) -> str:
    """A name as messages show it: one that can only be an image itself is cut.

    >>> brief("a/b.png"), brief("iVBO" * 25_000)[-24:]
    ('a/b.png', '... (100000 characters)')
    """
    return name if len(name) <= _LONGEST else f"{name[:_SHOWN]}... ({len(name)} characters)"


def leaves_folder(image: str) -> str:
    """Say how an image path leaves its folder; empty when it does not.

    >>> leaves_folder("a/../../b.png")
    'climbs out of the images folder'
    """
    windows = PureWindowsPath(image)
    if PurePosixPath(image).is_absolute() or windows.drive or windows.root:
        return "is absolute"
    if "\0" in image:
        return "holds a NUL character"
    for text in (image, image.replace("\\", "/")):
        if posixpath.normpath(text).split("/")[0] == "..":
            return "climbs out of the images folder"
    return ""

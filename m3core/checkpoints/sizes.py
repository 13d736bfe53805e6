"""What a checkpoint's models cost, from its configuration alone: no weights are read.

Reads ``config.json`` and, in the original layout, the config of the vision tower that it names.
"""

from __future__ import annotations

from pathlib import Path

from m3router.data.errors import MismatchError, ModelError
from m3router.m3core.checkpoints.families.base import Sizes
from m3router.m3core.checkpoints.families.table import get_family, recognise
from m3router.m3core.checkpoints.places import EMBEDDED, embedded_folder


def read_sizes(name: str) -> Sizes:
    """Read what a model costs from its configuration.

    Args:
        name: ``embedded`` or a folder, in either layout.

    Raises:
        ModelError: If there is no such folder, or its configuration is not valid.
        MismatchError: If its scales do not fit its tower.
    """
    folder = embedded_folder() if name == EMBEDDED else Path(name)
    if not folder.is_dir():
        raise ModelError(
            f"The model {name!r} is neither {EMBEDDED!r} nor a folder here; costs need only its "
            "config.json: put that file into a folder and name it"
        )
    checkpoint = recognise(folder)
    return get_family(checkpoint.family).sizes(checkpoint)


def parse_image(text: str) -> tuple[int, int]:
    """Read ``640x480`` (width x height in pixels) as (height, width).

    Raises:
        MismatchError: If it is written otherwise.

    >>> parse_image("640x480")
    (480, 640)
    """
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise MismatchError(f"{text!r} is not an image size: write width x height, such as 640x480")
    return int(height), int(width)

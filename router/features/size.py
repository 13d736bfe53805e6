"""How large an image is: what the options of most models cost depends on it.

:func:`image_sizes` reads the sizes back from a table, so that costs can be learned from them.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from m3router.router.features.table import FeatureTable

VERSION = "size-1"

Sizes = npt.NDArray[np.intp]


class Sized(Protocol):
    """An image of any mode, or what stands for one."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        ...


def size_features(image: Sized) -> npt.NDArray[np.float32]:
    """Size of an image, or of a video's collage.

    Args:
        image: Its size alone is read.

    Returns:
        float32 (4,): natural logarithms of width, height, width / height and megapixels.
    """
    width, height = image.size
    sizes = [np.log(width), np.log(height), np.log(width / height), np.log(width * height / 1e6)]
    return np.array(sizes, dtype=np.float32)


def image_sizes(table: FeatureTable) -> Sizes | None:
    """Width and height (N, 2) of the table's images, in pixels; None where it has no sizes.

    They are read from the block ``size``, else from a ``cheap`` one that was made of images: both
    begin with the logarithms, whose rounding is less than half a pixel below 500 000 pixels a side.
    """
    facts: Any = table.metadata.get("blocks", {})
    for name in ("size", "cheap"):
        if name in table.blocks and name in facts:
            if not facts[name].get("made_with", {}).get("pictures", True):
                continue
            sides = np.exp(np.asarray(table.blocks[name][:, :2], dtype=np.float64))
            return np.rint(sides).astype(np.intp)
    return None

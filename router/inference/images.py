"""Images as callers bring them: opened, or as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from m3router.data.images import LONGEST_SIDE, bounded
from m3router.data.videos import open_media

AnyImage = Image.Image | Path | str


class OpenedImages:
    """Opens every file once, and makes every image RGB once.

    Args:
        frames: Frames of a video's collage.
    """

    def __init__(self, *, frames: int) -> None:
        self._frames = frames
        self._known: dict[Path | int, tuple[AnyImage, Image.Image]] = {}

    def __call__(self, image: AnyImage) -> Image.Image:
        """The image as RGB; the same object for equal paths and for the same object.

        Raises:
            DataError: If a file cannot be read.
        """
        key = id(image) if isinstance(image, Image.Image) else Path(image)
        if key not in self._known:
            if not isinstance(image, Image.Image):
                opened = open_media(Path(image), frames=self._frames)
            else:
                opened = image if image.mode == "RGB" else image.convert("RGB")
                opened = bounded(opened, LONGEST_SIDE)
            self._known[key] = (image, opened)  # an id belongs to its image while that is kept
        return self._known[key][1]


def opened(images: Sequence[AnyImage], *, frames: int) -> list[Image.Image]:
    """All of them as RGB; what comes several times is the same object.

    Raises:
        DataError: If a file cannot be read.
    """
    open_one = OpenedImages(frames=frames)
    return [open_one(image) for image in images]

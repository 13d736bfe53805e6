"""Images as callers bring them: opened, as files, as arrays of pixels, or as a file's bytes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt
from PIL import Image

from m3router.data.errors import ImageError, MismatchError
from m3router.data.image_arrays import image_of_array
from m3router.data.images import LONGEST_SIDE, bounded, read_image, rgb_of
from m3router.data.paths import StrPath, as_path
from m3router.data.videos import open_media

AnyImage = Image.Image | StrPath | npt.NDArray[np.uint8] | bytes
"""An image of Pillow's, a file's path, uint8 pixels (height, width, 3) or (height, width), or the
bytes of an image file."""

_ADDRESS = re.compile(r"(?:https?|data|s3|gs|file):", re.IGNORECASE)


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
            ImageError: If it is no image, or cannot be taken for one without a guess.
        """
        key = _path(image) if isinstance(image, str | os.PathLike) else id(image)
        if key not in self._known:
            # An id belongs to its image while that is kept.
            self._known[key] = (image, self._open(image))
        return self._known[key][1]

    def _open(self, image: AnyImage) -> Image.Image:
        if isinstance(image, str | os.PathLike):
            return open_media(_path(image), frames=self._frames)
        if isinstance(image, bytes | bytearray | memoryview):
            return read_image(bytes(image), longest_side=LONGEST_SIDE)
        if isinstance(image, np.ndarray):
            return bounded(image_of_array(image), LONGEST_SIDE)
        if isinstance(image, Image.Image):
            return bounded(rgb_of(image), LONGEST_SIDE)
        raise ImageError(_unfit(image))


def _path(image: StrPath) -> Path:
    if isinstance(image, str) and _ADDRESS.match(image):
        raise ImageError(
            f"The image {image[:60]!r} is an address, and nothing is fetched here: download it, "
            "and give the file, its bytes or a PIL image."
        )
    return as_path(image)


def _unfit(image: Any) -> str:
    """Why something is no image, and what to do."""
    kind = f"{type(image).__module__.partition('.')[0]}.{type(image).__qualname__}"
    kind = kind.removeprefix("builtins.")
    told = (
        "An image must be a PIL image, a path, a uint8 array (height, width, 3), or the bytes of a "
        f"file, not {kind}"
    )
    shape = getattr(image, "shape", None)
    if kind.startswith("torch."):
        return (
            f"{told} of shape {tuple(image.shape)}: for values from 0 to 1 and channels first, "
            "give (tensor.permute(1, 2, 0) * 255).round().byte().cpu().numpy()."
        )
    if shape is not None:
        return f"{told} of shape {tuple(shape)}: give numpy.asarray(...) of it as uint8."
    if hasattr(image, "read"):
        return f"{told}: give what it holds, by .read()."
    if image is None:
        return f"{told}: this model looks at an image."
    return f"{told}."


def opened(images: Sequence[AnyImage], *, frames: int) -> list[Image.Image]:
    """All of them as RGB; what comes several times is the same object.

    Raises:
        DataError: If a file cannot be read.
    """
    open_one = OpenedImages(frames=frames)
    return [open_one(image) for image in images]


def is_one_image(images: AnyImage | Sequence[AnyImage]) -> TypeGuard[AnyImage]:
    """Whether this is an image and no collection of several; an array of four axes is several.

    What cannot be an image, such as a tensor, counts as one, so that it is refused as that.
    """
    if isinstance(images, np.ndarray):
        return images.ndim < 4 and images.dtype != object
    if isinstance(images, Image.Image | str | os.PathLike | bytes | bytearray | memoryview):
        return True
    several = isinstance(images, Iterable) and not isinstance(images, Mapping)
    return not several or hasattr(images, "read") or len(getattr(images, "shape", ())) > 1


def paired(
    images: AnyImage | Sequence[AnyImage], questions: str | Sequence[str]
) -> tuple[list[AnyImage], list[str]]:
    """One image for each question: a single image or question goes with all of the others.

    Raises:
        MismatchError: If there are several of both, and not as many.
    """
    asked = [questions] if isinstance(questions, str) else list(questions)
    for row, question in enumerate(asked):
        if not isinstance(question, str):
            raise MismatchError(
                f"Question {row + 1} must be a text, not {type(question).__name__}: the image "
                "comes first, then the question"
            )
    if is_one_image(images):
        return [images] * len(asked), asked
    shown: list[AnyImage] = list(images)  # type: ignore[arg-type]
    if isinstance(questions, str):
        asked = asked * len(shown)
    if len(shown) != len(asked):
        raise MismatchError(f"{len(shown)} images but {len(asked)} questions were given")
    return shown, asked

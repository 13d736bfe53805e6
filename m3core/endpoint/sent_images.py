"""Images as they are sent: made smaller here where the option says so, encoded, as data URLs."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass

from PIL import Image

from m3router.data.errors import DataError, ImageError
from m3router.data.images import on_white

JPEG_QUALITY = 95
RESAMPLING = "lanczos"


@dataclass(frozen=True, kw_only=True)
class SentImage:
    """An image as it is sent.

    Attributes:
        url: A data URL.
        width: In pixels.
        height: In pixels.
    """

    url: str
    width: int
    height: int

    @property
    def pixels(self) -> int:
        """Width times height."""
        return self.width * self.height


@dataclass(frozen=True, kw_only=True)
class Sending:
    """How images are sent. Images are never enlarged; smaller ones are made by Lanczos' filter.

    Attributes:
        longest_side: Most pixels of the longer side; None for as it is.
        max_pixels: Most pixels; None for as it is.
        encoding: ``"png"``, ``"jpeg"`` or ``"jpeg:QUALITY"`` (1 to 100, by itself 95; colours at
            full resolution), ``"webp:QUALITY"``, ``"webp:lossless"``.
    """

    longest_side: int | None = None
    max_pixels: int | None = None
    encoding: str = "png"

    def __post_init__(self) -> None:
        """Check them.

        Raises:
            DataError: If a limit is not a whole number of at least 1, both are given, or the
                encoding is unknown.
        """
        for name in ("longest_side", "max_pixels"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise DataError(f"{name} must be a whole number of at least 1, got {value!r}")
        if self.longest_side is not None and self.max_pixels is not None:
            raise DataError("longest_side and max_pixels exclude each other: give one of them")
        _format(self.encoding)

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of an image as it is sent.

        >>> Sending(longest_side=512).size(1600, 1200), Sending(max_pixels=10_000).size(50, 60)
        ((512, 384), (50, 60))
        """
        if self.longest_side is not None and max(width, height) > self.longest_side:
            scale = self.longest_side / max(width, height)
            return max(1, round(width * scale)), max(1, round(height * scale))
        if self.max_pixels is not None and width * height > self.max_pixels:
            scale = math.sqrt(self.max_pixels / (width * height))
            smaller = [max(1, math.floor(side * scale)) for side in (width, height)]
            # A side of less than one pixel became one: the other one must give way.
            longer = max(smaller)
            limit = self.max_pixels // min(smaller)
            width, height = (limit if one == longer > limit else one for one in smaller)
        return width, height

    def encode(self, image: Image.Image) -> SentImage:
        """Encode an image; the file has pixels alone: no EXIF, profile or text.

        Args:
            image: Upright. What is transparent is laid onto white.

        Raises:
            ImageError: If the encoding has no room for so long a side.
        """
        plain = image if image.mode == "RGB" and not image.has_transparency_data else None
        plain = on_white(image) if plain is None else plain
        size = self.size(*plain.size)
        plain = plain.resize(size, Image.Resampling.LANCZOS) if size != plain.size else plain.copy()
        plain.info = {}
        kind, settings = _format(self.encoding)
        buffer = io.BytesIO()
        try:
            plain.save(buffer, kind, **settings)
        except (OSError, ValueError) as error:
            raise ImageError(
                f"The image of {size[0]} x {size[1]} pixels cannot be sent as {self.encoding} "
                f"({error}): send it smaller, or as png."
            ) from error
        data = base64.b64encode(buffer.getvalue()).decode("ascii")
        return SentImage(
            url=f"data:image/{kind.lower()};base64,{data}", width=size[0], height=size[1]
        )


def _format(encoding: str) -> tuple[str, dict[str, int | bool]]:
    """Pillow's name of a format and what it is saved with.

    Raises:
        DataError: If there is no such encoding.
    """
    kind, mark, quality = encoding.partition(":")
    if encoding == "png":
        return "PNG", {}
    if encoding == "webp:lossless":
        return "WEBP", {"lossless": True}
    number = int(quality) if quality.isascii() and quality.isdigit() else 0
    number = JPEG_QUALITY if encoding == "jpeg" else number
    if kind in ("jpeg", "webp") and 1 <= number <= 100:
        return kind.upper(), {"quality": number, **({"subsampling": 0} if kind == "jpeg" else {})}
    raise DataError(
        f"unknown encoding {encoding!r}: it is png, jpeg:QUALITY, webp:QUALITY or webp:lossless, "
        "with a quality from 1 to 100"
    )

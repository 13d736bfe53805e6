"""Read any picture a user may bring as plain RGB, or say what is wrong with it."""

from __future__ import annotations

import io
import logging
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from data.errors import ImageError, ImageSizeError

MAX_PIXELS = 64_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
"""What is read. NOTE: not everything Pillow knows: its EPS reader starts another program."""

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation (CIPA DC-008, tag 274) to what sets the picture upright."""

_DECODER_ERRORS = (
    ArithmeticError,
    AssertionError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
"""What Pillow's decoders are known to raise on broken bytes; there is no common base class."""

_log = logging.getLogger(__name__)


def open_image(path: Path, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read a picture as upright 8-bit RGB.

    Rotation by EXIF is applied, transparency is laid onto white, CMYK and palettes are
    converted, 16-bit and float values are scaled to 8 bits, of an animation the first frame is
    taken.

    Args:
        path: The file.
        max_pixels: Refuse larger pictures, by their header, before anything is decoded.
            NOTE: Pillow itself refuses more than twice its ``Image.MAX_IMAGE_PIXELS``.

    Returns:
        The picture, mode ``RGB``, at least 1 x 1.

    Raises:
        ImageError: The file is missing, empty, truncated, too large or no picture; the message
            names the path and the cause.
    """
    name = f"Image {path}"
    try:
        if not path.is_file():
            cause = "it is a folder" if path.is_dir() else "no such file"
            raise ImageError(f"{name} cannot be read: {cause}.")
        if path.stat().st_size == 0:
            raise ImageError(f"{name} cannot be read: the file is empty (0 bytes).")
    except (OSError, ValueError) as error:
        raise _damaged(name, error) from error
    return _decode(path, name, FORMATS, max_pixels)


def read_image(
    data: bytes, *, formats: Sequence[str] = FORMATS, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Read the bytes of a picture as :func:`open_image` reads a file.

    Args:
        data: All of them.
        formats: Names of :data:`FORMATS` that are tried.
        max_pixels: Refuse larger pictures, by their header, before anything is decoded.

    Returns:
        The picture, mode ``RGB``, at least 1 x 1.

    Raises:
        ImageSizeError: It has too many pixels.
        ImageError: It is empty, truncated or no picture. Messages call it "The picture" and name
            no path.
    """
    if not data:
        raise ImageError("The picture cannot be read: it is empty (0 bytes).")
    return _decode(io.BytesIO(data), "The picture", formats, max_pixels)


def _decode(
    source: Path | io.BytesIO, name: str, formats: Sequence[str], max_pixels: int
) -> Image.Image:
    try:
        with Image.open(source, formats=_readable(formats)) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise ImageSizeError(_too_large(name, f"{width} x {height} pixels", max_pixels))
            image.load()
            return _to_rgb(_upright(image))
    except Image.UnidentifiedImageError as error:
        raise ImageError(
            f"{name} cannot be read: it is not a picture in a known format ({', '.join(formats)})."
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageSizeError(_too_large(name, str(error), max_pixels)) from error
    except _DECODER_ERRORS as error:
        raise _damaged(name, error) from error


def _damaged(name: str, error: Exception) -> ImageError:
    cause = str(error) or type(error).__name__
    return ImageError(f"{name} cannot be read: truncated or damaged ({cause}).")


def _readable(formats: Sequence[str]) -> list[str]:
    """Name the formats that this build of Pillow has (AVIF is not in all)."""
    Image.init()
    return [name for name in formats if name in Image.OPEN]


def _too_large(name: str, size: str, max_pixels: int) -> str:
    return f"{name} is too large: {size}, the limit is {max_pixels} pixels. Scale it down first."


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; a picture whose EXIF data is damaged is taken as upright."""
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except _DECODER_ERRORS as error:
        _log.warning("EXIF data of an image is damaged and ignored: %s", error)
        return image
    method = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert any Pillow mode to RGB."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.copy()
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_to_bytes(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _to_bytes(values: np.ndarray) -> np.ndarray:
    """Scale wide grey values to 8 bits.

    Args:
        values: Shape (H, W), integers or floats.

    Returns:
        Shape (H, W), uint8. Integers within 16 bits are divided by 257 and floats within [0, 1]
        multiplied by 255; anything else has no agreed white point and is stretched from its
        minimum to its maximum. Values that are not finite become 0.
    """
    grey = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(grey.min()), float(grey.max())
    white = 1.0 if np.issubdtype(values.dtype, np.floating) else 65535.0
    if low < 0 or high > white:
        grey, white = grey - low, high - low
    return np.rint(grey * (255.0 / white)).astype(np.uint8)

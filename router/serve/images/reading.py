"""One image's bytes to what is asked of it; this runs in a process of its own.

In this order, so that the cheap refusals come first: what the first bytes are, how many parts the
file has and what lengths it claims, the pixels by the header, and only then a decoder.
"""

from __future__ import annotations

from PIL import Image

from m3router.data.errors import ImageError, ImageSizeError
from m3router.data.images import read_image, upright_size
from m3router.router.serve.errors import ApiError
from m3router.router.serve.images.image_formats import format_of, problem_of
from m3router.router.serve.images.limits import ImageLimits


def pixels_of(data: bytes, limits: ImageLimits) -> Image.Image:
    """Decode an image.

    Args:
        data: Its file.
        limits: What it may be. A longer image is made smaller.

    Returns:
        Upright RGB, at least 1 x 1; the longer side has at most `limits.longest_side` pixels.

    Raises:
        ApiError: 413 where it has too many pixels or takes too much memory, 400 for all else.
    """
    name = _checked(data)
    try:
        return read_image(
            data,
            formats=(name,),
            max_pixels=limits.max_pixels,
            longest_side=limits.longest_side,
        )
    except (ImageError, MemoryError) as error:
        raise _told(error) from error


def size_of(data: bytes, limits: ImageLimits) -> tuple[int, int]:
    """Width and height of an image that is set upright, by its header.

    Raises:
        ApiError: As :func:`pixels_of`, where the header tells.
    """
    name = _checked(data)
    try:
        return upright_size(data, formats=(name,), max_pixels=limits.max_pixels)
    except (ImageError, MemoryError) as error:
        raise _told(error) from error


def _checked(data: bytes) -> str:
    name = format_of(data)
    problem = problem_of(name, data)
    if problem:
        raise ApiError(400, f"The image cannot be read: {problem}.", code="image_parse_error")
    return name


def _told(error: Exception) -> ApiError:
    if isinstance(error, MemoryError) or isinstance(error.__cause__, MemoryError):
        return too_much_memory()
    if isinstance(error, ImageSizeError):
        return ApiError(413, str(error), code="image_too_large")
    return ApiError(400, str(error), code="image_parse_error")


def too_much_memory() -> ApiError:
    """Refuse an image for what decoding it takes."""
    return ApiError(
        413,
        "The image takes too much memory to decode. Scale it down first.",
        code="image_too_large",
    )

"""Images that clients send, from data URLs to RGB, with everything strange refused.

In this order, so that the cheap refusals come first: the form of the URL, the length before
base64 is decoded, base64 without a single character out of place, what the bytes are against what
was declared, how many parts it has, the pixels by the header, and only then a decoder. Only decoded
pixels go on from here, so that what else a file holds, or what follows its end, reaches nobody.
"""

from __future__ import annotations

import asyncio
import binascii
import functools
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from m3router.data.errors import ImageError, ImageSizeError
from m3router.data.images import read_image
from m3router.router.serve.errors import ApiError
from m3router.router.serve.images.image_formats import FORMATS, format_of, problem_of

TYPES = {
    "image/png": "PNG",
    "image/apng": "PNG",
    "image/jpeg": "JPEG",
    "image/jpg": "JPEG",
    "image/gif": "GIF",
    "image/webp": "WEBP",
    "image/bmp": "BMP",
    "image/x-ms-bmp": "BMP",
    "image/avif": "AVIF",
    "image/x-portable-bitmap": "PPM",
    "image/x-portable-graymap": "PPM",
    "image/x-portable-pixmap": "PPM",
    "image/x-portable-anymap": "PPM",
}
"""Declared type -> format."""

_HEAD = re.compile(r"data:([a-z0-9.+-]{1,40}/[a-z0-9.+-]{1,40})?((?:;[^,;]{1,80}){0,3}),", re.I)


@dataclass(frozen=True)
class ImageLimits:
    """What an image may be.

    Attributes:
        max_bytes: Of its file, not of its base64.
        max_pixels: Width times height.
        threads: That decode at once, in the whole process.
    """

    max_bytes: int = 10 << 20
    max_pixels: int = 25_000_000
    threads: int = 2


class Fetches(Protocol):
    """Gets images from elsewhere; see :class:`m3router.router.serve.images.fetching.Fetcher`."""

    async def fetch(self, url: str) -> bytes:
        """Get the bytes at an address.

        Raises:
            ApiError: If they are not available, or not from there.
        """
        ...


async def image_of(
    url: str, limits: ImageLimits, fetch: Fetches | None = None, *, param: str | None = None
) -> Image.Image:
    """Read the image that an ``image_url`` names.

    Decoding happens in a thread; the event loop goes on. A first frame stands for an animation.

    Args:
        url: A data URL in base64, or an address where `fetch` is given.
        limits: What it may be.
        fetch: Gets addresses; None to refuse them.
        param: Name of the field, for errors.

    Returns:
        Upright RGB, at least 1 x 1.

    Raises:
        ApiError: 413 if it is too large in bytes or pixels, 400 for all else. Codes are those of
            OpenAI's responses where there is one (``openai.types.responses.response_error``).
    """
    try:
        if url[:5].lower() == "data:":
            declared, encoded = _split(url, limits.max_bytes)
            work = functools.partial(_from_base64, encoded, declared, limits)
        elif fetch is None:
            raise ApiError(
                400,
                "Images are not fetched from elsewhere here: send a data URL such as "
                "data:image/png;base64,...",
                code="invalid_image_url",
            )
        else:
            data = await fetch.fetch(url)
            work = functools.partial(_decode, data, format_of(data), limits)
        return await asyncio.get_running_loop().run_in_executor(_pool(limits.threads), work)
    except ApiError as error:
        if error.param is None:
            error.param = param
        raise


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="pictures")


def _split(url: str, max_bytes: int) -> tuple[str, str]:
    """The declared format and the base64 of a data URL that is not too long."""
    head = _HEAD.match(url)
    if head is None:
        raise ApiError(
            400,
            "The data URL is not of the form data:image/png;base64,...",
            code="invalid_image_url",
        )
    kind, parameters = (head.group(1) or "").lower(), head.group(2).lower().split(";")
    if parameters[-1] != "base64":
        raise ApiError(400, "The data URL is not in base64.", code="invalid_base64_image")
    if kind not in TYPES:
        raise ApiError(
            400,
            f"Images of the type {kind or '(none)'} are not taken: send one of "
            f"{', '.join(dict.fromkeys(TYPES))}.",
            code="unsupported_image_media_type",
        )
    if len(url) - head.end() > 4 * ((max_bytes + 2) // 3):
        raise too_many_bytes(max_bytes)
    return TYPES[kind], url[head.end() :]


def _from_base64(encoded: str, declared: str, limits: ImageLimits) -> Image.Image:
    try:
        data = binascii.a2b_base64(encoded.encode("ascii"), strict_mode=True)
        # What was decoded encodes to what came: no bit was skipped, no padding was made up.
        whole = binascii.b2a_base64(data, newline=False) == encoded.encode("ascii")
    except (binascii.Error, UnicodeEncodeError):
        whole = False
    if not whole:
        raise ApiError(
            400,
            "The image is not valid base64: only A-Z a-z 0-9 + / with = at the end, without "
            "spaces or line breaks.",
            code="invalid_base64_image",
        )
    found = format_of(data)
    if data and found and found != declared:
        raise ApiError(
            400,
            f"The data URL says {declared}, but the image is {found}.",
            code="image_type_mismatch",
        )
    return _decode(data, found, limits)


def _decode(data: bytes, name: str, limits: ImageLimits) -> Image.Image:
    """Judge the bytes of an image, then decode them."""
    if not data:
        raise ApiError(400, "The image is empty (0 bytes).", code="empty_image_file")
    if len(data) > limits.max_bytes:
        raise too_many_bytes(limits.max_bytes)
    if not name:
        raise ApiError(
            400,
            f"The image is not in a format that is taken ({', '.join(FORMATS)}).",
            code="invalid_image_format",
        )
    problem = problem_of(name, data)
    if problem:
        raise ApiError(400, f"The image cannot be read: {problem}.", code="image_parse_error")
    try:
        return read_image(data, formats=(name,), max_pixels=limits.max_pixels)
    except ImageSizeError as error:
        raise ApiError(413, str(error), code="image_too_large") from error
    except ImageError as error:
        raise ApiError(400, str(error), code="image_parse_error") from error


def too_many_bytes(max_bytes: int) -> ApiError:
    """Refuse an image for its bytes."""
    return ApiError(413, f"The image has more than {max_bytes} bytes.", code="image_file_too_large")

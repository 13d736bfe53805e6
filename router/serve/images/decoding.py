"""Images that clients send, from data URLs to the bytes of files, and on to the pixels.

Clients write data URLs in many ways: broken into lines, with another type than the image has, with
the padding left out. What the bytes are decides. Only decoded pixels go on from here, so that what
else a file holds, or what follows its end, reaches nobody.
"""

from __future__ import annotations

import asyncio
import binascii
import re
from typing import Protocol

from PIL import Image

from m3router.router.serve.errors import ApiError
from m3router.router.serve.images.workers import ImageWorkers, too_many_bytes

_MOST_BEFORE = 105  # characters: white space, and then the word
_HEAD = re.compile(r"\s{0,100}data:([^,]{0,1000}),", re.I)
_SPACE = b" \t\r\n\f\v"
_ALPHABET = bytes.maketrans(b"-_", b"+/")
_SLICE = 1 << 20  # characters that are decoded at a time, so that no lock is held for long
_SHORT = 1 << 16  # characters from which on it is done in a thread
_MOST_SPACE = 2
"""Characters for each that counts; more is no way to break lines."""


class Fetches(Protocol):
    """Gets images from elsewhere; see :class:`m3router.router.serve.images.fetching.Fetcher`."""

    async def fetch(self, url: str) -> bytes:
        """Get the bytes at an address.

        Raises:
            ApiError: If they are not available, or not from there.
        """
        ...


async def image_of(
    url: str,
    workers: ImageWorkers,
    fetch: Fetches | None = None,
    *,
    deadline: float,
    param: str | None = None,
) -> Image.Image:
    """Read the image that an ``image_url`` names.

    Args:
        url: A data URL in base64, or an address where `fetch` is given.
        workers: Decode it.
        fetch: Gets addresses; None to refuse them.
        deadline: As of :func:`time.monotonic`; for all of it.
        param: Name of the field, for errors.

    Returns:
        Upright RGB, at least 1 x 1; of an animation the first frame.

    Raises:
        ApiError: 413 if it is too large in bytes, pixels, memory or time; 503 and 504 if the server
            did not get to it in time; 400 for all else. Codes are those of OpenAI's responses where
            there is one (``openai.types.responses.response_error``).
    """
    data = await file_of(url, workers.limits.max_bytes, fetch, param=param)
    try:
        return await workers.decode(data, deadline=deadline)
    except ApiError as error:
        error.param = error.param or param
        raise


async def file_of(
    url: str, max_bytes: int, fetch: Fetches | None = None, *, param: str | None = None
) -> bytes:
    """The bytes of the file that an ``image_url`` names; nothing is known of them.

    Args:
        url: A data URL, as :func:`file_in` takes it, or an address where `fetch` is given.
        max_bytes: Of the file.
        fetch: Gets addresses; None to refuse them.
        param: Name of the field, for errors.

    Raises:
        ApiError: 413 if it is too long, 400 for all else.
    """
    try:
        if is_data_url(url):
            if len(url) <= _SHORT:
                return file_in(url, max_bytes)
            return await asyncio.to_thread(file_in, url, max_bytes)
        if fetch is None:
            raise ApiError(
                400,
                "Images are not fetched from elsewhere here: send a data URL such as "
                "data:image/png;base64,...",
                code="invalid_image_url",
            )
        return await fetch.fetch(url)
    except ApiError as error:
        error.param = error.param or param
        raise


def is_data_url(url: str) -> bool:
    """Whether an image is in its own URL.

    >>> is_data_url(" DATA:;base64,AAAA"), is_data_url("https://example.org/data:")
    (True, False)
    """
    return url[:_MOST_BEFORE].lstrip()[:5].lower() == "data:"


def file_in(url: str, max_bytes: int) -> bytes:
    """The bytes of the file that is in a data URL, decoded in slices.

    Args:
        url: In base64. White space, the URL-safe alphabet and missing padding are taken as they
            come; whatever type it says is ignored.
        max_bytes: Of the file.

    Raises:
        ApiError: 413 if it is too long, 400 for all else.
    """
    head = _HEAD.match(url, 0, 1200)
    if head is None:
        raise ApiError(
            400,
            "The data URL is not of the form data:image/png;base64,...",
            code="invalid_image_url",
        )
    if head[1].split(";")[-1].strip().lower() != "base64":
        raise ApiError(400, "The data URL is not in base64.", code="invalid_base64_image")
    start = head.end()
    if len(url) - start > (1 + _MOST_SPACE) * 4 * ((max_bytes + 2) // 3):
        raise too_many_bytes(max_bytes)
    return _from_base64(url, start, max_bytes)


def _from_base64(url: str, start: int, max_bytes: int) -> bytes:
    """Decode what follows the head, in slices.

    Raises:
        ApiError: If it is no base64, or longer than `max_bytes`.
    """
    found, rest, count = [], b"", 0
    try:
        for at in range(start, len(url), _SLICE):
            rest += url[at : at + _SLICE].encode("ascii").translate(_ALPHABET, _SPACE)
            if at + _SLICE >= len(url):
                rest = _padded(rest)
            elif b"=" in rest:
                raise binascii.Error
            whole = len(rest) // 4 * 4
            found.append(binascii.a2b_base64(rest[:whole], strict_mode=True))
            rest = rest[whole:]
            count += len(found[-1])
            if count > max_bytes:
                raise too_many_bytes(max_bytes)
        if rest:
            raise binascii.Error
    except (binascii.Error, UnicodeEncodeError):
        raise ApiError(
            400,
            "The image is not valid base64: only A-Z a-z 0-9 + / with = at the end.",
            code="invalid_base64_image",
        ) from None
    return b"".join(found)


def _padded(text: bytes) -> bytes:
    """The end of base64 with as many = as it needs.

    Raises:
        binascii.Error: If it has more than two.
    """
    bare = text.rstrip(b"=")
    if len(text) - len(bare) > 2:
        raise binascii.Error
    return bare + b"=" * (-len(bare) % 4)

"""Read any image a user may bring as plain RGB, or say what is wrong with it."""

from __future__ import annotations

import hashlib
import io
import logging
import struct
import zlib
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageCms, ImageFile

from m3router.data.errors import ImageError, ImageSizeError
from m3router.data.image_claims import canvas_of, claims_too_much, tags_claim_too_much
from m3router.data.media_files import open_file
from m3router.data.paths import StrPath, as_path
from m3router.data.png_chunks import exif_of, only_pixels
from m3router.data.wide_pixels import brightened, float_to_bytes, grey_to_bytes, is_wide

MAX_PIXELS = 64_000_000
LONGEST_SIDE = 1 << 15
"""Pixels of the longer side to which longer images of files are made smaller: what scales an image
needs memory for each pixel of a row, and models scale the shorter side. Few files have more."""
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
"""EXIF orientation (CIPA DC-008, tag 274) to what sets the image upright."""
_SIDEWAYS = frozenset(_UPRIGHT[orientation] for orientation in (5, 6, 7, 8))

_OF_BYTES = frozenset(
    ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"]
)
"""Pillow's modes whose samples are 8 bits, or one."""

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
    ImageCms.PyCMSError,
)
"""What Pillow's decoders are known to raise on broken bytes; there is no common base class."""

_LONGEST_PROFILE = 1 << 17
"""Characters of EXIF data in a PNG's text; a JPEG has room for half of that."""

_FILLERS = (
    b"",
    *(hashlib.shake_128(bytes([n])).digest(256).replace(b"\xff", b"\x7f") for n in range(4)),
)
"""What is put behind a JPEG to see whether its pixels mind; no marker is among it."""

_log = logging.getLogger(__name__)


def open_image(path: StrPath, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read an image as upright 8-bit RGB.

    Rotation by EXIF is applied, transparency is laid onto white, CMYK and palettes are
    converted, 16-bit and float values are scaled to 8 bits (:mod:`m3router.data.wide_pixels`), of
    an animation the first frame is taken. An image with a side of more than :data:`LONGEST_SIDE`
    pixels is made smaller. NOTE: colour profiles and gamma are not applied, as published
    evaluations do not apply them.

    Args:
        path: The file; composed and decomposed spellings of its name are equal, see
            :func:`m3router.data.media_files.find_file`.
        max_pixels: Refuse larger images, by their header, before anything is decoded.
            NOTE: Pillow itself refuses more than twice its ``Image.MAX_IMAGE_PIXELS``. An AVIF's
            frame may be larger than its header says; libavif decodes up to 16384 x 16384 pixels of
            it before it makes them smaller.

    Returns:
        The image, mode ``RGB``, at least 1 x 1.

    Raises:
        ImageError: The file is missing, not ours to read, no ordinary file, empty, truncated, too
            large or no image; the message names the path and the cause.
    """
    path = as_path(path)
    with open_file(path) as file:
        return _decode(file, f"Image {path}", FORMATS, max_pixels, LONGEST_SIDE)


def check_header(path: StrPath, *, max_pixels: int = MAX_PIXELS) -> None:
    """Read what an image says of itself, and none of its pixels.

    Passing says little: those of a damaged image may be missing all the same.

    Raises:
        ImageError: As :func:`open_image`.
    """
    name = f"Image {path}"
    with open_file(as_path(path)) as file:
        try:
            _opened(file, name, FORMATS, max_pixels)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise _too_large(name, str(error), max_pixels) from error
        except Image.UnidentifiedImageError as error:
            raise _unknown(name) from error
        except _DECODER_ERRORS:
            return  # texts of a PNG may be at fault, which are read around


def read_image(
    data: bytes,
    *,
    formats: Sequence[str] = FORMATS,
    max_pixels: int = MAX_PIXELS,
    longest_side: int | None = None,
) -> Image.Image:
    """Read the bytes of an image as :func:`open_image` reads a file.

    Args:
        data: All of them.
        formats: Names of :data:`FORMATS` that are tried.
        max_pixels: Refuse larger images, by their header, before anything is decoded.
        longest_side: Make longer images smaller, see :func:`bounded`; None to leave them.

    Returns:
        The image, mode ``RGB``, at least 1 x 1.

    Raises:
        ImageSizeError: It has too many pixels.
        ImageError: It is empty, truncated or no image. Messages call it "The image" and name
            no path.
    """
    if not data:
        raise ImageError("The image cannot be read: it is empty (0 bytes).")
    return _decode(io.BytesIO(data), "The image", formats, max_pixels, longest_side)


def upright_size(
    data: bytes, *, formats: Sequence[str] = FORMATS, max_pixels: int = MAX_PIXELS
) -> tuple[int, int]:
    """Width and height that :func:`read_image` would give, by the header alone.

    Args:
        data: All bytes of an image.
        formats: Names of :data:`FORMATS` that are tried.
        max_pixels: Refuse larger images.

    Raises:
        ImageSizeError: It has too many pixels.
        ImageError: It is no image, or its header is damaged.
    """
    try:
        file = io.BytesIO(data)
        with _opened(file, "The image", formats, max_pixels) as image:
            width, height = image.size
            if image.format == "PNG":  # whose EXIF may follow the pixels
                image.info.setdefault("exif", exif_of(file))
            # A TIFF's size is that of the image set upright.
            turn = None if image.format == "TIFF" else _turn(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large("The image", str(error), max_pixels) from error
    except _DECODER_ERRORS as error:
        raise _damaged("The image", error) from error
    return (height, width) if turn in _SIDEWAYS else (width, height)


def bounded(image: Image.Image, longest_side: int) -> Image.Image:
    """An image whose longer side has at most so many pixels: as it is, or made smaller.

    Images are averaged in blocks first, so that time and memory grow with their pixels only.

    Args:
        image: An RGB image.
        longest_side: At least 1.

    >>> bounded(Image.new("RGB", (1_000_000, 1)), 5000).size
    (5000, 1)
    """
    size = _within(image.size, longest_side)
    return image if size == image.size else _smaller(image, size)


def _smaller(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)


def _within(size: tuple[int, int], longest_side: int) -> tuple[int, int]:
    if max(size) <= longest_side:
        return size
    width, height = (max(1, round(side * longest_side / max(size))) for side in size)
    return width, height


def _decode(
    file: BinaryIO,
    name: str,
    formats: Sequence[str],
    max_pixels: int,
    longest_side: int | None = None,
) -> Image.Image:
    try:
        return _decode_once(file, name, formats, max_pixels, longest_side)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(name, str(error), max_pixels) from error
    except _DECODER_ERRORS as error:
        image = _without_texts(file, name, max_pixels, longest_side) if "PNG" in formats else None
        if image is None and "JPEG" in formats:
            image = _with_end(file, name, max_pixels, longest_side)
        if image is not None:
            return image
        if isinstance(error, Image.UnidentifiedImageError):
            raise _unknown(name, formats) from error
        raise _damaged(name, error) from error


def _without_texts(
    file: BinaryIO, name: str, max_pixels: int, longest_side: int | None
) -> Image.Image | None:
    """What a PNG shows whose texts or profiles are refused; None if its pixels are at fault."""
    try:
        slim = only_pixels(file)
        return (
            None if slim is None else _decode_once(slim, name, ("PNG",), max_pixels, longest_side)
        )
    except _DECODER_ERRORS:
        return None


def _with_end(
    file: BinaryIO, name: str, max_pixels: int, longest_side: int | None
) -> Image.Image | None:
    """What a JPEG shows that lacks nothing but its end marker; None if pixels are missing.

    A decoder makes up what is missing from what follows: where pixels depend on what is put
    behind the file's bytes, they are not in the file.
    """
    file.seek(0)
    if file.read(3) != b"\xff\xd8\xff":
        return None
    file.seek(0)
    data = file.read().rstrip(b"\xff")  # half a marker is none
    # NOTE: of several scans, whole ones could be missing unnoticed.
    if data.count(b"\xff\xda") != 1 or b"\xff\xc2" in data:
        return None
    shown = []
    for filler in _FILLERS:
        try:
            whole = io.BytesIO(data + filler + b"\xff\xd9")
            shown.append(_decode_once(whole, name, ("JPEG",), max_pixels, longest_side))
        except _DECODER_ERRORS:
            return None
        if shown[-1].tobytes() != shown[0].tobytes():
            return None
    return shown[0]


def _decode_once(
    file: BinaryIO,
    name: str,
    formats: Sequence[str],
    max_pixels: int,
    longest_side: int | None = None,
) -> Image.Image:
    with _opened(file, name, formats, max_pixels) as image:
        size = image.size if longest_side is None else _within(image.size, longest_side)
        if size != image.size:
            image.draft(None, size)  # a JPEG can be read smaller
        wide = is_wide(image)
        image.load()
        turn = _turn(image)
        shown = _to_rgb(brightened(image, file) if wide else image, file)
        if size != image.size:
            shown = _smaller(shown, size)
        return shown if turn is None else shown.transpose(turn)


def _opened(
    file: BinaryIO, name: str, formats: Sequence[str], max_pixels: int
) -> ImageFile.ImageFile:
    """An image of which only the header was read, and whose claims were judged."""
    canvas = canvas_of(file)
    if canvas[0] * canvas[1] > max_pixels:
        raise _too_large(name, f"{canvas[0]} x {canvas[1]} pixels", max_pixels)
    problem = claims_too_much(file)
    if problem:
        raise ImageError(f"{name} cannot be read: {problem}.")
    file.seek(0)
    image = Image.open(file, formats=_readable(formats))
    width, height = image.size
    if width * height > max_pixels:
        image.close()
        raise _too_large(name, f"{width} x {height} pixels", max_pixels)
    return image


def _unknown(name: str, formats: Sequence[str] = FORMATS) -> ImageError:
    known = f"it is not an image in a known format ({', '.join(formats)})"
    return ImageError(f"{name} cannot be read: {known}.")


def _damaged(name: str, error: Exception) -> ImageError:
    cause = str(error) or type(error).__name__
    return ImageError(f"{name} cannot be read: truncated or damaged ({cause}).")


def _readable(formats: Sequence[str]) -> list[str]:
    """Name the formats that this build of Pillow has (AVIF is not in all)."""
    Image.init()
    return [name for name in formats if name in Image.OPEN]


def _too_large(name: str, size: str, max_pixels: int) -> ImageSizeError:
    return ImageSizeError(
        f"{name} is too large: {size}, the limit is {max_pixels} pixels. Scale it down first."
    )


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What the EXIF orientation asks for; an image whose EXIF data is damaged is upright."""
    exif, profile = image.info.get("exif", b""), image.info.get("Raw profile type exif", "")
    if tags_claim_too_much(io.BytesIO(exif[6:] if exif[:4] == b"Exif" else exif)):
        return None
    if len(profile) > _LONGEST_PROFILE:
        return None
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except _DECODER_ERRORS as error:
        _log.warning("EXIF data of an image is damaged and ignored: %s", error)
        return None
    return _UPRIGHT.get(orientation) if isinstance(orientation, int) else None


def _to_rgb(image: Image.Image, file: BinaryIO) -> Image.Image:
    """Convert any Pillow mode to RGB; `file` is what it was read from."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.copy()
    if image.mode.startswith("I"):
        return Image.fromarray(grey_to_bytes(image, file)).convert("RGB")
    if image.mode == "F":
        return Image.fromarray(float_to_bytes(np.asarray(image))).convert("RGB")
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        found = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        return image if found is None else found
    return on_white(image)


def rgb_of(image: Image.Image) -> Image.Image:
    """An image of Pillow's as RGB, as :func:`open_image` would show its file; RGB is itself.

    NOTE: it is not set upright by its EXIF data: whoever opened it may have done so.

    Raises:
        ImageError: Its samples have more than 8 bits, whose white nobody knows here; or its file
            is damaged, or closed.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode not in _OF_BYTES:
        raise ImageError(
            f"An image of Pillow's mode {image.mode!r} has no agreed white: give its file, or "
            "convert it to 'RGB' or 'L' first."
        )
    try:
        return on_white(image)
    except _DECODER_ERRORS as error:
        raise _damaged("The image", error) from error


def on_white(image: Image.Image) -> Image.Image:
    """An image of 8 bits as RGB, what is transparent laid onto white."""
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")

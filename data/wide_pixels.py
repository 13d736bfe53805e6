"""Samples of more than 8 bits as 8 bits, as bright as they were meant.

A file of 16-bit samples often holds what a camera or scanner gave in 10, 12 or 14 bits, unscaled:
taken as 16 bits that is nearly black. What the file declares is believed; where it says nothing,
samples are taken to have as few bits, of those that devices give, as the brightest needs.

Notation for shapes: H rows, W columns, C channels.
"""

from __future__ import annotations

import sys
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from m3router.data.png_chunks import significant_bits

DEPTHS = (8, 10, 12, 14, 16)
"""Bits of a sample that cameras and scanners give."""
WIDEST = (1 << 16) - 1

_BITS_PER_SAMPLE, _PHOTOMETRIC, _MAX_SAMPLE = 258, 262, 281  # TIFF 6.0, section 8
_WHITE_IS_ZERO = 0
_SCALED = frozenset({"PPM", "JPEG2000"})
"""Formats that declare a sample's depth, and that Pillow therefore scales to 16 bits."""
_DARK = 1 << 14 >> 8  # a high byte from which on 14 bits are exceeded
_OTHER_ORDER = {
    ";16B": ";16L",
    ";16L": ";16B",
    ";16N": ";16B" if sys.byteorder == "little" else ";16L",
}


def is_wide(image: Image.Image) -> bool:
    """Whether an image that is not loaded yet has colours of 16 bits, of which Pillow keeps 8."""
    return image.mode in ("RGB", "RGBA") and any(
        _low_bytes(mode) is not None for mode in _raw_modes(image)
    )


def grey_to_bytes(image: Image.Image, file: BinaryIO) -> npt.NDArray[np.uint8]:
    """Wide grey samples as 8 bits.

    Args:
        image: Loaded; of mode ``I`` or one like ``I;16``.
        file: What it was read from.

    Returns:
        Shape (H, W). Samples that are negative or exceed 16 bits have no agreed white point and
        are stretched from their minimum to their maximum. A colour that PNG declares
        transparent is white.
    """
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > WIDEST:
        return _stretched(values.astype(np.float64) - low, high - low)
    grey = _narrowed(values, _white(image, file, high))
    if _tags(image).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = 255 - grey  # Pillow does so for 8 bits only
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey[values == clear] = 255
    return grey


def float_to_bytes(values: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """Grey floats as 8 bits, (H, W).

    Values within [0, 1] are multiplied by 255, others stretched from their minimum to their
    maximum. Values that are not finite become 0.
    """
    grey = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(grey.min()), float(grey.max())
    if low < 0 or high > 1.0:
        return _stretched(grey - low, high - low)
    return _stretched(grey, 1.0)


def brightened(image: Image.Image, file: BinaryIO) -> Image.Image:
    """A colour image whose file has 16 bits a sample, from all of them where 8 are too few.

    Pillow keeps the high byte of each sample. Where those show that no sample exceeds 14 bits,
    the low bytes are read as well.

    Args:
        image: Loaded, mode ``RGB`` or ``RGBA``, and :func:`is_wide` before.
        file: What it was read from.

    Returns:
        The same mode, 8 bits a channel.
    """
    high = np.asarray(image)
    if int(high[..., :3].max()) >= _DARK:
        return image
    samples = _all_bits(high, file)
    largest = int(samples[..., :3].max())
    white = _white(image, file, largest)
    narrow = _narrowed(samples, white)
    if samples.shape[-1] == 4 and int(samples[..., 3].max()) > white:
        narrow[..., 3] = _narrowed(samples[..., 3], WIDEST)
    found = Image.fromarray(narrow)
    clear = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(clear, tuple):
        alpha = np.where((samples == clear).all(axis=-1), 0, 255).astype(np.uint8)
        found.putalpha(Image.fromarray(alpha))
    return found


def depth_of(largest: int) -> int:
    """The fewest bits of :data:`DEPTHS` that hold a sample of at most 16 bits.

    >>> depth_of(200), depth_of(4095), depth_of(20_000)
    (8, 12, 16)
    """
    return next(bits for bits in DEPTHS if largest < 1 << bits)


def _narrowed(samples: npt.NDArray[np.number], white: int) -> npt.NDArray[np.uint8]:
    """Samples from 0 to 65535 as 0 to 255, by a table; `white` and above are 255."""
    levels = np.minimum(np.arange(WIDEST + 1), white) * (255.0 / white)
    narrow: npt.NDArray[np.uint8] = np.rint(levels).astype(np.uint8)[samples.astype(np.uint16)]
    return narrow


def _stretched(values: npt.NDArray[np.float64], white: float) -> npt.NDArray[np.uint8]:
    """Values from 0 to `white` as 0 to 255, rounded; all 0 where there is no white."""
    return np.rint(values * (255.0 / white if white else 0.0)).astype(np.uint8)


def _white(image: Image.Image, file: BinaryIO, largest: int) -> int:
    """The sample that is white: as the file declares, else as :func:`depth_of` guesses."""
    if image.format in _SCALED:
        return WIDEST
    tags = _tags(image)
    bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
    if bits < 16 and largest < 1 << bits:
        return int((1 << bits) - 1)
    # NOTE: TIFF 6.0 says that this "is not to be used to affect the visual appearance"; those
    # who write it into files of 12 bits mean just that.
    declared = tags.get(_MAX_SAMPLE)
    brightest = max(declared, default=0) if isinstance(declared, tuple) else declared
    if isinstance(brightest, int) and largest <= brightest and 0 < brightest <= WIDEST:
        return brightest
    significant = significant_bits(file) if image.format == "PNG" else None
    if significant is not None:
        # Samples should have been scaled to 16 bits; they were not if all of them fit.
        fits = largest < 1 << significant
        return (1 << significant) - 1 if fits else WIDEST
    return (1 << depth_of(largest)) - 1


def _all_bits(high: npt.NDArray[np.uint8], file: BinaryIO) -> npt.NDArray[np.uint16]:
    """All 16 bits of each sample, (H, W, C), with the low bytes read from the file."""
    file.seek(0)
    with Image.open(file) as again:
        modes = _raw_modes(again)
        again.tile = [
            tile._replace(args=_with_mode(tile.args, str(_low_bytes(mode))))
            for tile, mode in zip(again.tile, modes, strict=True)
        ]
        low = np.asarray(again).astype(np.uint16)
    if modes[0] == "LA;16B":  # its bytes as they are: grey high and low, alpha high and low
        grey, alpha = low[..., 0] << 8 | low[..., 1], low[..., 2] << 8 | low[..., 3]
        return np.stack([grey, grey, grey, alpha], axis=-1)
    return (high.astype(np.uint16) << 8 | low).astype(np.uint16)


def _raw_modes(image: Image.Image) -> list[str]:
    """How the samples lie in each of the file's tiles, in Pillow's words such as ``RGB;16B``."""
    tiles = getattr(image, "tile", ())
    firsts = [
        tile.args if isinstance(tile.args, str) else (tile.args or ("",))[0] for tile in tiles
    ]
    return [first if isinstance(first, str) else "" for first in firsts]


def _low_bytes(mode: str) -> str | None:
    """What reads the other byte of each sample; None where nothing does."""
    if mode == "LA;16B":
        return "RGBA"
    if mode[-4:] in _OTHER_ORDER and mode[:-4] in ("RGB", "RGBA", "RGBX"):
        return mode[:-4] + _OTHER_ORDER[mode[-4:]]
    return None


def _with_mode(args: Any, mode: str) -> Any:
    return (mode, *args[1:]) if isinstance(args, tuple) else mode


def _tags(image: Image.Image) -> Any:
    """The tags of a TIFF; empty for other formats."""
    return getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}

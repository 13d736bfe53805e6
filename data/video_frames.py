"""Which frames of a video are shown, and how a player would show each.

Notation: a video has n frames, of which m are shown.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from av import VideoFrame

Matrix = tuple[float, float, float, float]
"""(a, b, c, d): a pixel at (p, q), q downwards, is displayed at (a p + c q, b p + d q)."""

_UPRIGHT: Matrix = (1.0, 0.0, 0.0, 1.0)
_DISPLAY_MATRIX = struct.Struct("=9i")
"""FFmpeg's ``AV_FRAME_DATA_DISPLAYMATRIX``: a b u c d v x y w, rows of ISO 14496-12's ``tkhd``."""
_RIGHT_ANGLE = 1.0  # degrees within which a turn counts as one by 90
_WIDEST_PIXEL = 20  # a sample aspect ratio beyond this, or its inverse, is a mistake


def frame_indices(count: int, frames: int) -> list[int]:
    """Which frames of a video are shown: every ``floor(count / frames)``-th, from the first.

    This is IG-VLM's ``frames_per_interval``. NOTE: as there, up to ``frames - 1`` frames more
    than an interval are left over at the end. It fails on a video of fewer frames than asked for;
    here each is shown once.

    Args:
        count: Frames of the video, at least 1.
        frames: Frames wanted, at least 1.

    Returns:
        min(count, frames) indices from 0, ascending, evenly spaced.

    >>> frame_indices(60, 6)
    [0, 10, 20, 30, 40, 50]
    """
    step = max(1, count // frames)
    return [place * step for place in range(min(count, frames))]


def shown_frames(times: Sequence[int | None], frames: int) -> list[int]:
    """Which frames are shown, evenly spaced in time.

    At a constant rate these are :func:`frame_indices`, as IG-VLM counts. At a variable rate it is
    the frames on display at the beginning of each of `frames` equal parts of the video; one that
    stays on display may then be shown more than once. The last frame counts for as long as the
    one before it, whatever the file states: a last frame that is held says nothing new. Where
    times are missing, or go backwards, frames are counted.

    Args:
        times: When each frame is displayed, in any unit, in the order of display.
        frames: Frames wanted, at least 1.

    Returns:
        Indices, ascending; min(n, frames) of them.

    >>> shown_frames([0, 1, 2, 3, 4, 5, 50, 51], 3)
    [0, 5, 5]
    """
    counted = frame_indices(len(times), frames)
    known = [time for time in times if time is not None]
    if len(known) < len(times) or len(times) <= frames:
        return counted
    when = np.array(known, dtype=np.float64) - known[0]
    if (np.diff(when) < 0).any() or when[-1] <= 0:
        return counted
    even = np.linspace(0.0, when[-1], len(when))
    if np.abs(when - even).max() <= even[1] / 2:
        return counted
    end = 2 * when[-1] - when[-2]
    wanted = np.arange(frames) * (end / frames) * (1 + 1e-12)
    return [int(place) for place in np.searchsorted(when, wanted, side="right") - 1]


def as_displayed(frame: VideoFrame, pixel: Fraction | None) -> Image.Image:
    """A decoded frame as a player shows it: square pixels, turned and mirrored upright.

    NOTE: wide ranges of brightness (HDR) are not mapped to a narrow one.

    Args:
        frame: The frame.
        pixel: Width to height of a pixel; None where it is not known.

    Returns:
        A new RGB image.
    """
    image = frame.to_image()
    size = displayed_size(image.width, image.height, pixel)
    if size != image.size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    return upright(image, display_matrix(frame))


def displayed_size(width: int, height: int, pixel: Fraction | None) -> tuple[int, int]:
    """Size in square pixels, before any turn: the longer way, no pixel is thrown away.

    >>> displayed_size(720, 576, Fraction(16, 15)), displayed_size(720, 480, Fraction(8, 9))
    ((768, 576), (720, 540))
    """
    if not pixel or not Fraction(1, _WIDEST_PIXEL) <= pixel <= _WIDEST_PIXEL:
        return width, height
    if pixel >= 1:
        return round(width * pixel), height
    return width, round(height / pixel)


def display_matrix(frame: VideoFrame) -> Matrix:
    """How a frame is to be turned and mirrored, without its scale and place."""
    try:
        beside: Any = frame.side_data  # a mapping, whatever PyAV's annotations say
        data = bytes(beside["DISPLAYMATRIX"])
    except KeyError:
        return _UPRIGHT
    except ValueError:  # side data of a kind that this PyAV has no name for hides all others
        angle = math.radians(frame.rotation)
        return (math.cos(angle), -math.sin(angle), math.sin(angle), math.cos(angle))
    a, b, _, c, d, _, _, _, _ = _DISPLAY_MATRIX.unpack(data[: _DISPLAY_MATRIX.size])
    first, second = math.hypot(a, b), math.hypot(c, d)
    if not first or not second or a * d == b * c:
        return _UPRIGHT  # it would show nothing
    return a / first, b / first, c / second, d / second


def upright(image: Image.Image, matrix: Matrix) -> Image.Image:
    """Turn and mirror an image as a display matrix says.

    Args:
        image: As it is stored.
        matrix: See :data:`Matrix`; each of its two columns of length 1.

    Returns:
        The image as it is displayed. Turns by 90 degrees move pixels and change none; others
        leave black corners.
    """
    a, b, c, d = matrix
    slack = math.sin(math.radians(_RIGHT_ANGLE))
    if max(abs(b), abs(c)) <= slack:
        mirrored = image if a > 0 else image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return mirrored if d > 0 else mirrored.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    if max(abs(a), abs(d)) <= slack:
        turned = image.transpose(Image.Transpose.TRANSPOSE)
        turned = turned if c > 0 else turned.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return turned if b > 0 else turned.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    if a * d < b * c:  # mirrored: top to bottom first, then a turn is left
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    return image.rotate(-math.degrees(math.atan2(b, a)), expand=True)

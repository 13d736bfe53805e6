"""A video as one image: frames sampled evenly in time and laid out in a collage.

As in IG-VLM (Kim et al. 2024, arXiv 2403.18406; ``imagegridworth/IG-VLM``,
``vision_processor/fps_extractor.py`` and ``gridview_generator.py``), which M3 follows for its
video benchmarks (Cai et al., ICLR 2025). The collage then goes the way of any image, so a
scale's visual tokens are those of all frames together.

PyAV is needed for this only: the extra ``video`` of this package.

Notation: a video has n frames, of which m are shown.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image

from m3router.data.errors import DataError, VideoError
from m3router.data.images import MAX_PIXELS, open_image
from m3router.data.media_files import open_file
from m3router.data.paths import StrPath, as_path

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream


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


FRAMES = 6
"""Frames of a collage by default, IG-VLM's ``frame_fixed_number``."""

_ENDINGS = "3gp asf avi flv m2ts m4v mkv mov mp4 mpeg mpg mts ogv ts webm wmv"
SUFFIXES = frozenset("." + ending for ending in _ENDINGS.split(" "))
"""What is taken for a video. NOTE: an animated GIF or WebP stays an image, its first frame."""

_DEMUXERS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,live_flv,asf,ogg,m4v"
"""What is opened. NOTE: not all that FFmpeg knows: playlists would open further addresses."""

_SLACK = 0.5  # seconds that a file may end before its header says
_EBML, _SEGMENT = 0x1A45DFA3, 0x18538067
"""Elements that a Matroska or WebM file consists of."""


def is_video(path: StrPath) -> bool:
    """Whether a file is taken for a video, by the end of its name.

    >>> is_video("clips/Dog.MP4"), is_video("dog.gif")
    (True, False)
    """
    return Path(path).suffix.lower() in SUFFIXES


def open_media(path: StrPath, *, frames: int = FRAMES, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read an image, or a video as a collage of its frames.

    Args:
        path: The file.
        frames: Frames of a video's collage.
        max_pixels: Refuse larger images and collages.

    Returns:
        Mode ``RGB``.

    Raises:
        ImageError: It cannot be read; see :func:`m3router.data.images.open_image`,
            :func:`open_video`.
        DataError: It is a video and PyAV is missing, or ``frames`` is below 1.
    """
    path = as_path(path)
    if is_video(path):
        return open_video(path, frames=frames, max_pixels=max_pixels)
    return open_image(path, max_pixels=max_pixels)


def open_video(path: StrPath, *, frames: int = FRAMES, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read a video as a collage of its frames, as a player shows them, in order of time.

    Frames are counted by decoding: what the header says of their number is not believed. Only
    the sampled ones are held in memory, however long the video is.

    Args:
        path: The file; composed and decomposed spellings of its name are equal, see
            :func:`m3router.data.media_files.find_file`.
        frames: Frames of the collage; a shorter video shows all that it has.
        max_pixels: Refuse a larger collage, before any frame is decoded.

    Returns:
        The collage, mode ``RGB``; see :func:`m3router.data.videos.shown_frames` and
        :func:`collage`.

    Raises:
        VideoError: The file is missing, not ours to read, no ordinary file, empty, truncated,
            damaged or not a video, has no or a single frame, or is too large; the message names the
            path and the cause.
        DataError: PyAV is missing, or ``frames`` is below 1.
    """
    path = as_path(path)
    if frames < 1:
        raise DataError(f"frames must be 1 or more, got {frames}.")
    av = _pyav()
    try:
        # Opened here, so that no name is read as an address; the options bar what a file names.
        options = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "file"}
        with open_file(path, kind="Video", error=VideoError) as file:
            whole = _segment_is_whole(file)
            file.seek(0)
            with av.open(file, options=options) as container:
                stream = _video_stream(container, path)
                limit = max_pixels // frames
                _check_size(stream, stream.width, stream.height, limit, path)
                shown = _sample(_Source(container, stream, whole, limit, path), frames)
    except (av.error.FFmpegError, OSError, ValueError, MemoryError) as error:
        cause = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise _unreadable(path, f"truncated, damaged, or not a video ({cause})") from error
    return collage(shown)


def collage(frames: Sequence[Image.Image]) -> Image.Image:
    """Lay frames out in raster order, ``round(sqrt(n))`` to a row: six as 3 rows of 2 (IG-VLM).

    Args:
        frames: At least one, RGB; all are scaled to the smallest width and height among them.

    Returns:
        The collage without gaps or borders; cells left over in the last row are white.
    """
    columns = round(math.sqrt(len(frames)))
    width = min(frame.width for frame in frames)
    height = min(frame.height for frame in frames)
    sheet = Image.new("RGB", (columns * width, math.ceil(len(frames) / columns) * height), "white")
    for place, frame in enumerate(frames):
        row, column = divmod(place, columns)
        fitted = frame.resize((width, height), Image.Resampling.BILINEAR)
        sheet.paste(fitted, (column * width, row * height))
    return sheet


def _pyav() -> Any:
    """The PyAV package, imported where a video is read only."""
    try:
        import av
    except ImportError as error:
        raise DataError(
            "Videos need the package av, which is not installed: pip install 'm3router[video]'"
        ) from error
    return av


def _unreadable(path: Path, cause: str) -> VideoError:
    return VideoError(f"Video {path} cannot be read: {cause}.")


def _video_stream(container: InputContainer, path: Path) -> VideoStream:
    """The first video stream that is not the cover of a piece of music."""
    for stream in container.streams.video:
        if not stream.disposition & stream.disposition.attached_pic:
            if stream.codec_context is None:
                raise _unreadable(path, "its codec is not known to FFmpeg")
            stream.thread_type = "AUTO"
            return stream
    raise _unreadable(path, "it holds sound but no moving image; give a file with video")


@dataclass(frozen=True)
class _Source:
    """An open video.

    Attributes:
        container: The file.
        stream: Its moving images.
        whole: Whether the file itself shows that it is not cut short.
        limit: Most pixels of a frame.
        path: Its name, for messages.
    """

    container: InputContainer
    stream: VideoStream
    whole: bool
    limit: int
    path: Path


def _check_size(stream: VideoStream, width: int, height: int, limit: int, path: Path) -> None:
    width, height = displayed_size(width, height, stream.sample_aspect_ratio)
    if width * height > limit:
        raise VideoError(
            f"Video {path} is too large: its frames have {width} x {height} pixels, "
            f"the limit in this collage is {limit} pixels each. Take fewer frames, or scale it "
            "down first."
        )


def _sample(source: _Source, frames: int) -> list[Image.Image]:
    """The sampled frames. Packets tell when there may be frames, decoding when there are."""
    times = _packet_times(source)
    shown: dict[int, Image.Image] = {}
    for _ in range(2):
        wanted = shown_frames(times, frames) if times else []
        shown, found = _decode(source, set(wanted))
        if not found:
            raise _unreadable(source.path, "it holds no frames")
        if len(found) == 1:
            raise _unreadable(
                source.path, "it has a single frame; save that as a PNG or JPEG and pass it"
            )
        times = found
        if shown_frames(times, frames) == wanted:
            break
    return [shown[place] for place in wanted if place in shown]


def _decode(
    source: _Source, wanted: Collection[int]
) -> tuple[dict[int, Image.Image], list[int | None]]:
    """The wanted frames by their number, and the times of all."""
    shown: dict[int, Image.Image] = {}
    times: list[int | None] = []
    stream, path = source.stream, source.path
    source.container.seek(0)
    for frame in source.container.decode(stream):
        if len(times) in wanted:
            if frame.is_corrupt:
                raise _unreadable(path, f"frame {len(times)} is damaged")
            _check_size(stream, frame.width, frame.height, source.limit, path)
            # A new image each time: the decoder's buffers go round.
            shown[len(times)] = as_displayed(frame, stream.sample_aspect_ratio)
        times.append(frame.pts)
    return shown, times


def _packet_times(source: _Source) -> list[int | None]:
    """When each packet's frame is displayed, in the order of display where that is known.

    Raises:
        VideoError: The file is truncated.
    """
    times: list[int | None] = []
    end, final = 0.0, None
    for packet in source.container.demux():
        if packet.size:
            final = packet
            if packet.stream is source.stream:
                times.append(packet.pts)
            if packet.pts is not None and packet.time_base is not None:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
    if final is not None and final.is_corrupt:
        raise _unreadable(source.path, "it is truncated: its last packet is not whole")
    if times and not source.whole:
        _check_end(source, len(times), end)
    known = sorted(time for time in times if time is not None)
    return list(known) if len(known) == len(times) else times


def _check_end(source: _Source, count: int, end: float) -> None:
    """Refuse a video whose data end before its header says.

    All frames that the header counts are there in a whole MP4 or AVI. Only where they are not, or
    are not counted, the duration decides: it may include an empty edit or a held last frame.
    """
    if 0 < source.stream.frames <= count:
        return
    container, stated = source.container, (source.container.duration or 0) / 1e6
    end -= (container.start_time or 0) / 1e6
    if stated - end > max(_SLACK, 0.05 * stated):
        raise _unreadable(
            source.path,
            f"it is truncated: the data end at {end:.1f} s, the header says {stated:.1f} s",
        )


def _segment_is_whole(file: BinaryIO) -> bool:
    """Whether a Matroska or WebM file has all bytes that its segment states; else False.

    FFmpeg reads such a file up to wherever it is cut and tells nothing (RFC 8794 and 9559).
    """
    size = file.seek(0, os.SEEK_END)
    at = 0
    for _ in range(16):  # the header, then the segment; perhaps something void between
        file.seek(at)
        head = file.read(12)
        try:
            name, width = _ebml_number(head, 0, keep_marker=True)
            length, used = _ebml_number(head, width)
        except (IndexError, ValueError):
            return False
        if at == 0 and name != _EBML:
            return False
        end = at + width + used + length
        if name == _SEGMENT:
            unknown = length == (1 << 7 * used) - 1
            return not unknown and end <= size
        at = end
    return False


def _ebml_number(data: bytes, at: int, *, keep_marker: bool = False) -> tuple[int, int]:
    """A number of EBML's variable width, and that width."""
    width = 9 - data[at].bit_length()
    if width > 8 or at + width > len(data):
        raise ValueError("no number")
    value = int.from_bytes(data[at : at + width], "big")
    return (value if keep_marker else value & ((1 << 7 * width) - 1)), width

"""A video as one picture: frames sampled evenly and laid out in a collage.

As in IG-VLM (Kim et al. 2024, arXiv 2403.18406; ``imagegridworth/IG-VLM``,
``vision_processor/fps_extractor.py`` and ``gridview_generator.py``), which M3 follows for its
video benchmarks (Cai et al., ICLR 2025). The collage then goes the way of any picture, so a
scale's visual tokens are those of all frames together.

PyAV is needed for this only: the extra ``video`` of this package.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from data.errors import DataError, VideoError
from data.images import MAX_PIXELS, open_image

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

FRAMES = 6
"""Frames of a collage by default, IG-VLM's ``frame_fixed_number``."""

_ENDINGS = "3gp asf avi flv m2ts m4v mkv mov mp4 mpeg mpg mts ogv ts webm wmv"
SUFFIXES = frozenset("." + ending for ending in _ENDINGS.split(" "))
"""What is taken for a video. NOTE: an animated GIF or WebP stays a picture, its first frame."""

_DEMUXERS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,live_flv,asf,ogg,m4v"
"""What is opened. NOTE: not all that FFmpeg knows: playlists would open further addresses."""

_SLACK = 0.5  # seconds that a file may end before its header says


def is_video(path: Path | str) -> bool:
    """Whether a file is taken for a video, by the end of its name.

    >>> is_video("clips/Dog.MP4"), is_video("dog.gif")
    (True, False)
    """
    return Path(path).suffix.lower() in SUFFIXES


def open_picture(path: Path, *, frames: int = FRAMES, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read a picture, or a video as a collage of its frames.

    Args:
        path: The file.
        frames: Frames of a video's collage.
        max_pixels: Refuse larger pictures and collages.

    Returns:
        Mode ``RGB``.

    Raises:
        ImageError: It cannot be read; see :func:`data.images.open_image`, :func:`open_video`.
        DataError: It is a video and PyAV is missing, or ``frames`` is below 1.
    """
    if is_video(path):
        return open_video(path, frames=frames, max_pixels=max_pixels)
    return open_image(path, max_pixels=max_pixels)


def open_video(path: Path, *, frames: int = FRAMES, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read a video as a collage of its frames, upright, in order of time.

    Frames are counted by decoding: what the header says of their number is not believed. Only
    the sampled ones are held in memory, however long the video is.

    Args:
        path: The file.
        frames: Frames of the collage; a shorter video shows all that it has.
        max_pixels: Refuse a larger collage, before any frame is decoded.

    Returns:
        The collage, mode ``RGB``; see :func:`frame_indices` and :func:`collage`.

    Raises:
        VideoError: The file is missing, empty, truncated, damaged or no video, has no or a
            single frame, or is too large; the message names the path and the cause.
        DataError: PyAV is missing, or ``frames`` is below 1.
    """
    if frames < 1:
        raise DataError(f"frames must be 1 or more, got {frames}.")
    av = _pyav()
    if not path.is_file():
        raise _unreadable(path, "it is a folder" if path.is_dir() else "no such file")
    try:
        if path.stat().st_size == 0:
            raise _unreadable(path, "the file is empty (0 bytes)")
        # Opened here, so that no name is read as an address; the options bar what a file names.
        options = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "file"}
        with path.open("rb") as file, av.open(file, options=options) as container:
            stream = _video_stream(container, path)
            _check_size(stream, max_pixels // frames, path)
            shown = _sample(container, stream, frames, path)
    except (av.error.FFmpegError, OSError, ValueError, MemoryError) as error:
        cause = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise _unreadable(path, f"truncated, damaged, or no video ({cause})") from error
    return collage(shown)


def frame_indices(count: int, frames: int) -> list[int]:
    """Which frames of a video are shown: every ``floor(count / frames)``-th, from the first.

    This is IG-VLM's ``frames_per_interval``. NOTE: as there, up to ``frames - 1`` frames more
    than an interval are left over at the end, and frames are counted, not timed; IG-VLM counts
    them at a constant rate. It fails on a video of fewer frames than asked for; here each is
    shown once.

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
    raise _unreadable(path, "it holds sound but no moving picture; give a file with video")


def _check_size(stream: VideoStream, limit: int, path: Path) -> None:
    if stream.width * stream.height > limit:
        raise VideoError(
            f"Video {path} is too large: its frames have {stream.width} x {stream.height} pixels, "
            f"the limit in this collage is {limit} pixels each. Take fewer frames, or scale it "
            "down first."
        )


def _sample(
    container: InputContainer, stream: VideoStream, frames: int, path: Path
) -> list[Image.Image]:
    """The sampled frames. The packets tell how many there may be, decoding how many there are."""
    count = _packets(container, stream, path)
    for _ in range(2):
        wanted = set(frame_indices(count, frames)) if count else set()
        shown, seen = [], 0
        container.seek(0)
        for frame in container.decode(stream):
            if seen in wanted:
                if frame.is_corrupt:
                    raise _unreadable(path, f"frame {seen} is damaged")
                # A new picture each time: the decoder's buffers go round.
                shown.append(frame.to_image().rotate(frame.rotation, expand=True))
            seen += 1
        if seen == count:
            break
        count = seen
    if count == 0:
        raise _unreadable(path, "it holds no frames")
    if count == 1:
        raise _unreadable(path, "it has a single frame; save that as a PNG or JPEG and pass it")
    return shown


def _packets(container: InputContainer, stream: VideoStream, path: Path) -> int:
    """Count a stream's packets, and see that the file reaches as far as its header says."""
    count, end, last = 0, 0.0, None
    for packet in container.demux():
        if packet.size:
            last = packet
            count += packet.stream is stream
            if packet.pts is not None and packet.time_base is not None:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
    if last is not None and last.is_corrupt:
        raise _unreadable(path, "it is truncated: its last packet is not whole")
    stated = (container.duration or 0) / 1e6
    end -= (container.start_time or 0) / 1e6
    if count and stated - end > max(_SLACK, 0.05 * stated):
        raise _unreadable(
            path, f"it is truncated: the data end at {end:.1f} s, the header says {stated:.1f} s"
        )
    return count

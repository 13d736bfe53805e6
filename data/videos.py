"""A video as one image: frames sampled evenly in time and laid out in a collage.

As in IG-VLM (Kim et al. 2024, arXiv 2403.18406; ``imagegridworth/IG-VLM``,
``vision_processor/fps_extractor.py`` and ``gridview_generator.py``), which M3 follows for its
video benchmarks (Cai et al., ICLR 2025). The collage then goes the way of any image, so a
scale's visual tokens are those of all frames together. Which frames are shown and how, tells
:mod:`data.video_frames`.

PyAV is needed for this only: the extra ``video`` of this package.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from data.errors import DataError, VideoError
from data.images import MAX_PIXELS, open_image
from data.media_files import open_file
from data.video_ends import End, end_of
from data.video_frames import as_displayed, displayed_size, shown_frames
from data.video_frames import frame_indices as frame_indices

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
    """Read a video as a collage of its frames, as a player shows them, in order of time.

    Frames are counted by decoding: what the header says of their number is not believed. Only
    the sampled ones are held in memory, however long the video is.

    Args:
        path: The file; composed and decomposed spellings of its name are equal, see
            :func:`data.media_files.find_file`.
        frames: Frames of the collage; a shorter video shows all that it has.
        max_pixels: Refuse a larger collage, before any frame is decoded.

    Returns:
        The collage, mode ``RGB``; see :func:`data.video_frames.shown_frames` and :func:`collage`.

    Raises:
        VideoError: The file is missing, not ours to read, no ordinary file, empty, truncated,
            damaged or no video, has no or a single frame, or is too large; the message names the
            path and the cause.
        DataError: PyAV is missing, or ``frames`` is below 1.
    """
    if frames < 1:
        raise DataError(f"frames must be 1 or more, got {frames}.")
    av = _pyav()
    try:
        # Opened here, so that no name is read as an address; the options bar what a file names.
        options = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "file"}
        with open_file(path, kind="Video", error=VideoError) as file:
            end = end_of(file)
            file.seek(0)
            with av.open(file, options=options) as container:
                stream = _video_stream(container, path)
                limit = max_pixels // frames
                _check_size(stream, stream.width, stream.height, limit, path)
                shown = _sample(_Source(container, stream, end, limit, path), frames)
    except (av.error.FFmpegError, OSError, ValueError, MemoryError) as error:
        cause = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise _unreadable(path, f"truncated, damaged, or no video ({cause})") from error
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
    raise _unreadable(path, "it holds sound but no moving picture; give a file with video")


@dataclass(frozen=True)
class _Source:
    """An open video.

    Attributes:
        container: The file.
        stream: Its moving pictures.
        end: Whether the file is cut short.
        limit: Most pixels of a frame.
        path: Its name, for messages.
    """

    container: InputContainer
    stream: VideoStream
    end: End
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
    if times and source.end is not End.WHOLE:
        _check_end(source, len(times), end)
    known = sorted(time for time in times if time is not None)
    return list(known) if len(known) == len(times) else times


def _check_end(source: _Source, count: int, end: float) -> None:
    """Refuse a video that is cut short, where its file does not show that it is whole."""
    container, stated = source.container, (source.container.duration or 0) / 1e6
    end -= (container.start_time or 0) / 1e6
    if stated - end > max(_SLACK, 0.05 * stated):
        raise _unreadable(
            source.path,
            f"it is truncated: the data end at {end:.1f} s, the header says {stated:.1f} s",
        )
    if source.end is End.CUT and count < source.stream.frames:
        raise _unreadable(
            source.path,
            f"it is truncated: it has {count} frames, the header says {source.stream.frames}",
        )

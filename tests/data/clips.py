"""Tiny real videos."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

SIZE = (64, 48)


def level(number: int) -> int:
    """The grey that frame ``number`` of a test video has all over; up to 40 frames."""
    return 20 + 5 * number


def write_video(
    path: Path,
    frames: int = 30,
    *,
    image: Callable[[int], np.ndarray] | None = None,
    size: tuple[int, int] = SIZE,
    rotation: int = 0,
    sound: float = 0.0,
    options: dict[str, str] | None = None,
) -> Path:
    """A real video at 10 frames a second, with so many seconds of silence beside it."""
    codec = {"webm": "libvpx", "avi": "mpeg4"}.get(path.suffix[1:], "libx264")
    with av.open(str(path), "w", options=options or {}) as container:
        if frames:
            video = container.add_stream(codec, rate=10)
            video.width, video.height = size
            video.pix_fmt = "yuv420p"
            if rotation:
                video.set_display_rotation(rotation)
        if sound:
            audio = container.add_stream("aac", rate=16000)
        for number in range(frames):
            drawn = (
                np.full((size[1], size[0], 3), level(number), np.uint8)
                if image is None
                else image(number)
            )
            container.mux(video.encode(av.VideoFrame.from_ndarray(drawn, format="rgb24")))
        if frames:
            container.mux(video.encode())
        for number in range(int(sound * 16000 / 1024)):
            silence = np.zeros((1, 1024), np.float32)
            part = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
            part.sample_rate, part.pts = 16000, number * 1024
            container.mux(audio.encode(part))
        if sound:
            container.mux(audio.encode())
    return path


def write_timed(path: Path, times: Sequence[int], **settings: object) -> Path:
    """A real video whose frames, grey as :func:`level` says, are displayed at these milliseconds.

    Args:
        path: The file.
        times: Ascending.
        **settings: Attributes of the stream's codec.
    """
    codec = {"webm": "libvpx"}.get(path.suffix[1:], "libx264")
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=1000)
        video.width, video.height = SIZE
        video.pix_fmt = "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        for name, value in settings.items():
            setattr(video.codec_context, name, value)
        for number, time in enumerate(times):
            drawn = np.full((SIZE[1], SIZE[0], 3), level(number), np.uint8)
            frame = av.VideoFrame.from_ndarray(drawn, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode())
    return path


def with_matrix(path: Path, matrix: Sequence[float]) -> Path:
    """Give an MP4's track another display matrix: a, b, c and d; see ISO 14496-12, 8.3.2."""
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 40  # of version 0
    a, b, c, d = (round(value * 65536) for value in matrix)
    struct.pack_into(">9i", content, place, a, b, 0, c, d, 0, 7 << 16, 9 << 16, 1 << 30)
    path.write_bytes(content)
    return path


def with_duration(path: Path, seconds: float) -> Path:
    """State another duration in the header of an MP4 (movie, track and edit) or Matroska file."""
    content = bytearray(path.read_bytes())
    if path.suffix == ".mp4":
        scale = struct.unpack_from(">I", content, content.index(b"mvhd") + 16)[0]
        for kind, offset in ((b"mvhd", 20), (b"tkhd", 24), (b"elst", 12)):
            struct.pack_into(">I", content, content.index(kind) + offset, round(seconds * scale))
    else:
        place = content.index(b"\x44\x89\x88")  # Duration, 8 bytes; the scale is 1 ms
        struct.pack_into(">d", content, place + 3, seconds * 1000)
    path.write_bytes(content)
    return path

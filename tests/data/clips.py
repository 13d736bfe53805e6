"""Tiny real videos."""

from __future__ import annotations

from collections.abc import Callable
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
    picture: Callable[[int], np.ndarray] | None = None,
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
                if picture is None
                else picture(number)
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

"""What an image may be, and what reading images may cost the server."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class ImageLimits:
    """What an image may be, and what all of them together may take.

    Attributes:
        max_bytes: Of its file, not of its base64.
        max_pixels: Width times height, as the file has them. The longer side's square may have
            no more: a longer image is made smaller.
        processes: That decode.
        seconds: For decoding one image; then its process is ended.
        memory: Bytes that a process may take for one image, beyond what it takes without any;
            None for what the largest image of the usual kinds needs.
        in_flight: Bytes of all decoded images that are not let go of yet; further ones wait.
        waiting: Bytes of all files that wait for being decoded; further ones are refused.
    """

    max_bytes: int = 10 << 20
    max_pixels: int = 25_000_000
    processes: int = 2
    seconds: float = 15.0
    memory: int | None = None
    in_flight: int = 512 << 20
    waiting: int = 256 << 20

    @property
    def longest_side(self) -> int:
        """Pixels of the longer side of what is handed on.

        >>> ImageLimits(max_pixels=10_000).longest_side
        100
        """
        return max(1, math.isqrt(self.max_pixels))

    @property
    def process_memory(self) -> int:
        """Bytes that one process may take for an image."""
        if self.memory is not None:
            return self.memory
        return (128 << 20) + MEMORY_PER_PIXEL * self.max_pixels


PIXEL_BYTES = 4
"""That a decoded RGB pixel takes in memory, as Pillow keeps it."""
MEMORY_PER_PIXEL = 44
"""Bytes that decoding takes at most, in the kinds that need most: TIFFs of floats and of 16 bits
a colour are widened before they are made 8 bits."""

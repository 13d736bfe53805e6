"""Images are read and prepared ahead of the model, in worker processes where that pays."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from torch.utils.data import DataLoader, Dataset

from m3router.data.errors import ImageError
from m3router.data.example import Example
from m3router.data.images import MAX_PIXELS
from m3router.data.media_files import file_in
from m3router.data.videos import FRAMES, open_media

MOST_WORKERS = 8


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Examples and their images, ready for the tower.

    Attributes:
        examples: What to ask.
        prepared: Image's name to what the model's ``prepare`` made of it.
        causes: Image's name to why it cannot be read.
    """

    examples: list[Example]
    prepared: dict[str, Any]
    causes: dict[str, str]


class _Chunks(Dataset[Chunk]):
    """Reads a chunk's images when asked for it."""

    def __init__(
        self,
        chunks: Sequence[list[Example]],
        read: Callable[[Path], Image.Image],
        images: Path,
        prepare: Callable[[Image.Image], Any],
    ) -> None:
        self.chunks = chunks
        self.read = read
        self.images = images
        self.prepare = prepare

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, index: int) -> Chunk:
        examples = self.chunks[index]
        prepared: dict[str, Any] = {}
        causes: dict[str, str] = {}
        for name in sorted({example.image for example in examples}):
            try:
                prepared[name] = self.prepare(self.read(file_in(self.images, name)))
            except ImageError as error:
                causes[name] = str(error)
            except MemoryError:
                causes[name] = f"Image {name} cannot be prepared: there is not enough memory."
        return Chunk(examples=examples, prepared=prepared, causes=causes)


def workers_for(device: str, processes: int = 1) -> int:
    """How many worker processes read images.

    Where the model runs on the CPU they would only compete with it.

    Args:
        device: Type of the model's device, such as ``"cuda"``.
        processes: That label together on this machine.
    """
    if device == "cpu":
        return 0
    return min(MOST_WORKERS, max(1, (os.cpu_count() or 1) // max(1, processes) - 1))


def read_ahead(
    chunks: Sequence[list[Example]],
    *,
    images: Path,
    prepare: Callable[[Image.Image], Any],
    workers: int = 0,
    frames: int = FRAMES,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[Chunk]:
    """Read and prepare the images of chunk after chunk, in order.

    Args:
        chunks: Examples that are in flight together.
        images: Folder that the examples' images start from.
        prepare: A model's.
        workers: Processes that read ahead; 0 reads in this one.
        frames: Frames of a video's collage.
        max_pixels: Larger images are refused before they are decoded.

    Raises:
        DataError: If there are videos and PyAV is missing.
    """
    read = partial(open_media, frames=frames, max_pixels=max_pixels)
    loader = DataLoader(
        _Chunks(chunks, read, images, prepare),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=2 if workers else None,
        # A forked copy of a process that uses a GPU cannot be relied on.
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=_outlive_sigterm,
    )
    yield from loader


def _outlive_sigterm(worker: int) -> None:
    """Leave it to the run to end on SIGTERM: schedulers send it to all processes of a job."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

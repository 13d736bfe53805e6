"""Writing a benchmark's examples beside its images, whole or not at all."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from m3router.data.errors import DataError
from m3router.data.manifest import fsync_folder, sha256_file, write_failure, write_manifest
from m3router.data.paths import StrPath, as_path
from m3router.data.sources.benchmarks.table import benchmark
from m3router.data.sources.hub import Origin, iter_benchmark

EXAMPLES = "examples.jsonl"
IMAGES = "images"


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """What was written.

    Attributes:
        examples: Path of the JSONL file.
        images: The folder that its image paths are relative to.
        count: Number of examples.
        left_out: Why rows were left out, and how often.
    """

    examples: Path
    images: Path
    count: int
    left_out: Mapping[str, int]


def fetch_benchmark(
    name: str,
    *,
    folder: StrPath,
    origin: Origin | None = None,
    progress: Callable[[int], None] | None = None,
) -> Fetched:
    """Write a benchmark as a JSONL source: ``examples.jsonl``, ``images/`` and a manifest.

    The examples stand under another name until all of them are there. After an interruption the
    same command starts again, and images that are there are not written again.

    Args:
        name: A key of :data:`m3router.data.sources.benchmarks.table.BENCHMARKS`.
        folder: Where to write; it must not hold examples yet.
        origin: Which rows, from where; None for the whole evaluated split, from the hub.
        progress: Called with the number of examples so far.

    Returns:
        What was written. The images are those of ``origin.videos`` for a benchmark of videos.

    Raises:
        DataError: The folder holds examples, or cannot be written; or see
            :func:`m3router.data.sources.hub.iter_benchmark`.
    """
    folder = as_path(folder)
    origin, entry = origin or Origin(), benchmark(name)
    path = folder / EXAMPLES
    if path.exists():
        raise DataError(f"{path} exists already. Choose another folder, or remove it first.")
    left_out: Counter[str] = Counter()
    part = path.with_name(EXAMPLES + ".part")
    count = 0
    homes: set[str] = set()
    examples = iter_benchmark(
        name, folder=folder / IMAGES, origin=origin, left_out=left_out, homes=homes
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with part.open("w", encoding="utf-8") as file:
            for count, example in enumerate(examples, start=1):
                file.write(json.dumps(example.to_dict(), ensure_ascii=False) + "\n")
                if progress:
                    progress(count)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise DataError(write_failure(part, error)) from error
    files = (*origin.files, *origin.image_files)
    write_manifest(
        folder,
        stage="examples",
        inputs={f"file-{number}": file for number, file in enumerate(files, start=1)},
        params={
            "benchmark": name,
            "hub": ", ".join(home for home in entry.homes if home in homes),
            "config": entry.config,
            "split": None if origin.files else origin.split or entry.split,
            "skip": origin.skip,
            "limit": origin.limit,
            "max_new_tokens": entry.max_new_tokens,
        },
        examples=count,
        left_out=dict(left_out),
        outputs={EXAMPLES: sha256_file(part)},
    )
    try:
        os.replace(part, path)
        fsync_folder(folder)
    except OSError as error:
        raise DataError(write_failure(path, error)) from error
    images = origin.videos if entry.video and origin.videos else folder / IMAGES
    return Fetched(examples=path, images=images, count=count, left_out=left_out)

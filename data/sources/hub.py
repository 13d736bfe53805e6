"""Examples from published benchmarks, streamed with the ``datasets`` library or from its files.

Rows are read one after another, so that neither memory nor disk needs to hold a dataset: images
become files named by their content as they come by, byte for byte as the dataset has them.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from m3router.data.errors import DataError
from m3router.data.example import Example
from m3router.data.sources.benchmarks.base import Benchmark, RawExample
from m3router.data.sources.benchmarks.table import benchmark
from m3router.data.sources.image_files import save_image
from m3router.data.sources.reading import read_row, read_rows
from m3router.data.videos import SUFFIXES

_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Which rows of a benchmark are read, and from where.

    Attributes:
        split: Another part than the one that is evaluated; None for that one.
        skip: Usable rows to pass over first; nothing of theirs is written.
        limit: Most examples; None for all.
        files: Downloaded files (Parquet, CSV, JSON) in place of the hub.
        image_files: Downloaded files with images, where a benchmark keeps them apart.
        videos: The folder of the videos, for benchmarks about videos.
    """

    split: str | None = None
    skip: int = 0
    limit: int | None = None
    files: tuple[Path, ...] = ()
    image_files: tuple[Path, ...] = ()
    videos: Path | None = None


def iter_benchmark(
    name: str,
    *,
    folder: Path,
    origin: Origin | None = None,
    left_out: Counter[str] | None = None,
    homes: set[str] | None = None,
) -> Iterator[Example]:
    """Give the examples of a benchmark as they are read, each when its image is a file.

    Args:
        name: A key of :data:`m3router.data.sources.benchmarks.table.BENCHMARKS`.
        folder: Receives the images.
        origin: Which rows, from where; None for the whole evaluated split, from the hub.
        left_out: Receives why rows were left out, and how often.
        homes: Receives which of the dataset's homes on the hub were read.

    Yields:
        The examples. Their ids start with the benchmark's name and are unique.

    Raises:
        DataError: The benchmark is unknown; the hub or a file cannot be read; a column is
            missing; videos or images are missing; or no row can be used.
    """
    entry, origin = benchmark(name), origin or Origin()
    counter: Counter[str] = Counter() if left_out is None else left_out
    found = _usable(name, entry, origin, counter, homes)
    raws = _limited(_numbered(name, found), origin)
    if entry.video:
        pairs = _with_videos(entry, raws, origin)
    elif entry.images:
        pairs = _with_images_apart(entry, raws, folder, origin, homes)
    else:
        pairs = ((raw, save_image(folder, raw.image, raw.id)) for raw in raws)
    none = True
    for raw, file in pairs:
        none = False
        yield _example(name, entry, raw, file)
    if none:
        reasons = "".join(f"; {count} {reason}" for reason, count in counter.items())
        raise DataError(
            f"{entry.title}: no row of split {origin.split or entry.split!r} can be used"
            f"{reasons or '; there are none left'}. Check --split, --skip and the files."
        )


def _usable(
    name: str, entry: Benchmark, origin: Origin, counter: Counter[str], homes: set[str] | None
) -> Iterator[RawExample]:
    """The rows that can be used; the others are counted."""
    if origin.files and origin.split is not None:
        raise DataError("files are read whole: leave the split out, or leave the files out.")
    split = origin.split or entry.split
    rows = read_rows(entry, entry.config, split, origin.files, columns=entry.columns, homes=homes)
    for row in rows:
        raw = read_row(entry, row)
        reason = raw.left_out or ("" if raw.answers else "has no answer")
        if not reason:
            try:
                _example(name, entry, raw, "picture")
            except DataError as error:
                reason = "cannot be scored: " + str(error).split(": ", 1)[-1].rstrip(".")
        if reason:
            counter[reason] += 1
        else:
            yield raw


def _example(name: str, entry: Benchmark, raw: RawExample, file: str) -> Example:
    return Example(
        id=raw.id or name,
        image=file,
        question=raw.question,
        answers=raw.answers,
        choices=raw.choices,
        metric=entry.metric,
        max_new_tokens=entry.max_new_tokens,
        context=raw.context,
        dataset=f"{name}/{raw.category}" if raw.category else name,
    )


def _limited(raws: Iterator[RawExample], origin: Origin) -> Iterator[RawExample]:
    if origin.skip < 0 or (origin.limit is not None and origin.limit < 1):
        raise DataError(
            f"skip must be 0 or more and limit 1 or more, got {origin.skip} and {origin.limit}."
        )
    stop = None if origin.limit is None else origin.skip + origin.limit
    return islice(raws, origin.skip, stop)


def _numbered(name: str, raws: Iterator[RawExample]) -> Iterator[RawExample]:
    """Give every question an id: the dataset's, the place where it has none, ``-2`` when taken."""
    taken: Counter[str] = Counter()
    for place, raw in enumerate(raws):
        identity = f"{name}-{raw.id or place}"
        taken[identity] += 1
        again = f"-{taken[identity]}" if taken[identity] > 1 else ""
        yield replace(raw, id=identity + again)


def _with_videos(
    entry: Benchmark, raws: Iterator[RawExample], origin: Origin
) -> Iterator[tuple[RawExample, str]]:
    """Find each video by its name; all that are missing are named together, at the end."""
    if origin.videos is None or not origin.videos.is_dir():
        got = "none was given" if origin.videos is None else f"{origin.videos} is not a folder"
        raise DataError(f"{entry.title} is about videos: pass their folder with --videos ({got}).")
    files = sorted(path for path in origin.videos.rglob("*") if path.suffix.lower() in SUFFIXES)
    known = {path.stem: path.relative_to(origin.videos).as_posix() for path in reversed(files)}
    composed = {unicodedata.normalize("NFC", stem): file for stem, file in known.items()}
    wanted: set[str] = set()
    missing_names: set[str] = set()
    for raw in raws:
        wanted.add(raw.video)
        file = known.get(raw.video) or composed.get(unicodedata.normalize("NFC", raw.video))
        if file is None:
            missing_names.add(raw.video)
        else:
            yield raw, file
    missing = sorted(missing_names)
    if missing:
        more = ", ..." if len(missing) > _SHOWN else ""
        raise DataError(
            f"{entry.title}: {len(missing)} of {len(wanted)} videos are missing in "
            f"{origin.videos}: {', '.join(missing[:_SHOWN])}{more}. Add them, with any ending of "
            "a video."
        )


def _with_images_apart(
    entry: Benchmark,
    raws: Iterator[RawExample],
    folder: Path,
    origin: Origin,
    homes: set[str] | None,
) -> Iterator[tuple[RawExample, str]]:
    """Read all questions, then the images that they need."""
    if origin.files and not origin.image_files:
        raise DataError(
            f"{entry.title} keeps its images apart: pass the files of the configuration "
            f"{entry.images} with --image-file."
        )
    questions = list(raws)
    needed = {raw.image_id for raw in questions}
    files: dict[str, str] = {}
    split, columns = origin.split or entry.split, ("id", "image")
    rows = read_rows(entry, entry.images, split, origin.image_files, columns=columns, homes=homes)
    for row in rows:
        identity = str(row["id"])
        if identity in needed:
            files[identity] = save_image(folder, row["image"], identity)
        if len(files) == len(needed):
            break
    missing = sorted(needed - files.keys())
    if missing:
        raise DataError(
            f"{entry.title}: {len(missing)} of {len(needed)} images are missing, first "
            f"{', '.join(missing[:_SHOWN])}. Pass all files of {entry.images}."
        )
    for raw in questions:
        yield raw, files[raw.image_id]

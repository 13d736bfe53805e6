"""A labelling run: what is left to ask, each answer journalled before it counts.

A Matryoshka model encodes each image once, and all its questions at all scales pool the same
tokens; any other model is asked option by option (:mod:`m3router.m3core.labelling.by_option`). An
interrupted run goes on where it stopped, with the same number of processes or another.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from types import FrameType
from typing import Any, TypedDict

import numpy as np
import pandas as pd

from m3router.data.errors import DataError
from m3router.data.example import Example, length_problems
from m3router.data.images import MAX_PIXELS
from m3router.data.log.checks import JUDGE, LATER, SCHEMA
from m3router.data.log.journal import Journal
from m3router.data.log.oracle_log import OracleLog
from m3router.data.manifest import atomic_write_bytes
from m3router.data.paths import StrPath, as_path
from m3router.data.progress import watched
from m3router.data.videos import FRAMES
from m3router.m3core.labelling.by_option import (
    OptionLabeller,
    score_by_agreement,
    with_expected_costs,
)
from m3router.m3core.labelling.growth import (
    Asked,
    may_differ,
    of_example,
    read_record,
    rescored_ids,
    rescored_rows,
    same_lengths,
    write_record,
)
from m3router.m3core.labelling.images import Chunk, read_ahead
from m3router.m3core.labelling.labeller import Labeller
from m3router.m3core.labelling.progress import LabelProgress, LabelStats, matmul_rate
from m3router.m3core.labelling.ranks import Ranks
from m3router.m3core.labelling.rows import (
    LONGEST,
    PROVENANCE,
    SPEC,
    LabelMode,
    label_mode,
    log_metadata,
    longest_answer,
    option_names,
)
from m3router.m3core.matryoshka.base import MultiScaleModel, VisualEncoding
from m3router.m3core.matryoshka.batching import Limits
from m3router.m3core.options import OptionModel

CHUNK_IMAGES = 16
STATS = "effort.json"
"""What the last run that labelled anything computed, all its processes together; beside the log."""

Encoded = Sequence[tuple[str, VisualEncoding]]


class LabelOptions(TypedDict, total=False):
    """What :func:`label` may be told beside its inputs, for those who hand it on."""

    retry_errors: bool
    max_new_tokens: int | None
    max_pixels: int
    frames: int
    mode: LabelMode
    workers: int
    limits: Limits | None
    ranks: Ranks | None
    grow: bool
    drop_removed: bool


class Stopped(Exception):
    """SIGTERM or Ctrl-C came; everything labelled so far is in the journal.

    Attributes:
        progress: How far the run came.
        interrupted: Whether it was Ctrl-C.
    """

    def __init__(self, progress: LabelProgress, *, interrupted: bool = False) -> None:
        super().__init__(f"stopped at {progress.done} of {progress.total} examples")
        self.progress = progress
        self.interrupted = interrupted


def label(
    examples: Sequence[Example],
    *,
    images: StrPath,
    model: MultiScaleModel | OptionModel,
    folder: StrPath,
    on_encoded: Callable[[Encoded], None] | None = None,
    progress: Callable[[LabelProgress], None] | bool | None = True,
    retry_errors: bool = False,
    max_new_tokens: int | None = None,
    max_pixels: int = MAX_PIXELS,
    frames: int = FRAMES,
    mode: LabelMode = LabelMode.ALL,
    workers: int = 0,
    limits: Limits | None = None,
    ranks: Ranks | None = None,
    grow: bool = False,
    drop_removed: bool = False,
) -> OracleLog:
    """Label every example at every option, resuming from the journals in ``folder``.

    Args:
        examples: What to ask; ids must be unique.
        images: Folder that the examples' image paths start from.
        model: The frozen model.
        folder: Receives the journals while running, and the finished log.
        on_encoded: Called with (image path, encoding) pairs before their answers are kept, so
            that features come from the same pass; by Matryoshka models only, others have none.
        progress: True shows a bar on a terminal and in a notebook; False shows nothing; a function
            is called whenever something was kept.
        retry_errors: Ask again the examples that an earlier run recorded an error for.
        max_new_tokens: Tokens of the longest answer to every example; None for each example's own,
            or the model's where it has none.
        max_pixels: Larger images are refused before they are decoded.
        frames: Frames of a video's collage; see :mod:`m3router.data.videos`.
        mode: What is asked; examples without references are always scored by agreement.
        workers: Processes that read images ahead of a Matryoshka model; see
            :func:`m3router.m3core.labelling.images.workers_for`.
        limits: How much a batch of a Matryoshka model may hold.
        ranks: This process among those that label together; None for alone. The first one
            merges what all have kept, the others read the log that it wrote.
        grow: Go on with other examples than before where the answers that are there go with
            them; see :mod:`m3router.m3core.labelling.growth`.
        drop_removed: With ``grow``, leave examples that are gone out of the log.

    Returns:
        The log. Examples that failed have error records, never wrong answers.

    Raises:
        Stopped: SIGTERM or (except for a Matryoshka model) Ctrl-C came; what was in flight was
            finished and kept. A second Ctrl-C ends at once.
        ModelError: If a server or a function cannot be asked any more; what was answered is kept.
        DataError: If there are no examples, ids repeat, ``max_new_tokens`` is not a whole number
            of at least 1, the journal is damaged, or the disk is full (nothing is lost then), or
            there are videos and PyAV is missing, or only some examples have references.
        MismatchError: If ``folder`` holds a run over other examples, of another model, with other
            longest answers, or of videos at another number of frames.
    """
    images = as_path(images)
    folder = as_path(folder)
    if not examples:
        raise DataError("there is nothing to label: no examples were given")
    if problems := length_problems(max_new_tokens):
        raise DataError(f"{problems[0]}.")
    ranks, mode = ranks or Ranks(), label_mode(examples, mode)
    metadata = log_metadata(
        examples, model, frames=frames, mode=mode, max_new_tokens=max_new_tokens
    )
    longest = {one.id: longest_answer(one, model, max_new_tokens) for one in examples}
    began = time.monotonic()
    journal = ranks.first_then_others(
        lambda: _opened(
            folder,
            metadata,
            Asked(examples=examples, images=images, longest=longest, mode=mode),
            retry_errors=retry_errors,
            rank=ranks.index,
            assumed={LONGEST: model.max_new_tokens},
            grow=grow,
            drop_removed=drop_removed,
        )
    )
    by_scale = isinstance(model, MultiScaleModel)
    signals = [signal.SIGTERM] if by_scale else [signal.SIGTERM, signal.SIGINT]
    shown = watched(progress if ranks.is_first or callable(progress) else False, "labelling", _told)
    with journal, stop_on(signals) as stopped, shown as show:
        mine = ranks.share(examples)
        waiting = [one for one in mine if not journal.has(one.id, option_names(model))]
        state = _begun(journal, mine, waiting)
        if show:
            show(state)
        steps: Iterator[None]
        if isinstance(model, MultiScaleModel):
            labeller = Labeller(
                model,
                mode,
                limits=limits or Limits(),
                stats=state.stats,
                max_new_tokens=max_new_tokens,
            )
            chunks = read_ahead(
                list(_chunks(waiting)),
                images=images,
                prepare=model.prepare,
                workers=workers,
                frames=frames,
                max_pixels=max_pixels,
            )
            steps = _by_scale(chunks, labeller, journal, state, on_encoded, stopped)
        else:
            steps = OptionLabeller(
                model,
                mode,
                journal=journal,
                state=state,
                images=images,
                frames=frames,
                max_pixels=max_pixels,
                max_new_tokens=max_new_tokens,
            ).label(waiting, stopped)
        for _ in steps:
            state.seconds = time.monotonic() - began
            if show:
                show(state)
        if number := stopped():
            raise Stopped(state, interrupted=number == signal.SIGINT)
        all_stats = ranks.gathered((len(waiting), state.seconds, state.stats))
        if ranks.is_first:
            _write(_merged(journal, examples, model, metadata, longest, mode), folder)
            if any(count for count, _, _ in all_stats):
                _write_stats(all_stats, model, folder)
        ranks.wait()
    return OracleLog.read(folder)


def _told(state: LabelProgress) -> tuple[int, int, str]:
    return state.done, state.total, state.note


def _opened(
    folder: Path,
    metadata: dict[str, Any],
    asked: Asked,
    *,
    retry_errors: bool,
    rank: int,
    assumed: Mapping[str, Any],
    grow: bool,
    drop_removed: bool,
) -> Journal:
    """The journal of a folder, whose answers go with these examples; the first process says so."""
    recorded = read_record(folder)
    rescored: set[str] = set()
    renewed: frozenset[str] = frozenset()
    if grow and recorded is not None and same_lengths(recorded, asked.longest):
        rescored = rescored_ids(recorded, asked, drop_removed=drop_removed)
        renewed = may_differ(recorded, asked)
    journal = Journal.open(
        folder,
        metadata,
        retry_errors=retry_errors,
        rank=rank,
        assumed=assumed,
        renewed=renewed,
    )
    if rank == 0:
        if rescored:
            again = {one.id: one for one in asked.examples if one.id in rescored}
            journal.append(list(rescored_rows(journal.read_rows(), again, asked.mode)))
        write_record(folder, asked, recorded)
        journal.renew(metadata)
    return journal


def _begun(
    journal: Journal, examples: Sequence[Example], waiting: Sequence[Example]
) -> LabelProgress:
    """The progress of a run before it asks anything: what earlier ones finished is counted."""
    finished = {one.id for one in examples}.difference(one.id for one in waiting)
    kept = [
        {name: row[name] for name in ("example_id", "scale", "score", "error")}
        for row in journal.read_rows()
        if row["example_id"] in finished
    ]
    kept.sort(key=lambda row: str(row["example_id"]))  # answers of several examples may be mixed
    state = LabelProgress(total=len(examples))
    state.count(kept)
    state.began = state.done
    return state


@contextmanager
def stop_on(signals: Sequence[int]) -> Iterator[Callable[[], int]]:
    """Give a function that tells which of these signals has come, 0 for none.

    Outside the main thread, where signals cannot be handled, none ever has. Each signal is waited
    for once: the second one does what it did before.
    """
    came = 0
    before: dict[int, Any] = {}

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = number
        signal.signal(number, before[number])

    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    for number in signals:
        before[number] = signal.signal(number, ask)
    try:
        yield lambda: came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _by_scale(
    chunks: Iterator[Chunk],
    labeller: Labeller,
    journal: Journal,
    state: LabelProgress,
    on_encoded: Callable[[Encoded], None] | None,
    stopped: Callable[[], int],
) -> Iterator[None]:
    """Label chunk after chunk with a Matryoshka model."""
    for chunk in _waited_for(chunks, state):
        _label_chunk(chunk, labeller, journal, state, on_encoded)
        yield
        if stopped():
            return


def _label_chunk(
    chunk: Chunk,
    labeller: Labeller,
    journal: Journal,
    state: LabelProgress,
    on_encoded: Callable[[Encoded], None] | None,
) -> None:
    stats = state.stats
    with stats.stage("encode"):
        encoded = labeller.model.encode(list(chunk.prepared.values()))
    encodings = dict(zip(chunk.prepared, encoded, strict=True))
    rows = labeller.rows(chunk.examples, encodings, chunk.causes)
    if on_encoded:
        with stats.stage("features"):
            on_encoded(list(encodings.items()))
    with stats.stage("keep"):
        journal.append(rows)
    state.count(rows)


def _waited_for(chunks: Iterator[Chunk], state: LabelProgress) -> Iterator[Chunk]:
    """The chunks; the time until each is there counts as reading images."""
    while True:
        with state.stats.stage("pictures"):
            chunk = next(chunks, None)
        if chunk is None:
            return
        yield chunk


def _chunks(examples: Sequence[Example]) -> Iterator[list[Example]]:
    """Examples by image, ``CHUNK_IMAGES`` images at a time, in order of appearance."""
    order = {image: place for place, image in enumerate(dict.fromkeys(e.image for e in examples))}
    ordered = sorted(examples, key=lambda example: order[example.image])
    chunk: list[Example] = []
    for number, (_, same) in enumerate(groupby(ordered, key=lambda example: example.image)):
        if chunk and number % CHUNK_IMAGES == 0:
            yield chunk
            chunk = []
        chunk.extend(same)
    if chunk:
        yield chunk


def _merged(
    journal: Journal,
    examples: Sequence[Example],
    model: MultiScaleModel | OptionModel,
    metadata: dict[str, Any],
    longest: Mapping[str, int],
    mode: LabelMode,
) -> OracleLog:
    """One log of what all processes kept, in the order of the examples.

    What the examples say is taken from them: rows of earlier versions do not have all of it.
    """
    order = {example.id: place for place, example in enumerate(examples)}
    frame = _frame(row for row in journal.read_rows() if row["example_id"] in order)
    if not isinstance(model, MultiScaleModel):
        metadata = {**metadata, PROVENANCE: dict(model.provenance), SPEC: dict(model.spec)}
        if mode is LabelMode.AGREEMENT:
            frame = score_by_agreement(frame, option_names(model)[-1])
        elif mode is LabelMode.UNTIL_CORRECT:
            frame = with_expected_costs(frame)
    places = frame["example_id"].map(order).to_numpy()
    frame = frame.iloc[places.argsort(kind="stable")].reset_index(drop=True)
    own = [examples[place] for place in np.sort(places)]
    said = {example.id: of_example(example) for example in examples}
    for name in said[own[0].id] if own else ():
        frame[name] = pd.Series([said[example.id][name] for example in own], dtype=object)
    frame["max_new_tokens"] = [longest[example.id] for example in own]
    return OracleLog(
        frame,
        options=option_names(model),
        cost_unit=metadata["cost_unit"],
        metadata=metadata,
    )


def _write(log: OracleLog, folder: Path) -> None:
    """Write a log unless it is there: what else is recorded about it then stays."""
    try:
        there = OracleLog.read(folder)
    except DataError:
        log.write(folder)
        return
    recorded = {name: there.metadata.get(name) for name in log.metadata}
    if recorded == log.metadata and there.frame.equals(log.frame):
        return
    if JUDGE in there.metadata and _same_answers(there, log, but=("score", "error", "metric")):
        return  # what a judge said of these very answers stays
    more = {name: value for name, value in there.metadata.items() if name not in log.metadata}
    if _same_answers(there, log):
        # A log of an earlier version gets what it did not record; what was found of it stays true.
        log = OracleLog(
            log.frame,
            options=log.options,
            cost_unit=log.cost_unit,
            metadata={**log.metadata, **more},
        )
    log.write(folder)


def _same_answers(one: OracleLog, other: OracleLog, *, but: Sequence[str] = ()) -> bool:
    """Whether two logs hold the same but for what earlier versions did not record, and `but`."""
    left_out = [*LATER, *(name for name in but if name not in LATER)]
    return one.frame.drop(columns=left_out).equals(other.frame.drop(columns=left_out))


def _write_stats(
    all_stats: Sequence[tuple[int, float, LabelStats]],
    model: MultiScaleModel | OptionModel,
    folder: Path,
) -> None:
    """Report what all processes computed; each gives its examples, seconds and stats."""
    counts, seconds, computed = zip(*all_stats, strict=True)
    stats = LabelStats.joined(computed)
    summary = stats.summary(sum(counts), max(seconds))
    summary["processes"] = len(all_stats)
    if isinstance(model, MultiScaleModel):
        summary["lower_bound_seconds"] = stats.flops / len(all_stats) / matmul_rate(model)
    atomic_write_bytes(folder / STATS, (json.dumps(summary, indent=1) + "\n").encode())


def _frame(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Rows as columns; equal texts are kept once."""
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    texts: dict[Any, Any] = {}
    for row in rows:
        for name, values in columns.items():
            value = row.get(name)  # earlier versions did not record everything
            if isinstance(value, list):
                value = tuple(value)
            known = isinstance(value, str | tuple)
            values.append(texts.setdefault(value, value) if known else value)
    return pd.DataFrame(columns)

"""Ask a frozen model every example at every scale, and keep what it said.

Each picture is opened and encoded once; all its questions at all scales pool the same tokens.
Requests are sorted by length, so that a batch holds almost no padding. Every chunk of pictures is
journalled before the next one starts: an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd

from data.errors import DataError, ImageError
from data.examples import Example, fingerprint
from data.images import MAX_PIXELS
from data.journal import Journal
from data.oracle_log import OracleLog
from data.scoring import chance_level, score
from data.videos import FRAMES, is_video, open_picture
from m3core.batching import BATCH_TOKENS, answer_all
from m3core.models.base import Answer, MultiScaleModel, Request, VisualEncoding

COST_UNIT = "visual tokens"
CHUNK_IMAGES = 16

Encoded = Sequence[tuple[str, VisualEncoding]]


@dataclass(kw_only=True)
class LabelProgress:
    """How far a labelling run has come.

    Attributes:
        total: Examples in all.
        done: Examples labelled, those of earlier runs included.
        errors: Examples with an error record.
        seconds: Time spent in this run.
        scores: Sum of the scores and number of answers so far, by scale.
    """

    total: int
    done: int = 0
    errors: int = 0
    seconds: float = 0.0
    scores: dict[str, tuple[float, int]] = field(default_factory=dict)

    @property
    def accuracy(self) -> dict[str, float]:
        """Mean score so far by scale, in [0, 1]."""
        return {scale: total / count for scale, (total, count) in self.scores.items() if count}

    def count(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take journalled rows into account."""
        failed: dict[str, bool] = {}
        for row in rows:
            failed[row["example_id"]] = failed.get(row["example_id"], False) or bool(row["error"])
            if row["score"] is not None:
                total, count = self.scores.get(row["scale"], (0.0, 0))
                self.scores[row["scale"]] = (total + row["score"], count + 1)
        self.done += len(failed)
        self.errors += sum(failed.values())


def log_metadata(
    examples: Sequence[Example], model: MultiScaleModel, *, frames: int = FRAMES
) -> dict[str, Any]:
    """What a log was made from; two runs with equal metadata may be joined.

    The number of frames is part of it where there are videos, and else of no consequence.
    """
    videos = {"frames": frames} if any(is_video(one.image) for one in examples) else {}
    return {
        "model": model.name,
        "revision": model.revision,
        "grid": list(model.grid.names),
        "prompt": model.prompt,
        "visual": dict(model.visual),
        "dtype": model.dtype,
        "cost_unit": COST_UNIT,
        "examples_sha256": fingerprint(examples),
        "n_examples": len(examples),
        "padding": "left",
        "batch_tokens": BATCH_TOKENS,
        **videos,
    }


def _row(example: Example, scale: int, chance: float) -> dict[str, Any]:
    return {
        "example_id": example.id,
        "group": example.group,
        "dataset": example.dataset,
        "question": example.question,
        "image": example.image,
        "scale": str(scale),
        "cost": None,
        "answer": None,
        "score": None,
        "logprob": None,
        "confidence": None,
        "answer_tokens": None,
        "text_tokens": None,
        "flops": None,
        "vision_flops": None,
        "chance": chance,
        "error": None,
    }


def _fill(
    row: dict[str, Any], example: Example, request: Request, answer: Answer, model: MultiScaleModel
) -> None:
    prompt = answer.visual_tokens + answer.text_tokens
    row |= {
        "cost": float(answer.visual_tokens),
        "answer": answer.text,
        "score": score(example.metric, answer.text, example),
        "logprob": answer.logprob,
        "confidence": answer.confidence,
        "answer_tokens": answer.answer_tokens,
        "text_tokens": answer.text_tokens,
        "flops": model.shape.answer_flops(prompt, answer.answer_tokens),
        "vision_flops": model.shape.vision_flops(request.encoding.views),
    }


class _Chunk:
    """The pictures and questions that are in flight together."""

    def __init__(self, model: MultiScaleModel, images: Path, max_pixels: int, frames: int) -> None:
        self.model = model
        self.images = images
        self.max_pixels = max_pixels
        self.frames = frames

    def run(self, examples: Sequence[Example]) -> tuple[Encoded, list[dict[str, Any]]]:
        """Encode the pictures and answer every example at every scale."""
        encodings, causes = self._encode(sorted({example.image for example in examples}))
        rows: list[dict[str, Any]] = []
        asked: list[tuple[dict[str, Any], Example]] = []
        requests: list[Request] = []
        for example in examples:
            for scale in self.model.grid.scales:
                row = _row(example, scale, chance_level(example))
                rows.append(row)
                if example.image in causes:
                    row["error"] = causes[example.image]
                    continue
                encoding = encodings[example.image]
                try:
                    self.model.prompt_length(example.question, encoding.tokens(scale))
                except DataError as error:
                    row["error"] = str(error)
                    continue
                requests.append(Request(encoding=encoding, question=example.question, scale=scale))
                asked.append((row, example))
        answers = answer_all(self.model, requests)
        for (row, example), request, answer in zip(asked, requests, answers, strict=True):
            _fill(row, example, request, answer, self.model)
        return list(encodings.items()), rows

    def _encode(self, names: list[str]) -> tuple[dict[str, VisualEncoding], dict[str, str]]:
        pictures, causes = {}, {}
        for name in names:
            try:
                pictures[name] = open_picture(
                    self.images / name, frames=self.frames, max_pixels=self.max_pixels
                )
            except ImageError as error:
                causes[name] = str(error)
        encoded = self.model.encode(list(pictures.values())) if pictures else []
        return dict(zip(pictures, encoded, strict=True)), causes


def _chunks(examples: Sequence[Example]) -> Iterator[list[Example]]:
    """Examples by picture, ``CHUNK_IMAGES`` pictures at a time, in order of appearance."""
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


def label(
    examples: Sequence[Example],
    *,
    images: Path,
    model: MultiScaleModel,
    folder: Path,
    on_encoded: Callable[[Encoded], None] | None = None,
    progress: Callable[[LabelProgress], None] | None = None,
    retry_errors: bool = False,
    max_pixels: int = MAX_PIXELS,
    frames: int = FRAMES,
) -> OracleLog:
    """Label every example at every scale, resuming from the journal in ``folder``.

    Args:
        examples: What to ask; ids must be unique.
        images: Folder that the examples' image paths start from.
        model: The frozen model.
        folder: Receives the journal while running, and the finished log.
        on_encoded: Called with (image path, encoding) pairs before their answers are kept, so
            that features come from the same pass.
        progress: Called after every chunk.
        retry_errors: Ask again the examples that an earlier run recorded an error for.
        max_pixels: Larger pictures are refused before they are decoded.
        frames: Frames of a video's collage; see :mod:`data.videos`.

    Returns:
        The log. Examples that failed have error records, never wrong answers.

    Raises:
        DataError: If there are no examples, ids repeat, the journal is damaged, or the disk is
            full (nothing is lost then), or there are videos and PyAV is missing.
        MismatchError: If ``folder`` holds a run over other examples, of another model, or of
            videos at another number of frames.
    """
    if not examples:
        raise DataError("there is nothing to label: no examples were given")
    metadata = log_metadata(examples, model, frames=frames)
    began = time.monotonic()
    with Journal.open(folder, metadata, retry_errors=retry_errors) as journal:
        state = LabelProgress(total=len(examples))
        state.count(journal.rows)
        done = {
            example.id
            for example in examples
            if all((example.id, scale) in journal.done for scale in model.grid.names)
        }
        chunk = _Chunk(model, images, max_pixels, frames)
        if progress:
            progress(state)
        for part in _chunks([example for example in examples if example.id not in done]):
            encoded, rows = chunk.run(part)
            if on_encoded:
                on_encoded(encoded)
            journal.append(rows)
            state.count(rows)
            state.seconds = time.monotonic() - began
            if progress:
                progress(state)
        rows = journal.rows
    order = {example.id: place for place, example in enumerate(examples)}
    rows = sorted(rows, key=lambda row: (order[row["example_id"]], int(row["scale"])))
    log = OracleLog(
        pd.DataFrame(rows), options=model.grid.names, cost_unit=COST_UNIT, metadata=metadata
    )
    log.write(folder)
    return log

"""Labelling by option: a model that shares nothing between its options is asked cell by cell.

A cell, one example at one option, is journalled as soon as it is answered. Images come in groups,
so that a model may read what their questions share once; a client that answers many requests at
once (:class:`m3router.m3core.options.StreamingOptionModel`) takes them one by one as it has room.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from m3router.data.errors import DataError, ImageError, ModelError
from m3router.data.example import Example
from m3router.data.log.checks import COUNTS, LARGEST, LENGTH, REACH, SMALLEST, STOP
from m3router.data.log.journal import Journal
from m3router.data.media_files import file_in
from m3router.data.scoring.general import score_agreement
from m3router.data.texts import writable
from m3router.data.videos import open_media
from m3router.m3core.functions import FunctionModel
from m3router.m3core.labelling.progress import LabelProgress
from m3router.m3core.labelling.rows import RIGHT, LabelMode, empty_row, longest_answer, scored
from m3router.m3core.options import (
    Answer,
    Failure,
    OptionModel,
    Request,
    StreamingOptionModel,
    Usage,
)

FLUSHED_WITHIN = 1.0
"""Seconds of answers that a crash of the machine may cost; one of the process costs none."""
GROUP_IMAGES = 4
"""Images whose questions are handed over together to a model that answers in batches."""

NOTHING_ASKED = (
    "nothing was asked at this option, so what it costs is not known; label without --until-correct"
)

Row = dict[str, Any]
Cell = tuple[Example, str]


class OptionLabeller:
    """Asks a model cell by cell, and keeps what it says.

    Args:
        model: The model.
        mode: What is asked.
        journal: Receives every row.
        state: Is told of every row.
        images: Folder that image paths start from.
        frames: Frames of a video's collage.
        max_pixels: Larger images are refused before they are decoded.
        max_new_tokens: Tokens of the longest answer to any example; None for each one's own.

    Raises:
        DataError: If the references' probabilities are asked for: only a Matryoshka model gives
            them.
    """

    def __init__(
        self,
        model: OptionModel,
        mode: LabelMode,
        *,
        journal: Journal,
        state: LabelProgress,
        images: Path,
        frames: int,
        max_pixels: int,
        max_new_tokens: int | None,
    ) -> None:
        if mode is LabelMode.REFERENCES:
            raise DataError(
                f"The model {model.name} cannot score references: only a Matryoshka model gives "
                "the probabilities of whole answers. Label without --scoring references."
            )
        self.model = model
        self.mode = mode
        self.journal = journal
        self.state = state
        self.images = images
        self.frames = frames
        self.max_pixels = max_pixels
        self.max_new_tokens = max_new_tokens

    def label(self, examples: Sequence[Example], stopped: Callable[[], int]) -> Iterator[None]:
        """Ask what is not in the journal; gives control back whenever rows were kept.

        Args:
            examples: What to ask; those of an image are asked together.
            stopped: Nothing new is asked once it tells a signal; what is in flight is kept.
        """
        names = [option.name for option in self.model.options]
        known = {one.id: one for one in examples}
        whole = _Whole(names, self._kept(known))
        if self.mode is LabelMode.UNTIL_CORRECT:
            waiting = list(examples)
            for name in names:
                cells = [(one, name) for one in waiting if not self.journal.has(one.id, [name])]
                yield from self._ask(cells, whole, stopped)
                if stopped():
                    return
                right = whole.right()
                waiting = [one for one in waiting if one.id not in right]
            yield from self._leave_unknown(examples, names, whole)
            return
        cells = [
            (one, name)
            for one in examples
            for name in names
            if not self.journal.has(one.id, [name])
        ]
        yield from self._ask(cells, whole, stopped)

    def _kept(self, known: Mapping[str, Example]) -> Iterator[Row]:
        """The journal's rows of examples that are not finished."""
        for row in self.journal.read_rows():
            if row["example_id"] in known and self.journal.has(row["example_id"], [row["scale"]]):
                yield row

    def _ask(
        self, cells: Sequence[Cell], whole: _Whole, stopped: Callable[[], int]
    ) -> Iterator[None]:
        """Ask cells, and keep each group's rows."""
        open_requests: dict[int, Cell] = {}
        unreadable: list[Row] = []
        groups = self._groups(cells, open_requests, unreadable, stopped)
        if isinstance(self.model, StreamingOptionModel):
            requests = (one for group in groups for one in group)
            answers = self.model.answer_each(itertools.takewhile(lambda _: not stopped(), requests))
            results: Iterator[list[tuple[Request, Answer | Failure]]] = ([one] for one in answers)
        else:
            results = (
                self._answered(part) for group in groups for part in self._parts(group) if part
            )
        for told in self._timed(results):
            with self.state.stats.stage("keep"):
                self._keep([*unreadable, *(self._row(open_requests, *one) for one in told)], whole)
            unreadable.clear()
            yield
        if unreadable:
            self._keep(unreadable, whole)
            yield

    def _parts(self, group: list[Request]) -> list[list[Request]]:
        """A function is called for each option by itself: each call's answers are kept at once."""
        if not isinstance(self.model, FunctionModel):
            return [group]
        names = [option.name for option in self.model.options]
        return [[one for one in group if one.option == name] for name in names]

    def _answered(self, asked: list[Request]) -> list[tuple[Request, Answer | Failure]]:
        """What a model that answers in batches says.

        Raises:
            ModelError: If it has not one answer for each request.
        """
        told = self.model.answer(asked)
        if len(told) != len(asked) or not all(isinstance(one, Answer | Failure) for one in told):
            raise ModelError(
                f"The model {self.model.name} must give one Answer or Failure for each request: "
                f"{len(asked)} were asked, and {told!r:.80} came."
            )
        return list(zip(asked, told, strict=True))

    def _timed(
        self, results: Iterator[list[tuple[Request, Answer | Failure]]]
    ) -> Iterator[list[tuple[Request, Answer | Failure]]]:
        while True:
            with self.state.stats.stage("answer"):
                told = next(results, None)
            if told is None:
                return
            yield told

    def _groups(
        self,
        cells: Sequence[Cell],
        open_requests: dict[int, Cell],
        unreadable: list[Row],
        stopped: Callable[[], int],
    ) -> Iterator[list[Request]]:
        """Requests about ``GROUP_IMAGES`` images at a time, made when they are asked for."""
        order = {image: n for n, image in enumerate(dict.fromkeys(e.image for e, _ in cells))}
        ordered = sorted(cells, key=lambda cell: order[cell[0].image])
        group: list[Request] = []
        for number, (image, same) in enumerate(
            itertools.groupby(ordered, key=lambda cell: cell[0].image)
        ):
            if stopped():
                return
            if group and number % GROUP_IMAGES == 0:
                yield group
                group = []
            opened = self._open(image)
            for example, name in same:
                if isinstance(opened, str):
                    longest = longest_answer(example, self.model, self.max_new_tokens)
                    unreadable.append(empty_row(example, name, longest) | {"error": opened})
                    continue
                request = Request(
                    image=opened,
                    question=example.question,
                    option=name,
                    max_new_tokens=longest_answer(example, self.model, self.max_new_tokens),
                )
                open_requests[id(request)] = (example, name)
                group.append(request)
        if group and not stopped():
            yield group

    def _open(self, image: str) -> Image.Image | str:
        """The image, or why it cannot be read."""
        with self.state.stats.stage("pictures"):
            try:
                return open_media(
                    file_in(self.images, image), frames=self.frames, max_pixels=self.max_pixels
                )
            except ImageError as error:
                return str(error)
            except MemoryError:
                return f"Image {image} cannot be prepared: there is not enough memory."

    def _row(self, open_requests: dict[int, Cell], request: Request, told: Answer | Failure) -> Row:
        example, name = open_requests.pop(id(request))
        longest = longest_answer(example, self.model, self.max_new_tokens)
        empty = empty_row(example, name, longest)
        try:
            row = empty | usage_columns(told.usage)
        except (TypeError, ValueError, OverflowError) as error:
            return empty | {"error": f"the answer's usage cannot be: {error}"}
        if isinstance(told, Failure):
            return row | {"error": writable(told.message), "cost": None}
        if problem := answer_problem(told, row):
            return empty | {"error": f"the answer cannot be: {problem}"}
        stats = self.state.stats
        stats.used += told.usage.prompt_tokens or 0
        stats.padded += told.usage.prompt_tokens or 0
        stats.answered += told.usage.answer_tokens or 0
        stats.flops += (told.usage.language_flops or 0.0) + (told.usage.tower_flops or 0.0)
        finish = None if told.cut is None else LENGTH if told.cut else STOP
        text = writable(told.text)
        row |= {"answer": text, "logprob": told.logprob, "confidence": told.confidence}
        if row["cost"] is None:  # the answer is kept, but nothing can be decided by it
            return row | {"error": f"the answer has no cost in {self.model.cost_unit}"}
        agreement = self.mode is LabelMode.AGREEMENT
        score = {"score": None} if agreement else scored(example, text)
        return row | score | {"finish": finish}

    def _keep(self, rows: Sequence[Row], whole: _Whole) -> None:
        self.journal.append(rows, within=FLUSHED_WITHIN)
        for row in rows:
            if finished := whole.take(row):
                self.state.count(finished)

    def _leave_unknown(
        self, examples: Sequence[Example], names: Sequence[str], whole: _Whole
    ) -> Iterator[None]:
        """Options behind the first right answer are not asked; what is known is their cost."""
        for example in examples:
            missing = [name for name in names if not self.journal.has(example.id, [name])]
            if not missing:
                continue
            image = self._open(example.image)
            rows = []
            for name in missing:
                longest = longest_answer(example, self.model, self.max_new_tokens)
                row = empty_row(example, name, longest)
                if isinstance(image, Image.Image):
                    row |= usage_columns(self.model.count(image, name))
                rows.append(row)
            self._keep(rows, whole)
            yield


class _Whole:
    """Which examples are answered at every option; their rows are given once they are."""

    def __init__(self, options: Sequence[str], rows: Iterator[Row]) -> None:
        self.options = options
        self._rows: dict[str, dict[str, Row]] = {}
        for row in rows:
            self.take(row)

    def take(self, row: Row) -> list[Row]:
        """Remember a row; its example's, by option, where that was the last one missing."""
        own = self._rows.setdefault(row["example_id"], {})
        own[row["scale"]] = {name: row[name] for name in ("example_id", "scale", "score", "error")}
        if len(own) < len(self.options):
            return []
        del self._rows[row["example_id"]]
        return [own[name] for name in self.options]

    def right(self) -> set[str]:
        """Examples that were right at an option that was asked, and so need no finer one."""
        return {
            name
            for name, rows in self._rows.items()
            if any((row["score"] or 0.0) >= RIGHT for row in rows.values())
        }


def answer_problem(told: Answer, row: Row) -> str | None:
    """Why a log could not hold an answer; None where it can.

    Args:
        told: From a model that may be anybody's.
        row: The columns of its usage.
    """
    if not isinstance(told.text, str):
        return f"its text is {told.text!r:.60}, no text"
    for name, least in COUNTS.items():
        value = row.get(name)
        if value is not None and (
            not isinstance(value, Integral) or not least <= int(value) < 2**63
        ):
            return f"{name} is {value!r:.40}, no whole number from {least} upwards"
    numbers = {"logprob": told.logprob, "confidence": told.confidence}
    amounts = ("cost", "flops", "vision_flops", "seconds", "price")
    for name, value in {**numbers, **{one: row.get(one) for one in amounts}}.items():
        if value is not None and not (isinstance(value, Real) and math.isfinite(value)):
            return f"{name} is {value!r:.40}, no finite number"
        if value is not None and value < 0 and name != "logprob":
            return f"{name} is {value!r}, below 0"
    cost = row["cost"]
    if cost and not SMALLEST <= cost <= LARGEST:
        return f"cost is {cost!r}: {REACH}"
    if told.confidence is not None and told.confidence > 1:
        return f"confidence is {told.confidence!r}, above 1"
    return None


def usage_columns(usage: Usage | None) -> Row:
    """What a log's row says of a usage."""
    usage = usage or Usage()
    text = None
    if usage.prompt_tokens is not None and usage.image_tokens is not None:
        text = max(0, usage.prompt_tokens - usage.image_tokens)
    return {
        "cost": None if usage.cost is None else float(usage.cost),
        "answer_tokens": usage.answer_tokens,
        "text_tokens": text,
        "flops": usage.language_flops,
        "vision_flops": usage.tower_flops,
        "image_tokens": usage.image_tokens,
        "image_tokens_from": usage.image_tokens_from,
        "cached_tokens": usage.cached_tokens,
        "seconds": usage.seconds,
        "attempts": usage.attempts,
        "pixels": usage.pixels,
        "price": usage.price,
    }


def with_expected_costs(frame: pd.DataFrame) -> pd.DataFrame:
    """Give options that were not asked the mean cost of those answers that there are at them.

    For models that know a cost from the answer alone. Answers about the same image go before those
    about others. NOTE: where nothing was asked at an option, its rows become error records.

    Args:
        frame: Rows of a log that was asked up to the first right answer.
    """
    frame = frame.copy()
    unasked = frame["score"].isna() & frame["error"].isna() & frame["cost"].isna()
    if not unasked.any():
        return frame
    for keys in (["scale", "image"], ["scale"]):
        means = frame[~unasked].groupby(keys)["cost"].mean().rename("mean").reset_index()
        found = frame[keys].merge(means, on=keys, how="left")["mean"].to_numpy()
        frame["cost"] = frame["cost"].where(~unasked | frame["cost"].notna(), found)
    left = unasked & frame["cost"].isna()
    frame.loc[left, "error"] = NOTHING_ASKED
    return frame


def score_by_agreement(frame: pd.DataFrame, finest: str) -> pd.DataFrame:
    """Score every answer by the finest option's; where that has none, nothing can be told.

    Args:
        frame: Rows of a log whose scores are missing.
        finest: The option to compare with.
    """
    frame = frame.copy()
    said = frame[frame["scale"] == finest].set_index("example_id")[["answer", "error"]]
    scores: list[float | None] = []
    errors: list[str | None] = []
    for example, answer, error in zip(
        frame["example_id"], frame["answer"], frame["error"], strict=True
    ):
        reference = said.loc[example] if example in said.index else None
        if error is not None:
            scores.append(None)
            errors.append(error)
        elif reference is None or reference["error"] is not None:
            cause = "it was not asked" if reference is None else reference["error"]
            scores.append(None)
            errors.append(f"the finest option has no answer to compare with: {cause}")
        else:
            scores.append(score_agreement(answer, (reference["answer"],)))
            errors.append(None)
    frame["score"], frame["error"] = scores, errors
    return frame

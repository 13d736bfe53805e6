"""Images with questions; for scales two each, that the fewest tokens and only the most answer.

Nothing is claimed that was not tried: the model is asked at every scale when the demo starts, or
was when the run was labelled, and an image that does not show the difference is left out.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from m3router.data.errors import DataError
from m3router.data.log.oracle_log import OracleLog
from m3router.data.log.parts import part_rows
from m3router.data.media_files import file_in
from m3router.data.scenes.drawing import render
from m3router.data.scenes.questions import all_questions
from m3router.data.scenes.world import make_scene
from m3router.data.videos import open_media
from m3router.m3core.matryoshka.base import MultiScaleModel, Request
from m3router.m3core.matryoshka.batching import answer_all
from m3router.router.demo.drawings import tokens
from m3router.router.runs.run import Run

SCENES: tuple[tuple[int, str, str], ...] = (
    (29_000_189, "What color is the background?", "What digit is next to the letter w?"),
    (29_000_298, "What word is on the orange sign?", "What digit is next to the letter d?"),
    (29_000_223, "What color is the background?", "What is the value of bar t?"),
)
"""Seed of a drawn scene, a question for one token, and one for 576, with the shipped model."""

MOST = 3
_EACH = 2  # questions about an image of the run
_RIGHT = 0.5  # a score from which on an answer counts as right, as in the tables of `inspect`


@dataclass(frozen=True, kw_only=True)
class Sample:
    """An image and its two questions.

    Attributes:
        path: The image or video.
        easy: Answered rightly at every scale, the coarsest included.
        easy_answer: What is right; "" where it is not known.
        hard: Answered rightly at the finest scale only.
        hard_answer: As above.
        coarsest: The model's coarsest scale.
        finest: Its finest.
    """

    heading = "**Try an example**: two questions about one image"

    path: Path
    easy: str
    easy_answer: str
    hard: str
    hard_answer: str
    coarsest: int
    finest: int

    @property
    def buttons(self) -> list[tuple[str, str]]:
        """What stands on each button, and the question that it asks."""
        needs = f"{tokens(self.coarsest)} will do", f"takes {self.finest}"
        asked = (self.easy, self.easy_answer), (self.hard, self.hard_answer)
        return [
            (f"{question}{f' {right.capitalize()}.' if right else ''} ({need})", question)
            for (question, right), need in zip(asked, needs, strict=True)
        ]


@dataclass(frozen=True, kw_only=True)
class FirstQuestions:
    """An image of the run and what was asked about it.

    Attributes:
        path: The image or video.
        questions: The first ones.
    """

    path: Path
    questions: tuple[str, ...]

    heading = "**Try an example** of the run"

    @property
    def buttons(self) -> list[tuple[str, str]]:
        """As of a :class:`Sample`."""
        return [(question, question) for question in self.questions]


AnySample = Sample | FirstQuestions


def by_name(samples: Sequence[AnySample]) -> dict[str, AnySample]:
    """Examples by a name that stays the same from one start of the demo to the next."""
    named: dict[str, AnySample] = {}
    for sample in samples:
        name, number = sample.path.stem, 1
        while name in named:
            number += 1
            name = f"{sample.path.stem}-{number}"
        named[name] = sample
    return named


def drawn_samples(model: MultiScaleModel, folder: Path) -> list[Sample]:
    """Draw the scenes of :data:`SCENES` and keep those that show the difference with this model.

    Args:
        model: Is asked every question at every scale.
        folder: Receives the images.
    """
    found = []
    for seed, easy, hard in SCENES:
        scene = make_scene(seed)
        right = {question.text: question.answer for question in all_questions(scene)}
        image = Image.fromarray(render(scene))
        if not (
            all(_rights(model, image, easy, right[easy]))
            and _only_last(_rights(model, image, hard, right[hard]))
        ):
            continue
        path = folder / f"scene-{seed}.png"
        image.save(path)
        found.append(
            Sample(
                path=path,
                easy=easy,
                easy_answer=right[easy],
                hard=hard,
                hard_answer=right[hard],
                coarsest=model.grid.scales[0],
                finest=model.grid.scales[-1],
            )
        )
    return found


def logged_samples(run: Run, images: Path, folder: Path) -> list[Sample]:
    """Find held-out images in a run's log that show the difference, surest first.

    Args:
        run: With a log and a split.
        images: Folder that the log's image paths start from.
        folder: Receives copies of the images.

    Returns:
        At most :data:`MOST`; none where the log knows no such image, or its file is missing.

    Raises:
        DataError: When the log or the split is missing or damaged.
    """
    log = run.log()
    rows = part_rows(log, run.split(log), "test", gaps="drop")
    said = log.laid_out("answer")[:, -1]
    found: list[Sample] = []
    for easy, hard in _pairs(log, rows):
        copy = _copied(images, str(log.images[hard]), folder / str(len(found)))
        if copy is not None:
            found.append(
                Sample(
                    path=copy,
                    easy=str(log.questions[easy]),
                    easy_answer=str(said[easy] or ""),
                    hard=str(log.questions[hard]),
                    hard_answer=str(said[hard] or ""),
                    coarsest=int(log.options[0]),
                    finest=int(log.options[-1]),
                )
            )
        if len(found) == MOST:
            break
    return found


def first_questions(run: Run, images: Path, folder: Path) -> list[FirstQuestions]:
    """The first held-out images of a run's log, each with its first questions.

    Args:
        run: With a log and a split.
        images: Folder that the log's image paths start from.
        folder: Receives copies of the images.

    Returns:
        At most :data:`MOST`; none where no file is found.

    Raises:
        DataError: When the log or the split is missing or damaged.
    """
    log = run.log()
    asked: dict[str, list[str]] = {}
    for row in part_rows(log, run.split(log), "test", gaps="drop"):
        questions = asked.setdefault(str(log.images[row]), [])
        if str(log.questions[row]) not in questions:
            questions.append(str(log.questions[row]))
    found: list[FirstQuestions] = []
    for name, questions in asked.items():
        copy = _copied(images, name, folder / str(len(found)))
        if copy is not None:
            found.append(FirstQuestions(path=copy, questions=tuple(questions[:_EACH])))
        if len(found) == MOST:
            break
    return found


def _pairs(log: OracleLog, rows: np.ndarray) -> Iterator[tuple[int, int]]:
    """Rows (easy, hard) about one image each; first where the model was surest of both.

    How sure it was keeps lucky guesses away: of the easy answer at the coarsest scale, of the
    hard one at the finest.
    """
    right = log.scores >= _RIGHT
    sure = np.nan_to_num(log.laid_out("confidence").astype(np.float64))
    images: dict[str, list[int]] = {}
    for row in rows:
        images.setdefault(str(log.images[row]), []).append(int(row))
    best = []
    for image, here in images.items():
        easy = [row for row in here if right[row].all()]
        hard = [row for row in here if right[row, -1] and not right[row, :-1].any()]
        if easy and hard:
            first = max(easy, key=lambda row: sure[row, 0])
            last = max(hard, key=lambda row: sure[row, -1])
            best.append((-min(sure[first, 0], sure[last, -1]), image, first, last))
    for _, _, first, last in sorted(best):
        yield first, last


def _copied(images: Path, name: str, folder: Path) -> Path | None:
    """A copy of an image that can be read; None for one that cannot or lies elsewhere."""
    try:
        found = file_in(images, name)
        open_media(found)
        path = found.resolve()
        if not path.is_relative_to(images.resolve()):
            return None
        folder.mkdir(exist_ok=True)
        return Path(shutil.copyfile(path, folder / path.name))
    except (DataError, OSError):  # gone or closed since it was labelled
        return None


def _rights(model: MultiScaleModel, image: Image.Image, question: str, right: str) -> list[bool]:
    """At which scales the model answers rightly, coarsest first."""
    (encoding,) = model.encode([image])
    asked = [Request(encoding=encoding, question=question, scale=one) for one in model.grid.scales]
    return [one.text.casefold() == right.casefold() for one in answer_all(model, asked)]


def _only_last(rights: list[bool]) -> bool:
    return rights[-1] and not any(rights[:-1])

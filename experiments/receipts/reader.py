"""An OCR reader at six image sizes as a model: a frozen reader, not a language model.

    m3router label RUN --model experiments.receipts.reader:ocr_reader ...

The reader is RapidOCR (PaddleOCR's detection and recognition networks, PP-OCRv4, as ONNX), whose
wheel ships its weights: ``pip install rapidocr-onnxruntime==1.4.4``. An option is a longest side,
to which an image is shrunk before it is read; a smaller image stays as it is. What is asked for is
found among the lines by the rules of :mod:`experiments.receipts.rules`, the same at every size.

An image is read once for all its questions at a size, and what was read is kept in a file. Each
answer is accounted for as if it had been asked alone: with all pixels, and with all seconds of the
processor.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from experiments.receipts.rules import FIELDS, Line, rows_of
from m3router.data.errors import DataError, MismatchError, ModelError
from m3router.m3core.functions import FunctionModel
from m3router.m3core.options import Answer, Usage

SIDES = (240, 320, 480, 640, 960, 1280)
"""Longest sides in pixels; the name of an option is its number."""
QUESTIONS = {
    "total": "What is the total?",
    "date": "On which date was this receipt issued?",
    "company": "Which company issued this receipt?",
    "address": "What is the address of the company?",
}
"""Field -> how it is asked for."""
READINGS = "RECEIPTS_READINGS"
"""Environment variable: the file in which :func:`ocr_reader` keeps what was read."""
_FIELD_OF = {question: field for field, question in QUESTIONS.items()}


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What is in an image as it was shown.

    Attributes:
        lines: Pieces of text, in any order.
        seconds: Of the processor, on one thread, for shrinking and reading.
    """

    lines: tuple[Line, ...]
    seconds: float


class Engine(Protocol):
    """What reads all text in an image: (H, W, 3) uint8, RGB, to lines."""

    def __call__(self, pixels: np.ndarray) -> Sequence[Line]:
        """Lines in any order; boxes in the image's own pixels."""
        ...


class RapidEngine:
    """RapidOCR on one thread; loaded when it is first asked.

    A line is recognised at its own width, and not padded with others to the widest of a batch of
    six: what a line says then depends on that line alone, and small images take less time. Small
    images are not enlarged before text is looked for, as RapidOCR would.

    Raises:
        ModelError: When the package is not installed.
    """

    def __init__(self) -> None:
        self._ocr: Any = None

    def __call__(self, pixels: np.ndarray) -> list[Line]:
        """Read an image, (H, W, 3) uint8, RGB."""
        if self._ocr is None:
            self._ocr = _rapidocr()
        found, _ = self._ocr(np.ascontiguousarray(pixels[:, :, ::-1]))
        return [
            Line(
                text=text,
                confidence=min(1.0, float(sure)),
                left=float(min(x for x, _ in box)),
                top=float(min(y for _, y in box)),
                bottom=float(max(y for _, y in box)),
            )
            for box, text, sure in found or ()
        ]


def _rapidocr() -> Any:
    try:
        from rapidocr_onnxruntime import RapidOCR
    except ImportError as error:
        raise ModelError(
            f"the OCR reader cannot be loaded: {error}. It is no dependency of this project: "
            "pip install rapidocr-onnxruntime==1.4.4"
        ) from error
    return RapidOCR(
        det_limit_side_len=32,
        det_limit_type="min",
        rec_batch_num=1,
        rec_img_shape=[3, 48, 48],
        intra_op_num_threads=1,
        inter_op_num_threads=1,
    )


class Readings:
    """A file of what was read, one JSON object a line: an image is read once at a size.

    Args:
        path: The file; None to remember only for as long as the process lives.

    Raises:
        DataError: When a line of the file is damaged; the last one may be torn.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._kept: dict[str, Reading] = {}
        if path is not None and path.is_file():
            whole = path.read_text(encoding="utf-8").split("\n")
            for number, line in enumerate(whole[:-1], start=1):
                try:
                    values = json.loads(line)
                    lines = tuple(Line(**one) for one in values["lines"])
                    self._kept[values["key"]] = Reading(lines=lines, seconds=values["seconds"])
                except (ValueError, KeyError, TypeError) as error:
                    raise DataError(
                        f"{path}, line {number}, is damaged ({error!r}). Remove that line."
                    ) from error

    def get(self, key: str) -> Reading | None:
        """What is kept under a key."""
        return self._kept.get(key)

    def keep(self, key: str, reading: Reading) -> None:
        """Keep what was read, in the file as well."""
        self._kept[key] = reading
        if self._path is None:
            return
        values = {"key": key, **asdict(reading)}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values, ensure_ascii=False) + "\n")


class Reader:
    """Answers questions about receipts: ``(images, questions, option) -> answers``.

    Args:
        engine: Reads all text in an image.
        readings: What was read before.
    """

    def __init__(self, engine: Engine, readings: Readings) -> None:
        self.engine = engine
        self.readings = readings

    def __call__(
        self, images: Sequence[Image.Image], questions: Sequence[str], option: str
    ) -> list[Answer]:
        """Find in each image, shrunk to the option's longest side, what is asked for."""
        side = int(option)
        distinct = {id(image): image for image in images}
        read = {name: self.read(image, side) for name, image in distinct.items()}
        return [
            _answer(read[id(image)], field_of(question), shown_size(image.size, side))
            for image, question in zip(images, questions, strict=True)
        ]

    def read(self, image: Image.Image, side: int) -> Reading:
        """All text in an image whose longest side is at most so many pixels."""
        size = shown_size(image.size, side)
        key = hashlib.sha256(image.tobytes() + repr((image.size, size)).encode()).hexdigest()
        known = self.readings.get(key)
        if known is not None:
            return known
        began = time.process_time()
        shown = image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)
        lines = tuple(self.engine(np.asarray(shown)))
        reading = Reading(lines=lines, seconds=time.process_time() - began)
        self.readings.keep(key, reading)
        return reading


def _answer(reading: Reading, field: str, size: tuple[int, int]) -> Answer:
    found = FIELDS[field](rows_of(reading.lines))
    usage = Usage(pixels=size[0] * size[1], seconds=reading.seconds, attempts=1)
    return Answer(text=found.text, usage=usage, confidence=found.confidence, logprob=found.logprob)


def field_of(question: str) -> str:
    """The field that a question asks for.

    Raises:
        MismatchError: When it is none of :data:`QUESTIONS`.
    """
    if question not in _FIELD_OF:
        raise MismatchError(
            f"this reader knows {len(QUESTIONS)} questions, and {question!r} is none of them: "
            f"{', '.join(map(repr, QUESTIONS.values()))}"
        )
    return _FIELD_OF[question]


def shown_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Width and height at which an image is read.

    >>> shown_size((800, 1600), 480), shown_size((300, 200), 480)
    ((240, 480), (300, 200))
    """
    width, height = size
    share = min(1.0, side / max(size))
    return max(1, round(width * share)), max(1, round(height * share))


def megapixels(image: Image.Image, option: str) -> float:
    """What an answer costs: pixels that are read, in millions."""
    width, height = shown_size(image.size, int(option))
    return width * height / 1e6


def ocr_reader(
    engine: Engine | None = None, *, readings: Path | None = None, sides: Sequence[int] = SIDES
) -> FunctionModel:
    """The reader as a model; without arguments, what ``--model`` takes.

    Args:
        engine: What reads text; RapidOCR by default.
        readings: File in which what was read is kept; by default what :data:`READINGS` names.
        sides: Longest sides, smallest first.
    """
    named = os.environ.get(READINGS)
    if readings is None and named:
        readings = Path(named)
    return FunctionModel(
        Reader(engine or RapidEngine(), Readings(readings)),
        options=[str(side) for side in sides],
        costs=megapixels,
        cost_unit="megapixels",
        name="OCR reader",
        revision=_revision(),
    )


def _revision() -> str:
    """Hash of the rules and of this file, which names the engine's version and settings."""
    folder = Path(__file__).parent
    files: Mapping[str, bytes] = {
        name: (folder / name).read_bytes() for name in ("reader.py", "rules.py")
    }
    return hashlib.sha256(b"\0".join(files.values())).hexdigest()

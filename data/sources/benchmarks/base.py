"""What a benchmark is, what its rows become, and how prompts and choices are written.

Column names and prompts are those of lmms-eval's task files (``lmms_eval/tasks/<task>/``, the
default prompts, which are LLaVA-1.5's), and for three video benchmarks those of IG-VLM's sheets
(``imagegridworth/IG-VLM``, ``data/``).

A field may be missing: null, NaN or empty. No word, such as ``None``, means that it is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]

SHORT = "\nAnswer the question using a single word or phrase."
ONE_WORD = "\nAnswer the question with a single word."
LETTER = "\nAnswer with the option's letter from the given choices directly."
UNANSWERABLE = "\nWhen the provided information is insufficient, respond with 'Unanswerable'."
UNSAID = 1024
"""Longest answer where a task file names none: what lmms-eval's LLaVA models then take
(``models/simple/llava.py``, ``generate_until``)."""
FORMER = "lmms-lab"
"""Who had the datasets on the hub before July 2026."""


@dataclass(frozen=True, kw_only=True)
class RawExample:
    """What a row holds, before its image is a file.

    Attributes:
        question: The whole prompt: question, choices and the benchmark's instruction.
        answers: The reference answers; letters where the metric compares letters.
        id: The dataset's own, empty where it has none.
        choices: Texts of the choices, first one ``A``; None where a letter is not used.
        category: What the benchmark reports by, or empty.
        image: The dataset's image: a mapping with ``bytes``.
        image_id: Of an image that is kept apart from the questions.
        video: Name of a video file without its ending.
        left_out: Why the row cannot be used, or empty.
        context: What a judge is told of the image, or empty.
    """

    question: str
    answers: tuple[str, ...]
    id: str = ""
    choices: tuple[str | None, ...] = ()
    category: str = ""
    image: Any = None
    image_id: str = ""
    video: str = ""
    left_out: str = ""
    context: str = ""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Where a benchmark is and how its rows become examples.

    Attributes:
        title: Its published name.
        hub: Its dataset on the Hugging Face hub; empty where there is none.
        split: The part that is evaluated.
        columns: What a row must have.
        read: Turns a row into a question.
        metric: One of :func:`m3router.data.scoring.metrics.metric_names`.
        max_new_tokens: Tokens of the longest answer.
        config: The dataset's configuration; empty for its only one.
        images: The configuration that holds the images, where they are apart.
        video: Whether rows name videos, whose files the user has.
        sheet: Where a benchmark that is not on the hub can be downloaded.
        judge: The protocol by which published numbers are judged, a key of
            :data:`m3router.m3core.judging.protocols.table.PROTOCOLS`; empty for none.
        note: What differs from the published evaluation; empty for nothing.
    """

    title: str
    split: str
    columns: tuple[str, ...]
    read: Callable[[Row], RawExample]
    metric: str
    max_new_tokens: int
    hub: str = ""
    config: str = ""
    images: str = ""
    video: bool = False
    sheet: str = ""
    judge: str = ""
    note: str = ""

    @property
    def homes(self) -> tuple[str, ...]:
        """Where its dataset is and was on the hub, in the order they are tried."""
        return (self.hub, f"{FORMER}/{self.hub.partition('/')[2]}") if self.hub else ()


def lettered(choices: Sequence[str | None]) -> str:
    r"""Write choices one a line, each behind its letter.

    >>> lettered(["cat", None, "dog"])
    'A. cat\nC. dog'
    """
    named = enumerate(choices)
    return "\n".join(f"{letter(place)}. {text}" for place, text in named if text is not None)


def letter(number: int | str) -> str:
    """The letter of an option counted from 0."""
    return chr(ord("A") + int(number))


def placed(values: Iterable[Any]) -> tuple[str | None, ...]:
    """Texts of choices at their places: None where there is none, so that letters do not move.

    >>> placed(["cat", None, "None", float("nan")])
    ('cat', None, 'None')
    """
    texts = [None if value is None or value != value else str(value) for value in values]
    while texts and texts[-1] is None:
        texts.pop()
    return tuple(texts)


def is_missing(value: Any) -> bool:
    """Whether a field is null, empty or NaN (which is not itself).

    >>> [is_missing(value) for value in (None, "", float("nan"), 0, "None", "nan")]
    [True, True, True, False, False, False]
    """
    return value is None or value == "" or value != value


def text_in(value: Any) -> str:
    """A field as text; empty where it is missing."""
    return "" if is_missing(value) else str(value)


def stripped(value: Any) -> str | None:
    """A field as text without outer white space; None where it is null or NaN."""
    return None if value is None or value != value else str(value).strip()

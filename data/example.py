"""One question about one image or video, and how its answers are scored."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import string
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from m3router.data.errors import DataError
from m3router.data.registry import unknown_name
from m3router.data.scoring.metrics import (
    AGREEMENT,
    Expects,
    chance_level,
    check_references,
    expects,
    in_place,
    load_metric,
    metric_names,
)
from m3router.data.scoring.multiple_choice import read_reference

MOST_TOKENS = 2**31 - 1
_BROKEN = "holds half of a surrogate pair, which is not a character"


@dataclass(frozen=True, kw_only=True)
class Example:
    """A question about an image or video, with its reference answers.

    Attributes:
        id: Unique within a set of examples.
        image: Path of the image or video, relative to the images folder; see
            :mod:`m3router.data.videos` for how a video is shown to a model.
        question: What is asked, without any prompt template.
        answers: Reference answers, at least one; ten for ``vqa``, where some may be empty; none
            for ``agreement``.
        choices: The options of a multiple-choice question, first one ``A``; else empty. None
            before the last one is a letter that the question does not use.
        metric: One of :func:`m3router.data.scoring.metrics.metric_names`.
        dataset: Where the example is from; results are also given per dataset.
        group: Examples that share an image share a group; ``""`` becomes ``image``, in composed
            letters (Unicode's NFC).
        chance: P(a blind guess scores 1), in [0, 1); None to derive it from the metric, see
            :func:`m3router.data.scoring.metrics.chance_level`.
        max_new_tokens: Tokens of the longest answer, at least 1; None for the model's own limit.
        context: What a judge is told of the image, such as its caption, where the metric asks for
            it; never shown to the model that answers.

    Raises:
        DataError: A field is empty, of another type, or out of range; the message names the id.
    """

    id: str
    image: str
    question: str
    answers: tuple[str, ...]
    choices: tuple[str | None, ...] = ()
    metric: str = "exact"
    dataset: str = "default"
    group: str = ""
    chance: float | None = None
    max_new_tokens: int | None = None
    context: str = ""

    def __post_init__(self) -> None:
        """Check every field; sequences become tuples, an empty group becomes the image."""
        for name in ("answers", "choices"):
            value = getattr(self, name)
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
        problems = _problems(self)
        if problems:
            raise DataError(f"Example {self.id!r}: {'; '.join(problems)}.")
        if not self.group:
            # Both spellings of a name are one file, and must not fall on two sides of a split.
            object.__setattr__(self, "group", unicodedata.normalize("NFC", self.image))

    def score(self, answer: str) -> float:
        """Score an answer to this example by its metric, in [0, 1]."""
        return load_metric(self.metric)(answer, self.answers, in_place(self.choices))

    @property
    def chance_level(self) -> float:
        """P(a blind guess scores 1), in [0, 1): its own ``chance``, else as the metric has it."""
        if self.chance is not None:
            return float(self.chance)
        return chance_level(self.metric, self.choices)

    def to_dict(self) -> dict[str, Any]:
        """Give the example as JSON values; the inverse of :meth:`from_dict`."""
        values = dataclasses.asdict(self)
        # Examples without them keep the hash that they had before the fields were there.
        if self.max_new_tokens is None:
            del values["max_new_tokens"]
        if not self.context:
            del values["context"]
        return {**values, "answers": list(self.answers), "choices": list(self.choices)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Example:
        """Build an example from JSON values.

        Raises:
            DataError: A field is missing, unknown or bad; the message names the id.
        """
        fields = dataclasses.fields(cls)
        known = {field.name for field in fields}
        label = f"Example {values.get('id', '(no id)')!r}"
        for name in values:
            if name not in known:
                raise DataError(f"{label}: {unknown_name('field', name, known)}")
        required = [f.name for f in fields if f.default is dataclasses.MISSING]
        missing = [name for name in required if name not in values]
        if missing:
            raise DataError(f"{label}: missing {', '.join(missing)}.")
        return cls(**values)


def fingerprint(examples: Iterable[Example]) -> str:
    """Hash a sequence of examples: every field of each, in order.

    Args:
        examples: The examples.

    Returns:
        SHA-256, 64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps(example.to_dict(), sort_keys=True).encode("utf-8") + b"\n")
    return digest.hexdigest()


def _problems(example: Example) -> list[str]:
    """List everything that is wrong with an example, in words."""
    problems = []
    for name in ("id", "image", "question", "metric", "dataset"):
        value = getattr(example, name)
        if not isinstance(value, str):
            problems.append(f"{name} must be text, got {type(value).__name__}")
        elif not value.strip():
            problems.append(f"{name} is empty")
        elif not _is_unicode(value):
            problems.append(f"{name} {_BROKEN}: {value!r}")
    for name in ("group", "context"):
        value = getattr(example, name)
        if not isinstance(value, str):
            problems.append(f"{name} must be text, got {type(value).__name__}")
        elif not _is_unicode(value):
            problems.append(f"{name} {_BROKEN}: {value!r}")
    known = isinstance(example.metric, str) and example.metric in metric_names()
    people = known and expects(example.metric) is Expects.SEVERAL_PEOPLE
    problems += _text_problems("answers", example.answers, some_empty=people)
    problems += _text_problems("choices", _used(example.choices))
    if example.metric == AGREEMENT:
        if example.answers:
            problems.append(
                f"metric {AGREEMENT!r} is for questions without reference answers, got some: name "
                "the metric that compares with them, such as 'exact'"
            )
    elif not example.answers:
        problems.append("answers is empty: at least one reference answer is needed")
    if isinstance(example.metric, str) and not known:
        problems.append(unknown_name("metric", example.metric, metric_names()).rstrip("."))
    problems += _chance_problems(example.chance)
    problems += length_problems(example.max_new_tokens)
    if not problems:
        choices = in_place(example.choices)
        problems += check_references(example.metric, example.answers, choices)
        problems += _unused_letters(example)
    return problems


def _used(choices: object) -> object:
    """The choices that there are, without letters that are not used; the last one is used."""
    if not isinstance(choices, tuple):
        return choices
    return tuple(text for text in choices[:-1] if text is not None) + choices[-1:]


def _unused_letters(example: Example) -> list[str]:
    """Refuse a letter as right answer that the choices leave out, however it is written."""
    unused = {place for place, text in enumerate(example.choices) if text is None}
    letters = {string.ascii_uppercase[place] for place in unused if place < 26}
    read = set(example.answers) & letters
    if example.metric == "choice":
        choices = in_place(example.choices)
        read |= {one for one in example.answers if read_reference(one, choices) in unused}
    return [f"answer {one!r} is a letter without a choice" for one in sorted(read)]


def _text_problems(name: str, values: object, *, some_empty: bool = False) -> list[str]:
    """Check that a field is a tuple of non-blank texts, or that one at least is not blank."""
    if not isinstance(values, tuple):
        return [f"{name} must be a list of texts, got {type(values).__name__}"]
    for value in values:
        if not isinstance(value, str):
            return [f"{name} must hold texts, got {type(value).__name__} {value!r}"]
        if not _is_unicode(value):
            return [f"{name} {_BROKEN}: {value!r}"]
    blank = [not value.strip() for value in values]
    if all(blank) if some_empty and values else any(blank):
        return [f"{name} holds {'nothing but empty texts' if some_empty else 'an empty text'}"]
    return []


def _is_unicode(text: str) -> bool:
    """Whether a text can be written: JSON can spell half of a surrogate pair, UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def length_problems(length: Any) -> list[str]:
    """Check that a longest answer is None or a whole number of at least 1."""
    whole = isinstance(length, int) and not isinstance(length, bool)
    if length is None or (whole and 0 < length <= MOST_TOKENS):
        return []
    return [f"max_new_tokens must be a whole number from 1 to {MOST_TOKENS}, got {length!r}"]


def _chance_problems(chance: object) -> list[str]:
    """Check that a chance level is None or a number in [0, 1)."""
    if chance is None:
        return []
    if isinstance(chance, bool) or not isinstance(chance, int | float):
        return [f"chance must be a number, got {type(chance).__name__}"]
    if not 0 <= chance < 1:
        return [f"chance must be in [0, 1), got {chance}"]
    return []

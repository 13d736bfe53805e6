"""Score an answer in [0, 1] as the benchmark of its metric does.

Every metric takes the model's answer, the reference answers and the choices. Outer blanks never
count, and composed and decomposed letters are the same, in all of them (see
:mod:`m3router.data.texts`). Where a benchmark is odd, its oddity is kept: numbers must be
comparable with published ones. What deviates on purpose is marked ``NOTE:``.

A new metric is one function and one line in :data:`METRICS`.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import cast

from m3router.data.errors import DataError
from m3router.data.registry import load, unknown_name
from m3router.data.scoring.multiple_choice import read_reference
from m3router.data.texts import Metric, clean

AGREEMENT = "agreement"
"""Metric of questions without reference answers: compared with what the finest scale says."""

JUDGED = "judge:"
"""What metrics begin with that a language model computes; the rest is the name of a protocol, see
:mod:`m3router.m3core.judging.protocols`."""

_UNUSED = "\ue000"
"""A character of no script."""


class Expects(Enum):
    """What the reference answers of a metric must be.

    Attributes:
        TEXTS: Any texts.
        SEVERAL_PEOPLE: The answers of several people, some of which may be empty.
        YES_OR_NO: ``yes`` or ``no``.
        LETTERS: Capitals, each that of a choice.
        LETTERS_OR_TEXTS: The same where there are choices, else any texts.
        CHOICES: Letters or texts of choices.
    """

    TEXTS = "texts"
    SEVERAL_PEOPLE = "several people"
    YES_OR_NO = "yes or no"
    LETTERS = "letters"
    LETTERS_OR_TEXTS = "letters or texts"
    CHOICES = "choices"


@dataclass(frozen=True)
class MetricEntry:
    """A line of the table of metrics.

    Attributes:
        function: What scores, as ``module:name``; see :class:`m3router.data.texts.Metric`.
        expects: What the reference answers must be.
    """

    function: str
    expects: Expects = Expects.TEXTS


METRICS = {
    "exact": MetricEntry("m3router.data.scoring.general:score_exact"),
    AGREEMENT: MetricEntry("m3router.data.scoring.general:score_agreement"),
    "choice": MetricEntry("m3router.data.scoring.multiple_choice:score_choice", Expects.CHOICES),
    "yes_no": MetricEntry("m3router.data.scoring.general:score_yes_no", Expects.YES_OR_NO),
    "vqa": MetricEntry("m3router.data.scoring.vqa:score_vqa", Expects.SEVERAL_PEOPLE),
    "anls": MetricEntry("m3router.data.scoring.anls:score_anls"),
    "relaxed": MetricEntry("m3router.data.scoring.general:score_relaxed"),
    "vqav2": MetricEntry("m3router.data.scoring.vqa:score_vqa", Expects.SEVERAL_PEOPLE),
    "textvqa": MetricEntry("m3router.data.scoring.vqa:score_textvqa", Expects.SEVERAL_PEOPLE),
    "gqa": MetricEntry("m3router.data.scoring.benchmark_rules:score_gqa"),
    "ai2d": MetricEntry("m3router.data.scoring.benchmark_rules:score_ai2d", Expects.LETTERS),
    "pope": MetricEntry("m3router.data.scoring.benchmark_rules:score_pope", Expects.YES_OR_NO),
    "mme": MetricEntry("m3router.data.scoring.benchmark_rules:score_mme", Expects.YES_OR_NO),
    "seedbench": MetricEntry(
        "m3router.data.scoring.benchmark_rules:score_seedbench", Expects.LETTERS
    ),
    "scienceqa": MetricEntry(
        "m3router.data.scoring.benchmark_rules:score_scienceqa", Expects.LETTERS
    ),
    "mmbench": MetricEntry("m3router.data.scoring.benchmark_rules:score_mmbench", Expects.LETTERS),
    "mmmu": MetricEntry(
        "m3router.data.scoring.letter_parsing:score_mmmu", Expects.LETTERS_OR_TEXTS
    ),
    "nextqa": MetricEntry("m3router.data.scoring.letter_parsing:score_nextqa", Expects.LETTERS),
    "egoschema": MetricEntry(
        "m3router.data.scoring.letter_parsing:score_egoschema", Expects.LETTERS
    ),
}
JUDGED_METRICS = tuple(f"{JUDGED}{name}" for name in ("mm-vet", "llava-bench", "video-qa"))
"""Metrics that no rule of :data:`METRICS` computes but a judge."""
_JUDGED_ENTRY = MetricEntry("m3router.data.scoring.judged:refuse_to_score")


def metric_names() -> tuple[str, ...]:
    """What the metric of an example may be."""
    return (*METRICS, *JUDGED_METRICS)


def is_judged(name: str) -> bool:
    """Whether answers are scored by a judge, after all of them are there."""
    return name.startswith(JUDGED)


def load_metric(name: str) -> Metric:
    """Give the function of a metric.

    Args:
        name: One of :func:`metric_names`.

    Raises:
        DataError: There is no such metric; the message suggests one.
    """
    return cast("Metric", load(_entry(name).function))


def expects(name: str) -> Expects:
    """Say what the reference answers of a metric must be.

    Raises:
        DataError: There is no such metric; the message suggests one.
    """
    return _entry(name).expects


def in_place(choices: Sequence[str | None]) -> list[str]:
    """Texts of choices for a metric; a letter that is not used gets one that no answer holds."""
    return [_UNUSED if text is None else text for text in choices]


def chance_level(name: str, choices: Sequence[str | None]) -> float:
    """Give the probability that a blind guess scores 1.

    Args:
        name: One of :func:`metric_names`.
        choices: Those of the question; None for a letter that is not used.

    Returns:
        A probability in [0, 1): 1/n for n choices, 1/2 for yes/no, else 0.
    """
    if expects(name) is Expects.YES_OR_NO:
        return 0.5
    used = sum(text is not None for text in choices)
    return 1 / used if used > 1 else 0.0


def check_references(name: str, answers: Sequence[str], choices: Sequence[str]) -> list[str]:
    """List, in words, why no answer could ever be scored right.

    Args:
        name: One of :func:`metric_names`.
        answers: The reference answers.
        choices: The choices.

    Returns:
        The problems; empty when there are none.
    """
    answers, choices = [clean(text) for text in answers], [clean(text) for text in choices]
    kind, what = expects(name), "texts"
    bad: list[str] = []
    if kind is Expects.SEVERAL_PEOPLE and len(answers) < 2:
        return [
            f"metric {name!r} compares with the answers of several people (usually 10), got "
            f"{len(answers)}: every answer would score 0. Use 'exact'"
        ]
    if kind is Expects.YES_OR_NO:
        score = load_metric(name)
        bad = [text for text in answers if not (score("yes", [text]) or score("no", [text]))]
        return [f"metric {name!r} needs the answer 'yes' or 'no', got {bad[0]!r}"] if bad else []
    if kind is Expects.LETTERS or (kind is Expects.LETTERS_OR_TEXTS and choices):
        letters = string.ascii_uppercase[: len(choices) or None]
        bad = [text for text in answers if len(text) != 1 or text not in letters]
        what = f"a capital from A to {letters[-1]}"
    if kind is Expects.CHOICES:
        bad = [text for text in answers if read_reference(text, choices) is None]
        there = [text for text in choices if text != _UNUSED]
        what = f"a letter or one of {there}" if choices else "a letter"
    return [f"metric {name!r} needs {what} as answer, got {bad[0]!r}"] if bad else []


def _entry(name: str) -> MetricEntry:
    if name in JUDGED_METRICS:
        return _JUDGED_ENTRY
    if name not in METRICS:
        raise DataError(unknown_name("metric", name, metric_names()))
    return METRICS[name]

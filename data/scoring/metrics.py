"""Score an answer in [0, 1] as the benchmark of its metric does.

Every function of :data:`METRICS` takes the model's answer, the reference answers and the choices.
Outer blanks never count, and composed and decomposed letters are the same, in all of them (see
:mod:`data.texts`). Where a benchmark is odd, its oddity is kept: numbers must be comparable with
published ones. What deviates on purpose is marked ``NOTE:``. The general metrics are here; rules
of single benchmarks are in :mod:`data.scoring.anls`, :mod:`data.scoring.benchmark_rules` and
:mod:`data.scoring.letter_parsing`.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import TYPE_CHECKING

from data.errors import DataError
from data.registry import unknown_name
from data.scoring.anls import score_anls
from data.scoring.benchmark_rules import (
    score_ai2d,
    score_gqa,
    score_mmbench,
    score_mme,
    score_pope,
    score_scienceqa,
    score_seedbench,
    score_textvqa,
)
from data.scoring.letter_parsing import score_egoschema, score_mmmu, score_nextqa
from data.scoring.multiple_choice import read_choice, read_reference
from data.scoring.vqa import normalize as normalize_vqa
from data.texts import Metric, clean, on_clean_texts, plain

if TYPE_CHECKING:
    from data.example import Example

RELAXED_TOLERANCE = 0.05

AGREEMENT = "agreement"
"""Metric of questions without reference answers: compared with what the finest scale says."""
BY_PEOPLE = frozenset({"vqa", "vqav2", "textvqa"})
"""Metrics that compare with the answers of several people, some of which may be empty."""
YES_NO = frozenset({"yes_no", "pope", "mme"})
"""Metrics of questions to be answered by yes or no."""
_LETTERED = frozenset({"ai2d", "seedbench", "scienceqa", "mmbench", "nextqa", "egoschema"})

_UNUSED = "\ue000"
"""A character of no script."""


def score(metric: str, answer: str, example: Example) -> float:
    """Score an answer to an example.

    Args:
        metric: A key of :data:`METRICS`.
        answer: What the model said.
        example: Holds the reference answers and the choices.

    Returns:
        The score, in [0, 1].

    Raises:
        DataError: There is no such metric.
    """
    if metric not in METRICS:
        raise DataError(unknown_name("metric", metric, METRICS))
    return METRICS[metric](answer, example.answers, in_place(example.choices))


def in_place(choices: Sequence[str | None]) -> list[str]:
    """Texts of choices for a metric; a letter that is not used gets one that no answer holds."""
    return [_UNUSED if text is None else text for text in choices]


def chance_level(example: Example) -> float:
    """Give the probability that a blind guess scores 1.

    Args:
        example: Its own ``chance`` counts if it has one.

    Returns:
        A probability in [0, 1): 1/n for n choices, 1/2 for yes/no, else 0.
    """
    if example.chance is not None:
        return float(example.chance)
    if example.metric in YES_NO:
        return 0.5
    used = sum(text is not None for text in example.choices)
    return 1 / used if used > 1 else 0.0


def check_references(metric: str, answers: Sequence[str], choices: Sequence[str]) -> list[str]:
    """List, in words, why no answer could ever be scored right.

    Args:
        metric: A key of :data:`METRICS`.
        answers: The reference answers.
        choices: The choices.

    Returns:
        The problems; empty when there are none.
    """
    answers, choices = [clean(text) for text in answers], [clean(text) for text in choices]
    if metric in BY_PEOPLE and len(answers) < 2:
        return [
            f"metric {metric!r} compares with the answers of several people (usually 10), got "
            f"{len(answers)}: every answer would score 0. Use 'exact'"
        ]
    if metric in YES_NO:
        read = _bare_yes_no if metric == "yes_no" else _bare_case
        bad = [text for text in answers if read(text) not in ("yes", "no")]
        return [f"metric {metric!r} needs the answer 'yes' or 'no', got {bad[0]!r}"] if bad else []
    if metric in _LETTERED or (metric == "mmmu" and choices):
        letters = string.ascii_uppercase[: len(choices) or None]
        bad = [text for text in answers if len(text) != 1 or text not in letters]
        what = f"a capital from A to {letters[-1]}"
        return [f"metric {metric!r} needs {what} as answer, got {bad[0]!r}"] if bad else []
    if metric == "choice":
        bad = [text for text in answers if read_reference(text, choices) is None]
        there = [text for text in choices if text != _UNUSED]
        what = f"a letter or one of {there}" if choices else "a letter"
        return [f"metric 'choice' needs {what} as answer, got {bad[0]!r}"] if bad else []
    return []


@on_clean_texts
def score_exact(answer: str, answers: Sequence[str], choices: Sequence[str] = ()) -> float:
    """Compare texts, ignoring case, widths, outer and repeated white space and a final full stop.

    GQA as LLaVA prepares it: ``scripts/convert_gqa_for_eval.py``, ``rstrip('.').lower()``.
    NOTE: white space is ignored too, on both sides, and case is folded, so that ``Straße`` equals
    ``STRASSE``; see :func:`data.texts.plain`.

    Args:
        answer: What the model said.
        answers: Reference answers; one match is enough.
        choices: Not used.

    Returns:
        1.0 or 0.0.
    """
    return float(plain(answer) in {plain(text) for text in answers})


@on_clean_texts
def score_choice(answer: str, answers: Sequence[str], choices: Sequence[str] = ()) -> float:
    r"""Compare the chosen option of a multiple-choice question.

    No benchmark's rule: it reads what people would, by letter (``B``, ``**B**``, ``[b]``,
    ``\boxed{B}``, ``B: dog``, ``The answer is B.``, ``B`` before or behind an explanation) or by
    the option's text; see :func:`data.scoring.multiple_choice.read_choice`. An answer that names
    two options, or one that does not exist, is wrong.

    Args:
        answer: What the model said.
        answers: Letters or texts of right choices.
        choices: The choices' texts, first one ``A``; may be empty when letters are used.

    Returns:
        1.0 or 0.0.
    """
    right = {read_reference(text, choices) for text in answers} - {None}
    return float(read_choice(answer, choices) in right)


@on_clean_texts
def score_yes_no(answer: str, answers: Sequence[str], choices: Sequence[str] = ()) -> float:
    """Compare yes and no.

    MME in lmms-eval: ``tasks/mme/utils.py``, ``parse_pred_ans`` (from Otter). A longer answer is
    read by its first four characters, so ``Not sure`` and ``Know`` count as ``no``.

    Args:
        answer: What the model said.
        answers: ``yes`` or ``no``; case and full stops do not matter.
        choices: Not used.

    Returns:
        1.0 or 0.0; an answer that is neither scores 0.
    """
    return float(_read_yes_no(answer) in {_bare_yes_no(text) for text in answers})


@on_clean_texts
def score_vqa(answer: str, answers: Sequence[str], choices: Sequence[str] = ()) -> float:
    """Give the VQA soft accuracy: the mean over annotators of min(1, matches among others / 3).

    VQA v2's own script: ``PythonEvaluationTools/vqaEvaluation/vqaEval.py``, ``evaluate``
    (github.com/GT-Vision-Lab/VQA, master). Its oddity, on purpose by its authors (issue 14
    there, December 2022): when all annotators gave the same text, *nothing* is normalised, not even
    case, so ``Black.`` scores 0 against ten times ``black``. lmms-eval normalises there too since
    August 2025 (its pull request 794), and gives 1.

    Args:
        answer: What the model said.
        answers: One answer per annotator, usually ten.
        choices: Not used.

    Returns:
        A score in [0, 1].
    """
    said = _one_line(answer)
    references = [_one_line(text) for text in answers]
    if len(set(references)) > 1:
        said = normalize_vqa(said)
        references = [normalize_vqa(text) for text in references]
    matches = [reference == said for reference in references]
    total = sum(matches)
    return sum(min(1.0, (total - match) / 3) for match in matches) / len(matches)


@on_clean_texts
def score_relaxed(answer: str, answers: Sequence[str], choices: Sequence[str] = ()) -> float:
    """Compare numbers within 5 %, anything else exactly but for case.

    ChartQA (Masry et al., ACL Findings 2022, section 5.1) as in pix2struct ``metrics.py`` and
    lmms-eval ``tasks/chartqa/utils.py``, ``relaxed_correctness``. Odd: a target of zero is
    compared as text, ``%`` divides by 100, and thousands separators are not read.

    Args:
        answer: What the model said.
        answers: Reference answers; one match is enough.
        choices: Not used.

    Returns:
        1.0 or 0.0.
    """
    return float(any(_relaxed_match(text, answer) for text in answers))


@on_clean_texts
def score_agreement(answer: str, answers: Sequence[str], choices: Sequence[str] = ()) -> float:
    """Compare texts character by character, but for outer blanks and composition.

    What says the very same scores the same under every metric, so that this never hides a
    difference that another metric would see.

    Args:
        answer: What the model said.
        answers: What the finest scale said; none before that is known.
        choices: Not used.

    Returns:
        1.0 or 0.0.
    """
    return float(answer in answers)


METRICS: dict[str, Metric] = {
    "exact": score_exact,
    AGREEMENT: score_agreement,
    "choice": score_choice,
    "yes_no": score_yes_no,
    "vqa": score_vqa,
    "anls": score_anls,
    "relaxed": score_relaxed,
    "vqav2": score_vqa,
    "textvqa": score_textvqa,
    "gqa": score_gqa,
    "ai2d": score_ai2d,
    "pope": score_pope,
    "mme": score_mme,
    "seedbench": score_seedbench,
    "scienceqa": score_scienceqa,
    "mmbench": score_mmbench,
    "mmmu": score_mmmu,
    "nextqa": score_nextqa,
    "egoschema": score_egoschema,
}


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _bare_yes_no(text: str) -> str:
    return text.lower().strip().replace(".", "")


def _bare_case(text: str) -> str:
    return text.lower().strip()


def _read_yes_no(text: str) -> str:
    """Read yes or no, or "other"."""
    bare = _bare_yes_no(text)
    if len(bare) == 1:
        return {"y": "yes", "n": "no"}.get(bare, "other")
    start = bare[:4]
    return next((word for word in ("yes", "no") if word in start), "other")


def _relaxed_match(target: str, answer: str) -> bool:
    said, wanted = _to_float(answer), _to_float(target)
    if said is None or not wanted:
        return answer.lower() == target.lower()
    return abs(said - wanted) / abs(wanted) <= RELAXED_TOLERANCE


def _to_float(text: str) -> float | None:
    try:
        if text.endswith("%"):
            return float(text.rstrip("%")) / 100.0
        return float(text)
    except ValueError:
        return None

"""Score an answer in [0, 1] as the benchmark of its metric does.

Every function of :data:`METRICS` takes the model's answer, the reference answers and the choices.
Where a benchmark is odd, its oddity is kept: numbers must be comparable with published ones. What
deviates on purpose is marked ``NOTE:``. The general metrics are here; rules of single benchmarks
are in :mod:`data.anls`, :mod:`data.benchmark_scoring` and :mod:`data.letter_parsing`.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from data.anls import score_anls
from data.benchmark_scoring import (
    score_ai2d,
    score_gqa,
    score_mmbench,
    score_pope,
    score_scienceqa,
    score_seedbench,
    score_textvqa,
    score_vqav2,
)
from data.errors import DataError
from data.letter_parsing import score_egoschema, score_mmmu
from data.registry import unknown_name
from data.vqa_text import normalize as normalize_vqa

if TYPE_CHECKING:
    from data.examples import Example

RELAXED_TOLERANCE = 0.05

AGREEMENT = "agreement"
"""Metric of questions without reference answers: compared with what the finest scale says."""
BY_PEOPLE = frozenset({"vqa", "vqav2", "textvqa"})
"""Metrics that compare with the answers of several people, some of which may be empty."""
_YES_NO = frozenset({"yes_no", "pope"})
_LETTERED = frozenset({"ai2d", "seedbench", "scienceqa", "mmbench", "egoschema"})

_UNUSED = "\ue000"
"""A character of no script."""

_CHOICE_LETTER = re.compile(
    r"(?:(?:the\s+)?(?:correct\s+)?(?:answer|option|choice)(?:\s+is)?\s*:?\s*)?"
    r"(?:\(([a-z])\)|([a-z])(?=[.):,]|\s*$))",
    re.IGNORECASE,
)


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
    if example.metric in _YES_NO:
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
    if metric in BY_PEOPLE and len(answers) < 2:
        return [
            f"metric {metric!r} compares with the answers of several people (usually 10), got "
            f"{len(answers)}: every answer would score 0. Use 'exact'"
        ]
    if metric in _YES_NO:
        read = _bare_yes_no if metric == "yes_no" else _bare_pope
        bad = [text for text in answers if read(text) not in ("yes", "no")]
        return [f"metric {metric!r} needs the answer 'yes' or 'no', got {bad[0]!r}"] if bad else []
    if metric in _LETTERED or (metric == "mmmu" and choices):
        letters = string.ascii_uppercase[: len(choices) or None]
        bad = [text for text in answers if len(text) != 1 or text not in letters]
        what = f"a capital from A to {letters[-1]}"
        return [f"metric {metric!r} needs {what} as answer, got {bad[0]!r}"] if bad else []
    if metric == "choice":
        bad = [text for text in answers if _choice_index(text, choices) is None]
        what = f"a letter or one of {list(choices)}" if choices else "a letter"
        return [f"metric 'choice' needs {what} as answer, got {bad[0]!r}"] if bad else []
    return []


def score_exact(answer: str, answers: Sequence[str], choices: Sequence[str] = ()) -> float:
    """Compare texts, ignoring case, outer and repeated white space and a final full stop.

    GQA as LLaVA prepares it: ``scripts/convert_gqa_for_eval.py``, ``rstrip('.').lower()``.
    NOTE: white space is ignored too, on both sides, and ``casefold`` is used, so that ``Straße``
    equals ``STRASSE``.

    Args:
        answer: What the model said.
        answers: Reference answers; one match is enough.
        choices: Not used.

    Returns:
        1.0 or 0.0.
    """
    return float(_plain(answer) in {_plain(text) for text in answers})


def score_choice(answer: str, answers: Sequence[str], choices: Sequence[str] = ()) -> float:
    """Compare the chosen option of a multiple-choice question.

    After ScienceQA in lmms-eval (``tasks/scienceqa/utils.py``: the bare letter, or letter and
    full stop first). NOTE: also reads ``(B)``, ``b)``, ``Answer: B``, ``The answer is B.`` and
    the text of a choice; a letter that is only the first of a word is no answer.

    Args:
        answer: What the model said.
        answers: Letters or texts of right choices.
        choices: The choices' texts, first one ``A``; may be empty when letters are used.

    Returns:
        1.0 or 0.0.
    """
    chosen = _choice_index(answer, choices)
    right = {_choice_index(text, choices) for text in answers} - {None}
    return float(chosen in right)


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


def score_vqa(answer: str, answers: Sequence[str], choices: Sequence[str] = ()) -> float:
    """Give the VQA soft accuracy: the mean over annotators of min(1, matches among others / 3).

    VQA v2: ``PythonEvaluationTools/vqaEvaluation/vqaEval.py``, ``evaluate`` (github.com/
    GT-Vision-Lab/VQA, master of 2018 and later). Its oddity, on purpose by its authors (issue 14
    there): when all annotators gave the same text, *nothing* is normalised, not even case, so
    ``Black.`` scores 0 against ten times ``black``.

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


def score_agreement(answer: str, answers: Sequence[str], choices: Sequence[str] = ()) -> float:
    """Compare texts character by character.

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


METRICS: dict[str, Callable[[str, Sequence[str], Sequence[str]], float]] = {
    "exact": score_exact,
    AGREEMENT: score_agreement,
    "choice": score_choice,
    "yes_no": score_yes_no,
    "vqa": score_vqa,
    "anls": score_anls,
    "relaxed": score_relaxed,
    "vqav2": score_vqav2,
    "textvqa": score_textvqa,
    "gqa": score_gqa,
    "ai2d": score_ai2d,
    "pope": score_pope,
    "seedbench": score_seedbench,
    "scienceqa": score_scienceqa,
    "mmbench": score_mmbench,
    "mmmu": score_mmmu,
    "egoschema": score_egoschema,
}


def _plain(text: str) -> str:
    return " ".join(text.split()).rstrip(".").rstrip().casefold()


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _choice_index(text: str, choices: Sequence[str]) -> int | None:
    """Find which choice a text names, 0 for ``A``; None if it names none."""
    plain = _plain(text)
    by_text = [index for index, choice in enumerate(choices) if _plain(choice) == plain]
    if by_text:
        return by_text[0]
    match = _CHOICE_LETTER.match(text.strip())
    if match is None:
        return None
    index = ord((match[1] or match[2]).upper()) - ord("A")
    return index if not choices or index < len(choices) else None


def _bare_yes_no(text: str) -> str:
    return text.lower().strip().replace(".", "")


def _bare_pope(text: str) -> str:
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

"""The score of a sample that lmms-eval logged: which field it is in, and in what form.

``process_results`` of a task gives its metrics per sample, each in the form its own aggregation
reads (``lmms_eval/tasks/<task>/utils.py``): a number (``exact_match`` of gqa, vqav2, textvqa),
``{"score": 1.0, ...}`` (pope, mme, ocrbench), ``{"pred": "A", "answer": "B", ...}`` (seedbench),
``{"pred": 1, "ground_truth": "1"}`` (egoschema), ``{"parsed_pred": [...], "answer": ...,
"question_type": ...}`` (mmmu), or ``{"prediction": ..., "answer": "A", "A": ..., "B": ...}``
(mmbench), which is scored here as labelling scores it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from data.benchmark_scoring import score_mmbench
from data.errors import DataError
from data.scoring import in_place
from data.sources.fields import placed

ALL_TASKS = "*"
STRUCTURE = frozenset(
    {
        "doc_id",
        "doc",
        "target",
        "arguments",
        "input",
        "resps",
        "filtered_resps",
        "doc_hash",
        "prompt_hash",
        "target_hash",
        "token_counts",
    }
)
"""Fields of every sample that are no metric (``lmms_eval/evaluator.py``, ``example``)."""

METRICS: dict[str, tuple[str, ...]] = {
    "ai2d": ("exact_match",),
    "chartqa": ("relaxed_overall",),
    "docvqa": ("anls",),
    "egoschema": ("score",),
    "gqa": ("exact_match",),
    "infovqa": ("anls",),
    "mme": ("mme_perception_score", "mme_percetion_score", "mme_cognition_score"),
    "mmbench": ("gpt_eval_score",),
    "mmmu": ("mmmu_acc",),
    "nextqa_mc": ("exact_match",),
    "ocrbench": ("ocrbench_accuracy",),
    "ok_vqa": ("exact_match",),
    "pope": ("pope_accuracy",),
    "scienceqa": ("exact_match",),
    "seedbench": ("seed_all",),
    "textvqa": ("exact_match",),
    "vizwiz_vqa": ("exact_match",),
    "vqav2": ("exact_match",),
}
"""Task, or the start of its name before an underscore -> fields that hold its score; the first
that a sample has counts. ``percetion`` is spelt as lmms-eval spells it."""


def metric_of(task: str, sample: Mapping[str, Any], chosen: Mapping[str, str]) -> str:
    """Find the field that holds the score of a sample.

    Args:
        task: The task's name.
        sample: One logged sample.
        chosen: Task, or ``"*"`` for all -> field, as the user asked; before :data:`METRICS`.

    Raises:
        DataError: The task is not known and nothing was chosen, or the sample lacks the field.
    """
    asked = chosen.get(task) or chosen.get(ALL_TASKS)
    known = [name for name in METRICS if task == name or task.startswith(f"{name}_")]
    fields = (asked,) if asked else METRICS[max(known, key=len)] if known else ()
    for name in fields:
        if name in sample:
            return name
    there = sorted(set(sample) - STRUCTURE)
    what = (
        f"The metric of the task {task!r} is not known"
        if not fields
        else f"A sample of the task {task!r} has no field {' or '.join(map(repr, fields))}"
    )
    raise DataError(
        f"{what}; its samples have {there}. Name the field that holds the score of a sample: "
        f"--metric {task}=FIELD."
    )


def score_of(value: Any) -> float | None:
    """Read a metric in any of the published forms.

    Args:
        value: What the metric's field holds.

    Returns:
        A score in [0, 1]; None where the log holds no score of this sample (a value that is
        missing or NaN, or an open question of mmmu, which only the aggregation scores).

    Raises:
        DataError: The form is not known, or the number is not in [0, 1]; the message says which.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, list) and len(value) == 1:
        return score_of(value[0])
    if isinstance(value, str) and value.strip() in ("0", "1"):  # a judge's verdict
        return float(value)
    if isinstance(value, bool | int | float):
        if not 0 <= value <= 1:
            raise DataError(f"the score {value!r} is not in [0, 1]")
        return float(value)
    if isinstance(value, Mapping):
        if "score" in value:
            return score_of(value["score"])
        if {"pred", "answer"} <= set(value):
            return float(_bare(value["pred"]) == _bare(value["answer"]))
        if {"pred", "ground_truth"} <= set(value):
            return float(str(value["pred"]) == str(value["ground_truth"]))
        if {"prediction", "answer", "A", "B"} <= set(value):
            return _mmbench(value)
        if {"parsed_pred", "answer", "question_type"} <= set(value):
            return _mmmu(value)
        raise DataError(f"no score can be read from the fields {sorted(value)}")
    raise DataError(f"no score can be read from {type(value).__name__} {str(value)[:60]!r}")


def _bare(text: object) -> str:
    """A letter as seedbench compares it: some of its versions ignore case."""
    return str(text).strip().lower()


def _mmbench(value: Mapping[str, Any]) -> float | None:
    """Score a question of mmbench by the option that is named; without an answer not at all."""
    if not _told(value["answer"]):
        return None
    texts = (value.get(letter) for letter in "ABCDE")
    choices = in_place(placed(text if _told(text) else None for text in texts))
    return score_mmbench(str(value["prediction"]), [value["answer"]], choices)


def _told(value: Any) -> bool:
    """Whether a field holds something: not None, NaN or its text."""
    return value not in (None, "", "nan") and value == value


def _mmmu(value: Mapping[str, Any]) -> float | None:
    """Score a multiple choice of mmmu: any parsed answer equals one of the right ones."""
    if value["question_type"] != "multiple-choice":
        return None
    right, given = value["answer"], value["parsed_pred"]
    answers = right if isinstance(right, list) else [right]
    return float(any(one in answers for one in (given if isinstance(given, list) else [given])))

"""Benchmarks whose questions are answered by the letter of a choice."""

from __future__ import annotations

import ast
import re
from typing import Any

from m3router.data.errors import DataError
from m3router.data.sources.benchmarks.base import (
    LETTER,
    SHORT,
    UNSAID,
    Benchmark,
    RawExample,
    Row,
    is_missing,
    letter,
    lettered,
    placed,
    text_in,
)

_SUBJECT = re.compile(r"^[^_]*_(.+?)_\d+$")
_MMMU_IMAGES = tuple(f"image_{number}" for number in range(1, 8))


def read_ai2d(row: Row) -> RawExample:
    """AI2D: ``answer`` is the number of an option, from 0."""
    choices = placed(row["options"])
    return RawExample(
        question=f"{row['question']}\n{lettered(choices)}{LETTER}",
        answers=(letter(row["answer"]),),
        choices=choices,
        image=row["image"],
    )


AI2D = Benchmark(  # tasks/ai2d/ai2d.yaml, utils.py
    title="AI2D",
    hub="lmms-lab-encoder/ai2d",
    split="test",
    columns=("question", "options", "answer", "image"),
    read=read_ai2d,
    metric="ai2d",
    max_new_tokens=16,
)


def read_scienceqa(row: Row) -> RawExample:
    """ScienceQA: a hint goes before the question."""
    choices = placed(row["choices"])
    context = f"Context: {row['hint']}\n" if row["hint"] else ""
    return RawExample(
        question=f"{context}{row['question']}\n{lettered(choices)}{LETTER}",
        answers=(letter(row["answer"]),),
        choices=choices,
        image=row["image"],
        left_out="" if row["image"] is not None else "has no image",
    )


SCIENCEQA = Benchmark(  # tasks/scienceqa/scienceqa_img.yaml, utils.py
    title="ScienceQA-IMG",
    hub="lmms-lab-encoder/ScienceQA",
    config="ScienceQA-IMG",
    split="test",
    columns=("image", "question", "choices", "answer", "hint"),
    read=read_scienceqa,
    metric="scienceqa",
    max_new_tokens=16,
)


def read_seedbench(row: Row) -> RawExample:
    """SEED-Bench: a list of images, several for the frames of a video."""
    choices = placed(row[f"choice_{name}"] for name in "abcd")
    images = row["image"]
    return RawExample(
        id=text_in(row["question_id"]),
        question=f"{row['question']}\n{lettered(choices)}{LETTER}",
        answers=(row["answer"],),
        choices=choices,
        category=text_in(row["data_type"]),
        image=images[0] if len(images) == 1 else None,
        left_out="" if len(images) == 1 else "has several images",
    )


SEEDBENCH = Benchmark(  # tasks/seedbench/seedbench.yaml, utils.py
    title="SEED-Bench",
    hub="lmms-lab-encoder/SEED-Bench",
    split="test",
    columns=("question_id", "question", "answer", "data_type", "image")
    + tuple(f"choice_{name}" for name in "abcd"),
    read=read_seedbench,
    metric="seedbench",
    max_new_tokens=UNSAID,
    note="questions with one image only; those about frames of videos are left out",
)


def read_mmbench(row: Row) -> RawExample:
    """MMBench: options in columns of their own.

    Where there is none, the dataset has null or the text ``nan`` (a missing value of pandas that
    was written as text), as lmms-eval reads it: ``tasks/mmbench/mmbench_evals.py``,
    ``create_options_prompt``. The word ``None`` is an option like others.
    """
    choices = placed(row.get(name) if _told(row.get(name)) else None for name in "ABCDE")
    hint = f"{row['hint']} " if _told(row["hint"]) else ""
    options = f"There are several options:\n{lettered(choices)}"
    return RawExample(
        id=text_in(row["index"]),
        question=f"{hint}{row['question']} {options}\n{LETTER}",
        answers=(row["answer"],) if _told(row["answer"]) else (),
        choices=choices,
        category=text_in(row["category"]),
        image=row["image"],
    )


MMBENCH = Benchmark(  # tasks/mmbench/mmbench_en_dev.yaml, en_utils.py
    title="MMBench (English)",
    hub="lmms-lab-encoder/MMBench",
    config="en",
    split="dev",
    columns=("index", "question", "hint", "answer", *"ABCD", "category", "image"),
    read=read_mmbench,
    metric="mmbench",
    max_new_tokens=1024,
    note="no GPT where no option is named; rows are scored one by one, without CircularEval",
)


def read_mmmu(row: Row) -> RawExample:
    """MMMU: options and several references are written as Python lists.

    NOTE: lmms-eval compares with such a list of references as one text; here, as in MMMU's own
    evaluation, one of them is enough.
    """
    images = [row[name] for name in _MMMU_IMAGES if row.get(name) is not None]
    subject = _SUBJECT.match(row["id"])
    if row["question_type"] == "multiple-choice":
        choices = _python_list(row["options"], row["id"])
        question = f"{row['question']}\n{lettered(choices)}\n{LETTER}"
        answers: tuple[str, ...] = (row["answer"],)
    else:
        choices, question = (), f"{row['question']}\n{SHORT}"
        listed = row["answer"].startswith("[")
        answers = _python_list(row["answer"], row["id"]) if listed else (row["answer"],)
    return RawExample(
        id=row["id"],
        question=question,
        answers=answers,
        choices=choices,
        category=subject[1] if subject else "",
        image=images[0] if len(images) == 1 else None,
        left_out="" if len(images) == 1 else f"has {len(images)} images",
    )


MMMU = Benchmark(  # tasks/mmmu/mmmu_val.yaml, utils.py
    title="MMMU",
    hub="lmms-lab-encoder/MMMU",
    split="validation",
    columns=("id", "question", "options", "answer", "question_type", "image_1"),
    read=read_mmmu,
    metric="mmmu",
    max_new_tokens=128,
    note="questions with one image only; an answer that names no option scores 0, not 1/n",
)


def _told(value: Any) -> bool:
    """Whether a field of MMBench holds something, see :func:`mmbench`."""
    return not is_missing(value) and value != "nan"


def _python_list(text: str, identity: str) -> tuple[str, ...]:
    """Read a list that is written as Python writes it."""
    try:
        values = ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        raise DataError(f"MMMU {identity!r}: {text!r} is not a list of options.") from error
    return tuple(str(value) for value in values)

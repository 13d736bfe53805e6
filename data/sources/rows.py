"""Rows of published benchmarks as questions: one function for each way that a dataset is laid out.

Column names and prompts are those of lmms-eval's task files (``lmms_eval/tasks/<task>/``, the
default prompts, which are LLaVA-1.5's), and for three video benchmarks those of IG-VLM's sheets
(``imagegridworth/IG-VLM``, ``data/``).

A field may be missing: null, NaN or empty. No word, such as ``None``, means that it is missing.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data.errors import DataError


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


def placed(values: Iterable[Any]) -> tuple[str | None, ...]:
    """Texts of choices at their places: None where there is none, so that letters do not move.

    >>> placed(["cat", None, "None", float("nan")])
    ('cat', None, 'None')
    """
    texts = [None if value is None or value != value else str(value) for value in values]
    while texts and texts[-1] is None:
        texts.pop()
    return tuple(texts)


Row = Mapping[str, Any]

SHORT = "\nAnswer the question using a single word or phrase."
ONE_WORD = "\nAnswer the question with a single word."
LETTER = "\nAnswer with the option's letter from the given choices directly."
UNANSWERABLE = "\nWhen the provided information is insufficient, respond with 'Unanswerable'."

_MME_PROMPT = " Please answer yes or no."
_SUBJECT = re.compile(r"^[^_]*_(.+?)_\d+$")
_MMMU_PICTURES = tuple(f"image_{number}" for number in range(1, 8))


@dataclass(frozen=True, kw_only=True)
class Draft:
    """What a row holds, before its picture is a file.

    Attributes:
        question: The whole prompt: question, choices and the benchmark's instruction.
        answers: The reference answers; letters where the metric compares letters.
        id: The dataset's own, empty where it has none.
        choices: Texts of the choices, first one ``A``; None where a letter is not used.
        category: What the benchmark reports by, or empty.
        picture: The dataset's picture: a mapping with ``bytes``.
        picture_id: Of a picture that is kept apart from the questions.
        video: Name of a video file without its ending.
        left_out: Why the row cannot be used, or empty.
    """

    question: str
    answers: tuple[str, ...]
    id: str = ""
    choices: tuple[str | None, ...] = ()
    category: str = ""
    picture: Any = None
    picture_id: str = ""
    video: str = ""
    left_out: str = ""


def vqav2(row: Row) -> Draft:
    """VQAv2: ten answers, each a mapping."""
    return Draft(
        id=text_in(row["question_id"]),
        question=row["question"] + SHORT,
        answers=tuple(said["answer"] for said in row["answers"] or ()),
        picture=row["image"],
    )


def textvqa(row: Row) -> Draft:
    """TextVQA: ten answers; lmms-eval writes the question with one capital."""
    return Draft(
        id=text_in(row["question_id"]),
        question=row["question"].capitalize() + SHORT,
        answers=tuple(row["answers"] or ()),
        picture=row["image"],
    )


def vizwiz(row: Row) -> Draft:
    """VizWiz: as TextVQA, and a question may have no answer in its picture."""
    return Draft(
        id=text_in(row["question_id"]),
        question=row["question"].capitalize() + UNANSWERABLE + SHORT,
        answers=tuple(row["answers"] or ()),
        picture=row["image"],
    )


def gqa(row: Row) -> Draft:
    """GQA: the pictures are in another configuration of the dataset."""
    return Draft(
        id=text_in(row["id"]),
        question=row["question"] + SHORT,
        answers=(row["answer"],),
        picture_id=str(row["imageId"]),
    )


def pope(row: Row) -> Draft:
    """POPE: ``question_id`` repeats in its three categories, ``id`` does not."""
    return Draft(
        id=text_in(row["id"]),
        question=row["question"].strip() + SHORT,
        answers=(row["answer"].strip(),),
        category=text_in(row["category"]),
        picture=row["image"],
    )


def mme(row: Row) -> Draft:
    """MME: two questions for each picture share an id."""
    return Draft(
        id=text_in(row["question_id"]),
        question=row["question"].strip().replace(_MME_PROMPT, "") + SHORT,
        answers=(row["answer"],),
        category=text_in(row["category"]),
        picture=row["image"],
    )


def docvqa(row: Row) -> Draft:
    """DocVQA: several reference answers."""
    return Draft(
        id=text_in(row["questionId"]),
        question=row["question"] + SHORT,
        answers=tuple(row["answers"] or ()),
        picture=row["image"],
    )


def chartqa(row: Row) -> Draft:
    """ChartQA: ``type`` is ``human_test`` or ``augmented_test``."""
    return Draft(
        question=row["question"] + ONE_WORD,
        answers=(row["answer"],),
        category=str(row["type"]),
        picture=row["image"],
    )


def ai2d(row: Row) -> Draft:
    """AI2D: ``answer`` is the number of an option, from 0."""
    choices = placed(row["options"])
    return Draft(
        question=f"{row['question']}\n{lettered(choices)}{LETTER}",
        answers=(letter(row["answer"]),),
        choices=choices,
        picture=row["image"],
    )


def scienceqa(row: Row) -> Draft:
    """ScienceQA: a hint goes before the question."""
    choices = placed(row["choices"])
    context = f"Context: {row['hint']}\n" if row["hint"] else ""
    return Draft(
        question=f"{context}{row['question']}\n{lettered(choices)}{LETTER}",
        answers=(letter(row["answer"]),),
        choices=choices,
        picture=row["image"],
        left_out="" if row["image"] is not None else "has no picture",
    )


def seedbench(row: Row) -> Draft:
    """SEED-Bench: a list of pictures, several for the frames of a video."""
    choices = placed(row[f"choice_{name}"] for name in "abcd")
    pictures = row["image"]
    return Draft(
        id=text_in(row["question_id"]),
        question=f"{row['question']}\n{lettered(choices)}{LETTER}",
        answers=(row["answer"],),
        choices=choices,
        category=text_in(row["data_type"]),
        picture=pictures[0] if len(pictures) == 1 else None,
        left_out="" if len(pictures) == 1 else "has several pictures",
    )


def mmbench(row: Row) -> Draft:
    """MMBench: options in columns of their own.

    Where there is none, the dataset has null or the text ``nan`` (a missing value of pandas that
    was written as text), as lmms-eval reads it: ``tasks/mmbench/mmbench_evals.py``,
    ``create_options_prompt``. The word ``None`` is an option like others.
    """
    choices = placed(row.get(name) if _told(row.get(name)) else None for name in "ABCDE")
    hint = f"{row['hint']} " if _told(row["hint"]) else ""
    options = f"There are several options:\n{lettered(choices)}"
    return Draft(
        id=text_in(row["index"]),
        question=f"{hint}{row['question']} {options}\n{LETTER}",
        answers=(row["answer"],) if _told(row["answer"]) else (),
        choices=choices,
        category=text_in(row["category"]),
        picture=row["image"],
    )


def mmmu(row: Row) -> Draft:
    """MMMU: options and several references are written as Python lists.

    NOTE: lmms-eval compares with such a list of references as one text; here, as in MMMU's own
    evaluation, one of them is enough.
    """
    pictures = [row[name] for name in _MMMU_PICTURES if row.get(name) is not None]
    subject = _SUBJECT.match(row["id"])
    if row["question_type"] == "multiple-choice":
        choices = _python_list(row["options"], row["id"])
        question = f"{row['question']}\n{lettered(choices)}\n{LETTER}"
        answers: tuple[str, ...] = (row["answer"],)
    else:
        choices, question = (), f"{row['question']}\n{SHORT}"
        listed = row["answer"].startswith("[")
        answers = _python_list(row["answer"], row["id"]) if listed else (row["answer"],)
    return Draft(
        id=row["id"],
        question=question,
        answers=answers,
        choices=choices,
        category=subject[1] if subject else "",
        picture=pictures[0] if len(pictures) == 1 else None,
        left_out="" if len(pictures) == 1 else f"has {len(pictures)} pictures",
    )


def nextqa(row: Row) -> Draft:
    """NExT-QA, multiple choice, without an instruction: ``answer`` is a number, from 0."""
    choices = placed(stripped(row[f"a{number}"]) for number in range(5))
    return Draft(
        id=f"{row['video']}-{row['qid']}",
        question=f"{row['question'].strip()}\n{lettered(choices)}",
        answers=(letter(row["answer"]),),
        choices=choices,
        category=text_in(row["type"]),
        video=str(row["video"]),
    )


def egoschema(row: Row) -> Draft:
    """EgoSchema: options with their letters; ``answer`` is a number, from 0, as text."""
    return Draft(
        id=text_in(row["question_idx"]),
        question="\n".join([row["question"], *row["option"]]) + LETTER,
        answers=(letter(row["answer"]),) if not is_missing(row["answer"]) else (),
        choices=tuple(row["option"]),
        video=str(row["video_idx"]),
    )


def activitynetqa(row: Row) -> Draft:
    """ActivityNet-QA: questions without their question mark, written with one capital."""
    return Draft(
        id=str(row["question_id"]),
        question=f"{row['question'].capitalize()}? {SHORT.strip()}",
        answers=(row["answer"],),
        video=f"v_{row['video_name']}",
    )


def open_sheet(row: Row) -> Draft:
    """A sheet of IG-VLM with open questions: MSVD-QA, MSRVTT-QA."""
    return Draft(
        id=text_in(row["question_id"]),
        question=f"{text_in(row['question'])} {SHORT.strip()}",
        answers=(text_in(row["answer"]),) if not is_missing(row["answer"]) else (),
        video=text_in(row["video_name"]),
    )


def choice_sheet(row: Row) -> Draft:
    """A sheet of IG-VLM with five choices, the answer being the text of one: IntentQA."""
    choices = placed(stripped(row[f"a{number}"]) for number in range(5))
    answer = text_in(row["answer"]).strip()
    known = bool(answer) and answer in choices
    return Draft(
        id=text_in(row["question_id"]),
        question=f"{text_in(row['question']).strip()}\n{lettered(choices)}{LETTER}",
        answers=(letter(choices.index(answer)),) if known else (),
        choices=choices,
        category=text_in(row["question_type"]),
        video=text_in(row["video_name"]),
        left_out="" if known else "has an answer that is none of its choices",
    )


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


def _told(value: Any) -> bool:
    """Whether a field of MMBench holds something, see :func:`mmbench`."""
    return not is_missing(value) and value != "nan"


def _python_list(text: str, identity: str) -> tuple[str, ...]:
    """Read a list that is written as Python writes it."""
    try:
        values = ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        raise DataError(f"MMMU {identity!r}: {text!r} is no list of options.") from error
    return tuple(str(value) for value in values)

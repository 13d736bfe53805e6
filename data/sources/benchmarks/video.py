"""Benchmarks about videos, whose files the user has."""

from __future__ import annotations

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
    stripped,
    text_in,
)

_IG_VLM = "https://github.com/imagegridworth/IG-VLM, data/"
_JUDGED = "published numbers are judged: `m3router judge` does so, else answers must match exactly"


def read_open_sheet(row: Row) -> RawExample:
    """A sheet of IG-VLM with open questions: MSVD-QA, MSRVTT-QA."""
    return RawExample(
        id=text_in(row["question_id"]),
        question=f"{text_in(row['question'])} {SHORT.strip()}",
        answers=(text_in(row["answer"]),) if not is_missing(row["answer"]) else (),
        video=text_in(row["video_name"]),
    )


MSVDQA = Benchmark(
    title="MSVD-QA",
    sheet=_IG_VLM + "open_ended_qa/MSVD_QA.csv",
    split="test",
    columns=("video_name", "question", "answer", "question_id"),
    read=read_open_sheet,
    metric="exact",
    max_new_tokens=64,  # as ActivityNet-QA
    video=True,
    judge="video-qa",
    note=_JUDGED,
)


MSRVTTQA = Benchmark(
    title="MSRVTT-QA",
    sheet=_IG_VLM + "open_ended_qa/MSRVTT_QA.csv",
    split="test",
    columns=("video_name", "question", "answer", "question_id"),
    read=read_open_sheet,
    metric="exact",
    max_new_tokens=64,
    video=True,
    judge="video-qa",
    note=_JUDGED,
)


def read_activitynetqa(row: Row) -> RawExample:
    """ActivityNet-QA: questions without their question mark, written with one capital."""
    return RawExample(
        id=str(row["question_id"]),
        question=f"{row['question'].capitalize()}? {SHORT.strip()}",
        answers=(row["answer"],),
        video=f"v_{row['video_name']}",
    )


ACTIVITYNETQA = Benchmark(  # tasks/activitynetqa/activitynetqa_generation.yaml, utils.py
    title="ActivityNet-QA",
    hub="lmms-eval/ActivityNetQA",
    split="test",
    columns=("video_name", "question", "question_id", "answer"),
    read=read_activitynetqa,
    metric="exact",
    max_new_tokens=64,
    video=True,
    judge="video-qa",
    note=_JUDGED,
)


def read_nextqa(row: Row) -> RawExample:
    """NExT-QA, multiple choice, without an instruction: ``answer`` is a number, from 0."""
    choices = placed(stripped(row[f"a{number}"]) for number in range(5))
    return RawExample(
        id=f"{row['video']}-{row['qid']}",
        question=f"{row['question'].strip()}\n{lettered(choices)}",
        answers=(letter(row["answer"]),),
        choices=choices,
        category=text_in(row["type"]),
        video=str(row["video"]),
    )


NEXTQA = Benchmark(  # tasks/nextqa/nextqa_mc_test.yaml, utils.py
    title="NExT-QA (multiple choice)",
    hub="lmms-eval/NExTQA",
    config="MC",
    split="test",
    columns=("video", "question", "answer", "qid", "type")
    + tuple(f"a{number}" for number in range(5)),
    read=read_nextqa,
    metric="nextqa",
    max_new_tokens=UNSAID,
    video=True,
    note="an answer that names no option scores 0, not 1/5",
)


def read_choice_sheet(row: Row) -> RawExample:
    """A sheet of IG-VLM with five choices, the answer being the text of one: IntentQA."""
    choices = placed(stripped(row[f"a{number}"]) for number in range(5))
    answer = text_in(row["answer"]).strip()
    known = bool(answer) and answer in choices
    return RawExample(
        id=text_in(row["question_id"]),
        question=f"{text_in(row['question']).strip()}\n{lettered(choices)}{LETTER}",
        answers=(letter(choices.index(answer)),) if known else (),
        choices=choices,
        category=text_in(row["question_type"]),
        video=text_in(row["video_name"]),
        left_out="" if known else "has an answer that is none of its choices",
    )


INTENTQA = Benchmark(
    title="IntentQA",
    sheet=_IG_VLM + "multiple_choice_qa/IntentQA.csv",
    split="test",
    columns=("video_name", "question", "answer", "question_id", "question_type")
    + tuple(f"a{number}" for number in range(5)),
    read=read_choice_sheet,
    metric="nextqa",
    max_new_tokens=UNSAID,
    video=True,
    note="not in lmms-eval: scored as NExT-QA, whose videos and format it shares",
)


def read_egoschema(row: Row) -> RawExample:
    """EgoSchema: options with their letters; ``answer`` is a number, from 0, as text."""
    return RawExample(
        id=text_in(row["question_idx"]),
        question="\n".join([row["question"], *row["option"]]) + LETTER,
        answers=(letter(row["answer"]),) if not is_missing(row["answer"]) else (),
        choices=tuple(row["option"]),
        video=str(row["video_idx"]),
    )


EGOSCHEMA = Benchmark(  # tasks/egoschema/egoschema_subset.yaml, utils.py
    title="EgoSchema (subset)",
    hub="lmms-eval/egoschema",
    config="Subset",
    split="test",
    columns=("question_idx", "question", "video_idx", "option", "answer"),
    read=read_egoschema,
    metric="egoschema",
    max_new_tokens=16,
    video=True,
    note="the 500 questions whose answers are public; naming no option scores 0, not 1/5",
)

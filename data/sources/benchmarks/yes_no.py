"""Benchmarks whose questions are answered by yes or no."""

from __future__ import annotations

from m3router.data.sources.benchmarks.base import SHORT, Benchmark, RawExample, Row, text_in

_MME_PROMPT = " Please answer yes or no."


def read_pope(row: Row) -> RawExample:
    """POPE: ``question_id`` repeats in its three categories, ``id`` does not."""
    return RawExample(
        id=text_in(row["id"]),
        question=row["question"].strip() + SHORT,
        answers=(row["answer"].strip(),),
        category=text_in(row["category"]),
        image=row["image"],
    )


POPE = Benchmark(  # tasks/pope/pope.yaml, utils.py
    title="POPE",
    hub="lmms-lab-encoder/POPE",
    split="test",
    columns=("id", "question", "answer", "image", "category"),
    read=read_pope,
    metric="pope",
    max_new_tokens=128,
    note="accuracy for each answer; F1 and the share of yes are not computed",
)


def read_mme(row: Row) -> RawExample:
    """MME: two questions for each image share an id."""
    return RawExample(
        id=text_in(row["question_id"]),
        question=row["question"].strip().replace(_MME_PROMPT, "") + SHORT,
        answers=(row["answer"],),
        category=text_in(row["category"]),
        image=row["image"],
    )


MME = Benchmark(  # tasks/mme/mme.yaml, utils.py
    title="MME",
    hub="lmms-lab-encoder/MME",
    split="test",
    columns=("question_id", "image", "question", "answer", "category"),
    read=read_mme,
    metric="mme",
    max_new_tokens=16,
    note="accuracy for each answer; MME's sums of acc and acc+ are in `m3router inspect`",
)

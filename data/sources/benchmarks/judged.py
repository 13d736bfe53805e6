"""Benchmarks with long answers, which a judge scores: see :mod:`m3router.m3core.judging`."""

from __future__ import annotations

from m3router.data.scoring.metrics import JUDGED
from m3router.data.sources.benchmarks.base import UNSAID, Benchmark, RawExample, Row, text_in


def read_mmvet(row: Row) -> RawExample:
    """MM-Vet: the reference holds ``<AND>`` and ``<OR>``, and is kept as it is."""
    return RawExample(
        id=text_in(row["question_id"]),
        question=row["question"],
        answers=(row["answer"],),
        category=text_in(row["capability"]),
        image=row["image"],
        left_out="" if row["image"] is not None else "has no image",
    )


MMVET = Benchmark(  # tasks/mmvet/mmvet.yaml, utils.py
    title="MM-Vet",
    hub="lmms-lab-encoder/MMVet",
    split="test",
    columns=("question_id", "question", "answer", "capability", "image"),
    read=read_mmvet,
    metric=f"{JUDGED}mm-vet",
    max_new_tokens=1024,
    judge="mm-vet",
    note="questions as MM-Vet has them, without lmms-eval's words before them; judged once",
)


def read_llava_bench(row: Row) -> RawExample:
    """LLaVA-Bench: the judge, who sees no image, is told its captions."""
    captions = row["caption"]
    return RawExample(
        id=text_in(row["question_id"]),
        question=row["question"],
        answers=(row["gpt_answer"],),
        category=text_in(row["category"]),
        image=row["image"],
        context=captions if isinstance(captions, str) else "\n".join(captions),
    )


LLAVA_BENCH = Benchmark(  # tasks/llava-in-the-wild/llava-in-the-wild.yaml, utils.py
    title="LLaVA-Bench (in the Wild)",
    hub="lmms-lab-encoder/llava-bench-in-the-wild",
    split="train",
    columns=("question_id", "question", "caption", "gpt_answer", "category", "image"),
    read=read_llava_bench,
    metric=f"{JUDGED}llava-bench",
    max_new_tokens=UNSAID,
    judge="llava-bench",
    note="the longest answer is 1024 tokens as in LLaVA's own evaluation",
)

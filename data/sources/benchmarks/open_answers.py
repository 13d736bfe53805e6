"""Benchmarks whose questions are answered in a word, a number or a phrase."""

from __future__ import annotations

from m3router.data.sources.benchmarks.base import (
    ONE_WORD,
    SHORT,
    UNANSWERABLE,
    UNSAID,
    Benchmark,
    RawExample,
    Row,
    text_in,
)


def read_vqav2(row: Row) -> RawExample:
    """VQAv2: ten answers, each a mapping."""
    return RawExample(
        id=text_in(row["question_id"]),
        question=row["question"] + SHORT,
        answers=tuple(said["answer"] for said in row["answers"] or ()),
        image=row["image"],
    )


VQAV2 = Benchmark(  # tasks/vqav2/vqav2_val.yaml, utils.py
    title="VQAv2",
    hub="lmms-lab-encoder/VQAv2",
    split="validation",
    columns=("question_id", "question", "image", "answers"),
    read=read_vqav2,
    metric="vqav2",
    max_new_tokens=16,
    note="validation: the answers of test-dev are not public",
)


def read_textvqa(row: Row) -> RawExample:
    """TextVQA: ten answers; lmms-eval writes the question with one capital."""
    return RawExample(
        id=text_in(row["question_id"]),
        question=row["question"].capitalize() + SHORT,
        answers=tuple(row["answers"] or ()),
        image=row["image"],
    )


TEXTVQA = Benchmark(  # tasks/textvqa/textvqa_val.yaml, utils.py
    title="TextVQA",
    hub="lmms-lab-encoder/textvqa",
    split="validation",
    columns=("question_id", "question", "image", "answers"),
    read=read_textvqa,
    metric="textvqa",
    max_new_tokens=UNSAID,
    note="without the OCR tokens that LLaVA-1.5's own evaluation puts into the prompt",
)


def read_vizwiz(row: Row) -> RawExample:
    """VizWiz: as TextVQA, and a question may have no answer in its image."""
    return RawExample(
        id=text_in(row["question_id"]),
        question=row["question"].capitalize() + UNANSWERABLE + SHORT,
        answers=tuple(row["answers"] or ()),
        image=row["image"],
    )


VIZWIZ = Benchmark(  # tasks/vizwiz_vqa/vizwiz_vqa_val.yaml, utils.py
    title="VizWiz-VQA",
    hub="lmms-lab-encoder/VizWiz-VQA",
    split="val",
    columns=("question_id", "image", "question", "answers"),
    read=read_vizwiz,
    metric="textvqa",
    max_new_tokens=UNSAID,
)


def read_gqa(row: Row) -> RawExample:
    """GQA: the images are in another configuration of the dataset."""
    return RawExample(
        id=text_in(row["id"]),
        question=row["question"] + SHORT,
        answers=(row["answer"],),
        image_id=str(row["imageId"]),
    )


GQA = Benchmark(  # tasks/gqa/gqa.yaml, utils.py
    title="GQA",
    hub="lmms-lab-encoder/GQA",
    config="testdev_balanced_instructions",
    images="testdev_balanced_images",
    split="testdev",
    columns=("id", "imageId", "question", "answer"),
    read=read_gqa,
    metric="gqa",
    max_new_tokens=16,
)


def read_docvqa(row: Row) -> RawExample:
    """DocVQA: several reference answers."""
    return RawExample(
        id=text_in(row["questionId"]),
        question=row["question"] + SHORT,
        answers=tuple(row["answers"] or ()),
        image=row["image"],
    )


DOCVQA = Benchmark(  # tasks/docvqa/docvqa_val.yaml, utils.py
    title="DocVQA",
    hub="lmms-lab-encoder/DocVQA",
    config="DocVQA",
    split="validation",
    columns=("questionId", "question", "image", "answers"),
    read=read_docvqa,
    metric="anls",
    max_new_tokens=32,
)


def read_chartqa(row: Row) -> RawExample:
    """ChartQA: ``type`` is ``human_test`` or ``augmented_test``."""
    return RawExample(
        question=row["question"] + ONE_WORD,
        answers=(row["answer"],),
        category=str(row["type"]),
        image=row["image"],
    )


CHARTQA = Benchmark(  # tasks/chartqa/chartqa.yaml, utils.py
    title="ChartQA",
    hub="lmms-lab-encoder/ChartQA",
    split="test",
    columns=("type", "question", "answer", "image"),
    read=read_chartqa,
    metric="relaxed",
    max_new_tokens=16,
)

"""The benchmarks that can be fetched: a literal table of where they are and how they are scored.

Hub names, configurations, splits, metrics and longest answers are those of lmms-eval's task files
(``lmms_eval/tasks/``, version 0.7.3 of 2026-08-28), named beside each entry; what differs is said
in its note and in docs/benchmarks.md. In July 2026 its datasets moved from ``lmms-lab`` to
``lmms-lab-encoder``, those of videos to ``lmms-eval``; both homes are tried.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from data.errors import DataError
from data.registry import unknown_name
from data.sources import rows
from data.sources.rows import Draft, Row

_IG_VLM = "https://github.com/imagegridworth/IG-VLM, data/"
UNSAID = 1024
"""Longest answer where a task file names none: what lmms-eval's LLaVA models then take
(``models/simple/llava.py``, ``generate_until``)."""
FORMER = "lmms-lab"
"""Who had the datasets on the hub before July 2026."""

_GPT = "published numbers are judged by GPT; here the answer must match exactly"


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Where a benchmark is and how its rows become examples.

    Attributes:
        title: Its published name.
        hub: Its dataset on the Hugging Face hub; empty where there is none.
        split: The part that is evaluated.
        columns: What a row must have.
        read: Turns a row into a question.
        metric: A key of :data:`data.scoring.metrics.METRICS`.
        max_new_tokens: Tokens of the longest answer.
        config: The dataset's configuration; empty for its only one.
        pictures: The configuration that holds the pictures, where they are apart.
        video: Whether rows name videos, whose files the user has.
        sheet: Where a benchmark that is not on the hub can be downloaded.
        note: What differs from the published evaluation; empty for nothing.
    """

    title: str
    split: str
    columns: tuple[str, ...]
    read: Callable[[Row], Draft]
    metric: str
    max_new_tokens: int
    hub: str = ""
    config: str = ""
    pictures: str = ""
    video: bool = False
    sheet: str = ""
    note: str = ""

    @property
    def homes(self) -> tuple[str, ...]:
        """Where its dataset is and was on the hub, in the order they are tried."""
        return (self.hub, f"{FORMER}/{self.hub.partition('/')[2]}") if self.hub else ()


BENCHMARKS: dict[str, Benchmark] = {
    "mmbench": Benchmark(  # tasks/mmbench/mmbench_en_dev.yaml, en_utils.py
        title="MMBench (English)",
        hub="lmms-lab-encoder/MMBench",
        config="en",
        split="dev",
        columns=("index", "question", "hint", "answer", *"ABCD", "category", "image"),
        read=rows.mmbench,
        metric="mmbench",
        max_new_tokens=1024,
        note="no GPT where no option is named; rows are scored one by one, without CircularEval",
    ),
    "gqa": Benchmark(  # tasks/gqa/gqa.yaml, utils.py
        title="GQA",
        hub="lmms-lab-encoder/GQA",
        config="testdev_balanced_instructions",
        pictures="testdev_balanced_images",
        split="testdev",
        columns=("id", "imageId", "question", "answer"),
        read=rows.gqa,
        metric="gqa",
        max_new_tokens=16,
    ),
    "pope": Benchmark(  # tasks/pope/pope.yaml, utils.py
        title="POPE",
        hub="lmms-lab-encoder/POPE",
        split="test",
        columns=("id", "question", "answer", "image", "category"),
        read=rows.pope,
        metric="pope",
        max_new_tokens=128,
        note="accuracy for each answer; F1 and the share of yes are not computed",
    ),
    "vizwiz": Benchmark(  # tasks/vizwiz_vqa/vizwiz_vqa_val.yaml, utils.py
        title="VizWiz-VQA",
        hub="lmms-lab-encoder/VizWiz-VQA",
        split="val",
        columns=("question_id", "image", "question", "answers"),
        read=rows.vizwiz,
        metric="textvqa",
        max_new_tokens=UNSAID,
    ),
    "seedbench": Benchmark(  # tasks/seedbench/seedbench.yaml, utils.py
        title="SEED-Bench",
        hub="lmms-lab-encoder/SEED-Bench",
        split="test",
        columns=("question_id", "question", "answer", "data_type", "image")
        + tuple(f"choice_{name}" for name in "abcd"),
        read=rows.seedbench,
        metric="seedbench",
        max_new_tokens=UNSAID,
        note="questions with one picture only; those about frames of videos are left out",
    ),
    "scienceqa": Benchmark(  # tasks/scienceqa/scienceqa_img.yaml, utils.py
        title="ScienceQA-IMG",
        hub="lmms-lab-encoder/ScienceQA",
        config="ScienceQA-IMG",
        split="test",
        columns=("image", "question", "choices", "answer", "hint"),
        read=rows.scienceqa,
        metric="scienceqa",
        max_new_tokens=16,
    ),
    "mmmu": Benchmark(  # tasks/mmmu/mmmu_val.yaml, utils.py
        title="MMMU",
        hub="lmms-lab-encoder/MMMU",
        split="validation",
        columns=("id", "question", "options", "answer", "question_type", "image_1"),
        read=rows.mmmu,
        metric="mmmu",
        max_new_tokens=128,
        note="questions with one picture only; an answer that names no option scores 0, not 1/n",
    ),
    "docvqa": Benchmark(  # tasks/docvqa/docvqa_val.yaml, utils.py
        title="DocVQA",
        hub="lmms-lab-encoder/DocVQA",
        config="DocVQA",
        split="validation",
        columns=("questionId", "question", "image", "answers"),
        read=rows.docvqa,
        metric="anls",
        max_new_tokens=32,
    ),
    "chartqa": Benchmark(  # tasks/chartqa/chartqa.yaml, utils.py
        title="ChartQA",
        hub="lmms-lab-encoder/ChartQA",
        split="test",
        columns=("type", "question", "answer", "image"),
        read=rows.chartqa,
        metric="relaxed",
        max_new_tokens=16,
    ),
    "ai2d": Benchmark(  # tasks/ai2d/ai2d.yaml, utils.py
        title="AI2D",
        hub="lmms-lab-encoder/ai2d",
        split="test",
        columns=("question", "options", "answer", "image"),
        read=rows.ai2d,
        metric="ai2d",
        max_new_tokens=16,
    ),
    "textvqa": Benchmark(  # tasks/textvqa/textvqa_val.yaml, utils.py
        title="TextVQA",
        hub="lmms-lab-encoder/textvqa",
        split="validation",
        columns=("question_id", "question", "image", "answers"),
        read=rows.textvqa,
        metric="textvqa",
        max_new_tokens=UNSAID,
        note="without the OCR tokens that LLaVA-1.5's own evaluation puts into the prompt",
    ),
    "vqav2": Benchmark(  # tasks/vqav2/vqav2_val.yaml, utils.py
        title="VQAv2",
        hub="lmms-lab-encoder/VQAv2",
        split="validation",
        columns=("question_id", "question", "image", "answers"),
        read=rows.vqav2,
        metric="vqav2",
        max_new_tokens=16,
        note="validation: the answers of test-dev are not public",
    ),
    "mme": Benchmark(  # tasks/mme/mme.yaml, utils.py
        title="MME",
        hub="lmms-lab-encoder/MME",
        split="test",
        columns=("question_id", "image", "question", "answer", "category"),
        read=rows.mme,
        metric="mme",
        max_new_tokens=16,
        note="accuracy for each answer; MME's sums of acc and acc+ are in `m3router inspect`",
    ),
    "msvdqa": Benchmark(
        title="MSVD-QA",
        sheet=_IG_VLM + "open_ended_qa/MSVD_QA.csv",
        split="test",
        columns=("video_name", "question", "answer", "question_id"),
        read=rows.open_sheet,
        metric="exact",
        max_new_tokens=64,  # as ActivityNet-QA
        video=True,
        note=_GPT,
    ),
    "msrvttqa": Benchmark(
        title="MSRVTT-QA",
        sheet=_IG_VLM + "open_ended_qa/MSRVTT_QA.csv",
        split="test",
        columns=("video_name", "question", "answer", "question_id"),
        read=rows.open_sheet,
        metric="exact",
        max_new_tokens=64,
        video=True,
        note=_GPT,
    ),
    "activitynetqa": Benchmark(  # tasks/activitynetqa/activitynetqa_generation.yaml, utils.py
        title="ActivityNet-QA",
        hub="lmms-eval/ActivityNetQA",
        split="test",
        columns=("video_name", "question", "question_id", "answer"),
        read=rows.activitynetqa,
        metric="exact",
        max_new_tokens=64,
        video=True,
        note=_GPT,
    ),
    "nextqa": Benchmark(  # tasks/nextqa/nextqa_mc_test.yaml, utils.py
        title="NExT-QA (multiple choice)",
        hub="lmms-eval/NExTQA",
        config="MC",
        split="test",
        columns=("video", "question", "answer", "qid", "type")
        + tuple(f"a{number}" for number in range(5)),
        read=rows.nextqa,
        metric="nextqa",
        max_new_tokens=UNSAID,
        video=True,
        note="an answer that names no option scores 0, not 1/5",
    ),
    "intentqa": Benchmark(
        title="IntentQA",
        sheet=_IG_VLM + "multiple_choice_qa/IntentQA.csv",
        split="test",
        columns=("video_name", "question", "answer", "question_id", "question_type")
        + tuple(f"a{number}" for number in range(5)),
        read=rows.choice_sheet,
        metric="nextqa",
        max_new_tokens=UNSAID,
        video=True,
        note="not in lmms-eval: scored as NExT-QA, whose videos and format it shares",
    ),
    "egoschema": Benchmark(  # tasks/egoschema/egoschema_subset.yaml, utils.py
        title="EgoSchema (subset)",
        hub="lmms-eval/egoschema",
        config="Subset",
        split="test",
        columns=("question_idx", "question", "video_idx", "option", "answer"),
        read=rows.egoschema,
        metric="egoschema",
        max_new_tokens=16,
        video=True,
        note="the 500 questions whose answers are public; naming no option scores 0, not 1/5",
    ),
}


def benchmark(name: str) -> Benchmark:
    """Look a benchmark up.

    Raises:
        DataError: There is no such benchmark; the message suggests one.
    """
    if name not in BENCHMARKS:
        raise DataError(unknown_name("benchmark", name, BENCHMARKS))
    return BENCHMARKS[name]

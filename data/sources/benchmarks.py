"""The benchmarks that can be fetched: a literal table of where they are and how they are scored.

Hub names, configurations, splits and metrics are those of lmms-eval's task files, named beside
each entry; what differs is said in its note and in docs/benchmarks.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from data.errors import DataError
from data.registry import unknown_name
from data.sources import rows
from data.sources.rows import Draft, Row

_IG_VLM = "https://github.com/imagegridworth/IG-VLM, data/"
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
        metric: A key of :data:`data.scoring.METRICS`.
        config: The dataset's configuration; empty for its only one.
        pictures: The configuration that holds the pictures, where they are apart.
        video: Whether rows name videos, whose files the user has.
        sheet: Where a benchmark that is not on the hub can be downloaded.
        note: What differs from the published evaluation; empty for nothing.
    """

    title: str
    hub: str
    split: str
    columns: tuple[str, ...]
    read: Callable[[Row], Draft]
    metric: str
    config: str = ""
    pictures: str = ""
    video: bool = False
    sheet: str = ""
    note: str = ""


BENCHMARKS: dict[str, Benchmark] = {
    "mmbench": Benchmark(  # tasks/mmbench/mmbench_en_dev.yaml, en_utils.py
        title="MMBench (English)",
        hub="lmms-lab/MMBench",
        config="en",
        split="dev",
        columns=("index", "question", "hint", "answer", *"ABCD", "category", "image"),
        read=rows.mmbench,
        metric="mmbench",
        note="no GPT where no option is named; rows are scored one by one, without CircularEval",
    ),
    "gqa": Benchmark(  # tasks/gqa/gqa.yaml, utils.py
        title="GQA",
        hub="lmms-lab/GQA",
        config="testdev_balanced_instructions",
        pictures="testdev_balanced_images",
        split="testdev",
        columns=("id", "imageId", "question", "answer"),
        read=rows.gqa,
        metric="gqa",
    ),
    "pope": Benchmark(  # tasks/pope/pope.yaml, utils.py
        title="POPE",
        hub="lmms-lab/POPE",
        split="test",
        columns=("id", "question", "answer", "image", "category"),
        read=rows.pope,
        metric="pope",
        note="accuracy for each answer; F1 and the share of yes are not computed",
    ),
    "vizwiz": Benchmark(  # tasks/vizwiz_vqa/vizwiz_vqa_val.yaml, utils.py
        title="VizWiz-VQA",
        hub="lmms-lab/VizWiz-VQA",
        split="val",
        columns=("question_id", "image", "question", "answers"),
        read=rows.vizwiz,
        metric="textvqa",
    ),
    "seedbench": Benchmark(  # tasks/seedbench/seedbench.yaml, utils.py
        title="SEED-Bench",
        hub="lmms-lab/SEED-Bench",
        split="test",
        columns=("question_id", "question", "answer", "data_type", "image")
        + tuple(f"choice_{name}" for name in "abcd"),
        read=rows.seedbench,
        metric="seedbench",
        note="questions with one picture only; those about frames of videos are left out",
    ),
    "scienceqa": Benchmark(  # tasks/scienceqa/scienceqa_img.yaml, utils.py
        title="ScienceQA-IMG",
        hub="lmms-lab/ScienceQA",
        config="ScienceQA-IMG",
        split="test",
        columns=("image", "question", "choices", "answer", "hint"),
        read=rows.scienceqa,
        metric="scienceqa",
    ),
    "mmmu": Benchmark(  # tasks/mmmu/mmmu_val.yaml, utils.py
        title="MMMU",
        hub="lmms-lab/MMMU",
        split="validation",
        columns=("id", "question", "options", "answer", "question_type", "image_1"),
        read=rows.mmmu,
        metric="mmmu",
        note="questions with one picture only; an answer that names no option scores 0, not 1/n",
    ),
    "docvqa": Benchmark(  # tasks/docvqa/docvqa_val.yaml, utils.py
        title="DocVQA",
        hub="lmms-lab/DocVQA",
        config="DocVQA",
        split="validation",
        columns=("questionId", "question", "image", "answers"),
        read=rows.docvqa,
        metric="anls",
    ),
    "chartqa": Benchmark(  # tasks/chartqa/chartqa.yaml, utils.py
        title="ChartQA",
        hub="lmms-lab/ChartQA",
        split="test",
        columns=("type", "question", "answer", "image"),
        read=rows.chartqa,
        metric="relaxed",
    ),
    "ai2d": Benchmark(  # tasks/ai2d/ai2d.yaml, utils.py
        title="AI2D",
        hub="lmms-lab/ai2d",
        split="test",
        columns=("question", "options", "answer", "image"),
        read=rows.ai2d,
        metric="ai2d",
    ),
    "textvqa": Benchmark(  # tasks/textvqa/textvqa_val.yaml, utils.py
        title="TextVQA",
        hub="lmms-lab/textvqa",
        split="validation",
        columns=("question_id", "question", "image", "answers"),
        read=rows.textvqa,
        metric="textvqa",
        note="without the OCR tokens that LLaVA-1.5's own evaluation puts into the prompt",
    ),
    "vqav2": Benchmark(  # tasks/vqav2/vqav2_val.yaml, utils.py
        title="VQAv2",
        hub="lmms-lab/VQAv2",
        split="validation",
        columns=("question_id", "question", "image", "answers"),
        read=rows.vqav2,
        metric="vqav2",
        note="validation: the answers of test-dev are not public",
    ),
    "mme": Benchmark(  # tasks/mme/mme.yaml, utils.py
        title="MME",
        hub="lmms-lab/MME",
        split="test",
        columns=("question_id", "image", "question", "answer", "category"),
        read=rows.mme,
        metric="mme",
        note="accuracy for each answer; MME's sums of acc and acc+ are in `m3router inspect`",
    ),
    "msvdqa": Benchmark(
        title="MSVD-QA",
        hub="",
        sheet=_IG_VLM + "open_ended_qa/MSVD_QA.csv",
        split="test",
        columns=("video_name", "question", "answer", "question_id"),
        read=rows.open_sheet,
        metric="exact",
        video=True,
        note=_GPT,
    ),
    "msrvttqa": Benchmark(
        title="MSRVTT-QA",
        hub="",
        sheet=_IG_VLM + "open_ended_qa/MSRVTT_QA.csv",
        split="test",
        columns=("video_name", "question", "answer", "question_id"),
        read=rows.open_sheet,
        metric="exact",
        video=True,
        note=_GPT,
    ),
    "activitynetqa": Benchmark(  # tasks/activitynetqa/activitynetqa_generation.yaml, utils.py
        title="ActivityNet-QA",
        hub="lmms-lab/ActivityNetQA",
        split="test",
        columns=("video_name", "question", "question_id", "answer"),
        read=rows.activitynetqa,
        metric="exact",
        video=True,
        note=_GPT,
    ),
    "nextqa": Benchmark(  # tasks/nextqa/nextqa_mc_test.yaml, utils.py
        title="NExT-QA (multiple choice)",
        hub="lmms-lab/NExTQA",
        config="MC",
        split="test",
        columns=("video", "question", "answer", "qid", "type")
        + tuple(f"a{number}" for number in range(5)),
        read=rows.nextqa,
        metric="nextqa",
        video=True,
        note="an answer that names no option scores 0, not 1/5",
    ),
    "intentqa": Benchmark(
        title="IntentQA",
        hub="",
        sheet=_IG_VLM + "multiple_choice_qa/IntentQA.csv",
        split="test",
        columns=("video_name", "question", "answer", "question_id", "question_type")
        + tuple(f"a{number}" for number in range(5)),
        read=rows.choice_sheet,
        metric="nextqa",
        video=True,
        note="not in lmms-eval: asked and scored as NExT-QA, whose videos and format it shares",
    ),
    "egoschema": Benchmark(  # tasks/egoschema/egoschema_subset.yaml, utils.py
        title="EgoSchema (subset)",
        hub="lmms-lab/egoschema",
        config="Subset",
        split="test",
        columns=("question_idx", "question", "video_idx", "option", "answer"),
        read=rows.egoschema,
        metric="egoschema",
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

"""The benchmarks that can be fetched: a literal table, each imported on demand.

Hub names, configurations, splits, metrics and longest answers are those of lmms-eval's task files
(``lmms_eval/tasks/``, version 0.7.3 of 2026-08-28), named beside each entry; what differs is said
in its note and in docs/benchmarks.md. In July 2026 its datasets moved from ``lmms-lab`` to
``lmms-lab-encoder``, those of videos to ``lmms-eval``; both homes are tried.

A new benchmark is a :class:`m3router.data.sources.benchmarks.base.Benchmark` with the function that
reads its rows, in a module of its own or beside those like it, and one line here.
"""

from __future__ import annotations

from typing import cast

from m3router.data.registry import load_entry
from m3router.data.sources.benchmarks.base import Benchmark

BENCHMARKS = {
    "mmbench": "m3router.data.sources.benchmarks.multiple_choice:MMBENCH",
    "gqa": "m3router.data.sources.benchmarks.open_answers:GQA",
    "pope": "m3router.data.sources.benchmarks.yes_no:POPE",
    "vizwiz": "m3router.data.sources.benchmarks.open_answers:VIZWIZ",
    "seedbench": "m3router.data.sources.benchmarks.multiple_choice:SEEDBENCH",
    "scienceqa": "m3router.data.sources.benchmarks.multiple_choice:SCIENCEQA",
    "mmmu": "m3router.data.sources.benchmarks.multiple_choice:MMMU",
    "docvqa": "m3router.data.sources.benchmarks.open_answers:DOCVQA",
    "chartqa": "m3router.data.sources.benchmarks.open_answers:CHARTQA",
    "ai2d": "m3router.data.sources.benchmarks.multiple_choice:AI2D",
    "textvqa": "m3router.data.sources.benchmarks.open_answers:TEXTVQA",
    "vqav2": "m3router.data.sources.benchmarks.open_answers:VQAV2",
    "mme": "m3router.data.sources.benchmarks.yes_no:MME",
    "mmvet": "m3router.data.sources.benchmarks.judged:MMVET",
    "llava-bench": "m3router.data.sources.benchmarks.judged:LLAVA_BENCH",
    "msvdqa": "m3router.data.sources.benchmarks.video:MSVDQA",
    "msrvttqa": "m3router.data.sources.benchmarks.video:MSRVTTQA",
    "activitynetqa": "m3router.data.sources.benchmarks.video:ACTIVITYNETQA",
    "nextqa": "m3router.data.sources.benchmarks.video:NEXTQA",
    "intentqa": "m3router.data.sources.benchmarks.video:INTENTQA",
    "egoschema": "m3router.data.sources.benchmarks.video:EGOSCHEMA",
}


def benchmark(name: str) -> Benchmark:
    """Look a benchmark up.

    Raises:
        DataError: There is no such benchmark; the message suggests one.
    """
    return cast("Benchmark", load_entry(BENCHMARKS, name, kind="benchmark"))

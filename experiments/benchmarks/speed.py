"""How much faster than the naive way, and where the time goes, on this machine, in one run.

    python -m experiments.benchmarks.speed --quickstart quickstart

Needs the folder that ``m3router quickstart`` wrote. Prints a table, and writes it as JSON where
``--out`` says.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from m3router.data.errors import DataError
from m3router.data.example import Example
from m3router.data.images import open_image
from m3router.data.log.oracle_log import OracleLog
from m3router.data.scenes.export import VALIDATION_SEEDS, write_scenes
from m3router.data.sources.jsonl import load_jsonl
from m3router.m3core.checkpoints import load_model
from m3router.m3core.labelling import label
from m3router.m3core.matryoshka.base import MultiScaleModel, Request
from m3router.router.features.examples import FeatureInput
from m3router.router.features.extract import FeatureCollector
from m3router.router.features.featurizer import Featurizer
from m3router.router.features.groups import USUAL
from m3router.router.features.question import ModelQuestions
from m3router.router.inference.pipeline import AutoScalePipeline
from m3router.router.policies.fitting import for_max_loss
from m3router.router.policies.policy import Policy
from m3router.router.runs.run import Run

BATCH = 16
SERVED = 64
"""Questions that a pipeline is given at once."""


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def naive_labelling(examples: Sequence[Example], images: Path, model: MultiScaleModel) -> None:
    """The published way: every scale on its own, batch 1, the image encoded each time."""
    for example in examples:
        for scale in model.grid.scales:
            (encoding,) = model.encode([open_image(images / example.image)])
            request = Request(encoding=encoding, question=example.question, scale=scale)
            (answer,) = model.answer([request])
            example.score(answer.text)


def bench_labelling(model: MultiScaleModel, *, scenes: int, naive_scenes: int) -> dict[str, float]:
    """Labelling against the naive way, and what the features of the same pass add."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        seeds = range(VALIDATION_SEEDS.start, VALIDATION_SEEDS.start + scenes)
        images = root / "images"
        examples = load_jsonl(write_scenes(root, seeds, questions=3), images=images)
        few = [one for one in examples if int(one.group[6:-4]) < seeds.start + naive_scenes]
        label(few, images=images, model=model, folder=root / "warm")
        spent_naive = seconds(lambda: naive_labelling(few, images, model))
        spent = seconds(lambda: label(examples, images=images, model=model, folder=root / "log"))
        asked = [FeatureInput(one.id, one.image, one.question) for one in examples]
        featurizer = Featurizer(feature_groups=USUAL, model=model, questions=ModelQuestions(model))
        collector = FeatureCollector(root / "features", featurizer, asked, images=images)
        on_features = 0.0
        for start in range(0, scenes, BATCH):
            names = [f"scene-{seed}.png" for seed in seeds[start : start + BATCH]]
            encodings = model.encode([open_image(images / name) for name in names])
            pairs = list(zip(names, encodings, strict=True))
            on_features += seconds(lambda pairs=pairs: collector(pairs))  # type: ignore[misc]
        log = OracleLog.read(root / "log")
        on_features += seconds(lambda: collector.finish(log))
    ours, naive = len(examples) / spent, len(few) / spent_naive
    return {
        "examples_per_second": ours,
        "naive_examples_per_second": naive,
        "times_the_naive_way": ours / naive,
        "features_share_of_labelling": on_features / spent,
    }


def bench_decision(pipeline: AutoScalePipeline, image: Image.Image) -> dict[str, float]:
    """One routing decision from ready features: router and policy, microseconds."""
    model = pipeline.model
    (encoding,) = model.encode([image])
    question = "What number is on the red tag?"
    (block,) = pipeline.decider.featurizer.blocks([image], [encoding], [question])
    costs = np.array(model.grid.scales, dtype=np.float64)
    spent = [
        1e6 * seconds(lambda: pipeline.policy.decide(pipeline.router.predict_one(block), costs))
        for _ in range(2000)
    ]
    return {
        "decision_median_us": statistics.median(spent),
        "decision_p90_us": float(np.quantile(spent, 0.9)),
    }


def one_point_policy(run: Run) -> Policy:
    """The cheapest policy at most one point below the finest scale on the calibration split."""
    log = run.log()
    router, split = run.router(), run.split(log)
    rows = split.part("calibrate")
    p = router.predict(run.features(log).align(log.ids))
    binding = run.policies(router, split)["default"].binding
    return for_max_loss(
        p[rows],
        log.costs[rows],
        scores=log.scores[rows],
        max_loss_points=1.0,
        binding=binding,
        reference=binding.options[-1],
    )


def _serve(
    pipeline: AutoScalePipeline,
    examples: Sequence[Example],
    images: Path,
    scale: int | None,
) -> tuple[dict[str, float], list[float], float]:
    """Answer everything in batches: milliseconds by stage, scores, mean visual tokens."""
    stages: dict[str, float] = {}
    scores, tokens = [], []
    for start in range(0, len(examples), SERVED):
        part = examples[start : start + SERVED]
        opened = {one.image: open_image(images / one.image) for one in part}
        answers = pipeline.answer(
            [opened[one.image] for one in part], [one.question for one in part], scale=scale
        )
        for example, routed in zip(part, answers, strict=True):
            scores.append(example.score(routed.answer.text))
            tokens.append(routed.answer.visual_tokens)
            for stage, spent in routed.milliseconds.items():
                stages[stage] = stages.get(stage, 0.0) + spent
    return stages, scores, statistics.fmean(tokens)


def bench_pipeline(
    pipeline: AutoScalePipeline, examples: Sequence[Example], images: Path
) -> dict[str, Any]:
    """Routed against fixed at the finest scale, on the same test questions."""
    finest = pipeline.model.grid.finest
    _serve(pipeline, examples[:SERVED], images, finest)
    fixed, fixed_scores, _ = _serve(pipeline, examples, images, finest)
    routed, routed_scores, tokens = _serve(pipeline, examples, images, None)
    difference = np.subtract(routed_scores, fixed_scores)
    spread = 1.96 * difference.std() / len(difference) ** 0.5
    total, other = sum(fixed.values()), sum(fixed.values()) - fixed["language"]
    return {
        "questions": len(examples),
        "questions_at_once": SERVED,
        "mean_visual_tokens": tokens,
        "accuracy_fixed": statistics.fmean(fixed_scores),
        "accuracy_routed": statistics.fmean(routed_scores),
        "difference_points": 100 * float(difference.mean()),
        "difference_plus_minus_points": 100 * float(spread),
        "language_time_ratio": routed["language"] / fixed["language"],
        "throughput_ratio": total / sum(routed.values()),
        "throughput_ratio_limit": total / other,
        "milliseconds_fixed": {stage: ms / len(examples) for stage, ms in fixed.items()},
        "milliseconds_routed": {stage: ms / len(examples) for stage, ms in routed.items()},
    }


def run_all(folder: Path, *, scenes: int, naive_scenes: int, questions: int) -> dict[str, Any]:
    """All benchmarks.

    Raises:
        DataError: If the folder holds no quickstart run.
    """
    run = Run(folder / "run")
    source = folder / "scenes" / "examples.jsonl"
    if not source.is_file():
        raise DataError(f"{folder} holds no quickstart run; run `m3router quickstart` first")
    model = load_model("embedded", device="cpu")
    log = run.log()
    images = source.parent / "images"
    by_id = {one.id: one for one in load_jsonl(source, images=images)}
    rows = run.split(log).part("test")[:questions]
    examples = [by_id[log.ids[row]] for row in rows]
    pipeline = AutoScalePipeline(model=model, router=run.router(), policy=one_point_policy(run))
    return {
        "machine": {
            "processor": platform.machine(),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
        },
        "labelling": bench_labelling(model, scenes=scenes, naive_scenes=naive_scenes),
        "decision": bench_decision(pipeline, open_image(images / examples[0].image)),
        "pipeline": bench_pipeline(pipeline, examples, images),
    }


def main() -> None:
    """Run, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quickstart", type=Path, default=Path("quickstart"))
    parser.add_argument("--scenes", type=int, default=96, help="scenes labelled the fast way")
    parser.add_argument("--naive-scenes", type=int, default=24, help="scenes labelled naively")
    parser.add_argument("--questions", type=int, default=1500, help="questions for the pipeline")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    arguments = parser.parse_args()
    results = run_all(
        arguments.quickstart,
        scenes=arguments.scenes,
        naive_scenes=arguments.naive_scenes,
        questions=arguments.questions,
    )
    text = json.dumps(results, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()

"""Every claim about routing on the embedded model's scenes, from drawing them to the report.

    python -m experiments.routing.run --work runs/routing

Draws scenes, labels them with the shipped model at every scale, trains one router for each feature
group and each estimator on the same split, evaluates them all, certifies policies, and
studies the main router: how many labels it needs, what it knows of kinds of questions it never saw,
and whether others are better. What is done is not done again.

The main router (`MAIN`) was chosen by the tune and calibration splits of other scenes. Nothing is
chosen by the test split.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.recording import kept, provenance
from m3router.data.errors import DataError
from m3router.data.manifest import atomic_write_text
from m3router.data.scenes.export import LABEL_SEEDS, write_scenes
from m3router.data.sources.jsonl import load_jsonl
from m3router.m3core.checkpoints import load_model
from m3router.router.cli.labelling import label_with_progress
from m3router.router.features.groups import FEATURE_GROUPS
from m3router.router.policies.policy import Policy
from m3router.router.runs.run import Run
from m3router.router.stages.comparing import compare_runs
from m3router.router.stages.escalating import escalate_stage
from m3router.router.stages.evaluating import evaluate_stage
from m3router.router.stages.learning import calibrate_stage, train_stage
from m3router.router.stages.reporting import report_stage
from m3router.router.stages.studies import learning_curve_stage, leave_one_out_stage

HERE = Path(__file__).parent
QUESTIONS = 8
BUDGETS = (12.0, 18.0, 24.0, 36.0, 72.0, 144.0, 288.0)
REGRETS = (0.005, 0.01, 0.02, 0.05)
CONFIDENCE = 0.95
ARMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "image": ("mlp", ("image",)),
    "question": ("mlp", ("question",)),
    "image+question": ("mlp", ("image", "question")),
    "image+question+cheap": ("mlp", ("image", "question", "cheap")),
    "image+question+peek": ("mlp", ("image", "question", "peek")),
    "all feature groups": ("mlp", ("image", "question", "cheap", "peek")),
    "logistic": ("logistic", ("image", "question")),
    "lightgbm": ("lightgbm", ("image", "question")),
    "knn": ("knn", ("image", "question")),
    "rank": ("rank", ("image", "question")),
}
"""Name -> estimator and the feature groups that it reads."""
MAIN = "image+question"


def labelled(work: Path, *, scenes: int) -> Run:
    """Draw and label scenes; an interrupted run goes on."""
    run, folder = Run(work / "log"), work / "scenes"
    path = write_scenes(
        folder, range(LABEL_SEEDS.start, LABEL_SEEDS.start + scenes), questions=QUESTIONS
    )
    examples = load_jsonl(path, images=folder / "images")
    label_with_progress(
        run,
        examples,
        images=folder / "images",
        model=load_model("embedded"),
        feature_groups=tuple(FEATURE_GROUPS),
    )
    return run


def arm_run(work: Path, source: Run, arm: str, *, seed: int) -> Run:
    """A run folder in which one arm is trained and calibrated."""
    estimator, feature_groups = ARMS[arm]
    run = source.copy_data(work / arm.replace(" ", "-"))
    train_stage(
        run,
        estimator=estimator,
        feature_groups=feature_groups,
        seed=seed,
        ablations=False,
        reuse=True,
    )
    for budget in BUDGETS:
        calibrate_stage(run, name=f"budget-{budget:g}", budget=budget)
    calibrate_stage(run, name="at-most-1-point", max_loss_observed=0.01)
    return run


def certified(run: Run) -> dict[str, Any]:
    """The guarantee at every level of regret, for the router and for its cascade.

    What the certified ones reach on the test split is among the rows of the evaluation.
    """
    found: dict[str, Any] = {}
    for regret in REGRETS:
        for name, calibrate in (("regret", calibrate_stage), ("escalate-regret", escalate_stage)):
            try:
                made = calibrate(
                    run, name=f"{name}-{regret:g}", max_regret=regret, confidence=CONFIDENCE
                )
            except DataError as error:  # too few images, or nothing is certified
                found[f"{name}-{regret:g}"] = {"refused": str(error)}
            else:
                found[f"{name}-{regret:g}"] = {
                    "calibration": dict(made.calibration),
                    "guarantee": dict(made.guarantee),
                    "fallback": isinstance(made, Policy) and made.fallback,
                }
    for budget in BUDGETS:
        escalate_stage(run, name=f"escalate-{budget:g}", budget=budget)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """All arms, all studies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "routing.json")
    told = parser.parse_args(arguments)
    source = labelled(told.work, scenes=told.scenes)
    runs = {arm: arm_run(told.work, source, arm, seed=told.seed) for arm in ARMS}
    guarantee = certified(runs[MAIN])
    results: dict[str, Any] = {
        **provenance(
            f"python -m experiments.routing.run --work WORK --scenes {told.scenes}", seed=told.seed
        ),
        "main": MAIN,
        "guarantee": guarantee,
        "arms": {},
        "versus": {},
    }
    for arm, run in runs.items():
        document = evaluate_stage(run, budgets=BUDGETS, seed=told.seed, reuse=True)
        estimator, feature_groups = ARMS[arm]
        results["arms"][arm] = {
            "estimator": estimator,
            "tiers": feature_groups,
            **kept(document, others=arm == MAIN),
        }
        if arm != MAIN:
            versus = compare_runs(run, runs[MAIN], budgets=BUDGETS, seed=told.seed).to_dict()
            results["versus"][arm] = {"n": versus["n"], "differences": versus["differences"]}
        print(f"{arm}: AIQ {document['metrics']['aiq']}", flush=True)
    results["learning_curve"] = learning_curve_stage(runs[MAIN])
    results["leave_one_out"] = leave_one_out_stage(runs[MAIN])
    report_stage(runs[MAIN], images=told.work / "scenes" / "images", reuse=True)
    atomic_write_text(told.out, json.dumps(results, indent=1) + "\n")
    print(f"results: {told.out}\nreport: {runs[MAIN].report_folder / 'report.html'}")


if __name__ == "__main__":
    main()

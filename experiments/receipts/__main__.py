"""Route between six sizes at which an OCR reader looks at receipts, from labelling to the verdict.

    python -m experiments.receipts --images FOLDER --keys FILE --out runs/receipts

The reader is frozen and makes real mistakes on real documents; it is no language model. Receipts
and keys are not part of this repository, see README.md. Labels by the function door, featurizes,
trains one router for each set of features on the same split by image, calibrates, certifies, and
evaluates beside all baselines. What is done is not done again. Nothing is chosen by the test
split: the main router is what a reader without an image encoder gets by default.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.receipts.examples import read_keys
from experiments.receipts.reader import READINGS
from experiments.recording import kept, provenance
from m3router.data.errors import DataError, NotLearnableError
from m3router.data.log.oracle_log import OracleLog
from m3router.data.manifest import atomic_write_text
from m3router.m3core.matryoshka.base import MultiScaleModel
from m3router.m3core.opening import open_model
from m3router.m3core.options import OptionModel
from m3router.router import estimators
from m3router.router.cli.labelling import label_with_progress
from m3router.router.metrics.choices import taken
from m3router.router.policies.knobs import Knobs
from m3router.router.policies.policy import Policy
from m3router.router.runs.calibration_data import predictions
from m3router.router.runs.run import Run
from m3router.router.stages.comparing import compare_runs
from m3router.router.stages.escalating import escalate_stage
from m3router.router.stages.evaluating import evaluate_stage
from m3router.router.stages.learning import calibrate_stage, train_stage
from m3router.router.stages.reporting import report_stage

HERE = Path(__file__).parent
READER = "experiments.receipts.reader:ocr_reader"
ENCODER = "embedded"
"""Its tower was trained on drawn scenes, and sees documents badly; no other was at hand."""
ARMS: dict[str, tuple[str, ...]] = {
    "question+cheap": ("question", "cheap"),
    "question": ("question",),
    "image+question+cheap": ("image", "question", "cheap"),
}
"""Name -> the feature groups that a router reads."""
MAIN = "question+cheap"
ESTIMATOR = estimators.DEFAULT
SHARES = (1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4)
"""Budgets as shares of the mean cost of the finest option."""
REGRETS = (0.05, 0.1, 0.2)
"""The last one because few receipts are calibrated on: 10 % needs 29 of them, 5 % needs 59."""
CONFIDENCE = 0.95


def labelled(out: Path, *, images: Path, keys: Path, model: MultiScaleModel | OptionModel) -> Run:
    """Label every receipt at every size; an interrupted run goes on."""
    run = Run(out / "log")
    groups = tuple(dict.fromkeys(group for arm in ARMS.values() for group in arm))
    label_with_progress(
        run,
        read_keys(keys),
        images=images,
        model=model,
        questions="hashed",
        encoder=ENCODER,
        feature_groups=groups,
    )
    return run


def arm_run(out: Path, source: Run, arm: str, *, seed: int) -> Run:
    """A run folder in which one arm is trained."""
    run = source.copy_data(out / arm)
    train_stage(
        run,
        estimator=ESTIMATOR,
        feature_groups=ARMS[arm],
        seed=seed,
        ablations=False,
        reuse=True,
    )
    return run


def calibrated(run: Run, *, budgets: Sequence[float]) -> dict[str, Any]:
    """Calibrate router and cascade for every budget and every guarantee.

    Returns:
        What is guaranteed with :data:`CONFIDENCE`, and why what was refused was: too few images,
        or nothing is certified.
    """
    wanted: list[tuple[str, Knobs]] = [
        (f"budget-{budget:g}", {"budget": budget}) for budget in budgets
    ]
    wanted += [
        (f"regret-{regret:g}", {"max_regret": regret, "confidence": CONFIDENCE})
        for regret in REGRETS
    ]
    found: dict[str, Any] = {}
    for name, knobs in wanted:
        for start, calibrate in (("", calibrate_stage), ("escalate-", escalate_stage)):
            try:
                made = calibrate(run, name=f"{start}{name}", **knobs)
            except (DataError, NotLearnableError) as error:
                found[f"{start}{name}"] = {"refused": str(error)}
                continue
            if made.guarantee:
                found[f"{start}{name}"] = {
                    "calibration": dict(made.calibration),
                    "guarantee": dict(made.guarantee),
                    "fallback": isinstance(made, Policy) and made.fallback,
                }
    return found


def described(log: OracleLog) -> dict[str, Any]:
    """What the reader did at every size, on all receipts: accuracy, by field too, and costs."""
    fields = np.asarray(log.datasets, dtype=str)
    accuracy = {"all": log.scores.mean(axis=0)}
    accuracy |= {field: log.scores[fields == field].mean(axis=0) for field in np.unique(fields)}
    return {
        "examples": len(log),
        "receipts": len(np.unique(np.asarray(log.groups, dtype=str))),
        "options": list(log.options),
        "accuracy": {field: _rounded(one) for field, one in accuracy.items()},
        "right at any size": round(float(log.scores.max(axis=1).mean()), 4),
        "megapixels": _rounded(log.costs.mean(axis=0)),
        "cpu_seconds": _rounded(log.laid_out("seconds").mean(axis=0)),
    }


def seconds_taken(run: Run) -> dict[str, float]:
    """Mean seconds of the processor on the test split: each option's, and each policy's."""
    run = run.opened()
    router, log = run.router(), run.log()
    split = run.split(log)
    test = split.test
    p = predictions(router, run.features(log), log, test)[test]
    seconds, costs = log.laid_out("seconds")[test], log.costs[test]
    found = dict(zip(log.options, seconds.mean(axis=0).tolist(), strict=True))
    for name, policy in run.policies(router, split).items():
        found[name] = float(taken(seconds, policy.choose(p, costs)).mean())
    return {name: round(value, 4) for name, value in found.items()}


def studied(
    out: Path,
    *,
    images: Path,
    keys: Path,
    model: MultiScaleModel | OptionModel,
    seed: int,
    draws: int = 1000,
) -> dict[str, Any]:
    """Everything that is recorded, but where it came from."""
    source = labelled(out, images=images, keys=keys, model=model)
    log = source.log()
    finest = float(log.costs[:, -1].mean())
    budgets = [float(f"{share * finest:.3g}") for share in SHARES]
    runs = {arm: arm_run(out, source, arm, seed=seed) for arm in ARMS}
    results: dict[str, Any] = {
        "reader": described(log),
        "main": MAIN,
        "estimator": ESTIMATOR,
        "guarantee": calibrated(runs[MAIN], budgets=budgets),
        "arms": {},
        "rivals": {},
        "versus": {},
    }
    for arm, run in runs.items():
        document = evaluate_stage(run, budgets=budgets, draws=draws, seed=seed, reuse=True)
        results["arms"][arm] = {"tiers": ARMS[arm], **kept(document, others=arm == MAIN)}
        results["rivals"][arm] = {
            name: rival["metrics"]["aiq_minus_router"]
            for name, rival in document["baselines"].items()
            if rival.get("metrics")
        }
        if arm == MAIN:
            results["fields"] = document["datasets"]
        else:
            versus = compare_runs(
                run, runs[MAIN], budgets=budgets, draws=draws, seed=seed
            ).to_dict()
            results["versus"][arm] = {"n": versus["n"], "differences": versus["differences"]}
        print(f"{arm}: {document['verdict']['text']}", flush=True)
    results["seconds"] = seconds_taken(runs[MAIN])
    return results


def main(arguments: Sequence[str] | None = None) -> None:
    """Label, learn, certify, evaluate, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--keys", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="work folder")
    parser.add_argument("--model", default=READER, help="package.module:factory of the reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--results", type=Path, default=HERE / "results" / "receipts.json", help="what to write"
    )
    told = parser.parse_args(arguments)
    told.out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault(READINGS, str(told.out / "readings.jsonl"))
    results = {
        **provenance(
            "python -m experiments.receipts --images IMAGES --keys KEYS --out OUT", seed=told.seed
        ),
        **studied(
            told.out,
            images=told.images,
            keys=told.keys,
            model=open_model(told.model),
            seed=told.seed,
        ),
    }
    atomic_write_text(told.results, json.dumps(results, indent=1) + "\n")
    report_stage(Run(told.out / MAIN), images=told.images, reuse=True)
    print(f"results: {told.results}\nreport: {told.out / MAIN / 'report' / 'report.html'}")


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 4) for value in values]


if __name__ == "__main__":
    main()

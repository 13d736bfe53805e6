"""Route between three resolutions of commercial models on BlindTest, and record what comes out.

    python -m experiments.blindtest.run --data FOLDER --work runs/blindtest

FOLDER holds ``oracle.jsonl`` and ``images/``, see ``m3router.data.importers.blindtest``. One run
for each model and one for all together; features are the shipped tower's pooled tokens and hashed
words, no language model is asked. The split is by image. Nothing is tuned on the test split.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from experiments.recording import kept, provenance
from m3router.data.errors import DataError
from m3router.data.importers.blindtest import read_blindtest
from m3router.data.manifest import MANIFEST, atomic_write_text
from m3router.router.runs.run import Run
from m3router.router.stages.evaluating import evaluate_stage
from m3router.router.stages.labelling import featurize_stage, import_stage
from m3router.router.stages.learning import calibrate_stage, train_stage
from m3router.router.stages.reporting import report_stage

HERE = Path(__file__).parent
ESTIMATORS = ("logistic", "lightgbm", "mlp")
FEATURE_GROUPS = ("image", "question", "cheap")
REGRETS = (0.02, 0.05, 0.1)


def models_in(folder: Path) -> list[str]:
    """The models whose answers the log holds."""
    return sorted({str(name).split("/", 1)[1] for name in read_blindtest(folder).datasets})


def imported(folder: Path, run: Run, *, model: str | None) -> Run:
    """A run folder with the log of one model, or of all, and its features."""
    if not (run.features_folder / MANIFEST).is_file():
        import_stage(run, "blindtest", folder, model=model)
        featurize_stage(
            run,
            images=folder,
            encoder="embedded",
            questions="hashed",
            feature_groups=FEATURE_GROUPS,
        )
    return run


def study(folder: Path, run: Run, *, estimator: str, seed: int) -> dict[str, Any]:
    """One run from training to report; the part of the evaluation that is worth recording."""
    train_stage(run, estimator=estimator, seed=seed, reuse=True)
    calibrate_stage(run, max_loss_observed=0.01)
    refused = {}
    for regret in REGRETS:
        try:
            calibrate_stage(run, name=f"regret-{regret:g}", max_regret=regret)
        except DataError as error:  # too few images
            refused[f"regret-{regret:g}"] = str(error)
    document = evaluate_stage(run, reuse=True)
    report_stage(run, images=folder, reuse=True)
    return {**kept(document), "refused": refused}


def main() -> None:
    """All models, all estimators."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    command = "python -m experiments.blindtest.run --data DATA --work WORK"
    results: dict[str, Any] = provenance(command, seed=arguments.seed)
    for model in [*models_in(arguments.data), None]:
        place = arguments.work / (model or "all")
        source = imported(arguments.data, Run(place / "log"), model=model)
        for estimator in ESTIMATORS:
            name = f"{model or 'all models'}, {estimator}"
            run = source.copy_data(place / estimator)
            results[name] = study(arguments.data, run, estimator=estimator, seed=arguments.seed)
            print(f"{name}: {json.dumps(results[name]['metrics'], default=str)[:400]}")
    path = HERE / "results" / "results.json"
    atomic_write_text(path, json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Route between three resolutions of commercial models on BlindTest, and record what comes out.

    python -m experiments.blindtest.run --data FOLDER --work runs/blindtest

FOLDER holds ``oracle.jsonl`` and ``images/``, see ``data.importers.blindtest``. One run for each
model and one for all together; features are the shipped tower's pooled tokens and hashed words,
no language model is asked. The split is by picture. Nothing is tuned on the test part.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from data.importers.blindtest import read_blindtest
from data.manifest import atomic_write_text
from router.run import Run
from router.stages.labelling import featurize_stage, import_stage
from router.stages.learning import calibrate_stage, train_stage
from router.stages.reporting import evaluate_stage, report_stage

HERE = Path(__file__).parent
ESTIMATORS = ("logistic", "lightgbm")


def models_in(folder: Path) -> list[str]:
    """The models whose answers the log holds."""
    return sorted({str(name).split("/", 1)[1] for name in read_blindtest(folder).datasets})


def study(
    folder: Path, run: Run, *, model: str | None, estimator: str, seed: int
) -> dict[str, Any]:
    """One run from import to report; the part of the evaluation that is worth recording."""
    if not run.log.exists():
        import_stage(run, "blindtest", folder, model=model)
        featurize_stage(run, images=folder, encoder="embedded", questions="hashed")
    train_stage(run, estimator=estimator, seed=seed)
    calibrate_stage(run, max_loss_points=1.0)
    document = evaluate_stage(run)
    report_stage(run, images=folder)
    kept = ("n", "best_fixed", "rows", "metrics", "ablations")
    return {key: document[key] for key in kept if key in document}


def main() -> None:
    """All models, both estimators."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    results: dict[str, Any] = {"seed": arguments.seed}
    for model in [*models_in(arguments.data), None]:
        for estimator in ESTIMATORS:
            name = f"{model or 'all models'}, {estimator}"
            run = Run(arguments.work / (model or "all") / estimator)
            results[name] = study(
                arguments.data, run, model=model, estimator=estimator, seed=arguments.seed
            )
            print(f"{name}: {json.dumps(results[name]['metrics'], default=str)[:400]}")
    path = HERE / "results" / "results.json"
    atomic_write_text(path, json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

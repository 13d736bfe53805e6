"""Train on every real log in a folder, at several sizes, beside five lines of scikit-learn.

    python -m experiments.real_logs.run --data FOLDER --work runs/real_logs

FOLDER holds a folder for each log, see `experiments.real_logs.logs`. What is done is kept in the
work folder; run it again to go on. Writes `results/results.json`, from which
`python -m experiments.real_logs.page` makes the table and the page. The three development logs
take about 25 minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from experiments.real_logs.baselines import BASELINES, MIXING
from experiments.real_logs.logs import RealLog, find_logs
from experiments.real_logs.protocol import (
    SEEDS,
    Draws,
    compared,
    judged,
    measured,
    mixtures,
    sizes_of,
    small_split,
)
from experiments.recording import provenance
from m3router.data.errors import DataError
from m3router.data.manifest import atomic_write_text
from m3router.router.evaluation.evaluate import evaluate
from m3router.router.metrics.choices import taken
from m3router.router.policies.knobs import Knobs
from m3router.router.runs.calibration_data import CalibrationData, predictions
from m3router.router.training.fit import train_router

HERE = Path(__file__).parent
ROUTER = "router"


PROMISES: dict[str, Knobs] = {
    "at most 1 point of accuracy lost": {"max_loss": 0.01},
    "at most 2 points of accuracy lost": {"max_loss": 0.02},
    "at most 2 % right before and wrong as routed": {"max_regret": 0.02},
}
"""What is asked for with 95 % confidence, with all training questions."""


def estimates(log: RealLog, *, seed: int, size: int | None, work: Path) -> dict[str, Any]:
    """What router and baselines say about the test questions of one seed: name -> (n, K).

    With all training questions also what was promised on the calibration split and what came of it
    on the test split, "promise N" -> (certified, share of the reference's cost saved, accuracy
    lost), and, for the first seed, the verdict of an evaluation.
    """
    name = f"{log.name.replace('/', '-')}-{size or 'all'}-{seed}.npz"
    path = work / "estimates" / name
    if path.is_file():
        with np.load(path) as kept:
            return dict(kept)
    split = small_split(log, seed=seed, size=size)
    learn, test = np.concatenate([split.fit, split.tune]), split.test
    X, datasets = log.matrix(np.arange(len(log.log))), log.log.datasets.astype(str)
    found: dict[str, Any] = {}
    for title, baseline in BASELINES.items():
        found[title] = baseline(X, log.log.scores, datasets, learn, test)
    began = time.perf_counter()
    router = train_router(log.log, log.features, split, seed=seed)
    found["seconds"] = np.array(time.perf_counter() - began)
    p = predictions(router, log.features, log.log, np.arange(len(log.log)))
    found[ROUTER] = p[test]
    if size is None:
        data = CalibrationData.of(router, log.expected, log.features, split)
        for number, target in enumerate(PROMISES.values()):
            found[f"promise {number}"] = np.array(promised(data, target, log, p, test))
    if size is None and seed == 0:
        document = evaluate(log.expected, p, split=split, features=log.features)
        found["verdict"] = np.array(document["verdict"]["text"])
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **found)
    return found


def promised(
    data: CalibrationData, target: Knobs, log: RealLog, p: np.ndarray, test: np.ndarray
) -> tuple[float, float, float]:
    """Whether something cheaper than the reference was certified, what it saved and lost on test.

    Where the calibration split is too small, the reference itself is used: nothing saved or lost.
    """
    try:
        policy = data.policy(**target)
    except DataError:
        return 0.0, 0.0, 0.0
    costs, scores, known = log.log.costs[test], log.log.scores[test], log.expected.costs[test]
    choice, fixed = policy.choose(p[test], known), policy.reference_choice(known)
    saved = 1 - taken(costs, choice).mean() / taken(costs, fixed).mean()
    lost = taken(scores, fixed).mean() - taken(scores, choice).mean()
    return float(not policy.fallback), float(saved), float(lost)


def compare(log: RealLog, *, size: int | None, work: Path) -> dict[str, Any]:
    """All comparisons at one size."""
    draws, whole, verdict = Draws.of(log), size is None, ""
    values: dict[str, list[np.ndarray]] = {}
    learned, seconds, kept = [], [], []
    for seed in range(SEEDS):
        split = small_split(log, seed=seed, size=size)
        test = split.test
        learned.append(len(split.fit) + len(split.tune))
        costs = log.log.costs[test]
        found = estimates(log, seed=seed, size=size, work=work)
        seconds.append(float(found["seconds"]))
        kept.append(
            [found[f"promise {number}"] for number in range(len(PROMISES))] if whole else []
        )
        if "verdict" in found:
            verdict = str(found["verdict"])
        curves = {MIXING: mixtures(log, split, test)}
        for name in (*BASELINES, ROUTER):
            if name != MIXING:
                curves[name] = judged(found[name], log, test)
        for name, one in curves.items():
            values.setdefault(name, []).append(measured(draws.curves(one, test), costs))
    stacked = {name: np.stack(one) for name, one in values.items()}
    return {
        "questions": round(float(np.mean(learned))),
        "seconds": round(float(np.mean(seconds)), 1),
        "reached": {
            name: [round(100 * value, 3) for value in np.nanmean(one, axis=0)[0].tolist()]
            for name, one in stacked.items()
        },
        "compared": _rounded(compared(stacked)),
        **({"promises": _promises(np.array(kept)), "verdict": verdict} if whole else {}),
    }


def _promises(kept: np.ndarray) -> list[dict[str, Any]]:
    """Means over seeds of what was promised, (S, promises, 3)."""
    return [
        {
            "promise": name,
            "seeds": len(kept),
            "certified": int(one[:, 0].sum()),
            "saved": round(100 * float(one[:, 1].mean()), 2),
            "lost": round(100 * float(one[:, 2].mean()), 3),
            "most_lost": round(100 * float(one[:, 2].max()), 3),
        }
        for name, one in zip(PROMISES, kept.swapaxes(0, 1), strict=True)
    ]


def described(log: RealLog) -> dict[str, Any]:
    """What a log is."""
    scores, costs = log.log.scores, log.log.costs
    return {
        "questions": len(log.log),
        "groups": len(np.unique(log.log.groups.astype(str))),
        "datasets": len(np.unique(log.log.datasets.astype(str))),
        "options": list(log.log.options),
        "accuracy": [round(100 * float(one), 2) for one in scores.mean(axis=0)],
        "cost": [round(float(one), 4) for one in costs.mean(axis=0)],
        "cost_unit": log.log.cost_unit,
        "features": dict(log.features.widths),
    }


def studied(folder: Path, work: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every log of the folder, with all sizes."""
    for name, log in find_logs(folder, work):
        if isinstance(log, str):
            yield name, {"left out": log.replace(f"{folder}/", "")}  # no place of this machine
            continue
        cells = []
        for size in sizes_of(log):
            began = time.perf_counter()
            try:
                cells.append(compare(log, size=size, work=work))
            except DataError as error:
                cells.append({"questions": size, "left out": str(error)})
            print(f"{name}, {size or 'all'}: {time.perf_counter() - began:.0f} s", flush=True)
        yield name, {**described(log), "sizes": cells}


def main() -> None:
    """All logs, all sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "results.json")
    arguments = parser.parse_args()
    logging.getLogger("router").setLevel(logging.WARNING)
    command = "python -m experiments.real_logs.run --data DATA --work WORK"
    results: dict[str, Any] = {**provenance(command, seed=0), "seeds": SEEDS, "logs": {}}
    for name, found in studied(arguments.data, arguments.work):
        results["logs"][name] = found
        atomic_write_text(arguments.out, json.dumps(results, indent=1) + "\n")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return round(value, 3) if isinstance(value, float) else value


if __name__ == "__main__":
    main()

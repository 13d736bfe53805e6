"""What `m3router tune` gained over the defaults, on the calibration split.

    m3router tune RUN --trials 40
    python -m experiments.tuning.gain RUN

Trains `m3router train`'s defaults and the tuned setting on the tuning's own split, and compares
their curves on the calibration split, which neither has read. Differences are paired and their 95 %
intervals come from draws of whole images. Nothing is chosen here, and test is not read.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from m3router.data.log.oracle_log import OracleLog
from m3router.data.log.parts import part_rows
from m3router.data.manifest import atomic_write_text
from m3router.router.features.table import FeatureTable
from m3router.router.metrics.paired_bootstrap import estimate
from m3router.router.runs.run import Run
from m3router.router.stages.tuning import tuned_setting, tuning_folder
from m3router.router.training.fit import train_router
from m3router.router.training.scale_router import ScaleRouter
from m3router.router.training.targets import apply_rule
from m3router.router.tuning.objective import curve, halves, overall
from m3router.router.tuning.results import read_results, row_of
from m3router.router.tuning.setting import Tuned

HERE = Path(__file__).parent
DRAWS = 300
Array = npt.NDArray[np.float64]


def trained(
    log: OracleLog, features: FeatureTable, setting: Tuned, defaults: list[str]
) -> dict[str, ScaleRouter]:
    """Routers by name: defaults on all blocks, and the tuned one."""
    common: dict[str, Any] = {"seed": setting.seed, "gaps": setting.gaps}
    routers = {
        f"{name}, defaults": train_router(log, features, setting.split, estimator=name, **common)
        for name in defaults
    }
    routers["tuned"] = train_router(
        log,
        features,
        setting.split,
        estimator=setting.estimator,
        blocks=setting.blocks,
        hyperparameters=setting.hyperparameters,
        **common,
    )
    return routers


def judged(
    routers: dict[str, ScaleRouter],
    log: OracleLog,
    features: FeatureTable,
    rows: npt.NDArray[np.intp],
    *,
    at: Array,
) -> dict[str, Array]:
    """Of each router: low, high and mean of both on these rows (0), and in every draw (1...)."""
    table = features.align([log.ids[row] for row in rows])
    p = {name: router.predict(table) for name, router in routers.items()}
    names, member = np.unique(log.groups[rows], return_inverse=True)
    inside = [np.flatnonzero(member == number) for number in range(len(names))]
    generator = np.random.default_rng(0)
    draws = [np.arange(len(rows))]
    for _ in range(DRAWS):
        drawn = generator.integers(len(names), size=len(names))
        draws.append(np.concatenate([inside[number] for number in drawn]))
    found: dict[str, Array] = {}
    for name, router in routers.items():
        values = []
        for some in draws:
            costs, scores = log.costs[rows[some]], log.scores[rows[some]]
            reached = curve(p[name][some], costs, scores, at=at, blocks=router.blocks)
            both = halves(reached)
            values.append([*both, overall(both)])
        found[name] = np.array(values)
    return found


def main() -> None:
    """Print a table and record it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--defaults", default="logistic,lightgbm")
    arguments = parser.parse_args()
    run = Run(arguments.run)
    study, setting = read_results(tuning_folder(run)), tuned_setting(run)
    log = apply_rule(run.log(), setting.rule)
    features = run.features(log)
    rows = part_rows(log, setting.split, "calibrate", gaps=setting.gaps)
    routers = trained(log, features, setting, arguments.defaults.split(","))
    found = judged(routers, log, features, rows, at=np.array(study["budgets"]))
    results: dict[str, Any] = {
        "seed": setting.seed,
        "study": {"trials": len(study["trials"]), "chosen": row_of(study)},
        "examples": len(rows),
        "pictures": len(set(log.groups[rows])),
        "routers": {},
    }
    for name, values in found.items():
        difference = values - found["tuned"]
        entry: dict[str, Any] = {}
        for place, what in enumerate(("low", "high", "mean")):
            gain = estimate(-difference[0, place], -difference[1:, place])
            entry[what] = values[0, place]
            entry[f"tuned minus this, {what}"] = [gain.value, gain.low, gain.high]
        results["routers"][name] = entry
        print(f"{name}: {json.dumps(entry)}")
    atomic_write_text(HERE / "results" / "gain.json", json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Time and memory of the estimators at size, and what one prediction costs, in one run.

    python -m experiments.benchmarks.estimators --out experiments/benchmarks/results/estimators.json

Made-up features and scores; every fit runs in a fresh process, whose peak memory is that of the
fit. Three parts:

- `size`: LightGBM on 100 000 examples x 5 options x 1 500 float32 features with two threads.
  Wanted: 180 s and 6 GiB.
- `mapped`: the same on features larger than what the process may allocate. The features lie in a
  memory-mapped file, and the process may hold no more private memory than a limit (RLIMIT_DATA,
  which does not count shared mappings of files), so that it ends if anything copies them.
- `latency`: `predict_one` of each estimator on 905 features, fitted on 14 000 examples, in
  microseconds; the medians of many calls, taken in turns. Each is compared with the general path
  for one row: `predict` on a table of one row.

Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from m3router.router.estimators import ESTIMATORS, estimator_class
from m3router.router.estimators.base import Floats, log_loss
from m3router.router.features.mapped import empty

OPTIONS = 5
WIDTHS = (648, 257)
SIZE = {"examples": 100_000, "features": 1_500}
MAPPED = {"examples": 350_000, "features": 1_500, "limit_mib": 1_536, "rounds": 20}
LATENCY = {"examples": 14_000, "features": sum(WIDTHS)}
LIGHT: dict[str, dict[str, Any]] = {
    "blend": {"widths": WIDTHS},
    "logistic": {"C": 1e-3},
    "lightgbm": {"rounds": 100},
    "mlp": {"epochs": 1, "widths": WIDTHS},
    "knn": {"widths": WIDTHS},
    "rank": {"epochs": 1, "widths": WIDTHS},
}
"""Settings for the latencies: fitted quickly, but of the size that real routers have."""


def made_up(n: int, d: int, *, mapped: bool = False) -> tuple[Floats, Floats]:
    """Features (n, d) and scores (n, OPTIONS); a product of two features decides, among others."""
    random = np.random.default_rng(0)
    X = empty(n, d, limit=0 if mapped else 1 << 60)
    for start in range(0, n, 5_000):
        rows = X[start : start + 5_000]
        rows[:] = random.standard_normal(rows.shape, dtype=np.float32)
    need = X[:, 0] * X[:, -1] + X[:, 1] + 0.5 * X[:, -2]
    knows = 1 / (1 + np.exp(-3 * (np.linspace(-2, 2, OPTIONS) - need[:, None])))
    return X, (random.random((n, OPTIONS)) < knows).astype(np.float64)


def fit(n: int, d: int, *, threads: int, mapped: bool, limit_mib: int, rounds: int) -> None:
    """Fit LightGBM in this process, and print what it took as JSON."""
    X, Y = made_up(n, d, mapped=mapped)
    kind = estimator_class("lightgbm")
    given: dict[str, Any] = {"threads": threads} | ({"rounds": rounds} if rounds else {})
    if limit_mib:
        resource.setrlimit(resource.RLIMIT_DATA, (limit_mib << 20, limit_mib << 20))
    before, began, spent = _memory(), time.perf_counter(), time.process_time()
    fitted = kind(**given).fit(X, Y)
    took = {
        "wall_s": round(time.perf_counter() - began, 1),
        "cpu_s": round(time.process_time() - spent, 1),
        "private_mib_before": before["private_mib"],
        **_memory(),
        "features_mib": X.nbytes >> 20,
    }
    head = slice(0, 2_000)
    loss, constant = log_loss(Y[head], fitted.predict(X[head])), log_loss(Y[head], Y.mean(axis=0))
    print(json.dumps(took | {"log_loss": round(loss, 4), "of_constant": round(constant, 4)}))


def latency(repeats: int) -> dict[str, dict[str, float]]:
    """Microseconds of one prediction of every estimator, taken in turns."""
    X, Y = made_up(LATENCY["examples"], LATENCY["features"])
    names, fitted, result = list(ESTIMATORS), {}, {}
    for name in names:
        fitted[name] = estimator_class(name)(**LIGHT[name]).fit(X, Y)
    spent: dict[str, list[float]] = {f"{n} {w}": [] for n in names for w in ("one", "table")}
    for turn in range(repeats):
        row = X[turn % len(X)]
        for name in names:
            ways = ("one", "table") if turn % 2 else ("table", "one")
            for way in ways:
                began = time.perf_counter()
                if way == "one":
                    fitted[name].predict_one(row)
                else:
                    fitted[name].predict(row[None, :])
                spent[f"{name} {way}"].append(1e6 * (time.perf_counter() - began))
    for name in names:
        one, table = (statistics.median(spent[f"{name} {way}"]) for way in ("one", "table"))
        result[name] = {
            "predict_one_us": round(one, 1),
            "predict_us": round(table, 1),
            "ratio": round(one / table, 3),
        }
    return result


def _memory() -> dict[str, int]:
    """Peak resident and present private memory of this process, MiB."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    kib = {name: int(lines[name].split()[0]) for name in ("VmHWM", "RssAnon")}
    return {"peak_resident_mib": kib["VmHWM"] >> 10, "private_mib": kib["RssAnon"] >> 10}


def _in_fresh_process(part: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "experiments.benchmarks.estimators", "--part", part]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def run_all(parts: list[str]) -> dict[str, Any]:
    """The parts asked for, each in a process of its own."""
    machine = {"processor": platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()}
    results: dict[str, Any] = {"machine": machine, "size": SIZE, "mapped": MAPPED}
    results["latency"] = LATENCY
    for part in parts:
        results[part] = {**results[part], "measured": _in_fresh_process(part)}
    return results


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=("size", "mapped", "latency"), help="print this alone")
    parser.add_argument("--only", nargs="+", default=["size", "mapped", "latency"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=300)
    parser.add_argument("--note", help="what else the machine was doing; kept with the results")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    given = parser.parse_args()
    if given.part == "latency":
        print(json.dumps(latency(given.repeats)))
    elif given.part:
        setting = SIZE if given.part == "size" else MAPPED
        fit(
            setting["examples"],
            setting["features"],
            threads=given.threads,
            mapped=given.part == "mapped",
            limit_mib=setting.get("limit_mib", 0),
            rounds=setting.get("rounds", 0),
        )
    else:
        results = run_all(given.only)
        if given.note:
            results["machine"]["note"] = given.note
        text = json.dumps(results, indent=1)
        print(text)
        if given.out:
            given.out.write_text(text + "\n")


if __name__ == "__main__":
    main()

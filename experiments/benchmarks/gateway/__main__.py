"""What the gateway adds to a request, at 1 to 64 clients, against the upstream alone.

    python -m experiments.benchmarks.gateway --work gateway-bench

Needs the extra ``serve``. Upstream (the stand-in), gateway and clients are processes of their own,
each on its core where there are enough. Writes results, a page and a figure. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path

from experiments.benchmarks.gateway.figures import figure_of
from experiments.benchmarks.gateway.page import markdown
from experiments.benchmarks.gateway.running import CLIENTS, GROUPS, Bench, Plan
from experiments.benchmarks.gateway.summary import against_targets
from experiments.recording import provenance
from m3router.data.manifest import atomic_write_text, library_versions
from m3router.router.reports.figures import write_figure

RESULTS = Path(__file__).parent.parent / "results" / "gateway.json"


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("gateway-bench"))
    parser.add_argument("--seconds", type=float, default=1.5, help="measured in each round")
    parser.add_argument("--warm", type=float, default=0.5, help="seconds before that")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, nargs="+", default=list(CLIENTS))
    parser.add_argument("--groups", nargs="+", help="only these, by name [default: all]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    told = parser.parse_args()
    names = told.groups or [one.name for one in GROUPS]
    plan = Plan(
        work=told.work,
        groups=[one for one in GROUPS if one.name in names],
        clients=told.clients,
        rounds=told.rounds,
        warm=told.warm,
        seconds=told.seconds,
        seed=told.seed,
    )
    told.work.mkdir(parents=True, exist_ok=True)
    bench = Bench(plan)
    command = (
        f"python -m experiments.benchmarks.gateway --seconds {told.seconds:g} "
        f"--rounds {told.rounds} --seed {told.seed}"
    )
    machine = {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "roles": bench.cores,
        "load_before": os.getloadavg()[0],
        "versions": library_versions(),
    }
    groups = bench.all()
    results = {
        **provenance(command, seed=told.seed),
        "machine": machine,
        "rounds": told.rounds,
        "seconds": told.seconds,
        "groups": groups,
        "targets": against_targets(groups),
    }
    told.out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(told.out, json.dumps(results, indent=1) + "\n")
    atomic_write_text(told.out.with_suffix(".md"), markdown(results))
    write_figure(figure_of(groups), told.out.with_suffix(""))
    for one in results["targets"]:
        print(f"{'met   ' if one['met'] else 'MISSED'} {one['value']:9.3f}  {one['target']}")
    print(f"results: {told.out}")


if __name__ == "__main__":
    main()

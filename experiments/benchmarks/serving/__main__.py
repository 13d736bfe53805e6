"""Load on the server, one client to 64, against what it must be compared with, in one run.

    python -m experiments.benchmarks.serving --quickstart quickstart --minutes 10

Needs the folder that ``m3router quickstart`` wrote, and the extra ``serve``. Servers, clients and
this process are processes of their own on one machine. Prints a table and the targets, and writes
results, a page and figures beside ``--out``. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from experiments.benchmarks.serving.arms import CLIENTS, NAIVE, OURS, TRANSFORMERS, arms
from experiments.benchmarks.serving.checkpoint import write_checkpoint
from experiments.benchmarks.serving.figures import load_figure, memory_figure
from experiments.benchmarks.serving.material import AUTO, fixed, test_part, truths
from experiments.benchmarks.serving.page import markdown
from experiments.benchmarks.serving.running import Bench, Plan
from experiments.benchmarks.serving.servers import Server, m3router, one_at_a_time, transformers
from experiments.benchmarks.serving.targets import against_targets, ratios
from experiments.benchmarks.serving.workload import Question
from experiments.recording import provenance
from m3router.data.manifest import atomic_write_text, library_versions
from m3router.router.inference.pipeline import AutoScalePipeline
from m3router.router.reports.figures import write_figure

RESULTS = Path(__file__).parent.parent / "results" / "serving.json"


def prepared(told: argparse.Namespace) -> Plan:
    """Questions, what is right, and what to measure."""
    asked = test_part(told.quickstart, images=told.images)
    pipeline = AutoScalePipeline.load(told.quickstart / "run", device="cpu")
    scales = pipeline.model.grid.scales
    table = {name: arm for name, arm in arms(scales).items() if name in (told.arms or arms(scales))}
    return Plan(
        arms=table,
        asked=asked,
        truths=truths(pipeline, asked, [AUTO, *map(fixed, scales)]),
        max_tokens=pipeline.model.max_new_tokens,
        clients=tuple(told.clients),
        rounds=told.rounds,
        warm=told.warm,
        seconds=told.seconds,
        seed=told.seed,
    )


def needed(plan: Plan, run: Path, work: Path) -> dict[str, Server]:
    """The servers that the arms ask, not yet started."""
    makers = {
        OURS: lambda: m3router(run, work),
        NAIVE: lambda: one_at_a_time(run, work),
        TRANSFORMERS: lambda: transformers(
            write_checkpoint(work / "checkpoint"), work, model=plan.arms["transformers"].models[0]
        ),
    }
    return {name: makers[name]() for name in dict.fromkeys(a.server for a in plan.arms.values())}


def about(asked: Sequence[Question]) -> dict[str, Any]:
    """What questions are about."""
    return {
        "questions": len(asked),
        "pictures": len({one.image for one in asked}),
        "kinds": dict(sorted(Counter(one.kind for one in asked).items())),
    }


def run_all(told: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Everything; results and figures are written as soon as they are there."""
    plan = prepared(told)
    results: dict[str, Any] = {
        **provenance(_command(told), seed=told.seed),
        "machine": {
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "versions": library_versions(),
        },
        "workload": {
            **about(plan.asked),
            "streamed": 0.5,
            "max_tokens": plan.max_tokens,
            "seconds_measured": plan.seconds,
            "rounds": plan.rounds,
        },
        "servers": {name: arm.server for name, arm in plan.arms.items()},
    }
    with Bench(plan) as bench:
        with ExitStack() as stack:
            servers = needed(plan, told.quickstart / "run", work)
            started = {name: stack.enter_context(one) for name, one in servers.items()}
            results["levels"] = bench.levels(started)
        figures = [("", load_figure(results["levels"]))]
        saturation = None
        if told.minutes:
            with m3router(told.quickstart / "run", work) as server:
                saturation, times, mib = bench.saturate(server, minutes=told.minutes)
            warm = saturation["warm_seconds"]
            figures.append(("-memory", memory_figure(times, mib, warm=warm)))
            results["saturation"] = saturation
    results["ratios"] = ratios(results["levels"])
    results["targets"] = against_targets(results["levels"], results["servers"], saturation)
    told.out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(told.out, json.dumps(results, indent=1) + "\n")
    atomic_write_text(told.out.with_suffix(".md"), markdown(results))
    for suffix, figure in figures:
        write_figure(figure, told.out.with_name(told.out.stem + suffix))
    return results


def _command(told: argparse.Namespace) -> str:
    return (
        "python -m experiments.benchmarks.serving --quickstart quickstart "
        f"--minutes {told.minutes:g} --seconds {told.seconds:g} --rounds {told.rounds}"
    )


def _line(arm: str, level: dict[str, Any]) -> str:
    late, first, counts = level["latency_ms"], level["first_piece_ms"], level["counts"]
    cells = [f"{arm:20}", f"{level['clients']:3}", f"{level['answers_per_second']:7.1f}"]
    cells += [f"{late.get(name, 0):8.0f}" for name in ("p50", "p95", "p99")]
    cells += [f"{first.get('p50', 0):8.0f}", *(f"{counts[one]:6}" for one in counts)]
    cells += [f"{cores:5.2f}" for cores in level["cores"].values()]
    return " ".join([*cells, *(f"{100 * share:5.2f}%" for share in level["routing"].values())])


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quickstart", type=Path, default=Path("quickstart"))
    parser.add_argument("--seconds", type=float, default=10.0, help="measured in each round")
    parser.add_argument("--warm", type=float, default=2.0, help="seconds before that")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--clients", type=int, nargs="+", default=list(CLIENTS))
    parser.add_argument("--arms", nargs="+", help="only these [default: all]")
    parser.add_argument("--images", type=int, default=200, help="of the test split, at most")
    parser.add_argument("--minutes", type=float, default=0.0, help="at saturation, afterwards")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        results = run_all(told, Path(work))
    print("arm, clients, answers/s, ms p50 p95 p99, first piece, counts, cores, routing of ...")
    for arm, levels in results["levels"].items():
        for level in levels:
            print(_line(arm, level))
    for one in results["targets"]:
        print(f"{'met   ' if one['met'] else 'MISSED'} {one['value']:9.4f}  {one['target']}")
    print(f"results: {told.out}")


if __name__ == "__main__":
    main()

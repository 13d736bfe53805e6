"""Studies of a run: measured, and written as figures (PNG and SVG), CSV and LaTeX."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from m3router.data.manifest import atomic_write_text
from m3router.data.progress import as_counted, watched
from m3router.router.evaluation.studies.learning_curve import DOCUMENT, SHARES, learning_curve
from m3router.router.evaluation.studies.learning_curve import STAGE as LEARNING
from m3router.router.evaluation.studies.leave_one_out import STAGE as LEFT_OUT
from m3router.router.evaluation.studies.leave_one_out import leave_one_out
from m3router.router.reports import plots
from m3router.router.reports.figures import still, write_figure
from m3router.router.reports.latex import write_latex
from m3router.router.reports.tables import write_csv
from m3router.router.runs.run import AnyRun, Run, as_run

Table = tuple[Sequence[str], list[Sequence[Any]]]
ENDS = ("value", "low", "high")
Progress = Callable[[int, int, str], None]


def learning_curve_stage(
    run: AnyRun,
    *,
    shares: Sequence[float] = SHARES,
    seeds: int = 3,
    draws: int = 200,
    progress: Progress | bool | None = True,
) -> dict[str, Any]:
    """Measure a learning curve and write `learning-curve/`: study.json, figures and tables.

    Args, result and errors are those of
    `m3router.router.evaluation.studies.learning_curve.learning_curve`.
    """
    run = as_run(run)
    with watched(progress, "training", as_counted) as show:
        document = learning_curve(run, shares=shares, seeds=seeds, draws=draws, progress=show)
    folder = run.root / LEARNING
    tables = {"learning-curve": learning_table(document), "cells": learning_cells(document)}
    captions = {"learning-curve": "What the router reaches with a part of the labels."}
    files = write_figure(still(plots.learning_curve(document)), folder / "learning-curve")
    files += [*write_csv(tables, folder), *write_latex(tables, folder, captions=captions)]
    params = {"shares": sorted({*shares, 1.0}), "seeds": seeds, "draws": draws}
    _record(run, document, files, params=params)
    return document


def leave_one_out_stage(
    run: AnyRun, *, by: str = "dataset", draws: int = 200, progress: Progress | bool | None = True
) -> dict[str, Any]:
    """Measure what was never seen and write `leave-one-out/`: study.json, figures and tables.

    Args, result and errors are those of
    `m3router.router.evaluation.studies.leave_one_out.leave_one_out`.
    """
    run = as_run(run)
    with watched(progress, "training", as_counted) as show:
        document = leave_one_out(run, by=by, draws=draws, progress=show)
    folder = run.root / LEFT_OUT
    tables = {"leave-one-out": left_out_table(document)}
    captions = {"leave-one-out": f"The router without one {document['by']}, tested on it."}
    files = write_figure(still(plots.left_out(document)), folder / "leave-one-out")
    files += [*write_csv(tables, folder), *write_latex(tables, folder, captions=captions)]
    _record(run, document, files, params={"by": by, "draws": draws})
    return document


def _record(
    run: Run, document: Mapping[str, Any], files: Sequence[Path], *, params: Mapping[str, Any]
) -> None:
    """Write a study's document, and what all its files were made from."""
    stage = str(document["kind"])
    folder = run.root / stage
    path = folder / DOCUMENT
    atomic_write_text(path, json.dumps(document, indent=1, allow_nan=False) + "\n")
    inputs = run.inputs("log", "features", "split", "router")
    run.record(folder, stage, inputs=inputs, params=params, files=[path, *files])


def learning_table(document: Mapping[str, Any]) -> Table:
    """One row per share: means over seeds, with least and most."""
    quantities = ("aiq", "gain", "saved")
    keys = ("value", "low", "high", "least", "most")
    names = [name if k == "value" else f"{name}_{k}" for name in quantities for k in keys]
    rows: list[Sequence[Any]] = [
        [row["share"], round(row["n"]), round(row["pictures"]), row["seeds"]]
        + [row[name][key] for name in quantities for key in keys]
        for row in document["shares"]
    ]
    return ["share", "questions", "images", "seeds", *names], rows


def learning_cells(document: Mapping[str, Any]) -> Table:
    """One row per training."""
    quantities = ("aiq", "gain", "saved", "fixed")
    names = [name if k == "value" else f"{name}_{k}" for name in quantities for k in ENDS]
    rows: list[Sequence[Any]] = [
        [one["share"], one["seed"], one["n"], one["pictures"]]
        + [one[name][key] for name in quantities for key in ENDS]
        for one in document["cells"]
    ]
    return ["share", "seed", "questions", "images", *names], rows


def left_out_table(document: Mapping[str, Any]) -> Table:
    """One row per left out value; a skipped one has its reason and no numbers."""
    quantities = {
        "aiq": "aiq",
        "aiq_fixed": "aiq_fixed",
        "minus_fixed": "gain",
        "in_domain_minus": "in_domain",
        "lookup_minus": "lookup",
    }
    header = ["without", "questions", "images"]
    header += [n if k == "value" else f"{n}_{k}" for n in quantities for k in ENDS]
    told = ("told_99", "in_domain_told_99", "best_fixed")
    header += [f"{name}_{what}" for name in told for what in ("accuracy", "cost")]
    header += ["best_fixed_option", "skipped"]
    rows: list[Sequence[Any]] = []
    for one in document["cells"]:
        start = [one["without"], one["n"], one.get("pictures")]
        if "skipped" in one:
            rows.append([*start, *[None] * (len(header) - 4), one["skipped"]])
            continue
        numbers = [one[name][key] for name in quantities.values() for key in ENDS]
        numbers += [one[name][what]["value"] for name in told for what in ("accuracy", "cost")]
        rows.append([*start, *numbers, one["best_fixed"]["option"], None])
    return header, rows

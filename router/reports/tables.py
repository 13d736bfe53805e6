"""The evaluation document as tables: for the terminal, the report and CSV files."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.manifest import atomic_write_text
from router.guarantee_text import told_in
from router.text.numbers import number

Document = Mapping[str, Any]
Table = tuple[Sequence[str], list[Sequence[Any]]]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the headline table.

    Attributes:
        name: What it is, in words.
        kind: "fixed", "best_fixed", "router", "oracle" or "oracle_corrected".
        accuracy: {"value", "low", "high"} in [0, 1].
        cost: The same, in the log's cost unit.
        gflops: The same, of the language model; None where unknown.
        total_gflops: Mean GFLOPs with the vision tower; None where unknown.
        minus_reference: Accuracy less that of the reference option.
        minus_best_fixed: Accuracy less that of the best fixed option.
    """

    name: str
    kind: str
    accuracy: Mapping[str, float | None]
    cost: Mapping[str, float | None]
    gflops: Mapping[str, float | None] | None
    total_gflops: float | None
    minus_reference: Mapping[str, float | None]
    minus_best_fixed: Mapping[str, float | None]


def headline(document: Document) -> list[Row]:
    """Every fixed option, the router's policies, the best fixed option and the oracles."""
    vision = document.get("vision_gflops")
    rows = []
    for row in document["rows"]:
        work = row.get("gflops")
        known = work is not None and work["value"] is not None and vision is not None
        rows.append(
            Row(
                name=row_name(row, document),
                kind=row["kind"],
                accuracy=row["accuracy"],
                cost=row["cost"],
                gflops=work,
                total_gflops=work["value"] + vision if known else None,
                minus_reference=row["minus_reference"],
                minus_best_fixed=row["minus_best_fixed"],
            )
        )
    return rows


def row_name(row: Mapping[str, Any], document: Document) -> str:
    """A row's name as a reader sees it."""
    if row["kind"] == "fixed":
        return f"fixed {row['name']}"
    if row["kind"] == "oracle_corrected":
        return "oracle, chance-corrected"
    if row["kind"] != "router":
        return str(row["name"])
    knob = row.get("policy", {}).get("knob", {})
    if "budget" in knob and str(row["name"]).startswith("budget "):
        return f"router, at most {number(knob['budget'])}"
    return f"router, {row['name']}"


def router_rows(document: Document) -> list[Mapping[str, Any]]:
    """The rows of the router's policies."""
    return [row for row in document["rows"] if row["kind"] == "router"]


def certified(document: Document) -> list[tuple[str, str]]:
    """What is certified of the evaluated policies and cascades: (row, sentence) of each."""
    rows = {"router": router_rows(document)}
    rows["router + escalation"] = document.get("escalation", {}).get("rows", [])
    told = [
        (f"{arm}, {row['name']}", told_in(row.get("policy", {})))
        for arm, found in rows.items()
        for row in found
    ]
    return [(name, sentence) for name, sentence in told if sentence]


def csv_tables(document: Document) -> dict[str, Table]:
    """All tables of the report, full precision: file stem -> (header, rows)."""
    return {
        "headline": _headline(document),
        "datasets": _datasets(document),
        "shares": _shares(document),
        "curves": _curves(document),
        "calibration": _calibration(document),
        "lost": _lost(document),
    }


def write_csv(
    tables: Mapping[str, tuple[Sequence[str], Sequence[Sequence[Any]]]], folder: Path
) -> list[Path]:
    """Write tables, file stem -> (header, rows), as UTF-8 CSV files; returns their paths."""
    paths = []
    for stem, (header, rows) in tables.items():
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
        path = folder / f"{stem}.csv"
        atomic_write_text(path, text.getvalue())
        paths.append(path)
    return paths


def _spread(name: str) -> list[str]:
    return [name, f"{name}_low", f"{name}_high"]


def _values(estimate: Mapping[str, float | None] | None) -> list[float | None]:
    return [None] * 3 if estimate is None else [estimate[key] for key in ("value", "low", "high")]


def _headline(document: Document) -> Table:
    quantities = ("accuracy", "cost", "language_gflops", "minus_reference", "minus_best_fixed")
    header = ["name", "kind", *[part for name in quantities for part in _spread(name)]]
    rows: list[Sequence[Any]] = []
    for row in headline(document):
        estimates = (row.accuracy, row.cost, row.gflops, row.minus_reference, row.minus_best_fixed)
        numbers = [value for estimate in estimates for value in _values(estimate)]
        rows.append([row.name, row.kind, *numbers, document.get("vision_gflops")])
    return [*header, "vision_gflops"], rows


def _datasets(document: Document) -> Table:
    header = ["dataset", "examples", "pictures", "row", *_spread("accuracy"), "cost"]
    rows: list[Sequence[Any]] = []
    for one in document["datasets"]:
        start = [one["dataset"], one["n"], one["groups"]]
        for option, estimate in one["fixed"].items():
            rows.append([*start, f"fixed {option}", *_values(estimate), None])
        for name, policy in one["policies"].items():
            rows.append([*start, name, *_values(policy["accuracy"]), policy["cost"]])
        rows.append([*start, "oracle (raw)", *_values(one["oracle"]), None])
    return header, rows


def _shares(document: Document) -> Table:
    options = document["options"]
    rows: list[Sequence[Any]] = []
    for row in router_rows(document):
        rows.append([row["name"], "all", *[row["shares"][option] for option in options]])
        for one in document["datasets"]:
            share = one["policies"][row["name"]]["shares"]
            rows.append([row["name"], one["dataset"], *[share[option] for option in options]])
    return ["policy", "dataset", *options], rows


def _curves(document: Document) -> Table:
    curves = {"router": document["curve"]}
    curves |= {name: arm["curve"] for name, arm in document["ablations"].items()}
    rows: list[Sequence[Any]] = [
        [name, *point]
        for name, curve in curves.items()
        for point in zip(*(curve[key] for key in ("cost", "accuracy", "low", "high")), strict=True)
    ]
    return ["router", "cost", *_spread("accuracy")], rows


def _calibration(document: Document) -> Table:
    keys = ("low", "high", "n", "predicted", "observed")
    rows: list[Sequence[Any]] = [
        [option, *[one[key] for key in keys]]
        for option, result in document["calibration"]["options"].items()
        for one in result["bins"]
    ]
    return ["option", *keys], rows


def _lost(document: Document) -> Table:
    about = ("id", "dataset", "question", "image", "chosen", "reference")
    keys = (*about, "answer", "answer_reference")
    numbers = ("sufficiency", "score", "score_reference")
    rows: list[Sequence[Any]] = [
        [policy, *[example[key] for key in (*keys, *numbers)], example.get("expected")]
        for policy, result in document["lost"].items()
        for example in result["examples"]
    ]
    return ["policy", *keys, *numbers, "expected"], rows

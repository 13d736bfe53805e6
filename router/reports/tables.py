"""The evaluation document as tables: for the terminal, the page, CSV and LaTeX.

First the lines of single policies and options, then those of whole methods, whose columns are
`m3router.router.evaluation.metric_table.METRICS`, then tables in the layouts of papers. What an
older document lacks is left out.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m3router.data.manifest import atomic_write_text
from m3router.router.evaluation import metric_table, row_metrics
from m3router.router.evaluation.documents import Document
from m3router.router.evaluation.metric_table import Metric
from m3router.router.evaluation.row_metrics import RowMetric
from m3router.router.policies.guarantee_text import told_in
from m3router.router.text.numbers import MISSING, interval, number, percent

Estimate = Mapping[str, Any]
Table = tuple[Sequence[str], list[Sequence[Any]]]
NOTHING: Estimate = {"value": None, "low": None, "high": None}
MIXING = "mixing fixed options"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the headline table.

    Attributes:
        name: What it is, in words.
        kind: "fixed", "best_fixed", "router", "oracle" or "oracle_corrected".
        estimates: Name of a metric of `ROW_METRICS` -> {"value", "low", "high"}, or None where it
            is not known.
        tower_gflops: Mean GFLOPs of the vision tower; None where unknown.
    """

    name: str
    kind: str
    estimates: Mapping[str, Estimate | None]
    tower_gflops: float | None


def headline(document: Document) -> list[Row]:
    """Every fixed option, the router's policies, the best fixed option and the oracles."""
    return [
        Row(
            name=row_name(row, document),
            kind=row["kind"],
            estimates={one.name: row.get(one.name) for one in row_metrics.ROW_METRICS},
            tower_gflops=(row.get("tower_gflops") or NOTHING)["value"],
        )
        for row in document["rows"]
    ]


@dataclass(frozen=True, kw_only=True)
class UsageTable:
    """What every way of choosing used, and what it saved of the last option's.

    Attributes:
        metrics: The columns, those of `USAGE_METRICS` that are known of some row.
        rows: Name, kind and row of the document, of all methods.
    """

    metrics: list[RowMetric]
    rows: list[tuple[str, str, Mapping[str, Any]]]


def usage_table(document: Document) -> UsageTable:
    """Fixed options, the router, oracles, ablations, escalation and baselines.

    What is the same as the cost on every row, as image tokens may be, has no column of its own.
    """
    rows = [(row_name(row, document), row["kind"], row) for row in document["rows"]]
    for name, kind, method in methods(document):
        alone = not method.get("metrics")
        for row in method.get("rows", ()):
            spoken = _spoken(name, kind)
            rows.append((spoken if alone else f"{spoken}, {row['name']}", kind, row))
    every = [row for _, _, row in rows]
    doubled = row_metrics.same_as_cost(every)
    metrics = [
        one
        for one in row_metrics.USAGE_METRICS
        if one.name.removeprefix("saved_") not in doubled and row_metrics.is_known(one, every)
    ]
    return UsageTable(metrics=metrics, rows=rows)


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
        "headline": headline_table(document),
        "usage": _usage(document),
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


def headline_table(document: Document) -> Table:
    """`headline` for a file, with the columns that something is known of."""
    lines, rows = headline(document), list[Sequence[Any]]()
    metrics = row_metrics.shown([line.estimates for line in lines])
    header = ["name", "kind", *[part for one in metrics for part in _spread(one.column)]]
    for row in lines:
        numbers = [value for one in metrics for value in _values(row.estimates[one.name])]
        rows.append([row.name, row.kind, *numbers, row.tower_gflops])
    return [*header, "vision_gflops"], rows


def _usage(document: Document) -> Table:
    table = usage_table(document)
    rows: list[Sequence[Any]] = [
        [name, kind, *[value for one in table.metrics for value in _values(row.get(one.name))]]
        for name, kind, row in table.rows
    ]
    return ["name", "kind", *[part for one in table.metrics for part in _spread(one.column)]], rows


def _datasets(document: Document) -> Table:
    header = ["dataset", "examples", "images", "row", *_spread("accuracy"), "cost"]
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


def methods(document: Document) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(name, kind, method): the router, then ablations, escalation and baselines."""
    own = {"about": "", "metrics": document["metrics"], "curve": document["curve"], "rows": []}
    yield "router", "router", own
    yield from ((name, "ablation", method) for name, method in document["ablations"].items())
    if "escalation" in document:
        yield "router + escalation", "escalation", document["escalation"]
    yield from (
        (name, "baseline", method) for name, method in document.get("baselines", {}).items()
    )


def method_lines(document: Document) -> list[dict[str, Any]]:
    """One line per method that has a curve, the mixture of fixed options last.

    Returns:
        Per line "name", "key" (its name in the document), "kind", "about" and, by their names, the
        estimates of `m3router.router.evaluation.metric_table.METRICS`; an undefined one has the
        value None and may have a "reason".
    """
    lines = [
        {"name": _spoken(name, kind), "key": name, "kind": kind, "about": _about(kind, method)}
        | {one.name: one.estimate(method["metrics"]) for one in metric_table.METRICS}
        for name, kind, method in methods(document)
        if method.get("metrics")
    ]
    return [*lines, _mixing(document)]


def _mixing(document: Document) -> dict[str, Any]:
    """The line of mixing fixed options: what closes nothing of the gap, by definition."""
    known = document["metrics"]
    line: dict[str, Any] = {one.name: NOTHING for one in metric_table.METRICS}
    line |= {"aiq": known["aiq_fixed"], "aiq_minus_router": _negative(known["aiq_minus_fixed"])}
    if known["gap_closed"]["value"] is not None:
        line["gap_closed"] = {**NOTHING, "value": 0.0}
    about = "The best that tossing a coin between fixed options reaches at each mean cost."
    return {"name": MIXING, "key": "fixed", "kind": "fixed", "about": about} | line


def rules(document: Document) -> list[dict[str, Any]]:
    """One line per way of choosing that has no knob, as its only row in the document."""
    return [
        {
            **method["rows"][0],
            "name": name,
            "about": method.get("about", ""),
            "minus_mixing": method["rows"][0].get("minus_mixing") or NOTHING,
            "gap_closed": (method["rows"][0].get("gap_closed") or {}).get("own_cost", NOTHING),
        }
        for name, _, method in methods(document)
        if not method.get("metrics") and method.get("rows")
    ]


def abouts(document: Document) -> list[tuple[str, str]]:
    """(name, sentence) of each way of choosing that a table has a line of."""
    lines = [*method_lines(document), *rules(document)]
    return [(line["name"], line["about"]) for line in lines if line["about"]]


def unavailable(document: Document) -> list[tuple[str, str]]:
    """(name, reason) of what could not be had on this log."""
    return [
        (name, method["undefined"])
        for name, _, method in methods(document)
        if method.get("undefined")
    ]


def shown(metric: Metric, estimate: Estimate, *, digits: int | None = None) -> tuple[str, str]:
    """A metric's value and its interval as texts; the interval is "" where there is none.

    Args:
        metric: says how.
        estimate: {"value", "low", "high"}.
        digits: after the point; None for those of the metric.
    """
    value, low, high = (estimate[end] for end in ("value", "low", "high"))
    if metric.format == "number":
        ends = "" if low is None and high is None else f"{number(low)} to {number(high)}"
        return number(value), ends
    signed, digits = metric.format == "points", metric.digits if digits is None else digits
    ends = interval(estimate, signed=signed, digits=digits)
    return percent(value, signed=signed, digits=digits), "" if ends == MISSING else ends


def methods_table(document: Document) -> Table:
    """`method_lines` for a file."""
    ends = ("value", "low", "high")
    names = [metric.name for metric in metric_table.column_metrics()]
    header = [name if end == "value" else f"{name}_{end}" for name in names for end in ends]
    rows: list[Sequence[Any]] = [
        [one["name"], one["kind"], *[one[name].get(end) for name in names for end in ends]]
        for one in method_lines(document)
    ]
    return ["name", "kind", *header], rows


def rules_table(document: Document) -> Table:
    """`rules` for a file."""
    quantities = ("accuracy", "cost", "minus_mixing", "gap_closed")
    ends = ("value", "low", "high")
    header = [q if end == "value" else f"{q}_{end}" for q in quantities for end in ends]
    rows: list[Sequence[Any]] = [
        [one["name"], *[one[quantity].get(end) for quantity in quantities for end in ends]]
        for one in rules(document)
    ]
    return ["name", *header], rows


def reasons(document: Document, metrics: Sequence[Metric] | None = None) -> list[str]:
    """Why numbers of the table, or of some metrics, are undefined, each reason once."""
    wanted = metric_table.column_metrics() if metrics is None else metrics
    found = [line[one.name].get("reason") for line in method_lines(document) for one in wanted]
    return list(dict.fromkeys(str(reason).rstrip(".") for reason in found if reason))


def _spoken(name: str, kind: str) -> str:
    return f"router, {name.replace('-', ' ')}" if kind == "ablation" else name


def _about(kind: str, method: Mapping[str, Any]) -> str:
    return "" if kind in ("router", "ablation") else str(method.get("about", ""))


def _negative(one: Estimate) -> Estimate:
    value, low, high = (one[end] for end in ("value", "low", "high"))
    return {
        "value": None if value is None else -value,
        "low": None if high is None else -high,
        "high": None if low is None else -low,
    }


def table_2(document: Document) -> Table:
    """As Table 2 of the M3 paper (arXiv 2405.17430): datasets across, a line per fixed option.

    Finest option first; below it the router's policies, with a line of their mean cost each, and
    last the oracle's mean cost and accuracy, raw. Accuracies in [0, 1].

    NOTE: the paper has a line of its own for models trained for one scale only, and no router.
    """
    datasets = document["datasets"]
    unit = document["cost_unit"]
    rows: list[Sequence[Any]] = []

    def add(name: str, what: str, of_all: float | None, each: Sequence[float | None]) -> None:
        rows.append([name, what, *each, of_all])

    fixed = {row["name"]: row for row in document["rows"] if row["kind"] == "fixed"}
    for option in reversed(document["options"]):
        each = [one["fixed"][option]["value"] for one in datasets]
        add(f"fixed {option}", "accuracy", fixed[option]["accuracy"]["value"], each)
    for row in router_rows(document):
        policies = [one["policies"][row["name"]] for one in datasets]
        name = row_name(row, document)
        add(name, "accuracy", row["accuracy"]["value"], [p["accuracy"]["value"] for p in policies])
        add(name, f"mean {unit}", row["cost"]["value"], [p["cost"] for p in policies])
    oracle = next(row for row in document["rows"] if row["kind"] == "oracle")
    costs = [one.get("oracle_cost") for one in datasets]
    add("oracle", f"mean {unit}", oracle["cost"]["value"], costs)
    values = [one["oracle"]["value"] for one in datasets]
    add("oracle", "accuracy", oracle["accuracy"]["value"], values)
    return ["answered by", "quantity", *_distinct([one["dataset"] for one in datasets])], rows


def _distinct(names: Sequence[str]) -> list[str]:
    return [*names, "all" if "all" not in names else "all datasets"]


def lost_table(document: Document) -> Table:
    """Per policy, dataset and option: questions answered there, and lost against the reference."""
    rows: list[Sequence[Any]] = [
        [policy, one["dataset"], one["option"], one["chosen"], one["lost"], one["won"]]
        for policy, result in document["lost"].items()
        for one in result.get("where", [])
    ]
    return ["policy", "dataset", "option", "chosen", "lost", "won"], rows


def lost_matrix(where: Sequence[Mapping[str, Any]], options: Sequence[str]) -> list[dict[str, Any]]:
    """Lines of a table: datasets down (most lost first), options across, and their sums.

    Args:
        where: "dataset", "option", "chosen", "lost" and "won" of one policy.
        options: their order.
    """

    def total(rows: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
        cells = {
            option: {
                key: sum(one[key] for one in rows if one["option"] == option)
                for key in ("chosen", "lost")
            }
            for option in options
        }
        sums = {key: sum(one[key] for one in rows) for key in ("chosen", "lost", "won")}
        return {"dataset": name, "options": cells, **sums}

    names = sorted({one["dataset"] for one in where})
    lines = [total([one for one in where if one["dataset"] == name], name) for name in names]
    lines.sort(key=lambda line: -line["lost"])
    return [*lines, total(where, "all")] if len(lines) > 1 else lines


def importance_table(importance: Mapping[str, Any]) -> Table:
    """Drop in AIQ of every block and of the single features that were looked at."""
    rows: list[Sequence[Any]] = [
        [kind, name, one["columns"], "images" if one["by_picture"] else "questions"]
        + [one["drop"][key] for key in ("value", "low", "high")]
        for kind in ("blocks", "features")
        for name, one in importance[kind].items()
    ]
    header = ["kind", "name", "columns", "exchanged", "aiq_drop", "aiq_drop_low", "aiq_drop_high"]
    return header, rows

"""Tables in the layouts of papers: M3's Table 2, what was lost at which option, importance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from router.reports.tables import Document, router_rows, row_name

Table = tuple[Sequence[str], list[Sequence[Any]]]


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
        [kind, name, one["columns"], "pictures" if one["by_picture"] else "questions"]
        + [one["drop"][key] for key in ("value", "low", "high")]
        for kind in ("blocks", "features")
        for name, one in importance[kind].items()
    ]
    header = ["kind", "name", "columns", "exchanged", "aiq_drop", "aiq_drop_low", "aiq_drop_high"]
    return header, rows

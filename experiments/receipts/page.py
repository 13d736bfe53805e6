"""The tables of the recorded results; nothing is measured here.

    python -m experiments.receipts.page

Writes `results/tables.md` from `results/receipts.json`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from m3router.data.manifest import atomic_write_text
from m3router.router.text.numbers import MISSING, interval, percent

HERE = Path(__file__).parent / "results"
RIVALS = ("dataset lookup", "nearest neighbours", "calibrated cascade")
"""Shown beside every set of features; a data set is a field here."""
NOTE = (
    "Made by `python -m experiments.receipts.page` from [receipts.json](receipts.json). Intervals "
    "are 95 %, by image; differences are paired, in points."
)


def estimate(found: Mapping[str, Any] | None, *, signed: bool = True) -> str:
    """A share in per cent with its interval, or a dash."""
    if not found or found.get("value") is None:
        return MISSING
    return f"{percent(found['value'], signed=signed)} ({interval(found, signed=signed)})"


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    shown = [list(header), ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in shown)


def reader_table(reader: Mapping[str, Any]) -> str:
    """What the reader does at every size, on all receipts."""
    fields = [name for name in reader["accuracy"] if name != "all"]
    return table(
        ("longest side", "megapixels", "CPU seconds", *(f"{name} %" for name in fields), "all %"),
        (
            (
                option,
                f"{reader['megapixels'][place]:.3f}",
                f"{reader['cpu_seconds'][place]:.2f}",
                *(percent(reader["accuracy"][name][place]) for name in [*fields, "all"]),
            )
            for place, option in enumerate(reader["options"])
        ),
    )


def row_lines(results: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Every fixed size, and router, rivals and oracle, on the test split."""
    main = results["arms"][results["main"]]
    seconds = results["seconds"]
    named = [("router", main["rows"]), ("asks again", main["escalation"].get("rows", ()))]
    named += [(name, arm["rows"]) for name, arm in main["baselines"].items()]
    for arm, rows in named:
        for row in rows:
            kind = row["kind"]
            name = row["name"] if kind.startswith("oracle") else f"{arm}, {row['name']}"
            name = f"fixed {row['name']}" if kind == "fixed" else name
            took = seconds.get(row["name"].replace(" ", "-")) if arm == "router" else None
            yield (
                name,
                percent(row["accuracy"]["value"]),
                f"{row['cost']['value']:.3f}",
                MISSING if took is None else f"{took:.2f}",
                estimate(row["minus_best_fixed"]),
                estimate(row.get("minus_router")),
                estimate(row["regret"], signed=False),
            )


def aiq_lines(main: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Accuracy averaged over all budgets, and what is saved at the best fixed accuracy."""
    arms = {"router": main, "asks again": main["escalation"], **main["baselines"]}
    for name, arm in arms.items():
        found = arm.get("metrics")
        if not found:
            continue
        goal = found["saved_at_99"]
        yield (
            name,
            estimate(found["aiq"], signed=False),
            estimate(found["aiq_minus_fixed"]),
            estimate(found.get("aiq_minus_router")),
            estimate(goal["calibrated"], signed=False),
            estimate((goal["row"] or {}).get("minus_best_fixed")),
        )


def promise_lines(results: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """What was guaranteed, and what came of it on the test split."""
    main = results["arms"][results["main"]]
    rows = {row["name"]: row for row in (*main["rows"], *main["escalation"].get("rows", ()))}
    for name, found in results["guarantee"].items():
        if "refused" in found:
            yield name, found["refused"], MISSING, MISSING, MISSING
            continue
        row = rows.get(name)
        what = (
            "one size for all: nothing cheaper is certified" if found["fallback"] else "certified"
        )
        yield (
            name,
            what,
            MISSING if row is None else percent(row["accuracy"]["value"]),
            MISSING if row is None else f"{row['cost']['value']:.3f}",
            MISSING if row is None else estimate(row["regret"], signed=False),
        )


def tables(results: Mapping[str, Any]) -> str:
    """All tables."""
    reader, main = results["reader"], results["arms"][results["main"]]
    feature_sets = (
        (
            name,
            estimate(arm["metrics"]["aiq"], signed=False),
            estimate(arm["metrics"]["aiq_minus_fixed"]),
            *(estimate(results["rivals"][name].get(rival)) for rival in RIVALS),
            arm["verdict"]["kind"],
        )
        for name, arm in results["arms"].items()
    )
    parts = [
        "# Receipts: tables",
        NOTE,
        f"**{main['verdict']['text']}** {main['n']['test']} questions about "
        f"{main['n']['test_groups']} receipts are tested on. The best fixed size of the "
        f"calibration split is {main['best_fixed']}.",
        f"## The reader on all {reader['receipts']} receipts",
        reader_table(reader),
        f"Right at any of the sizes: {percent(reader['right at any size'])} %.",
        "## Averaged over all budgets",
        table(
            (
                "",
                "AIQ %",
                "minus mixing fixed sizes",
                "minus the router",
                "pixels saved when told to keep 99 % of the best fixed accuracy, %",
                "accuracy then, against the best fixed size",
            ),
            aiq_lines(main),
        ),
        "## Sets of features",
        table(
            (
                "features",
                "AIQ %",
                "minus mixing fixed sizes",
                *(f"{rival} minus this router" for rival in RIVALS),
                "verdict",
            ),
            feature_sets,
        ),
        "## What was promised with 95 % confidence",
        table(
            ("", "", "accuracy %", "megapixels", "right at the best size and lost, %"),
            promise_lines(results),
        ),
        "## Every row of the test split",
        table(
            (
                "",
                "accuracy %",
                "megapixels",
                "CPU seconds",
                "minus the best fixed size",
                "minus the router at equal cost",
                "right at the best size and lost, %",
            ),
            row_lines(results),
        ),
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=HERE / "receipts.json")
    path = parser.parse_args().results
    results = json.loads(path.read_text(encoding="utf-8"))
    atomic_write_text(path.parent / "tables.md", tables(results))


if __name__ == "__main__":
    main()

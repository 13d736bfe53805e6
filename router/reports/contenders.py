"""Everything that the router is compared with, as lines of one table.

Reads ablations, baselines and escalation from an evaluation; what an older document lacks is left
out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from router.reports.tables import Document

Estimate = Mapping[str, Any]
Table = tuple[Sequence[str], list[Sequence[Any]]]
NOTHING: Estimate = {"value": None, "low": None, "high": None}

QUANTITIES: dict[str, tuple[str, ...]] = {
    "aiq": ("aiq",),
    "aiq_minus_router": ("aiq_minus_router",),
    "saved_at_99": ("saved_at_99", "calibrated"),
    "saved_at_100": ("saved_at_100", "calibrated"),
    "gap_closed": ("gap_closed",),
    "ece": ("ece",),
    "apgr": ("apgr",),
    "cpt_50": ("cpt_50",),
}
"""Column -> where it stands in an arm's metrics."""


def arms(document: Document) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(name, kind, arm): the router, then ablations, escalation and baselines."""
    own = {"about": "", "metrics": document["metrics"], "curve": document["curve"], "rows": []}
    yield "router", "router", own
    yield from ((name, "ablation", arm) for name, arm in document["ablations"].items())
    if "escalation" in document:
        yield "router + escalation", "escalation", document["escalation"]
    yield from ((name, "baseline", arm) for name, arm in document.get("baselines", {}).items())


def contenders(document: Document) -> list[dict[str, Any]]:
    """One line per way of choosing that has a curve, the mixture of fixed options last.

    Returns:
        Per line "name", "kind", "about" and the estimates of `QUANTITIES`; an undefined one has
        the value None and may have a "reason".
    """
    lines = [
        {"name": _spoken(name, kind), "kind": kind, "about": _about(kind, arm)}
        | {column: _find(arm["metrics"], path) for column, path in QUANTITIES.items()}
        for name, kind, arm in arms(document)
        if arm.get("metrics")
    ]
    gain = document["metrics"]["aiq_minus_fixed"]
    mixing = {column: NOTHING for column in QUANTITIES}
    mixing |= {"aiq": document["metrics"]["aiq_fixed"], "aiq_minus_router": _negative(gain)}
    about = "The best that tossing a coin between fixed options reaches at each mean cost."
    return [*lines, {"name": "mixing fixed options", "kind": "fixed", "about": about} | mixing]


def rules(document: Document) -> list[dict[str, Any]]:
    """One line per way of choosing that has no knob, as its only row in the document."""
    return [
        {
            **arm["rows"][0],
            "name": name,
            "about": arm.get("about", ""),
            "minus_mixing": arm["rows"][0].get("minus_mixing") or NOTHING,
            "gap_closed": (arm["rows"][0].get("gap_closed") or {}).get("own_cost", NOTHING),
        }
        for name, _, arm in arms(document)
        if not arm.get("metrics") and arm.get("rows")
    ]


def unavailable(document: Document) -> list[tuple[str, str]]:
    """(name, reason) of what could not be had on this log."""
    return [(name, arm["undefined"]) for name, _, arm in arms(document) if arm.get("undefined")]


def contenders_table(document: Document) -> Table:
    """`contenders` for a file."""
    ends = ("value", "low", "high")
    header = [c if end == "value" else f"{c}_{end}" for c in QUANTITIES for end in ends]
    rows: list[Sequence[Any]] = [
        [one["name"], one["kind"], *[one[column].get(end) for column in QUANTITIES for end in ends]]
        for one in contenders(document)
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


def reasons(document: Document, columns: Sequence[str] = tuple(QUANTITIES)) -> list[str]:
    """Why numbers of the table, or of some columns, are undefined, each reason once."""
    found = [line[column].get("reason") for line in contenders(document) for column in columns]
    return list(dict.fromkeys(str(reason).rstrip(".") for reason in found if reason))


def _spoken(name: str, kind: str) -> str:
    return f"router, {name.replace('-', ' ')}" if kind == "ablation" else name


def _about(kind: str, arm: Mapping[str, Any]) -> str:
    return "" if kind in ("router", "ablation") else str(arm.get("about", ""))


def _find(metrics: Mapping[str, Any], path: Sequence[str]) -> Estimate:
    found: Any = metrics
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    if isinstance(found, int | float):
        return {**NOTHING, "value": found}
    return found if isinstance(found, Mapping) else NOTHING


def _negative(one: Estimate) -> Estimate:
    value, low, high = (one[end] for end in ("value", "low", "high"))
    return {
        "value": None if value is None else -value,
        "low": None if high is None else -high,
        "high": None if low is None else -low,
    }

"""Studies in numbers: the learning curve by share of labels, and datasets never seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

GOALS = (0.5, 0.8, 0.9, 0.95)
"""Parts of the whole gain that are asked for."""

Cell = Mapping[str, Any]


def by_share(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Cells of equal share together, by rising share.

    Args:
        cells: "share", "n", "pictures", and estimates "aiq", "gain" and "saved".

    Returns:
        Per share: "share", "seeds", mean "n" and "pictures", and of each estimate the mean
        "value" over seeds with the mean ends "low" and "high" of the seeds' intervals (the
        uncertainty of the test images) and the smallest and largest value, "least" and "most"
        (that of which images were labelled). None where a seed has none.
    """
    rows = []
    for share in sorted({cell["share"] for cell in cells}):
        same = [cell for cell in cells if cell["share"] == share]
        row: dict[str, Any] = {"share": share, "seeds": len(same)}
        for name in ("n", "pictures"):
            row[name] = float(np.mean([cell[name] for cell in same]))
        for name in ("aiq", "gain", "saved"):
            row[name] = _together([cell[name] for cell in same])
        rows.append(row)
    return rows


def _together(estimates: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    ends = {key: _mean([one[key] for one in estimates]) for key in ("value", "low", "high")}
    values = [one["value"] for one in estimates if one["value"] is not None]
    return {**ends, "least": min(values, default=None), "most": max(values, default=None)}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def enough_labels(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """From how many labelled questions on the router has most of its gain.

    The gain is AIQ over that of mixing fixed options. Between shares nothing is guessed: the
    answer is the smallest share that was tried from which on all larger ones have enough.

    Args:
        rows: of `by_share`; the last is the whole fit split.

    Returns:
        "clear": whether the whole gain's interval lies above 0; "gain": the whole gain;
        "goals": per part of the gain "part", "n" and "share" (None when not clear).
    """
    whole = rows[-1]["gain"]
    clear = whole["low"] is not None and whole["low"] > 0
    goals = []
    for part in GOALS:
        enough = None
        for row in reversed(rows):
            value = row["gain"]["value"]
            if not clear or value is None or value < part * whole["value"]:
                break
            enough = row
        found = {"n": None, "share": None} if enough is None else enough
        goals.append({"part": part, "n": found["n"], "share": found["share"]})
    return {"clear": clear, "gain": whole["value"], "goals": goals}


def answer(document: Mapping[str, Any]) -> str:
    """How many labels are enough, in one sentence."""
    enough, n = document["enough"], document["n"]
    if not enough["clear"]:
        return (
            f"With all {n['fit']} labelled questions the router's curve is not clearly better than "
            "mixing fixed options, so there is no gain of which a part could be reached: more "
            "labels, or other features, would have to come first."
        )
    goals = [goal for goal in enough["goals"] if goal["n"] is not None]
    parts = ", ".join(
        f"{goal['n']:,.0f} for {100 * goal['part']:.0f} %" for goal in goals if goal["share"] < 1
    )
    last = next(goal for goal in enough["goals"] if goal["part"] == max(GOALS))
    more = (
        " The curve still rises at its end: more labels would help."
        if last["share"] is None or last["share"] == 1
        else ""
    )
    whole = (
        f"With all {n['fit']:,} labelled questions of the fit split the router gains "
        f"{100 * enough['gain']:.2f} points of AIQ over mixing fixed options. "
    )
    if not parts:
        return f"{whole}No smaller share that was tried has half of that.{more}"
    return f"{whole}Labelled questions that are enough for a part of that: {parts}.{more}"


def macro(cells: Sequence[Cell]) -> dict[str, float | None]:
    """Means over the held-out values, each counted once, of AIQ, gain and what is known of it."""
    measured = [cell for cell in cells if "skipped" not in cell]
    names = ("aiq", "aiq_fixed", "gain", "in_domain", "lookup")
    return {name: _mean([cell[name]["value"] for cell in measured]) for name in names}

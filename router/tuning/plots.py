"""The figures of a study: its trials by both objectives, and what mattered."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from m3router.router.reports.figures import (
    FIXED,
    IMAGE,
    INK,
    ORACLE,
    OTHER,
    QUESTION,
    ROUTER,
    SOFT,
    STYLE,
    new_figure,
    write_figure,
)

_LOOKS = tuple(zip((ROUTER, FIXED, ORACLE, IMAGE, QUESTION, OTHER), "osD^vP", strict=True))


def write_figures(found: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write front.png and .svg, and importance.png and .svg where it is known."""
    files = write_figure(front_figure(found), folder / "front")
    if found["importance"]:
        files += write_figure(importance_figure(found["importance"]), folder / "importance")
    return files


def front_figure(found: Mapping[str, Any]) -> Figure:
    """Completed trials by both objectives, the Pareto set joined, the chosen trial ringed."""
    done = [row for row in found["trials"] if row["state"] == "complete"]
    names = list(found["made_from"]["estimators"])
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(5.6, 4.9)
        front = sorted(row["values"] for row in done if row["number"] in found["pareto"])
        axes.plot(*zip(*front, strict=True), color=INK, linewidth=1.2, label="Pareto set")
        for name, (colour, marker) in zip(names, _LOOKS * len(names), strict=False):
            points = [row["values"] for row in done if row["estimator"] == name]
            if points:
                x, y = zip(*points, strict=True)
                axes.scatter(x, y, s=34, color=colour, marker=marker, alpha=0.85, label=name)
        chosen = next(row["values"] for row in done if row["number"] == found["chosen"])
        axes.scatter(
            chosen[0],
            chosen[1],
            s=190,
            facecolors="none",
            edgecolors=INK,
            linewidths=1.8,
            zorder=4,
            label=f"chosen: trial {found['chosen']}",
        )
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0, decimals=1))
        axes.set_xlabel(found["objectives"][0])
        axes.set_ylabel(found["objectives"][1])
        left_out = len(found["trials"]) - len(done)
        axes.set_title(f"{len(done)} trials judged in full, {left_out} pruned or failed")
        axes.margins(0.08)
        figure.legend(loc="outside lower center", ncols=3)
        return figure


def importance_figure(importance: Mapping[str, Mapping[str, float]]) -> Figure:
    """Share of the variation that each parameter explains, for every kind of trials."""
    rows = [
        (f"{name}\n({kind})", share)
        for kind, shares in importance.items()
        for name, share in sorted(shares.items(), key=lambda item: -item[1])
    ]
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(5.6, 1.2 + 0.45 * len(rows))
        axes.barh([name for name, _ in rows], [share for _, share in rows], color=ROUTER)
        for place, (_, share) in enumerate(rows):
            axes.text(share, place, f" {100 * share:.0f} %", va="center", color=SOFT)
        axes.invert_yaxis()
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.14)
        axes.set_title("What mattered (fANOVA)")
        return figure

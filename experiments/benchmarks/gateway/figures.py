"""Added milliseconds, and the share of the upstream's throughput, by number of clients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.benchmarks.gateway.summary import ADDED_MS, LOST
from m3router.router.reports.figures import FIXED, IMAGE, QUESTION, ROUTER, SOFT, STYLE, new_figure

LOOKS = ((ROUTER, "o"), (IMAGE, "s"), (QUESTION, "^"), (FIXED, "D"), (SOFT, "v"))


def figure_of(groups: Sequence[dict[str, Any]]) -> Figure:
    """Left: groups at a given rate, what is added. Right: those without, what is left."""
    with matplotlib.rc_context(STYLE):
        figure, left = new_figure(9.6, 4.4)
        left.remove()
        left, right = figure.subplots(1, 2)
        for (colour, marker), group in zip(LOOKS, groups, strict=False):
            look = {"color": colour, "marker": marker, "markersize": 5}
            if group["target"] == "throughput":
                _line(right, group, "throughput", label=group["name"], **look)
            else:
                _line(left, group, "added_median_ms", label=group["name"], **look)
                _line(left, group, "added_p99_ms", linestyle=":", **look)
        left.axhline(ADDED_MS, color=SOFT, linewidth=1)
        right.axhline(1 - LOST, color=SOFT, linewidth=1)
        left.set_yscale("symlog", linthresh=1)
        left.set_ylabel("added ms: median, and 99th percentile dotted")
        left.set_title("What the gateway adds")
        right.set_ylabel("share of the upstream's answers a second")
        right.set_title("What it leaves")
        right.set_ylim(bottom=0)
        figure.legend(loc="outside lower center", ncols=2)
        return figure


def _line(axes: Axes, group: dict[str, Any], name: str, **look: Any) -> None:
    clients = [level["clients"] for level in group["levels"]]
    found = [level["compared"][name] for level in group["levels"]]
    axes.plot(clients, [one["mean"] for one in found], **look)
    if all("low" in one for one in found) and "linestyle" not in look:
        ends = [one["low"] for one in found], [one["high"] for one in found]
        axes.fill_between(clients, *ends, color=look["color"], alpha=0.15)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("clients at a time")

"""Throughput and latency against the number of clients, and memory over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from m3router.router.reports.figures import (
    FIXED,
    IMAGE,
    ORACLE,
    OTHER,
    QUESTION,
    ROUTER,
    SOFT,
    STYLE,
    new_figure,
)

LOOKS: dict[str, tuple[str, str, str]] = {
    "auto": (ROUTER, "o", "m3-auto"),
    "finest": (FIXED, "s", "fixed at the finest scale"),
    "transformers": (SOFT, "^", "transformers serve, finest scale"),
    "one at a time": (QUESTION, "D", "one request at a time"),
    "all scales": (ORACLE, "v", "all scales mixed"),
    "auto, together": (IMAGE, "X", "m3-auto, images repeat"),
    "one at a time, together": (OTHER, "d", "one at a time, images repeat"),
}
"""Arm -> colour, marker, name."""


def load_figure(levels: Mapping[str, list[dict[str, Any]]]) -> Figure:
    """Answers a second, and latency at the 50th and 95th percentile, by number of clients."""
    with matplotlib.rc_context(STYLE):
        figure, left = new_figure(9.6, 4.4)
        left.remove()
        left, right = figure.subplots(1, 2)
        for arm, found in levels.items():
            colour, marker, name = LOOKS[arm]
            clients = [one["clients"] for one in found]
            look: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 5}
            left.plot(clients, [one["answers_per_second"] for one in found], label=name, **look)
            for percentile, line in (("p50", "-"), ("p95", ":")):
                spent = [one["latency_ms"].get(percentile, float("nan")) for one in found]
                right.plot(clients, spent, linestyle=line, **look)
        for axes in (left, right):
            _client_axis(axes)
        left.set_ylim(bottom=0)
        left.set_ylabel("answers a second")
        left.set_title("Throughput")
        right.set_yscale("log")
        right.set_ylabel("ms: median, and 95th percentile dotted")
        right.set_title("Latency")
        figure.legend(loc="outside lower center", ncols=3)
        return figure


def memory_figure(times: Sequence[float], mib: Sequence[float], *, warm: float) -> Figure:
    """Memory of the server at saturation; `times` in seconds."""
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(6.4, 3.2)
        axes.plot([one / 60 for one in times], mib, color=ROUTER)
        axes.axvspan(0, warm / 60, color=SOFT, alpha=0.15, label="warm-up, left out")
        axes.set_ylim(0, 1.15 * max(mib))
        axes.set_xlabel("minutes at saturation")
        axes.set_ylabel("MiB held by the server")
        axes.set_title("Memory")
        axes.legend(loc="lower right")
        return figure


def _client_axis(axes: Axes) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("clients at a time")

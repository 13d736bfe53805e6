"""The figures of a report. Every series has a marker or line style of its own beside its colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator, PercentFormatter

from router.evaluation.documents import Document
from router.reports.figures import (
    FIXED,
    IMAGE,
    ORACLE,
    OTHER,
    PAPER,
    QUESTION,
    ROUTER,
    SOFT,
    STYLE,
    new_figure,
    ramp,
    text_on,
)
from router.reports.tables import router_rows, row_name
from router.text.numbers import number, percent

_ABLATIONS = {"image-only": (IMAGE, (0, (5, 2))), "question-only": (QUESTION, (0, (1.2, 1.4)))}

_HALO = [withStroke(linewidth=2.5, foreground=PAPER)]


def pareto_figure(document: Document) -> Figure:
    """Accuracy against mean cost: fixed options, the router's curve and policies, the oracles."""
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(5.6, 4.9)
        _draw_router(axes, document)
        _draw_ablations(axes, document["ablations"])
        _draw_baselines(axes, document.get("baselines", {}))
        _draw_fixed(axes, [row for row in document["rows"] if row["kind"] == "fixed"])
        _draw_oracles(axes, document["rows"])
        _cost_axis(axes, document)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.set_ylabel("accuracy on the test part")
        axes.set_title("What the router saves, and what it costs")
        axes.margins(x=0.08, y=0.08)
        figure.legend(loc="outside lower center", ncols=2, handlelength=2.6)
        return figure


def shares_figure(document: Document, policy: str | None = None) -> Figure:
    """Which option a policy chose how often, per dataset or kind of question.

    Args:
        document: the evaluation.
        policy: name of the policy's row; the middle one when None.
    """
    rows = router_rows(document)
    name = policy or rows[len(rows) // 2]["name"]
    row = next(row for row in rows if row["name"] == name)
    bars = [("all", row["shares"])]
    if len(document["datasets"]) > 1:
        bars += [(d["dataset"], d["policies"][name]["shares"]) for d in document["datasets"]]
    options: Sequence[str] = document["options"]
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(5.6, 1.5 + 0.36 * len(bars))
        left = [0.0] * len(bars)
        places = range(len(bars))
        for k, option in enumerate(options):
            width = [share[option] for _, share in bars]
            colour = ramp(k, len(options))
            axes.barh(
                places, width, left=left, color=colour, edgecolor=PAPER, linewidth=0.6, label=option
            )
            for place, (start, wide) in enumerate(zip(left, width, strict=True)):
                if wide >= 0.09:
                    axes.text(
                        start + wide / 2,
                        place,
                        f"{100 * wide:.0f}",
                        ha="center",
                        va="center",
                        fontsize=8.5,
                        color=text_on(colour),
                    )
            left = [start + wide for start, wide in zip(left, width, strict=True)]
        axes.set_yticks(list(places), [label for label, _ in bars])
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.set_title(f"Chosen options: {row_name(row, document)}")
        figure.legend(
            loc="outside lower center", ncols=min(len(options), 6), title=document["cost_unit"]
        )
        return figure


def calibration_figure(document: Document) -> Figure:
    """Predicted against observed accuracy, for every option."""
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(5.0, 4.7)
        axes.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=(0, (4, 3)))
        results: Mapping[str, Any] = document["calibration"]["options"]
        for k, (option, result) in enumerate(results.items()):
            bins = result["bins"]
            colour = ramp(k, len(results))
            predicted = [one["predicted"] for one in bins]
            observed = [one["observed"] for one in bins]
            axes.plot(predicted, observed, color=colour, linewidth=1.4)
            axes.scatter(
                predicted,
                observed,
                s=38,
                color=colour,
                edgecolors=SOFT,
                linewidths=0.6,
                marker="os^Dvph"[k % 7],
                label=f"{option} (error {percent(result['ece'])})",
                zorder=3,
            )
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.set_xlabel("predicted to suffice")
        axes.set_ylabel("right on the test part")
        axes.set_title("Does the prediction come true?")
        axes.legend(loc="upper left")
        return figure


def importance_figure(importance: Mapping[str, Any]) -> Figure:
    """Drop in AIQ of every feature block, and of the single features that were looked at."""
    parts = {**importance["blocks"], **importance["features"]}
    drops = [one["drop"] for one in parts.values()]
    values = [100 * (drop["value"] or 0.0) for drop in drops]
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(5.6, 1.3 + 0.3 * len(parts))
        places = list(range(len(parts)))
        ends = [
            [
                0.0 if d[end] is None else abs(100 * d[end] - v)
                for d, v in zip(drops, values, strict=True)
            ]
            for end in ("low", "high")
        ]
        axes.barh(
            places,
            values,
            xerr=ends,
            color=ROUTER,
            ecolor=SOFT,
            capsize=3,
        )
        axes.axvline(0, color=SOFT, linewidth=1)
        axes.set_yticks(places, [name.replace("$", r"\$") for name in parts])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("drop in AIQ when exchanged, points (95 %)")
        axes.set_title("What the router looks at")
        return figure


def _draw_ablations(axes: Axes, ablations: Mapping[str, Any]) -> None:
    for name, arm in ablations.items():
        colour, dashes = _ABLATIONS.get(name, (OTHER, (0, (3, 1, 1, 1))))
        curve = arm["curve"]
        label = f"router, {name.replace('-', ' ')}"
        axes.plot(
            curve["cost"],
            curve["accuracy"],
            color=colour,
            linestyle=dashes,
            lw=1.7,
            zorder=1.9,
            label=label,
        )


def _draw_baselines(axes: Axes, baselines: Mapping[str, Any]) -> None:
    """All alike: which is which, the page's own plot and its table tell."""
    label: str | None = "baselines"
    for arm in baselines.values():
        curve = arm.get("curve")
        if curve:
            axes.plot(curve["cost"], curve["accuracy"], color=SOFT, lw=0.9, zorder=1.8, label=label)
            label = None


def _draw_router(axes: Axes, document: Document) -> None:
    curve = document["curve"]
    if None not in (*curve["low"], *curve["high"]):
        axes.fill_between(
            curve["cost"], curve["low"], curve["high"], color=ROUTER, alpha=0.14, linewidth=0
        )
    axes.plot(curve["cost"], curve["accuracy"], color=ROUTER, lw=2.4, label="router, any budget")
    again = document.get("escalation", {}).get("curve")
    if again:
        axes.plot(
            again["cost"],
            again["accuracy"],
            color=ROUTER,
            lw=1.6,
            ls=(0, (3, 1.5)),
            label="router + escalation",
        )
    rows = router_rows(document)
    axes.scatter(
        [row["cost"]["value"] for row in rows],
        [row["accuracy"]["value"] for row in rows],
        s=52,
        color=ROUTER,
        edgecolors=PAPER,
        linewidths=1.4,
        zorder=5,
        label="router, calibrated",
    )
    for row in rows:
        if "budget" not in row["policy"]["knob"]:
            continue
        axes.annotate(
            f"≤ {_short(row['policy']['knob']['budget'])}",
            (row["cost"]["value"], row["accuracy"]["value"]),
            xytext=(-5, 8),
            textcoords="offset points",
            ha="right",
            fontsize=9,
            color=ROUTER,
            zorder=3.5,
            path_effects=_HALO,
        )


def _draw_fixed(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    cost = [row["cost"]["value"] for row in rows]
    accuracy = [row["accuracy"]["value"] for row in rows]
    below, above = (
        [abs(row["accuracy"]["value"] - _or(row["accuracy"][end], row)) for row in rows]
        for end in ("low", "high")
    )
    axes.errorbar(
        cost,
        accuracy,
        yerr=[below, above],
        fmt="s",
        ms=6.5,
        color=FIXED,
        elinewidth=1.3,
        capsize=3,
        zorder=4,
        label="fixed option (95 %)",
    )
    for x, y, row in zip(cost, accuracy, rows, strict=True):
        axes.annotate(
            row["name"],
            (x, y),
            xytext=(6, -12),
            textcoords="offset points",
            fontsize=9,
            color=FIXED,
            zorder=3.5,
            path_effects=_HALO,
        )


def _draw_oracles(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    for row in rows:
        if row["kind"] in ("oracle", "oracle_corrected"):
            raw = row["kind"] == "oracle"
            axes.scatter(
                [row["cost"]["value"]],
                [row["accuracy"]["value"]],
                s=170,
                marker="*",
                color=ORACLE if raw else PAPER,
                edgecolors=ORACLE,
                linewidths=1.4,
                zorder=5,
                label=row["name"],
            )


def _cost_axis(axes: Axes, document: Document) -> None:
    costs = [row["cost"]["value"] for row in document["rows"]]
    if min(costs) > 0 and max(costs) / min(costs) > 4:
        axes.set_xscale("log")
        fixed = [row["cost"]["value"] for row in document["rows"] if row["kind"] == "fixed"]
        axes.set_xticks(fixed)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axes.set_xlabel(f"mean {document['cost_unit']} per answer")


def _short(value: float) -> str:
    """A tick's text: 576, 36.4, 1.3M."""
    for limit, unit in ((1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{number(value / (1e6 if unit == 'M' else 1e3), digits=3)}{unit}"
    return number(value)


def _or(value: float | None, row: Mapping[str, Any]) -> float:
    return float(row["accuracy"]["value"] if value is None else value)

"""The figures of the documentation, drawn from recorded results.

    python -m experiments.figures [--check]

Writes `docs/figures/*.svg` and `*.png`; with `--check` it only says whether they are what the
recorded results would give. Nothing is measured here.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator, PercentFormatter
from PIL import Image

from experiments.options_figure import drawing
from m3router.data.manifest import atomic_write_bytes, atomic_write_text
from m3router.router.reports.figures import (
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
    svg,
)

HERE = Path(__file__).parent
FOLDER = HERE.parent / "docs" / "figures"
ROUTING = HERE / "routing" / "results" / "routing.json"
EMBEDDED = HERE / "embedded_model" / "results" / "test.json"
RECEIPTS = HERE / "receipts" / "results" / "receipts.json"
SCALES = ("1", "9", "36", "144", "576")
KINDS = {
    "background": (ORACLE, "o"),
    "tag": (ROUTER, "s"),
    "bar value": (QUESTION, "^"),
    "entry": (FIXED, "D"),
}
"""Kinds of questions that are shown, from those that need little to those that need much."""
AGAIN = "router that asks again"
SIDE_BY_SIDE = 0.0006  # so that equal points do not hide each other


def needed() -> Figure:
    """Accuracy of the embedded model at each scale, for four kinds of questions."""
    accuracy = _read(EMBEDDED)["accuracy"]
    figure, axes = new_figure(5.6, 4.0)
    for kind, (colour, marker) in KINDS.items():
        _line(axes, [accuracy[kind][scale] for scale in SCALES], SCALES, colour, marker, kind)
    _tokens(axes)
    axes.set_ylabel("right answers")
    axes.set_title("Some questions need few tokens, some need many")
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def trade_off() -> Figure:
    """Accuracy against visual tokens: fixed scales, the router, other rules, the oracles."""
    main = _main()
    fixed = [row for row in main["rows"] if row["kind"] == "fixed"]
    oracle = next(row for row in main["rows"] if row["kind"] == "oracle")
    figure, axes = new_figure(5.6, 4.9)
    _rows(axes, fixed, FIXED, "s", "fixed scales")
    _rows(axes, _budgets(main["rows"]), ROUTER, "o", "router, seven budgets")
    _rows(axes, _budgets(main["escalation"]["rows"]), ORACLE, "^", AGAIN)
    _rows(axes, [oracle], SOFT, "*", "oracle, raw")
    for name, label, colour, marker in (
        ("least answer loss (AVG-LLaVA)", "AVG-LLaVA's rule", IMAGE, "P"),
        ("expected resolution (CARES)", "CARES's rule", QUESTION, "X"),
        ("best fixed per dataset", "best fixed per dataset", OTHER, "D"),
    ):
        _rows(axes, main["baselines"][name]["rows"], colour, marker, label)
    _tokens(axes)
    axes.set_ylim(0.66, 1.0)
    axes.set_xlim(7, 800)
    axes.set_ylabel("right answers on the test split")
    axes.set_title("What routing saves on drawn scenes")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def promised() -> Figure:
    """What was guaranteed with 95 % confidence against what the test split lost."""
    main = _main()
    figure, axes = new_figure(5.6, 4.2)
    axes.plot([0, 0.055], [0, 0.055], color=SOFT, linewidth=1, linestyle=(0, (4, 3)))
    axes.text(0.031, 0.0335, "as much as promised", color=SOFT, fontsize=9, rotation=33)
    for rows, start, aside, colour, marker, label in (
        (main["rows"], "regret-", -SIDE_BY_SIDE, ROUTER, "o", "router"),
        (main["escalation"]["rows"], "escalate-regret-", SIDE_BY_SIDE, ORACLE, "^", AGAIN),
    ):
        found = [row for row in rows if row["name"].startswith(start)]
        target = [float(row["name"].removeprefix(start)) + aside for row in found]
        _line(axes, [row["regret"] for row in found], target, colour, marker, label, joined=False)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("at most so much was to be lost, with 95 % confidence")
    axes.set_ylabel("lost on the test split")
    axes.set_title("Promises and what came of them")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def labels() -> Figure:
    """Gain of the router over mixing fixed scales against the number of labelled questions."""
    shares = _read(ROUTING)["learning_curve"]["shares"]
    figure, axes = new_figure(5.6, 3.8)
    gains = [
        {key: 100 * share["gain"][key] for key in ("value", "low", "high")} for share in shares
    ]
    _line(axes, gains, [share["n"] for share in shares], ROUTER, "o", "router")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(matplotlib.ticker.FixedLocator([share["n"] for share in shares]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:,.0f}".replace(",", " ")))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(bottom=0)
    axes.set_xlabel("labelled questions of the fit split")
    axes.set_ylabel("points of AIQ above mixing")
    axes.set_title("How many labels are enough")
    return figure


def receipts() -> Figure:
    """Accuracy of an OCR reader on receipts against the pixels that it looks at."""
    recorded = _read(RECEIPTS)
    main = recorded["arms"][recorded["main"]]
    figure, axes = new_figure(5.6, 4.6)
    fixed = [row for row in main["rows"] if row["kind"] == "fixed"]
    _rows(axes, fixed, FIXED, "s", "fixed sizes")
    _rows(axes, _budgets(main["rows"]), ROUTER, "o", "router")
    _rows(axes, _budgets(main["escalation"]["rows"]), ORACLE, "^", AGAIN)
    for name, label, colour, marker in (
        ("dataset lookup", "lookup by field", QUESTION, "X"),
        ("calibrated cascade", "calibrated cascade", IMAGE, "P"),
    ):
        _rows(axes, _budgets(main["baselines"][name]["rows"]), colour, marker, label)
    oracle = next(row for row in main["rows"] if row["kind"] == "oracle")
    _rows(axes, [oracle], SOFT, "*", "oracle, raw")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlim(0.08, 0.9)
    axes.set_ylim(0.4, 1.0)
    axes.set_xlabel("megapixels for each answer, on average")
    axes.set_ylabel("right answers on the test split")
    axes.set_title("An OCR reader on scanned receipts")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


FIGURES: Mapping[str, Callable[[], Figure]] = {
    "needed": needed,
    "trade-off": trade_off,
    "promised": promised,
    "labels": labels,
    "receipts": receipts,
}


PICTURES: Mapping[str, Callable[[], Image.Image]] = {
    "options": drawing.options,
    "look": drawing.looked,
}
"""Figures made of images; of these, letters may differ a little from machine to machine."""
SAME = 1.0  # mean difference of a picture's values, of 255


def drawn() -> dict[Path, str]:
    """Path -> SVG of every figure."""
    with matplotlib.rc_context(STYLE):
        return {FOLDER / f"{name}.svg": svg(draw(), name=name) for name, draw in FIGURES.items()}


def pictures() -> dict[Path, Image.Image]:
    """Path -> image of every figure made of images."""
    return {FOLDER / f"{name}.png": draw() for name, draw in PICTURES.items()}


def main(arguments: list[str]) -> int:
    """Write the figures, or with `--check` only say whether they are fresh."""
    check, stale = arguments == ["--check"], []
    for path, text in drawn().items():
        if not check:
            atomic_write_text(path, text)
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(path.name)
    for path, picture in pictures().items():
        if not check:
            buffer = io.BytesIO()
            picture.save(buffer, format="PNG", optimize=True)
            atomic_write_bytes(path, buffer.getvalue())
        elif not _is_drawn(path, picture):
            stale.append(path.name)
    if stale:
        print(f"docs/figures is stale ({', '.join(stale)}): run `make docs` and commit it.")
    return 1 if stale else 0


def _is_drawn(path: Path, picture: Image.Image) -> bool:
    """Whether a file shows a picture."""
    if not path.is_file():
        return False
    with Image.open(path) as file:
        if file.size != picture.size:
            return False
        there = np.asarray(file.convert("RGB"), dtype=float)
    return bool(np.abs(there - np.asarray(picture)).mean() <= SAME)


def _main() -> dict[str, Any]:
    """What was recorded of the main router."""
    recorded = _read(ROUTING)
    found: dict[str, Any] = recorded["arms"][recorded["main"]]
    return found


def _budgets(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [row for row in rows if row["name"].startswith("budget")]


def _read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def _rows(
    axes: Axes, rows: Sequence[Mapping[str, Any]], colour: str, marker: str, label: str
) -> None:
    ordered = sorted(rows, key=lambda row: row["cost"]["value"])
    costs = [row["cost"]["value"] for row in ordered]
    _line(axes, [row["accuracy"] for row in ordered], costs, colour, marker, label)


def _line(
    axes: Axes,
    values: Sequence[Mapping[str, float]],
    places: Sequence[float | str],
    colour: str,
    marker: str,
    label: str,
    *,
    joined: bool = True,
) -> None:
    """Values with their intervals."""
    x = [float(place) for place in places]
    y = [one["value"] for one in values]
    axes.errorbar(
        x,
        y,
        yerr=[
            [one["value"] - one["low"] for one in values],
            [one["high"] - one["value"] for one in values],
        ],
        color=colour,
        marker=marker,
        markersize=8,
        markeredgecolor=PAPER,
        linestyle="-" if joined else "none",
        linewidth=1.4,
        capsize=2,
        label=label,
    )


def _tokens(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.set_xticks([float(scale) for scale in SCALES])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("visual tokens for each answer, on average")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

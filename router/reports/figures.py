"""How figures look and become files: palette, style, static figures of plots, PNG and SVG.

`still` draws what `m3router.router.reports.plots` describes. The page draws the same description by
plotly.js, which cannot write a PNG without a browser; matplotlib can be neither hovered nor zoomed
on a page. So both stay, and a figure is written once.

Colours are near Okabe and Ito's, dark enough to be read as text on white (4.5 : 1), and each line
and mark has a dash and a shape of its own too: colour alone tells nothing. Figures are small, so
that their text stays readable when a phone shrinks them. Matplotlib's object interface only: no
pyplot, no global state.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import NullFormatter, NullLocator, PercentFormatter

from m3router.data.manifest import atomic_write_bytes

INK, SOFT, GRID, PAPER = "#1b1f24", "#5b6470", "#dfe3e8", "#ffffff"
ROUTER, FIXED, ORACLE, IMAGE, QUESTION, OTHER, VIOLET = (
    "#0072b2",
    "#bf5400",
    "#007d5a",
    "#ad4f85",
    "#946200",
    "#0b7d8a",
    "#7a5aa6",
)
SHADES = 9


def _between(light: Sequence[float], dark: Sequence[float]) -> list[str]:
    """`SHADES` colours from one (r, g, b) to another."""
    steps = [k / (SHADES - 1) for k in range(SHADES)]
    mixed = [[a + (b - a) * t for a, b in zip(light, dark, strict=True)] for t in steps]
    return [to_hex((red, green, blue)) for red, green, blue in mixed]


def luminance(colour: str) -> float:
    """Relative luminance of a colour in [0, 1] (WCAG 2.2)."""
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def contrast(one: str, other: str) -> float:
    """Contrast of two colours in [1, 21] (WCAG 2.2)."""
    less, more = sorted(luminance(colour) for colour in (one, other))
    return (more + 0.05) / (less + 0.05)


def _texts_on(colours: Sequence[str]) -> list[str]:
    """Black or white for each, whichever is readable; no two are the same colour to a theme."""
    return [
        max((f"#00000{k}", f"#fffff{k}"), key=lambda text: contrast(text, colour))
        for k, colour in enumerate(colours)
    ]


RAMP = _between((0.40, 0.60, 0.78), (0.02, 0.15, 0.31))
"""For options in order: light to dark, so that the order shows without colour."""
RAMP_DARK = _between((0.27, 0.42, 0.57), (0.85, 0.94, 0.99))
DARK = {
    INK: "#e8ebee",
    SOFT: "#a4adb8",
    GRID: "#333b44",
    PAPER: "#171b20",
    ROUTER: "#4aa8e0",
    FIXED: "#f08540",
    ORACLE: "#2fc79b",
    IMAGE: "#e5a0c8",
    QUESTION: "#e69f00",
    OTHER: "#5cc4cf",
    VIOLET: "#b59ad6",
    **dict(zip(RAMP, RAMP_DARK, strict=True)),
    **dict(zip(_texts_on(RAMP), _texts_on(RAMP_DARK), strict=True)),
}
"""What takes a colour's place on a dark page."""

DPI = 200
STYLE: Any = {
    "font.size": 10.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "svg.fonttype": "none",
}


POINT = 0.72
"""Points of a figure for a pixel of a page."""
LINES: dict[str, Any] = {
    "": "-",
    "dash": (0, (5, 2)),
    "dot": (0, (1.2, 1.4)),
    "dashdot": (0, (3, 1, 1, 1)),
    "longdash": (0, (8, 2)),
    "longdashdot": (0, (8, 2, 1.2, 2)),
}
SYMBOLS = {
    "circle": "o",
    "square": "s",
    "triangle-up": "^",
    "diamond": "D",
    "triangle-down": "v",
    "pentagon": "p",
    "hexagon": "h",
    "star": "*",
}
"""plotly's names -> matplotlib's."""


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of so many inches with one pair of axes."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor=PAPER)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_facecolor(PAPER)
    return figure, axes


def still(spec: Mapping[str, Any]) -> Figure:
    """The static figure of a plot: {"data", "layout"} as `reports.plots` makes them."""
    layout, about = spec["layout"], spec["layout"]["meta"]
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(*about["inches"])
        left: dict[float, float] = {}  # of the next bar in a stack
        for trace in spec["data"]:
            if trace["type"] == "bar":
                _bars(axes, trace, left)
            else:
                _trace(axes, trace)
        for axis, place in ((axes.xaxis, "xaxis"), (axes.yaxis, "yaxis")):
            _draw_axis(axes, axis, layout[place])
        axes.set_title(_text(about["title"]))
        if about["columns"] == 1:
            axes.legend(loc="upper left")
        elif about["columns"]:
            figure.legend(loc="outside lower center", ncols=about["columns"], handlelength=3.4)
        return figure


def _text(text: str) -> str:
    """A text that was made for plotly, as matplotlib takes it: no tags, no formulas."""
    return html.unescape(text).replace("$", r"\$")


def _label(trace: Mapping[str, Any]) -> str | None:
    meta = trace["meta"]
    return None if meta.get("unnamed") else _text(meta["label"])


def _trace(axes: Axes, trace: Mapping[str, Any]) -> None:
    """A band, a line, points with error bars, or names."""
    if trace.get("fill"):
        axes.fill(
            trace["x"], trace["y"], color=trace["fillcolor"], alpha=trace["opacity"], linewidth=0
        )
        return
    line = {"width": 2, "dash": "", **trace.get("line", {})}
    marker = {"symbol": "circle", "size": 6, "color": line.get("color"), **trace.get("marker", {})}
    parts = trace["mode"].split("+")
    if "text" in parts:
        _names(axes, trace)
    else:
        style = _style(parts, line, marker) | {"label": _label(trace)}
        style["clip_on"] = trace.get("cliponaxis", True)
        ends: dict[str, Any] = {
            f"{side}err": [trace[f"error_{side}"]["arrayminus"], trace[f"error_{side}"]["array"]]
            for side in ("x", "y")
            if f"error_{side}" in trace
        }
        if ends:
            axes.errorbar(trace["x"], trace["y"], **ends, elinewidth=1.3, capsize=3, **style)
        else:
            if "maxdisplayed" in marker:
                style["markevery"] = max(1, len(trace["x"]) // marker["maxdisplayed"])
            axes.plot(trace["x"], trace["y"], **style)


def _style(parts: Sequence[str], line: Mapping[str, Any], marker: Mapping[str, Any]) -> Any:
    """How matplotlib draws a trace's line and marks."""
    style: dict[str, Any] = {"color": line.get("color"), "linestyle": "none"}
    style["zorder"] = 2 + POINT * line["width"] / 10
    if "lines" in parts:
        style |= {"linestyle": LINES[line["dash"]], "linewidth": POINT * line["width"]}
    if "markers" in parts:
        symbol = marker["symbol"].removesuffix("-open")
        hollow = symbol != marker["symbol"]
        edge = marker["color"] if hollow else marker.get("line", {}).get("color", PAPER)
        style |= {"marker": SYMBOLS[symbol], "markersize": POINT * marker["size"]}
        style |= {"markeredgecolor": edge, "markeredgewidth": 1.0 if not hollow else 1.4}
        style |= {"markerfacecolor": PAPER if hollow else marker["color"], "color": marker["color"]}
        style["zorder"] = style["zorder"] if "lines" in parts else 4
    return style


def _names(axes: Axes, trace: Mapping[str, Any]) -> None:
    """Names beside points."""
    sides = trace["textposition"]
    across = {"left": (-7, "right"), "center": (0, "center"), "right": (7, "left")}
    upward = {"top": (5, "bottom"), "middle": (0, "center_baseline"), "bottom": (-5, "top")}
    for x, y, name, side in zip(trace["x"], trace["y"], trace["text"], sides, strict=True):
        vertical, horizontal = side.split()
        (dx, ha), (dy, va) = across[horizontal], upward[vertical]
        axes.annotate(
            _text(name),
            (x, y),
            xytext=(dx, dy),
            textcoords="offset points",
            ha=ha,
            va=va,
            fontsize=9.5,
            color=trace["textfont"]["color"],
            zorder=3.5,
            path_effects=[withStroke(linewidth=2.5, foreground=PAPER)],
        )


def _bars(axes: Axes, trace: Mapping[str, Any], left: dict[float, float]) -> None:
    """Horizontal bars; those of a later trace begin where an earlier one's ended."""
    places, widths = trace["y"], trace["x"]
    begin = [left.get(place, 0.0) for place in places]
    colour, edge = trace["marker"]["color"], trace["marker"].get("line", {}).get("color")
    text = trace["insidetextfont"]["color"] if "insidetextfont" in trace else INK
    look: dict[str, Any] = {"color": colour, "edgecolor": edge, "linewidth": 0.6}
    axes.barh(places, widths, left=begin, label=_label(trace), **look)
    if "error_x" in trace:
        error = trace["error_x"]
        ends = [error["arrayminus"], error["array"]]
        axes.errorbar(widths, places, xerr=ends, fmt="none", ecolor=SOFT, capsize=3)
        axes.axvline(0, color=SOFT, linewidth=1)
    for place, start, wide, note in zip(places, begin, widths, trace.get("text", ()), strict=False):
        middle = (start + wide / 2, place)
        axes.text(*middle, _text(note), ha="center", va="center", fontsize=9, color=text)
    left |= {place: start + wide for place, start, wide in zip(places, begin, widths, strict=True)}
    axes.grid(visible=False, axis="y")


def _draw_axis(axes: Axes, axis: Axis, spec: Mapping[str, Any]) -> None:
    """Scale, ticks, direction and title of one axis."""
    across = axis is axes.xaxis
    if spec.get("type") == "log":
        (axes.set_xscale if across else axes.set_yscale)("log")
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())
    if "tickvals" in spec:
        axis.set_ticks(spec["tickvals"], labels=[_text(one) for one in spec["ticktext"]])
    elif "tickformat" in spec:
        axis.set_major_formatter(PercentFormatter(1.0, decimals=int(spec["tickformat"][1])))
    if "range" in spec:
        ends = [10**end for end in spec["range"]] if spec.get("type") == "log" else spec["range"]
        (axes.set_xlim if across else axes.set_ylim)(*ends)
    if spec.get("autorange") == "reversed":
        axis.set_inverted(True)
    if spec.get("zeroline") and across:
        axes.axvline(0, color=SOFT, linewidth=1)
    axis.set_label_text(_text(spec.get("title", {}).get("text", "")))


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    return _render(figure, "png", name="figure")


def svg(figure: Figure, *, name: str) -> str:
    """The figure as an SVG file; `name` keeps its ids apart from other figures'."""
    return _render(figure, "svg", name=name).decode("utf-8")


def inlined(text: str, *, label: str) -> str:
    """An SVG file as an element for an HTML page, with colours that follow the page's theme.

    Args:
        text: what `svg` gives, or `write_figure` wrote.
        label: what a screen reader says; plain text without quotes or angle brackets.
    """
    text = text[text.index("<svg") :].strip()
    used = set(re.findall(r"#([A-Za-z][\w-]*)", text))
    text = re.sub(
        r' id="([^"]*)"', lambda match: match.group(0) if match.group(1) in used else "", text
    )
    text = re.sub(r"<style\b.*?</style>", "", text, flags=re.DOTALL)  # it would reach the page
    for colour in DARK:
        text = text.replace(f": {colour}", f": var(--c{colour[1:]}, {colour})")
    size = re.compile(r'<svg\b[^>]*?viewBox="([^"]+)"[^>]*>')
    return size.sub(
        lambda match: f'<svg viewBox="{match.group(1)}" role="img" aria-label="{label}">',
        text,
        count=1,
    )


def write_figure(figure: Figure, stem: Path) -> list[Path]:
    """Write `stem`.png and `stem`.svg; returns their paths."""
    paths = [stem.with_suffix(".png"), stem.with_suffix(".svg")]
    atomic_write_bytes(paths[0], png(figure))
    atomic_write_bytes(paths[1], svg(figure, name=stem.name).encode("utf-8"))
    return paths


def _render(figure: Figure, kind: str, *, name: str) -> bytes:
    buffer = io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type")) if kind == "svg" else {}
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(buffer, format=kind, dpi=DPI, metadata=nothing or None)
    return buffer.getvalue()


def ramp(k: int, count: int) -> str:
    """Colour of option k."""
    return RAMP[round(k / max(count - 1, 1) * (SHADES - 1))]


def text_on(colour: str) -> str:
    """The text colour that is readable on a colour of the ramp, or on any other."""
    return _texts_on(RAMP)[RAMP.index(colour)] if colour in RAMP else _texts_on([colour])[0]

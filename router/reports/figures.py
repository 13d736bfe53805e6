"""How figures look and become files: palette, style, PNG, SVG and SVG inside a page.

Colours are Okabe and Ito's, which colour-blind readers can tell apart. Figures are small, so that
their text stays readable when a phone shrinks them. Matplotlib's object interface only: no
pyplot, no global state.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from data.manifest import atomic_write_bytes

INK, SOFT, GRID, PAPER = "#1b1f24", "#5b6470", "#dfe3e8", "#ffffff"
ROUTER, FIXED, ORACLE, IMAGE, QUESTION, OTHER = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
)
ON_LIGHT, ON_DARK = "#111111", "#fdfdfd"
SHADES = 9


def _between(light: Sequence[float], dark: Sequence[float]) -> list[str]:
    """`SHADES` colours from one (r, g, b) to another."""
    steps = [k / (SHADES - 1) for k in range(SHADES)]
    mixed = [[a + (b - a) * t for a, b in zip(light, dark, strict=True)] for t in steps]
    return [to_hex((red, green, blue)) for red, green, blue in mixed]


RAMP = _between((0.78, 0.88, 0.96), (0.03, 0.22, 0.42))
"""For options in order: light to dark, so that the order shows without colour."""
DARK = {
    INK: "#e8ebee",
    SOFT: "#a4adb8",
    GRID: "#333b44",
    PAPER: "#171b20",
    ROUTER: "#4aa8e0",
    FIXED: "#f08540",
    ORACLE: "#2fc79b",
    IMAGE: "#e5a0c8",
    ON_LIGHT: ON_DARK,
    ON_DARK: ON_LIGHT,
    **dict(zip(RAMP, _between((0.16, 0.30, 0.44), (0.80, 0.91, 0.99)), strict=True)),
}
"""What takes a colour's place on a dark page; other colours serve both."""

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


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of so many inches with one pair of axes."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor=PAPER)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_facecolor(PAPER)
    return figure, axes


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    return _render(figure, "png", name="figure")


def svg(figure: Figure, *, name: str) -> str:
    """The figure as an SVG file; `name` keeps its ids apart from other figures'."""
    return _render(figure, "svg", name=name).decode("utf-8")


def inline_svg(figure: Figure, *, name: str, label: str) -> str:
    """The figure as an element for an HTML page, with colours that follow the page's theme.

    Args:
        figure: the figure.
        name: keeps ids apart from those of other figures on the page.
        label: what a screen reader says; plain text without quotes or angle brackets.
    """
    text = svg(figure, name=name)
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
    """The text colour that is readable on a colour."""
    red, green, blue = to_rgb(colour)
    return ON_LIGHT if 0.299 * red + 0.587 * green + 0.114 * blue > 0.55 else ON_DARK

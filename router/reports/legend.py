"""A plot's legend for the page: what there is to switch, each with an image of how it looks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from m3router.router.reports.figures import DARK, PAPER, SOFT

WIDE, HIGH = 34, 14
DASHES = {
    "": "",
    "dash": "8 4",
    "dot": "2 3",
    "dashdot": "8 3 2 3",
    "longdash": "13 4",
    "longdashdot": "13 3 2 3",
}
"""plotly's names -> those of SVG."""
CORNERS = {
    "square": (4, 45),
    "triangle-up": (3, 0),
    "triangle-down": (3, 180),
    "diamond": (4, 0),
    "pentagon": (5, 0),
    "hexagon": (6, 0),
}


def entries(spec: Mapping[str, Any]) -> list[tuple[str, Markup]]:
    """(label, image) of what a plot shows; nothing where it shows one thing only."""
    looks = {
        trace["meta"]["label"]: look(trace)
        for trace in spec["data"]
        if not trace.get("fill") and "text" not in trace.get("mode", "")
    }
    return list(looks.items()) if len(looks) > 1 else []


def look(trace: Mapping[str, Any]) -> Markup:
    """How a trace looks: its line with dash and mark, its mark, or its bar, as an SVG element."""
    if trace["type"] == "bar":
        return _svg(f'<rect x="4" y="1" width="26" height="12" fill="{_of(trace["marker"])}"/>')
    parts = []
    line, marker = trace.get("line", {}), trace.get("marker", {})
    if "lines" in trace["mode"]:
        width = line.get("width", 2)
        parts.append(
            f'<path d="M1 7H33" stroke="{_of(line)}" stroke-width="{width}" '
            f'stroke-dasharray="{DASHES[line.get("dash", "")]}" fill="none"/>'
        )
    if "markers" in trace["mode"]:
        symbol = marker.get("symbol", "circle")
        colour = _of(marker)
        fill = colour if not symbol.endswith("-open") else _themed(PAPER)
        parts.append(f'<path d="{_mark(symbol)}" fill="{fill}" stroke="{colour}"/>')
    return _svg("".join(parts))


def _svg(inside: str) -> Markup:
    return Markup(f'<svg viewBox="0 0 {WIDE} {HIGH}" aria-hidden="true">{inside}</svg>')


def _of(style: Mapping[str, Any]) -> str:
    return _themed(style.get("color", SOFT))


def _themed(colour: str) -> str:
    """A colour that follows the page's theme."""
    return f"var(--c{colour[1:]}, {colour})" if colour in DARK else colour


def _mark(symbol: str) -> str:
    """The outline of a mark in the middle of the image."""
    shape, radius = symbol.removesuffix("-open"), 5.5
    middle = (WIDE / 2, HIGH / 2)
    if shape == "circle":
        return f"M{middle[0] - 4.5} {middle[1]}a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0Z"
    if shape == "star":
        corners = [(36.0 * k, 6.5 if k % 2 == 0 else 2.7) for k in range(10)]
    else:
        count, turned = CORNERS[shape]
        corners = [(turned + 360 * k / count, radius) for k in range(count)]
    points = [
        f"{middle[0] + r * math.sin(math.radians(a)):.1f} "
        f"{middle[1] - r * math.cos(math.radians(a)):.1f}"
        for a, r in corners
    ]
    return f"M{'L'.join(points)}Z"

"""The figures of reports, each described once: as traces that the page and files are drawn from.

plotly.js draws them on the page, where they can be zoomed, hovered and switched on and off;
`m3router.router.reports.figures.still` draws the same traces as PNG and SVG without a browser. So
only what both know is used: the trace types "scatter" and "bar", which load nothing from anywhere.
`meta` is for what plotly does not show: a trace's label, a figure's title and size. Axes of shares
stay within 0 and 100 %, and every line and mark has a dash and a shape of its own.

Texts go through `plain`, since plotly reads tags in them.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.ticker import MaxNLocator

from m3router.router.evaluation.documents import Document, measure
from m3router.router.reports import label_places
from m3router.router.reports.figures import (
    FIXED,
    GRID,
    IMAGE,
    INK,
    ORACLE,
    OTHER,
    PAPER,
    QUESTION,
    ROUTER,
    SOFT,
    VIOLET,
    ramp,
    text_on,
)
from m3router.router.reports.label_places import Name
from m3router.router.reports.tables import MIXING, methods, router_rows, row_name
from m3router.router.text.numbers import interval, number, percent

Spec = dict[str, Any]
Floats = npt.NDArray[np.float64]
DASHES = ("dash", "dot", "dashdot", "longdash", "longdashdot")
BASELINES = (OTHER, SOFT, QUESTION, IMAGE, VIOLET)
SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "pentagon", "hexagon")
MARKS = (
    ("fixed", "fixed option (95 %)", FIXED, "square"),
    ("router", "router, calibrated", ROUTER, "circle"),
    ("oracle", "oracle (raw)", ORACLE, "star"),
    ("oracle_corrected", "oracle (chance-corrected)", ORACLE, "star-open"),
)
"""Kind of row, name, colour and symbol of the single points."""
ANY_BUDGET = "router, any budget"
APART = 0.1
"""Share of an axis that two ticks' texts need between them."""
LONGEST = 60
NARROW = 0.09
"""Share below which a bar has no number in it."""


def plain(text: str) -> str:
    """A text without meaning to plotly, cut to one line."""
    flat = " ".join(str(text).split())
    return html.escape(flat if len(flat) <= LONGEST else flat[: LONGEST - 1] + "…", quote=False)


def plots(
    document: Document,
    *,
    importance: Mapping[str, Any] | None = None,
    learning: Mapping[str, Any] | None = None,
) -> dict[str, Spec]:
    """Name -> {"data", "layout"} of every plot that there are numbers for."""
    found = {
        "pareto": pareto(document),
        "methods": compared(document),
        "shares": shares(document),
        "calibration": calibration(document),
    }
    if importance:
        found["importance"] = importance_bars(importance)
    if learning:
        found["learning"] = learning_curve(learning)
    return found


def pareto(document: Document) -> Spec:
    """Accuracy against mean cost: the router, mixing fixed options, and the single points."""
    unit = document["cost_unit"]
    curves = [(ANY_BUDGET, document["curve"], {"color": ROUTER, "width": 3})]
    if document.get("fixed_curve"):
        line = {"color": FIXED, "width": 1.8, "dash": "dash"}
        curves.append((MIXING, document["fixed_curve"], line))
    data = [
        trace
        for name, curve, line in curves
        for trace in _curve(name, curve, line, unit, band=name == ANY_BUDGET)
    ]
    title = "What the router saves, and what it costs"
    return _over_costs(document, data, MARKS, title=title, inches=(5.8, 4.9))


def compared(document: Document) -> Spec:
    """Accuracy against mean cost: the curve of every way of choosing, beside the fixed options."""
    data: list[Spec] = []
    for place, (name, kind, method) in enumerate(methods(document)):
        if not method.get("curve"):
            continue
        if kind == "router":
            line: Spec = {"color": ROUTER, "width": 3}
            data += _curve(ANY_BUDGET, method["curve"], line, document["cost_unit"], band=True)
            continue
        colour = BASELINES[(place - 1) % len(BASELINES)]
        # One dash on from a colour to its next use; with the symbols no two lines look alike.
        dash = DASHES[(place - 1 + (place - 1) // len(BASELINES)) % len(DASHES)]
        line = {"color": colour, "width": 1.8, "dash": dash}
        label = f"router, {name.replace('-', ' ')}" if kind == "ablation" else name
        (trace,) = _curve(label, method["curve"], line, document["cost_unit"], band=False)
        trace["mode"] = "lines+markers"
        symbol = SYMBOLS[(place - 1) % len(SYMBOLS)]
        trace["marker"] = {"symbol": symbol, "size": 8, "color": colour, "maxdisplayed": 8}
        data.append(trace)
    title = "The router beside everything else"
    return _over_costs(document, data, MARKS[:1], title=title, inches=(5.8, 5.8))


def _over_costs(
    document: Document,
    data: list[Spec],
    marks: Sequence[tuple[str, str, str, str]],
    *,
    title: str,
    inches: tuple[float, float],
) -> Spec:
    """Curves and points over mean costs, with axes that hold them all, and their names."""
    kinds = {row["kind"] for row in document["rows"]}
    data = [*data, *(_points(document, *mark) for mark in marks if mark[0] in kinds)]
    fixed = [row["cost"]["value"] for row in document["rows"] if row["kind"] == "fixed"]
    costs = [x for trace in data for x in trace["x"] if x is not None]
    values = [y for trace in data for y in trace["y"] if y is not None]
    for row in document["rows"]:
        values += [one for one in row["accuracy"].values() if one is not None]
    unit = plain(f"mean {document['cost_unit']} per answer")
    x = {"title": {"text": unit}, **cost_axis(costs, fixed)}
    y = {"title": {"text": f"{measure(document)} on the test split"}, **percent_axis(values)}
    return _spec(_named(data, x, y), x, y, title=title, inches=inches)


def cost_axis(costs: Sequence[float], ticks: Sequence[float]) -> Spec:
    """Range and ticks of mean costs: those of the options where they spread, else round ones."""
    low, high = min(costs), max(costs)
    if not (low > 0 and high / low > 4):
        pad = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
        ends = [max(0.0, low - pad) if low >= 0 else low - pad, high + pad]
        round_ones = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]).tick_values(*ends)
        shown = [float(one) for one in round_ones if ends[0] <= one <= ends[1]]
        return {"range": ends, "tickvals": shown, "ticktext": [short(one) for one in shown]}
    wide = math.log10(high / low)
    ends = [math.log10(low) - 0.07 * wide, math.log10(high) + 0.13 * wide]  # names stand right
    kept: list[float] = []
    for tick in sorted({*ticks} or {low, high}, reverse=True):  # the most expensive one stays
        apart = APART * (ends[1] - ends[0])
        if tick > 0 and all(math.log10(other / tick) > apart for other in kept):
            kept.append(tick)
    kept.reverse()
    about = {"tickvals": kept, "ticktext": [short(one) for one in kept]}
    return {"type": "log", "range": ends, **about}


def percent_axis(values: Sequence[float], *, whole: bool = False) -> Spec:
    """Range and ticks of shares, within 0 and 100 %; `whole` takes all of that."""
    low, high = (0.0, 1.0) if whole else (min(values), max(values))
    pad = 0.0 if whole else max(0.06 * (high - low), 0.01)
    ends = [max(0.0, low - pad), min(1.0, high + pad)]
    round_ones = MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]).tick_values(
        *(100 * e for e in ends)
    )
    shown = [
        float(one) for one in round_ones if 100 * ends[0] <= one + 1e-9 <= 100 * ends[1] + 2e-9
    ]
    texts = [f"{round(one, 3):g} %" for one in shown]
    return {"range": ends, "tickvals": [one / 100 for one in shown], "ticktext": texts}


def _curve(
    name: str, curve: Mapping[str, Any], line: Mapping[str, Any], unit: str, *, band: bool
) -> list[Spec]:
    """A line, below it its band where one is asked for and known."""
    texts = [
        f"{plain(name)}: {percent(a)} % at {number(c)} {plain(unit)}"
        for c, a in zip(curve["cost"], curve["accuracy"], strict=True)
    ]
    trace = _scatter(name, curve["cost"], curve["accuracy"], texts)
    trace |= {"mode": "lines", "line": dict(line)}
    if not band or None in (*curve["low"], *curve["high"]):
        return [trace]
    under = {
        "type": "scatter",
        "x": [*curve["cost"], *reversed(curve["cost"])],
        "y": [*curve["high"], *reversed(curve["low"])],
        "fill": "toself",
        "fillcolor": line["color"],
        "opacity": 0.14,
        "line": {"width": 0},
        "mode": "lines",
        "hoverinfo": "skip",
        "meta": {"label": name},
        "name": trace["name"],
    }
    return [under, trace]


def _named(data: Sequence[Spec], x: Spec, y: Spec) -> list[Spec]:
    """The traces, and the names of points and lines that there is room for.

    Points have them in "names" of their meta, lines are called as in the legend.
    """
    drawn = [trace for trace in data if not trace.get("fill")]
    taken: list[Floats] = []
    names: list[tuple[Spec, Name]] = []
    for own, one in enumerate(drawn):
        spots = np.column_stack([_shares(x, one["x"]), _shares(y, one["y"])])
        if "lines" in one["mode"]:
            taken.append(label_places.along(spots))
            names.append((one, Name.of_line(one["meta"]["label"], spots, own=own)))
            continue
        parts = [spots + (dx, dy) for dx in (-0.013, 0, 0.013) for dy in (-0.02, 0, 0.02)]
        sides: Sequence[str] = label_places.AT_A_POINT
        if "error_y" in one:
            bar = one["error_y"]
            for ends in (np.add(one["y"], bar["array"]), np.subtract(one["y"], bar["arrayminus"])):
                parts.append(np.column_stack([spots[:, 0], _shares(y, ends)]))
            sides = label_places.BELOW_A_POINT
        taken.append(np.concatenate(parts))
        for text, spot in zip(one["meta"].get("names", ()), spots.tolist(), strict=False):
            names += [(one, Name.of_point(text, *spot, sides=sides))] if text else []
    names.sort(key=lambda pair: ("lines" in pair[0]["mode"], "error_y" in pair[0]))
    found = label_places.places([name for _, name in names], taken)
    written: dict[int, Spec] = {}
    for (trace, name), place in zip(names, found, strict=True):
        if place is not None:
            across, up, side = place
            text = written.setdefault(id(trace), _texts_of(trace))
            text["x"].append(_value(x, across))
            text["y"].append(_value(y, up))
            text["text"].append(plain(name.text))
            text["textposition"].append(side)
    return [*data, *written.values()]


def _texts_of(trace: Spec) -> Spec:
    """An empty trace of names in another's colour, which is switched off with it."""
    look = trace["marker" if trace["mode"] == "markers" else "line"]
    # A mark that is not seen keeps the name away from the spot.
    away = {"size": 1.2 * look.get("size", 6), "opacity": 0}
    text: Spec = {"type": "scatter", "mode": "markers+text", "x": [], "y": [], "marker": away}
    text |= {"text": [], "textposition": [], "textfont": {"color": look["color"], "size": 12}}
    text |= {"hoverinfo": "skip", "cliponaxis": False}
    return text | {"name": trace["name"], "meta": {**trace["meta"]}}


def _shares(axis: Spec, values: Any) -> Floats:
    """Values as shares of an axis."""
    low, high = axis["range"]
    found = np.log10(values) if axis.get("type") == "log" else np.asarray(values, np.float64)
    return np.asarray((found - low) / (high - low))


def _value(axis: Spec, share: float) -> float:
    low, high = axis["range"]
    found = low + share * (high - low)
    return float(10**found if axis.get("type") == "log" else found)


def _points(document: Document, kind: str, name: str, colour: str, symbol: str) -> Spec:
    rows = [row for row in document["rows"] if row["kind"] == kind]
    texts = [
        f"{plain(row_name(row, document))}: {percent(row['accuracy']['value'])} % "
        f"({interval(row['accuracy'])}) at {number(row['cost']['value'])}"
        for row in rows
    ]
    values = [row["accuracy"]["value"] for row in rows]
    trace = _scatter(name, [row["cost"]["value"] for row in rows], values, texts)
    large = symbol.startswith("star")
    trace |= {"mode": "markers", "marker": {"color": colour, "symbol": symbol}}
    trace["marker"] |= {"size": 15 if large else 10, "line": {"width": 1.4, "color": colour}}
    trace["cliponaxis"] = False  # a mark at 100 % is a whole one
    if not large:
        trace["marker"]["line"] = {"width": 1.4, "color": PAPER}
    if kind == "fixed":
        trace["error_y"] = _errors([row["accuracy"] for row in rows], FIXED)
        trace["meta"]["names"] = [row["name"] for row in rows]
    if kind == "router":
        budgets = [row["policy"]["knob"].get("budget") for row in rows]
        named = zip(rows, budgets, strict=True)
        trace["meta"]["names"] = [
            str(row["name"]) if one is None else f"≤ {short(one)}" for row, one in named
        ]
    if large:
        trace["meta"]["names"] = ["oracle" if kind == "oracle" else ""] * len(rows)
    return trace


def shares(document: Document) -> Spec:
    """Which option the router's middle policy chose how often, over all and by dataset."""
    rows = router_rows(document)
    row = rows[len(rows) // 2]
    bars = [("all", row["shares"])]
    if len(document["datasets"]) > 1:
        bars += [(d["dataset"], d["policies"][row["name"]]["shares"]) for d in document["datasets"]]
    options: Sequence[str] = document["options"]
    data = []
    for k, option in enumerate(options):
        values = [share[option] for _, share in bars]
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "x": values,
                "y": list(range(len(bars))),  # two names may look alike
                "name": plain(option),
                "text": [f"{100 * value:.0f}" if value >= NARROW else "" for value in values],
                "textposition": "inside",
                "textangle": 0,
                "insidetextanchor": "middle",
                "insidetextfont": {"color": text_on(ramp(k, len(options)))},
                "meta": {"label": option},
                "hovertext": [f"{plain(option)}: {percent(value)} %" for value in values],
                "hoverinfo": "text",
                "marker": {"color": ramp(k, len(options)), "line": {"color": PAPER, "width": 1}},
            }
        )
    names = {"tickvals": list(range(len(bars))), "ticktext": [plain(name) for name, _ in bars]}
    spec = _spec(
        data,
        {**percent_axis((), whole=True), "title": {"text": "share of the questions"}},
        {"autorange": "reversed", **names},
        title=f"Chosen options: {row_name(row, document)}",
        inches=(5.6, 1.5 + 0.36 * len(bars)),
        columns=min(len(options), 6),
    )
    spec["layout"] |= {"barmode": "stack", "height": 110 + 32 * len(bars)}
    spec["layout"]["meta"]["bars"] = True
    return spec


def calibration(document: Document) -> Spec:
    """Predicted against observed accuracy, for every option."""
    results: Mapping[str, Any] = document["calibration"]["options"]
    diagonal = _scatter("as predicted", [0, 1], [0, 1], ["", ""])
    diagonal |= {"mode": "lines", "line": {"color": SOFT, "dash": "dash", "width": 1}}
    diagonal["meta"]["unnamed"] = True
    data = [diagonal | {"hoverinfo": "skip"}]
    for k, (option, result) in enumerate(results.items()):
        bins = result["bins"]
        texts = [
            f"{plain(option)}: predicted {percent(one['predicted'])} %, "
            f"right {percent(one['observed'])} % of {one['n']}"
            for one in bins
        ]
        name = f"{option} (error {percent(result['ece'])})"
        x, y = ([one[key] for one in bins] for key in ("predicted", "observed"))
        colour = ramp(k, len(results))
        trace = _scatter(name, x, y, texts) | {"mode": "lines+markers"}
        marker = {"symbol": SYMBOLS[k % len(SYMBOLS)], "size": 9, "color": colour}
        dash = ("", *DASHES)[k % (1 + len(DASHES))]
        trace |= {"line": {"color": colour, "width": 1.6, "dash": dash}, "cliponaxis": False}
        trace["marker"] = {**marker, "line": {"color": PAPER, "width": 0.8}}
        data.append(trace)
    both = percent_axis((), whole=True)
    return _spec(
        data,
        {"title": {"text": "predicted correctness probability"}, **both},
        {"title": {"text": f"{measure(document)} on the test split"}, **both},
        title="Does the prediction come true?",
        inches=(5.0, 4.7),
        columns=1,
    )


def importance_bars(importance: Mapping[str, Any]) -> Spec:
    """Drop in AIQ of every block, and of the single features that were looked at."""
    parts = {**importance["blocks"], **importance["features"]}
    drops = [one["drop"] for one in parts.values()]
    known = [0.0 if drop["value"] is None else 100 * drop["value"] for drop in drops]
    texts = [
        f"{plain(name)}: {value:+.2f} points" for name, value in zip(parts, known, strict=True)
    ]
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": known,
        "y": list(range(len(parts))),
        "name": "drop in AIQ",
        "meta": {"label": "drop in AIQ"},
        "hovertext": texts,
        "hoverinfo": "text",
        "marker": {"color": ROUTER},
        "error_x": _errors(drops, INK, factor=100),
    }
    names = {"tickvals": list(range(len(parts))), "ticktext": [plain(name) for name in parts]}
    spec = _spec(
        [trace],
        {"title": {"text": "drop in AIQ when exchanged, points (95 %)"}},
        {"autorange": "reversed", **names},
        title="What the router looks at",
        inches=(5.6, 1.3 + 0.3 * len(parts)),
        columns=0,
    )
    spec["layout"]["height"] = 110 + 26 * len(parts)
    spec["layout"]["meta"]["bars"] = True
    return spec


def learning_curve(study: Mapping[str, Any]) -> Spec:
    """AIQ against labelled questions."""
    rows = study["shares"]
    n = [row["n"] for row in rows]
    texts = [
        f"{number(row['n'])} questions: {percent(row['aiq']['value'])} % ({interval(row['aiq'])})"
        for row in rows
    ]
    mean = _scatter("router, mean of trainings", n, [row["aiq"]["value"] for row in rows], texts)
    mean |= {"mode": "lines+markers", "line": {"color": ROUTER, "width": 3}}
    mean["error_y"] = _errors([row["aiq"] for row in rows], ROUTER)
    cells = study["cells"]
    each = _scatter(
        "one training",
        [one["n"] for one in cells],
        [one["aiq"]["value"] for one in cells],
        [f"seed {one['seed']}: {percent(one['aiq']['value'])} %" for one in cells],
    )
    each |= {"mode": "markers", "marker": {"color": ROUTER, "symbol": "circle-open", "size": 8}}
    fixed = study["fixed"]["value"]
    level = _scatter("no router: fixed options mixed", [n[0], n[-1]], [fixed] * 2, [""] * 2)
    level |= {"mode": "lines", "line": {"color": FIXED, "dash": "dash"}, "hoverinfo": "skip"}
    axis: Spec = {"type": "log", "tickvals": n, "ticktext": [number(one) for one in n]}
    axis["title"] = {"text": "labelled questions in the fit split"}
    ends = [one[end] for row in rows for one in (row["aiq"],) for end in ("value", "low", "high")]
    spread = [one for one in ends if one is not None] + [c["aiq"]["value"] for c in cells]
    accuracy = {"title": {"text": "AIQ on the test split"}, **percent_axis([*spread, fixed])}
    title = "How many labels are enough?"
    return _spec([mean, each, level], axis, accuracy, title=title, inches=(5.6, 4.2))


def left_out(study: Mapping[str, Any]) -> Spec:
    """Gain over mixed fixed options per left out value, without and with it in training."""
    cells = [one for one in study["cells"] if "skipped" not in one]
    places = list(range(len(cells)))
    gains = [100 * one["gain"]["value"] for one in cells]
    own = _scatter("router that never saw it (95 %)", gains, places, [""] * len(cells))
    own |= {"mode": "markers", "marker": {"color": ROUTER, "symbol": "circle", "size": 10}}
    own["error_x"] = _errors([one["gain"] for one in cells], ROUTER, factor=100)
    known = [g + 100 * one["in_domain"]["value"] for g, one in zip(gains, cells, strict=True)]
    beside = [place + 0.22 for place in places]
    other = _scatter("router that learned from it", known, beside, [""] * len(cells))
    other |= {"mode": "markers"}
    other["marker"] = {"color": ORACLE, "symbol": "diamond-open", "size": 9}
    names = {"tickvals": places, "ticktext": [plain(one["without"]) for one in cells]}
    return _spec(
        [own, other],
        {"title": {"text": "AIQ over mixing fixed options, points"}, "zeroline": True},
        {"autorange": "reversed", **names},
        title=f"Tested on what was left out ({study['by']})",
        inches=(5.6, 1.9 + 0.42 * max(len(cells), 1)),
    )


def short(value: float) -> str:
    """A tick's text: 576, 36.4, 1.3M.

    >>> short(576.0), short(36.42), short(1_300_000.0), short(25_000.0)
    ('576', '36.4', '1.3M', '25k')
    """
    for limit, unit, size in ((1e6, "M", 1e6), (1e4, "k", 1e3)):
        if abs(value) >= limit:
            return f"{number(value / size)}{unit}"
    return number(value)


def _scatter(name: str, x: Sequence[Any], y: Sequence[Any], texts: Sequence[str]) -> Spec:
    trace: Spec = {"type": "scatter", "x": list(x), "y": list(y), "name": plain(name)}
    return trace | {"hovertext": list(texts), "hoverinfo": "text", "meta": {"label": name}}


def _errors(estimates: Sequence[Mapping[str, Any]], colour: str, *, factor: float = 1) -> Spec:
    def length(one: Mapping[str, Any], end: str) -> float:
        known = None not in (one["value"], one[end])
        return factor * abs(one[end] - one["value"]) if known else 0.0

    above, below = ([length(one, end) for one in estimates] for end in ("high", "low"))
    look = {"color": colour, "thickness": 1.3, "width": 3}
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below, **look}


def _spec(
    data: list[Spec],
    x: Spec,
    y: Spec,
    *,
    title: str,
    inches: tuple[float, float],
    columns: int = 2,
) -> Spec:
    """A figure.

    Args:
        data: its traces.
        x: the horizontal axis.
        y: the vertical axis.
        title: of the static figure; the page has headings.
        inches: width and height of the static figure.
        columns: of its legend below; 1 for one inside, 0 for none.
    """
    axis = {"gridcolor": GRID, "linecolor": SOFT, "zerolinecolor": GRID, "automargin": True}
    layout = {
        "paper_bgcolor": PAPER,
        "plot_bgcolor": PAPER,
        "font": {"color": INK, "size": 13, "family": "system-ui, Roboto, DejaVu Sans, sans-serif"},
        "margin": {"l": 8, "r": 26, "t": 30, "b": 8},
        "height": 440,
        "showlegend": False,
        "hovermode": "closest",
        "hoverlabel": {"bgcolor": PAPER, "bordercolor": SOFT, "font": {"color": INK}},
        "xaxis": {**axis, **_titled(x)},
        "yaxis": {**axis, **_titled(y)},
        "meta": {"title": title, "inches": inches, "columns": columns},
    }
    return {"data": data, "layout": layout}


def _titled(axis: Spec) -> Spec:
    """An axis whose title is no larger than its ticks."""
    title = {"text": "", **axis.get("title", {}), "font": {"size": 13}, "standoff": 8}
    return {**axis, "title": title}

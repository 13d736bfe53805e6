"""The figures of reports, each described once: as traces that the page and files are drawn from.

plotly.js draws them on the page, where they can be zoomed, hovered and switched on and off;
`m3router.router.reports.figures.still` draws the same traces as PNG and SVG without a browser. So
only what both know is used: the trace types "scatter" and "bar", which load nothing from anywhere.
    `meta` is
for what plotly does not show: a trace's label, the notes beside its points, whether it is one of
many that a static figure draws alike ("quiet"); a figure's title and size.

Texts go through `plain`, since plotly reads tags in them.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from m3router.router.evaluation.documents import Document
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
    ramp,
)
from m3router.router.reports.tables import methods, router_rows, row_name
from m3router.router.text.numbers import interval, number, percent
from m3router.router.text.words import words_in

Spec = dict[str, Any]
DASHES = ("dash", "dot", "dashdot", "longdash", "longdashdot")
BASELINES = (OTHER, SOFT, QUESTION, IMAGE, "#8c6bb1", "#a6761d")
SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "pentagon", "hexagon")
MARKS = (
    ("fixed", "fixed option (95 %)", FIXED, "square"),
    ("router", "router, calibrated", ROUTER, "circle"),
    ("oracle", "oracle (raw)", ORACLE, "star"),
    ("oracle_corrected", "oracle (chance-corrected)", ORACLE, "star-open"),
)
"""Kind of row, name, colour and symbol of the single points."""
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
        "shares": shares(document),
        "calibration": calibration(document),
    }
    if importance:
        found["importance"] = importance_bars(importance)
    if learning:
        found["learning"] = learning_curve(learning)
    return found


def pareto(document: Document) -> Spec:
    """Accuracy against mean cost: every curve with its band, fixed options and oracles."""
    data: list[Spec] = []
    for place, (name, kind, arm) in enumerate(methods(document)):
        if arm.get("curve"):
            data += _curve(name, kind, arm["curve"], place, document["cost_unit"])
    kinds = {row["kind"] for row in document["rows"]}
    data += [_points(document, *mark) for mark in MARKS if mark[0] in kinds]
    costs = [row["cost"]["value"] for row in document["rows"]]
    fixed = [row for row in document["rows"] if row["kind"] == "fixed"]
    axis: Spec = {"title": {"text": plain(f"mean {document['cost_unit']} per answer")}}
    if min(costs) > 0 and max(costs) / min(costs) > 4:
        axis |= {"type": "log", "tickvals": [row["cost"]["value"] for row in fixed]}
        axis["ticktext"] = [short(row["cost"]["value"]) for row in fixed]
    accuracy = {"title": {"text": "accuracy on the test split"}, "tickformat": ".0%"}
    title = "What the router saves, and what it costs"
    return _spec(data, axis, accuracy, title=title, inches=(5.6, 4.9))


def _curve(name: str, kind: str, curve: Mapping[str, Any], place: int, unit: str) -> list[Spec]:
    own = kind == "router"
    colour = ROUTER if own or kind == "escalation" else BASELINES[(place - 1) % len(BASELINES)]
    line: Spec = {"color": colour, "width": 3 if own else 1.8}
    if not own:
        line["dash"] = DASHES[(place - 1) % len(DASHES)]
    texts = [
        f"{percent(a)} % at {number(c)} {plain(unit)}"
        for c, a in zip(curve["cost"], curve["accuracy"], strict=True)
    ]
    label = {"router": "router, any budget", "ablation": f"router, {name.replace('-', ' ')}"}
    trace = _scatter(label.get(kind, name), curve["cost"], curve["accuracy"], texts)
    trace |= {"mode": "lines", "line": line}
    trace["meta"]["quiet"] = kind == "baseline"
    if None in (*curve["low"], *curve["high"]):
        return [trace]
    band = {
        "type": "scatter",
        "x": [*curve["cost"], *reversed(curve["cost"])],
        "y": [*curve["high"], *reversed(curve["low"])],
        "fill": "toself",
        "fillcolor": colour,
        "opacity": 0.14 if own else 0.08,
        "line": {"width": 0},
        "mode": "lines",
        "hoverinfo": "skip",
        "meta": {"label": trace["meta"]["label"], "quiet": not own},
        "name": trace["name"],
    }
    return [band, trace]


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
    if not large:
        trace["marker"]["line"] = {"width": 1.4, "color": PAPER}
    if kind == "fixed":
        trace["error_y"] = _errors([row["accuracy"] for row in rows], FIXED)
        trace["meta"]["notes"] = [row["name"] for row in rows]
    if kind == "router":
        budgets = [row["policy"]["knob"].get("budget") for row in rows]
        trace["meta"]["notes"] = ["" if one is None else f"≤ {short(one)}" for one in budgets]
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
                "meta": {
                    "label": option,
                    "notes": [f"{100 * value:.0f}" if value >= NARROW else "" for value in values],
                },
                "hovertext": [f"{plain(option)}: {percent(value)} %" for value in values],
                "hoverinfo": "text",
                "marker": {"color": ramp(k, len(options)), "line": {"color": PAPER, "width": 1}},
            }
        )
    names = {"tickvals": list(range(len(bars))), "ticktext": [plain(name) for name, _ in bars]}
    unit = document["cost_unit"] if words_in(document).scales else "option"
    spec = _spec(
        data,
        {"tickformat": ".0%", "range": [0, 1], "title": {"text": plain(unit)}},
        {"autorange": "reversed", **names},
        title=f"Chosen options: {row_name(row, document)}",
        inches=(5.6, 1.5 + 0.36 * len(bars)),
        columns=min(len(options), 6),
    )
    spec["layout"] |= {"barmode": "stack", "height": 110 + 32 * len(bars)}
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
        trace |= {"line": {"color": colour, "width": 1.6}}
        trace["marker"] = {**marker, "line": {"color": SOFT, "width": 0.8}}
        data.append(trace)
    both = {"tickformat": ".0%", "range": [-0.02, 1.02]}
    return _spec(
        data,
        {"title": {"text": "predicted to suffice"}, **both},
        {"title": {"text": "right on the test split"}, **both},
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
    accuracy = {"title": {"text": "AIQ on the test split"}, "tickformat": ".1%"}
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
        "margin": {"l": 8, "r": 8, "t": 30, "b": 8},
        "height": 440,
        "showlegend": False,
        "hovermode": "closest",
        "hoverlabel": {"bgcolor": PAPER, "bordercolor": SOFT, "font": {"color": INK}},
        "xaxis": {**axis, **x},
        "yaxis": {**axis, **y},
        "meta": {"title": title, "inches": inches, "columns": columns},
    }
    return {"data": data, "layout": layout}

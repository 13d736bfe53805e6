"""The HTML report: one file that loads nothing from anywhere, plus figures and tables."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs, get_plotlyjs_version

from m3router.data.errors import DataError
from m3router.data.manifest import atomic_write_text
from m3router.data.media_files import file_in
from m3router.data.videos import FRAMES
from m3router.router.evaluation import metric_table, row_metrics
from m3router.router.evaluation.documents import (
    Document,
    by_agreement,
    column_words,
    measure,
)
from m3router.router.evaluation.studies.summary import answer
from m3router.router.evaluation.summary_text import sentences
from m3router.router.reports import legend, plots, tables
from m3router.router.reports.figures import (
    DARK,
    INK,
    PAPER,
    ROUTER,
    SOFT,
    ramp,
    still,
    svg_element,
    write_figure,
)
from m3router.router.reports.latex import write_latex
from m3router.router.reports.origin_text import day, origin, plain_value
from m3router.router.reports.page_parts import allowed_scripts, script_json, thumbnail, unbroken
from m3router.router.text import numbers
from m3router.router.text.words import words_in

PAGE = "report.html"
THUMBNAIL = 192  # pixels, the longer side

LABELS = {
    "pareto": "{Measure} against mean cost: fixed options, the router and the oracles",
    "methods": "{Measure} against mean cost: the router beside every baseline",
    "shares": "How often each option was chosen",
    "calibration": "Predicted against observed {measure}",
    "importance": "Drop in AIQ when features are exchanged",
    "learning": "AIQ against the number of labelled questions",
}
SECTIONS = {
    "result": "Result",
    "methods": "Baselines",
    "usage": "Savings",
    "gain": "Possible gain",
    "datasets": "Datasets",
    "shares": "Choices",
    "calibration": "Calibration",
    "importance": "Features",
    "learning": "Labels",
    "unseen": "Never seen",
    "lost": "Lost questions",
    "rules": "Rules",
    "origin": "How it was made",
}
PARTS = {"fit": "train", "tune": "validation", "calibrate": "calibration", "test": "test"}
"""What a part is called in the field."""
DARK_PAGE = {
    "color-scheme": "dark",
    "--paper": DARK[PAPER],
    "--panel": "#20262d",
    "--ink": DARK[INK],
    "--soft": DARK[SOFT],
    "--line": "#3a434d",
    "--edge": "#8a95a1",
    "--accent": DARK[ROUTER],
    "--shade": "rgba(0, 0, 0, .65)",
}
MEASURED = (
    "Seconds were measured while labelling, without the router's own: the wait for an answer where"
    " each was asked for alone, its share of the batch elsewhere. Answers per second are their"
    " inverse, for one place that answers."
)
CAPTIONS = {
    "headline": "Fixed options, the router and the oracles on the test split.",
    "usage": "What every way of choosing used per question, and saved of the last option's.",
    "baselines": "The router against ablations and baselines.",
    "rules": "Rules without a knob.",
    "table-2": "Accuracy by dataset, laid out as Table 2 of the M3 paper.",
    "shares": "How often each option was chosen.",
    "lost-where": "Questions lost against the reference option, by dataset and chosen option.",
    "importance": "Drop in AIQ when features are exchanged.",
}
"""Tables that are also written as LaTeX."""


@dataclass(frozen=True, kw_only=True)
class Extras:
    """What a report shows beside the evaluation.

    Attributes:
        importance: what `m3router.router.stages.importance.importance_stage` returns.
        learning: a learning curve.
        left_out: a study of what was never seen.
        notes: why one of these is missing; shown as they are.
    """

    importance: Mapping[str, Any] | None = None
    learning: Mapping[str, Any] | None = None
    left_out: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()


def write_report(
    document: Document,
    folder: Path,
    *,
    extras: Extras | None = None,
    manifest: Mapping[str, Any] | None = None,
    images: Path | None = None,
) -> list[Path]:
    """Write report.html, its figures as PNG and SVG, and tables/ as CSV and LaTeX.

    Args:
        document: what `m3router.router.stages.evaluating.evaluate_stage` returns.
        folder: made when it does not exist.
        extras: importance and studies.
        manifest: the evaluation's manifest, for the provenance.
        images: folder of the images; without it lost questions are shown without images.

    Returns:
        All files written.

    Raises:
        DataError: when a file cannot be written.
    """
    extras = extras or Extras()
    specs = plots.plots(document, importance=extras.importance, learning=extras.learning)
    drawn = {name: still(spec) for name, spec in specs.items()}
    written = [p for name, figure in drawn.items() for p in write_figure(figure, folder / name)]
    rows = _tables(document, extras)
    written += tables.write_csv(rows, folder / "tables")
    written += write_latex(rows, folder / "tables", captions=CAPTIONS)
    labels = _labels(document)
    inline = {
        name: Markup(svg_element((folder / f"{name}.svg").read_text("utf-8"), label=labels[name]))
        for name in drawn
    }
    page = folder / PAGE
    text = render(document, inline, extras=extras, manifest=manifest, images=images)
    atomic_write_text(page, text)
    return [page, *written]


def render(
    document: Document,
    figures: Mapping[str, Markup],
    *,
    extras: Extras,
    manifest: Mapping[str, Any] | None = None,
    images: Path | None = None,
) -> str:
    """The report as one HTML page.

    Args:
        document: the evaluation.
        figures: name -> trusted SVG element, from `svg_element`; the plots' static figures.
        extras: importance and studies.
        manifest: the evaluation's manifest.
        images: folder of the images.
    """
    environment = Environment(
        loader=PackageLoader("m3router.router.reports", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    words, lines = words_in(document), tables.headline(document)
    columns = row_metrics.shown([row.estimates for row in lines])
    usage, log = tables.usage_table(document), document["provenance"]["log"]
    timed = {"seconds", "per_second"} & {one.name for one in (*columns, *usage.metrics)}
    environment.filters |= {
        "number": numbers.number,
        "percent": numbers.percent,
        "interval": numbers.interval,
        "worded": words.of,
        "unbroken": unbroken,
    }
    return environment.get_template(PAGE).render(
        doc=document,
        words=words,
        measure=measure(document),
        answered_by=plain_value(log.get("model") or log.get("source", "")),
        column_words=column_words(document),
        parts=PARTS,
        figures=figures,
        labels=_labels(document),
        headline=lines,
        row_metrics=columns,
        usage=usage,
        usage_note=MEASURED if timed else "",
        certified=tables.certified(document),
        row_name=lambda row: tables.row_name(row, document),
        verdict=_verdict(document),
        metrics=metric_table.column_metrics(),
        methods=tables.method_lines(document),
        abouts=tables.abouts(document),
        shown=tables.shown,
        rules=tables.rules(document),
        reasons=tables.reasons(document),
        unavailable=tables.unavailable(document),
        table_2=tables.table_2(document),
        calibration_caption=_calibration_caption(document),
        live_note=". Where scripts run, the buttons switch lines on and off, and pointing at a "
        "line or mark tells its numbers.",
        origin=origin(document, created=(manifest or {}).get("created", "")),
        hashes=_hashes(manifest),
        created=day((manifest or {}).get("created", "")),
        sheet=Markup(_template("report.css")),
        dark_page=Markup(" ".join(f"{name}: {one};" for name, one in DARK_PAGE.items())),
        variables=_variables(),
        shade=lambda k, count: f"var(--c{ramp(k, count)[1:]})",
        **_lost(document, images),
        **_extras(extras),
        **_scripts(document, extras),
    )


def _verdict(document: Document) -> list[str]:
    """The verdict's sentences; first what they are about where there are no reference answers."""
    told = sentences(document)
    if not by_agreement(document):
        return told
    about = words_in(document).of(
        "There are no reference answers: on this page an answer counts as right where it agrees "
        "with that of the finest option"
    )
    told = [re.sub(r"\baccuracy\b", measure(document), sentence) for sentence in told]
    return [*told[:1], f"{about}, {document['options'][-1]}.", *told[1:]]


def _labels(document: Document) -> dict[str, str]:
    """What a screen reader says of each plot."""
    name = measure(document)
    words = {"measure": name, "Measure": name.capitalize()}
    return {plot: label.format(**words) for plot, label in LABELS.items()}


def _template(name: str) -> str:
    path = files("m3router.router.reports") / "templates" / name
    return path.read_text(encoding="utf-8")


def _tables(document: Document, extras: Extras) -> dict[str, tables.Table]:
    rows = {
        **tables.csv_tables(document),
        "baselines": tables.methods_table(document),
        "rules": tables.rules_table(document),
        "table-2": tables.table_2(document),
        "lost-where": tables.lost_table(document),
    }
    if extras.importance:
        rows["importance"] = tables.importance_table(extras.importance)
    return rows


def _calibration_caption(document: Document) -> str:
    whole = document["calibration"]["all"]
    return (
        "Each mark is an equal share of the test questions, in order of their prediction. Brier "
        f"score {numbers.number(whole['brier'])}, expected calibration error "
        f"{numbers.percent(whole['ece'])} points over all options."
    )


def _lost(document: Document, images: Path | None) -> dict[str, Any]:
    """What the page says about the router's middle row, whose details are shown."""
    rows = tables.router_rows(document)
    row = rows[len(rows) // 2]
    lost = document["lost"][row["name"]]
    by_option = [
        (option, [one for one in lost["examples"] if one["chosen"] == option])
        for option in document["options"]
    ]
    frames = document["provenance"]["log"].get("frames", FRAMES)
    return {
        "routers": rows,
        "policy": tables.row_name(row, document),
        "policy_row": row["name"],
        "lost": lost,
        "matrix": tables.lost_matrix(lost.get("where", []), document["options"]),
        "lost_by_option": [(option, shown) for option, shown in by_option if shown],
        "thumbnails": thumbnails(lost["examples"], images, frames=frames),
    }


def _extras(extras: Extras) -> dict[str, Any]:
    missing = {
        "importance": extras.importance is None,
        "learning": extras.learning is None,
        "unseen": extras.left_out is None,
    }
    return {
        "importance": extras.importance,
        "learning": extras.learning,
        "learning_answer": answer(extras.learning) if extras.learning else "",
        "left_out": extras.left_out,
        "notes": extras.notes,
        "sections": [(id, name) for id, name in SECTIONS.items() if not missing.get(id)],
    }


def _scripts(document: Document, extras: Extras) -> dict[str, Any]:
    """The plots, and the only scripts that the page lets run."""
    found = plots.plots(document, importance=extras.importance, learning=extras.learning)
    drawing = get_plotlyjs()
    script = _template("report.js")
    return {
        "plotted": set(found),
        "legends": {name: legend.entries(spec) for name, spec in found.items()},
        "plots_json": Markup(script_json(found)),
        "dark_json": Markup(script_json(DARK)),
        "drawing": Markup(drawing),
        "script": Markup(script),
        "allowed": Markup(allowed_scripts(drawing, script)),
        "drawing_size": len(drawing.encode("utf-8")),
        "drawing_version": get_plotlyjs_version(),
    }


def _hashes(manifest: Mapping[str, Any] | None) -> list[tuple[str, str, str]]:
    """(name, path, SHA-256) of what was evaluated."""
    inputs = (manifest or {}).get("inputs", {})
    return [(name, one["path"], one["sha256"]) for name, one in inputs.items()]


def _variables() -> dict[str, dict[str, str]]:
    """CSS variables of the figures' colours, for a light and a dark page."""
    return {
        "light": {f"--c{colour[1:]}": colour for colour in DARK},
        "dark": {f"--c{colour[1:]}": other for colour, other in DARK.items()},
    }


def thumbnails(
    examples: list[dict[str, Any]], images: Path | None, *, frames: int
) -> dict[str, str]:
    """Example id -> data URI of its image, for those that can be read."""
    found: dict[str, str] = {}
    if images is None or not os.path.isdir(images):
        return found
    for example in examples:
        try:
            path = file_in(images, example["image"])
            found[example["id"]] = thumbnail(
                path, pixels=THUMBNAIL, kind="JPEG", frames=frames, quality=85
            )
        except DataError:
            continue
    return found

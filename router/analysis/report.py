"""The HTML report: one file that loads nothing from anywhere, plus figures and CSV tables."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from data.errors import DataError
from data.manifest import atomic_write_text
from data.videos import FRAMES, open_picture
from router.analysis import plots, tables
from router.analysis.comparison import KEPT
from router.analysis.figures import DARK, inline_svg, write_figure
from router.analysis.tables import Document

PAGE = "report.html"
THUMBNAIL = 192  # pixels, the longer side


def write_report(
    document: Document,
    folder: Path,
    *,
    manifest: Mapping[str, Any] | None = None,
    images: Path | None = None,
) -> list[Path]:
    """Write report.html, pareto.png, pareto.svg, two more figures and tables/*.csv.

    Args:
        document: what `router.stages.reporting.evaluate_stage` returns.
        folder: made when it does not exist.
        manifest: the evaluation's manifest, for the provenance.
        images: folder of the pictures; without it lost questions are shown without pictures.

    Returns:
        All files written.

    Raises:
        DataError: when a file cannot be written.
    """
    drawn = {
        "pareto": plots.pareto_figure(document),
        "shares": plots.shares_figure(document),
        "calibration": plots.calibration_figure(document),
    }
    files = [path for name, figure in drawn.items() for path in write_figure(figure, folder / name)]
    files += tables.write_tables(document, folder / "tables")
    inline = {
        name: Markup(inline_svg(figure, name=name, label=_LABELS[name]))
        for name, figure in drawn.items()
    }
    page = folder / PAGE
    atomic_write_text(page, render(document, inline, manifest=manifest, images=images))
    return [page, *files]


_LABELS = {
    "pareto": "Accuracy against mean cost: fixed options, the router and the oracles",
    "shares": "How often each option was chosen, by dataset",
    "calibration": "Predicted against observed accuracy",
}


def render(
    document: Document,
    figures: Mapping[str, Markup],
    *,
    manifest: Mapping[str, Any] | None = None,
    images: Path | None = None,
) -> str:
    """The report as one HTML page.

    Args:
        document: the evaluation.
        figures: name -> trusted SVG element, from `inline_svg`.
        manifest: the evaluation's manifest.
        images: folder of the pictures.
    """
    environment = Environment(
        loader=PackageLoader("router.analysis", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": tables.number,
        "percent": tables.percent,
        "interval": tables.interval,
    }
    policy, rows = _shown_policy(document), tables.router_rows(document)
    return environment.get_template(PAGE).render(
        doc=document,
        figures=figures,
        headline=tables.headline(document),
        routers=rows,
        row_name=lambda row: tables.row_name(row, document),
        verdict=verdict(document),
        policy=next(tables.row_name(r, document) for r in rows if r["name"] == policy),
        lost=document["lost"][policy],
        thumbnails=_thumbnails(
            document["lost"][policy]["examples"],
            images,
            frames=document["provenance"]["log"].get("frames", FRAMES),
        ),
        hashes=_hashes(manifest),
        created=(manifest or {}).get("created", ""),
        variables=_variables(),
    )


def verdict(document: Document) -> list[str]:
    """The result in plain sentences, honest where nothing was gained."""
    rows = {row["kind"]: row for row in document["rows"]}
    best, oracle = rows["best_fixed"], rows["oracle_corrected"]
    unit = document["cost_unit"]
    saved = document["metrics"]["saved_at_99"]
    goal, share = saved["row"], saved["calibrated"]
    sentences = []
    if saved["policy"]["fallback"]:
        sentences.append(
            "No policy kept 99 % of the best fixed accuracy on the calibrate part, so that policy "
            "falls back to the finest option."
        )
    elif share["value"] is not None:
        sentences.append(
            f"Told to keep 99 % of the best fixed option's accuracy, the router answers "
            f"{tables.percent(goal['accuracy']['value'])} % right "
            f"({tables.percent(goal['minus_best_fixed']['value'], signed=True)} points, 95 % "
            f"interval {tables.interval(goal['minus_best_fixed'], signed=True)}) with "
            f"{tables.number(goal['cost']['value'])} {unit} per answer instead of "
            f"{tables.number(best['cost']['value'])}: {tables.percent(share['value'])} % saved "
            f"({tables.interval(share)})."
        )
        if goal["accuracy"]["value"] < KEPT * best["accuracy"]["value"]:
            sentences.append("That is less accuracy than it was told to keep.")
    gap = oracle["minus_best_fixed"]["value"]
    if gap is not None and gap <= 0.005:
        sentences.append(
            "By the chance-corrected oracle, which is a lower end, choosing perfectly would gain "
            "nothing over the best fixed option in accuracy here: what is left to win is cost."
        )
    gain = document["metrics"]["aiq_minus_fixed"]
    if gain["low"] is not None and gain["high"] is not None and gain["low"] <= 0 <= gain["high"]:
        sentences.append(
            "Over all budgets together, the router's curve is not clearly better than mixing "
            f"fixed options (difference {tables.percent(gain['value'], signed=True)} points, "
            f"{tables.interval(gain, signed=True)})."
        )
    return sentences


def _shown_policy(document: Document) -> str:
    """The router's middle row: the one whose details are shown."""
    rows = tables.router_rows(document)
    return str(rows[len(rows) // 2]["name"])


def _thumbnails(
    examples: list[dict[str, Any]], images: Path | None, *, frames: int
) -> dict[str, str]:
    """Example id -> data URI of its picture, for those that can be read."""
    found = {}
    for example in examples if images is not None and images.is_dir() else []:
        try:
            picture = open_picture(images / example["image"], frames=frames)
        except DataError:
            continue
        picture.thumbnail((THUMBNAIL, THUMBNAIL))
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG", optimize=True)
        encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
        found[example["id"]] = f"data:image/png;base64,{encoded}"
    return found


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

"""What all commands share: progress, and tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Column, Table
from rich.text import Text

from m3router.data.progress import Advance, progress_bar
from m3router.router.cli.streams import err, out
from m3router.router.evaluation import metric_table
from m3router.router.evaluation.documents import Document, column_words
from m3router.router.evaluation.metric_table import Metric
from m3router.router.evaluation.reference_summary import not_the_best, reference_sentence
from m3router.router.evaluation.row_metrics import NOTHING, on_the_console
from m3router.router.evaluation.summary_text import sentences
from m3router.router.metrics.intervals import LEAST_FOR_CURVES
from m3router.router.reports.tables import (
    certified,
    headline,
    method_lines,
    methods,
    reasons,
    shown,
    usage_table,
)
from m3router.router.text.agreement import agreement_sentence
from m3router.router.text.numbers import MISSING, interval, number, percent
from m3router.router.text.words import Words, words_in

ESCALATION = "router + escalation"
Estimate = Mapping[str, float | None]
LONG = 24  # letters from which on a column of a table may be folded
FOLDED = 12  # letters that such a column keeps at least
ENDLESS = 1_000_000  # letters, more than any row has


@contextmanager
def progress(what: str) -> Iterator[Advance]:
    """A bar with the time left on a terminal, a line every few seconds elsewhere."""
    with progress_bar(what, line=say) as advance:
        yield advance


def say(text: str) -> None:
    """A note for the user, beside the results."""
    err.print(Text(text))


def show_verdict(document: Document) -> None:
    """Print what to conclude, and what to be careful with, before any number."""
    first, *others = sentences(document)
    out.print(Text(first), style="bold")
    for sentence in others:
        out.print(Text(sentence))
    out.print()


def say_about_reference(summary: Mapping[str, Any], words: Words, *, whole: bool) -> None:
    """Say what the reference option is, where `whole`, and warn where it may surprise."""
    if whole:
        out.print(Text(reference_sentence(summary, words)))
    for sentence in not_the_best(summary):
        out.print(Text(sentence), style="yellow")


def show_headline(document: Document) -> None:
    """Print the table of fixed options, router, best fixed and oracles."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("answered by")
    level = round(100 * document["bootstrap"]["level"])
    words = words_in(document)
    named = {key: text.replace(" ", "\n") for key, text in column_words(document).items()}
    rows = headline(document)
    metrics = on_the_console([row.estimates for row in rows])
    ranged = {
        metric.name
        for metric in metrics
        if metric.interval
        and any(interval(row.estimates[metric.name] or NOTHING) != MISSING for row in rows)
    }
    for metric in metrics:
        table.add_column(str(metric.console).format(**named), justify="right")
        if metric.name in ranged:
            table.add_column(f"{level} %\ninterval", justify="right", style="dim")
    kind = ""
    for row in rows:
        if kind and kind != row.kind and row.kind != "oracle_corrected":
            table.add_section()
        kind = row.kind
        cells = []
        for metric in metrics:
            estimate = row.estimates[metric.name]
            cells.append(metric.text(estimate))
            if metric.name in ranged:
                cells.append(interval(estimate or NOTHING).replace(" to ", "–"))
        style = "bold cyan" if row.kind == "router" else ""
        table.add_row(Text(row.name), *cells, style=style)
    print_table(table)
    out.print(Text(document["reference"]["text"]))
    for name, sentence in certified(document):
        out.print(Text(f"{name}, as calibrated: {sentence}"))
    sizes = document["n"]
    asked = words.asked(sizes["test"], sizes["test_groups"])
    out.print(f"{sizes['test']:,} held-out questions{asked and ' '}{asked}.", style="dim")
    if told := agreement_sentence(document.get("provenance", {}).get("log", {}), words):
        out.print(Text(told), style="yellow")


def show_usage(document: Document) -> None:
    """Print what the router uses, and what it saves of what the last option uses.

    Nothing where there is no more to it than the cost that the table above has.
    """
    table = usage_table(document)
    metrics = [one for one in table.metrics if one.console]
    if {one.name for one in metrics} <= {"cost", "saved_cost"}:
        return
    unit = document["cost_unit"].replace(" ", "\n")
    rows = [
        [name, *(metric.text(row.get(metric.name)) for metric in metrics)]
        for name, kind, row in table.rows
        if kind in ("router", "best_fixed", "oracle", "escalation")
    ]
    told = f"\nUsed per question, and saved of what the last option, {document['finest']}, uses:"
    out.print(Text(told), style="bold")
    show_table(["", *(str(one.console).format(unit=unit) for one in metrics)], rows)
    if text := (document.get("tower") or {}).get("text"):
        out.print(Text(text), style="dim")


def show_methods(document: Document) -> None:
    """Print what the router is compared with: areas under the curves, in points."""
    unit, words = document["cost_unit"], words_in(document)
    out.print(f"\nOver all {unit}, mean accuracy in points (AIQ):", style="bold")
    metrics = metric_table.console_metrics()
    lines = {line["key"]: line for line in method_lines(document)}
    fixed = {"key": words.of("fixed scales mixed at random")}
    rows = [_line(lines[key] | more, metrics) for key, more in (("router", {}), ("fixed", fixed))]
    missing = []
    for name, kind, method in methods(document):
        if "undefined" in method:
            missing.append(f"{name}: {words.of(method['undefined'])}")
        elif method["metrics"] is None:
            rows.append(_rule(name, method["rows"][0], metrics))
        elif kind != "router":
            rows.append(_line(lines[name], metrics))
    show_table(["", *(metric.console or metric.title for metric in metrics)], rows)
    for metric in metrics:
        for reason in reasons(document, [metric]):
            out.print(Text(f"{metric.title}: {words.of(reason)}."), style="dim")
    main = document["metrics"]
    if main["aiq"]["value"] is not None and main["aiq_minus_fixed"]["low"] is None:
        out.print(Text(_no_interval(document)), style="dim")
    for row in document.get("escalation", {}).get("rows", ()):
        if row.get("policy", {}).get("kind") == "cascade":
            found, at = percent(row["accuracy"]["value"]), number(row["cost"]["value"])
            out.print(Text(f"{ESCALATION}, {row['name']}: {found} % right at {at} {unit} in full"))
    for line in missing:
        out.print(Text(f"not available: {line}"), style="dim")


def _line(line: Mapping[str, Any], metrics: Sequence[Metric]) -> list[str]:
    """A method's metrics: values, and of differences the intervals too."""
    cells = [line["key"]]
    for metric in metrics:
        value, ends = shown(metric, line[metric.name], digits=1)
        told = f"{value} ({ends})" if ends and metric.format == "points" else value
        cells.append(told if line["kind"] == "fixed" or metric.is_of(line["key"]) else "")
    return cells


def _rule(name: str, row: Mapping[str, Any], metrics: Sequence[Metric]) -> list[str]:
    """The one point of a method without a knob."""
    known = {
        "aiq": f"{percent(row['accuracy']['value'])} at {number(row['cost']['value'])}",
        "aiq_minus_router": "no knob",
        "gap_closed": percent(row["gap_closed"]["own_cost"]["value"]),
    }
    return [name, *(known.get(metric.name, "") for metric in metrics)]


def _no_interval(document: Document) -> str:
    """Why areas under curves have none."""
    told = (
        f"No interval is given for them: a reliable one needs {LEAST_FOR_CURVES} images, and "
        f"there {'is' if document['n']['test_groups'] == 1 else 'are'} "
        f"{document['n']['test_groups']}."
    )
    return words_in(document).of(told)


def show_ends(document: Document) -> None:
    """Print APGR and CPT where there are two options, or where they are defined."""
    found, ends = document["metrics"]["apgr"], document["metrics"]["ends"]
    if ends is None or (len(document["options"]) > 2 and found["value"] is None):
        return
    between = f"between {ends['weak']} and {ends['strong']}"
    if found["value"] is None:
        out.print(Text(f"APGR and CPT {between}: {found['reason']}."))
        return
    half, most = document["metrics"]["cpt_50"], document["metrics"]["cpt_80"]
    out.print(
        Text(
            f"APGR {between}: {found['value']:.3f} ({_ends_of(found)}); a random router has 0.5. "
            f"CPT(50 %) {percent(half['value'])} % of calls, CPT(80 %) {percent(most['value'])} %."
        )
    )


def _ends_of(estimate: Estimate) -> str:
    low, high = estimate["low"], estimate["high"]
    return "no interval" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def show_table(header: list[str], rows: list[list[Any]]) -> None:
    """Print a small table; cells may come from the user, so they are not markup.

    Columns that hold nothing but dashes are left out.
    """
    kept = [k for k in range(len(header)) if not rows or _known([str(row[k]) for row in rows])]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for k in kept:
        table.add_column(header[k])
    for row in rows:
        table.add_row(*[Text(str(row[k])) for k in kept])
    print_table(table)


def _known(cells: Sequence[str]) -> bool:
    """Whether a column says more than that nothing is known."""
    return MISSING not in cells or not set(cells) <= {MISSING, ""}


def print_table(table: Table, console: Console | None = None) -> None:
    """Print a table of which no cell is cut, however wide the terminal is.

    Where the output is piped or written to a file there is no width to keep to: a row is as long as
    it is, so that it can be searched and compared. A terminal folds columns of long texts; one that
    is too narrow for the others gets a line for each cell.

    Args:
        table: Its columns' ``no_wrap`` and ``overflow`` are set here.
        console: Where to; None prints among the results.
    """
    console = console or out
    endless = console.options.update_width(ENDLESS)
    widths = [
        max((console.measure(cell, options=endless).maximum for cell in _cells(column)), default=0)
        for column in table.columns
    ]
    gaps = 2 * (len(widths) - 1)
    if not console.is_terminal:
        table.width = sum(widths) + gaps
        console.print(table)
        return
    for column, width in zip(table.columns, widths, strict=True):
        column.overflow, column.no_wrap = "fold", width <= LONG
    needed = sum(width if width <= LONG else FOLDED for width in widths) + gaps
    if needed <= console.width or len(widths) < 2:
        console.print(table)
        return
    names = [Text(" ").join(_lines(column.header)) for column in table.columns]
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        for name, cell in zip(names, cells, strict=True):
            text = Text(" ").join(_lines(cell))
            if text:
                console.print(Text.assemble(name, ": " if name else "", text), soft_wrap=True)
        console.print()


def _cells(column: Column) -> list[RenderableType]:
    return [column.header, *column.cells]


def _lines(cell: RenderableType) -> list[Text]:
    """The lines of a header or cell."""
    text = cell if isinstance(cell, Text) else Text(str(cell))
    return list(text.split("\n"))

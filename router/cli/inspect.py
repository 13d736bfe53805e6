"""`m3router inspect`."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from m3router.data.log.oracle_log import OracleLog
from m3router.data.log.partial_log import find_log
from m3router.data.log.warnings import log_warnings
from m3router.data.progress import waiting
from m3router.router.cli.console import progress, say, show_table
from m3router.router.cli.options import images_folder
from m3router.router.cli.streams import err, out
from m3router.router.metrics.oracles import RULES
from m3router.router.reports.log_browser import write_page
from m3router.router.reports.log_summary import inspect_log, only_dataset
from m3router.router.reports.log_summary_tables import csv_files, shown_tables
from m3router.router.reports.log_summary_types import Inspection
from m3router.router.reports.tables import write_csv
from m3router.router.text.numbers import count


def inspect(
    folder: Annotated[
        Path, typer.Argument(help="The log, or the run folder that holds it.", show_default=False)
    ],
    dataset: Annotated[
        str | None, typer.Option(help="Only this dataset.", show_default=False)
    ] = None,
    rule: Annotated[
        list[str] | None,
        typer.Option(
            help="first_correct, stable or matches_full; may be repeated. [default: all]",
            show_default=False,
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Expensive questions and causes listed.")] = 10,
    draws: Annotated[int, typer.Option(min=2, help="Bootstrap draws for the intervals.")] = 1000,
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of the images, to show them on the page.", show_default=False),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(help="Write a page to look through the questions.", show_default=False),
    ] = None,
    thumbnails: Annotated[
        int, typer.Option(min=0, help="Images inside the page; the others are linked.")
    ] = 2000,
    csv: Annotated[
        Path | None, typer.Option(help="Write the tables into this folder.", show_default=False)
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print everything as JSON instead of tables.")
    ] = False,
) -> None:
    """Look at a log: what every option answered, what was possible, what failed.

    Accuracy, cost and errors per dataset and option; image tokens, time and price where the log
    has them, and options that cost the same; the oracle under each rule, raw and corrected for
    chance; the smallest sufficient option; where options disagree; causes of errors; the most
    expensive questions. Errors and gaps are counted, never taken for wrong answers. A
    run that is still being labelled can be looked at too.

    `--html` writes one page to filter, search and sort all questions. It loads nothing from
    anywhere, except images beyond `--thumbnails`, from their folder.

    ```
    m3router inspect run/ --images images/ --html log.html
    ```
    """
    images_folder(images)
    found = find_log(folder)
    log = found.log if dataset is None else only_dataset(found.log, dataset)
    notes = _notes(len(found.log), found.asked) if not found.finished else log_warnings(log)
    if log.unknown.any():
        notes.append(
            "Examples were asked up to their first right answer: accuracy is over what was asked, "
            "and oracles cannot be computed."
        )
    if not json:
        for note in notes:
            say(note)
    with waiting("counting"):
        inspection = inspect_log(log, rules=rule or RULES, top=top, draws=draws)
    if json:
        document = {"finished": found.finished, "asked": found.asked, "notes": notes}
        document |= inspection.to_dict()
        out.file.write(dumps(document, indent=2, allow_nan=False) + "\n")
    else:
        _show(inspection)
    if csv is not None:
        write_csv(csv_files(inspection), csv)
        err.print(f"written: {csv}", markup=False)
    if html is not None:
        _write(log, inspection, html, images=images, thumbnails=thumbnails, notes=notes)


def _notes(answered: int, asked: int | None) -> list[str]:
    """What a reader must know of an unfinished run."""
    so_far = (
        f"{answered:,} of {count(asked, 'question')}" if asked else f"{count(answered, 'question')}"
    )
    return [f"Unfinished: {so_far} are labelled so far. The numbers will change."]


def _show(inspection: Inspection) -> None:

    for table in shown_tables(inspection):
        out.print(table.title, style="bold", markup=False)
        show_table(table.header, table.rows)
        if table.note:
            out.print(table.note, style="dim", markup=False)
        out.print()


def _write(
    log: OracleLog,
    inspection: Inspection,
    page: Path,
    *,
    images: Path | None,
    thumbnails: int,
    notes: list[str],
) -> None:

    with progress("images") as advance:
        written = write_page(
            log,
            inspection,
            page,
            images=images,
            thumbnails=thumbnails,
            notes=notes,
            progress=advance,
        )
    linked = f", {written.linked:,} linked" if written.linked else ""
    inside = f", {count(written.inside, 'image')} inside{linked}" if images is not None else ""
    err.print(f"written: {page} ({written.size / 1e6:.1f} MB{inside})", markup=False)
    if written.unreadable:
        say(f"{count(written.unreadable, 'image')} cannot be read. First cause: {written.cause}")

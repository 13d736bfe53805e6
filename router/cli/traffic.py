"""`m3router traffic`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from router.traffic.files import Record

SHOWN = 60


def traffic(
    folder: Annotated[
        Path, typer.Argument(help="The folder that a server records to.", show_default=False)
    ],
    show: Annotated[bool, typer.Option("--list", help="Show the newest requests.")] = False,
    top: Annotated[int, typer.Option(min=1, help="How many --list shows.")] = 20,
    forget: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID", help="Delete this request for good; may be repeated.", show_default=False
        ),
    ] = None,
    purge: Annotated[
        bool, typer.Option("--purge", help="Delete what is older than --keep-days.")
    ] = False,
    keep_days: Annotated[float, typer.Option(min=0, help="Days for --purge.")] = 30,
    write: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Write what is there now to sets/NAME.jsonl, to be labelled.",
            show_default=False,
        ),
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            help="Write questions without right answers to this CSV file, to be filled in.",
            show_default=False,
        ),
    ] = None,
    disputed: Annotated[
        Path | None,
        typer.Option(
            help="For --sheet: only what was answered otherwise than the reference option answers "
            "in this run folder or log.",
            show_default=False,
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="For --disputed: the policy's reference option. [default: the finest scale]",
            show_default=False,
        ),
    ] = None,
    answers: Annotated[
        Path | None,
        typer.Option(help="Take the right answers from this filled-in sheet.", show_default=False),
    ] = None,
) -> None:
    """Look at, delete from, and write out what a server recorded.

    `--forget` and `--purge` delete lines, pictures and copies in the folder; they, `--write` and
    `--answers` need the folder for themselves, so a server that records to it must delete by
    itself. Run folders made from the traffic are not touched.

    ```
    m3router traffic traffic/ --forget chatcmpl-1f2e
    m3router traffic traffic/ --write week-34
    m3router traffic traffic/ --sheet todo.csv --disputed week-34/
    m3router traffic traffic/ --answers todo.csv
    ```
    """
    from datetime import UTC, datetime, timedelta

    from router.cli.console import out
    from router.traffic.answers import read_sheet
    from router.traffic.folder import ANSWERED, IMAGES, TrafficFolder, read_traffic

    wanted = [bool(forget), purge, write is not None, sheet is not None, answers is not None]
    if sum(wanted) > 1:
        raise typer.BadParameter(
            "give one of --forget, --purge, --write, --sheet and --answers at a time"
        )
    if disputed is not None and sheet is None:
        raise typer.BadParameter("--disputed chooses the questions of a --sheet")
    if reference is not None and disputed is None:
        raise typer.BadParameter("--reference is for --disputed")
    if sheet is not None:
        _write_sheet(folder, sheet, disputed, reference)
        return
    if not any(wanted):
        _show(folder, read_traffic(folder), top if show else 0)
        return
    with TrafficFolder.open(folder) as opened:
        for one in forget or ():
            there = opened.forget([one])
            out.print(f"{_printable(one)}: {'deleted' if there else 'nothing there'}", markup=False)
        if purge:
            gone = opened.purge(datetime.now(UTC) - timedelta(days=keep_days))
            out.print(f"{gone} requests older than {keep_days:g} days deleted, {len(opened)} left")
        if write is not None:
            path = opened.write_set(write)
            out.print(f"{len(opened)} requests in {path}; label them with", markup=False)
            out.print(
                f"m3router label --examples {path} --images {folder / IMAGES} --out {write}/",
                markup=False,
            )
        if answers is not None:
            told = read_sheet(answers, read_traffic(folder))
            have = opened.answer(told)
            out.print(
                f"{len(told)} right answers taken; {have} of {len(opened)} requests have one, in "
                f"{folder / ANSWERED}",
                markup=False,
            )


def _write_sheet(folder: Path, sheet: Path, disputed: Path | None, reference: str | None) -> None:
    from data.log.partial_log import find_log
    from router.cli.console import out
    from router.traffic import answers
    from router.traffic.files import read_lines
    from router.traffic.folder import ANSWERED, IMAGES, read_traffic

    records = read_traffic(folder)
    only = None
    if disputed is not None:
        only = answers.disputed(records, find_log(disputed).log, reference=reference)
    have = {line["id"] for line in read_lines(folder / ANSWERED)}
    count = answers.write_sheet(sheet, records, answered=have, only=only)
    out.print(
        f"{count} questions in {sheet}; their pictures are in {folder / IMAGES}. Fill in the "
        "column 'answers', several right ones with | between them.",
        markup=False,
    )


def _show(folder: Path, records: list[Record], top: int) -> None:
    from router.cli.console import out
    from router.traffic.files import read_lines
    from router.traffic.folder import ANSWERED

    pictures = len({one["image"] for one in records})
    answered = sum(1 for _ in read_lines(folder / ANSWERED))
    when = f", {records[0]['time']} to {records[-1]['time']}" if records else ""
    out.print(
        f"{len(records)} requests about {pictures} pictures{when}; {answered} with right answers"
    )
    for one in reversed(records[-top:] if top else []):
        served = one["served"]
        out.print(
            f"{_printable(one['id'])}  {one['time']}  {one['image']}  "
            f"{_printable(one['question'], SHOWN)} → {_printable(served['answer'], SHOWN)} "
            f"(scale {served['scale']})",
            markup=False,
        )


def _printable(text: str, most: int = 200) -> str:
    r"""A stranger's text, without what a terminal would obey.

    >>> _printable("\x1b[2Jhello")
    '·[2Jhello'
    """
    shown = "".join(letter if letter.isprintable() else "·" for letter in text)
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"

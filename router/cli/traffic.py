"""Look at, delete from, and write out what a server recorded.

`forget` and `purge` delete lines, images and copies in the folder; they, `write` and `answers`
need the folder for themselves, so a server that records to it must delete by itself. Run folders
made from the traffic are not touched. docs/traffic.md says more.

```
m3router traffic list traffic/
m3router traffic write traffic/ week-34
m3router traffic sheet traffic/ todo.csv --disputed week-34/
m3router traffic answers traffic/ todo.csv
```
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from m3router.data.log.partial_log import find_log
from m3router.router.cli import next_steps
from m3router.router.cli.streams import out
from m3router.router.text.numbers import count, plain
from m3router.router.traffic.answers import disputed as disputed_in
from m3router.router.traffic.answers import read_sheet, write_sheet
from m3router.router.traffic.files import Record, read_lines
from m3router.router.traffic.folder import (
    ANSWERED,
    IMAGES,
    SETS,
    TrafficFolder,
    read_feedback,
    read_traffic,
)
from m3router.router.traffic.judgements import read_judged, references

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode="markdown", help=__doc__
)

SHOWN = 60
Folder = Annotated[
    Path, typer.Argument(help="The folder that a server records to.", show_default=False)
]


@app.command("list")
def show(
    folder: Folder,
    top: Annotated[int, typer.Option(min=0, help="How many of the newest are shown.")] = 20,
) -> None:
    """Say how much there is, and show the newest requests.

    ```
    m3router traffic list traffic/ --top 5
    ```
    """
    _show(folder, read_traffic(folder), top)


@app.command("forget")
def forget(
    folder: Folder,
    ids: Annotated[
        list[str],
        typer.Argument(metavar="ID...", help="The requests to delete.", show_default=False),
    ],
) -> None:
    """Delete requests for good.

    ```
    m3router traffic forget traffic/ chatcmpl-1f2e
    ```
    """
    with TrafficFolder.open(folder) as opened:
        for one in ids:
            there = opened.forget([one])
            out.print(f"{_printable(one)}: {'deleted' if there else 'nothing there'}", markup=False)


@app.command("purge")
def purge(
    folder: Folder,
    keep_days: Annotated[float, typer.Option(min=0, help="Days that are kept.")] = 30,
) -> None:
    """Delete what is older than some days.

    ```
    m3router traffic purge traffic/ --keep-days 7
    ```
    """
    with TrafficFolder.open(folder) as opened:
        gone = opened.purge(datetime.now(UTC) - timedelta(days=keep_days))
        days = f"{plain(keep_days)} {'day' if keep_days == 1 else 'days'}"
        out.print(f"{count(gone, 'request')} older than {days} deleted, {len(opened)} left")


@app.command("write")
def write(
    folder: Folder,
    name: Annotated[
        str,
        typer.Argument(help="Name of the set: sets/NAME.jsonl in the folder.", show_default=False),
    ],
    feedback: Annotated[
        bool,
        typer.Option(
            "--feedback",
            help="Only requests whose feedback tells a right answer, with it as the reference.",
        ),
    ] = False,
) -> None:
    """Write what is there now as a set of examples, to be labelled.

    ```
    m3router traffic write traffic/ week-34
    m3router traffic write traffic/ week-34-right --feedback
    ```
    """
    with TrafficFolder.open(folder) as opened:
        told = references(read_judged(folder)) if feedback else None
        written = opened.write_set(name, told)
        path = folder / SETS / f"{name}.jsonl"
        out.print(f"{count(written, 'request')} in {path}", markup=False)
        next_steps.after_examples(path, folder / IMAGES, Path(name))


@app.command("sheet")
def sheet(
    folder: Folder,
    file: Annotated[Path, typer.Argument(help="CSV file to write.", show_default=False)],
    disputed: Annotated[
        Path | None,
        typer.Option(
            help="Only requests whose answer differs from that of the reference option in this run "
            "folder or log.",
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
) -> None:
    """Write questions without right answers to a CSV file, to be filled in.

    ```
    m3router traffic sheet traffic/ todo.csv --disputed week-34/
    ```
    """
    if reference is not None and disputed is None:
        raise typer.BadParameter("--reference is for --disputed")
    records = read_traffic(folder)
    only = None
    if disputed is not None:
        only = disputed_in(records, find_log(disputed).log, reference=reference)
    have = {line["id"] for line in read_lines(folder / ANSWERED)}
    written = write_sheet(file, records, answered=have, only=only)
    out.print(
        f"{count(written, 'question')} in {file}; images are in {folder / IMAGES}. Fill in the "
        "column 'answers', several right ones with | between them.",
        markup=False,
    )


@app.command("answers")
def answers(
    folder: Folder,
    file: Annotated[Path, typer.Argument(help="A filled-in sheet.", show_default=False)],
) -> None:
    """Take the right answers from a filled-in sheet.

    ```
    m3router traffic answers traffic/ todo.csv
    ```
    """
    with TrafficFolder.open(folder) as opened:
        told = read_sheet(file, read_traffic(folder))
        have = opened.answer(told)
        out.print(
            f"{count(len(told), 'right answer')} taken; {have} of "
            f"{count(len(opened), 'request')} have one, in {folder / ANSWERED}",
            markup=False,
        )


def _show(folder: Path, records: list[Record], top: int) -> None:
    images = len({one["image"] for one in records})
    answered = sum(1 for _ in read_lines(folder / ANSWERED))
    when = f", {records[0]['time']} to {records[-1]['time']}" if records else ""
    judged = len(read_feedback(folder))
    out.print(
        f"{count(len(records), 'request')} about {count(images, 'image')}{when}; {answered} with "
        f"right answers, {judged} with feedback"
    )
    for one in reversed(records[-top:] if top else []):
        served = one["served"]
        out.print(
            f"{_printable(one['id'])}  {one['time']}  {one['image']}  "
            f"{_printable(one['question'], SHOWN)} → {_printable(served['answer'], SHOWN)} "
            f"(option {_printable(served['option'])})",
            markup=False,
        )


def _printable(text: str, most: int = 200) -> str:
    r"""A stranger's text, without what a terminal would obey.

    >>> _printable("\x1b[2Jhello")
    '·[2Jhello'
    """
    shown = "".join(letter if letter.isprintable() else "·" for letter in text)
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"

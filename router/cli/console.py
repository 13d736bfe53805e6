"""What all commands share: where text goes, progress, and tables."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from router.analysis.tables import Document, headline, interval, number, percent

PLAIN_EVERY = 5.0  # seconds between lines where there is no terminal

out = Console(highlight=False, soft_wrap=True)
"""Results."""
err = Console(stderr=True, highlight=False, soft_wrap=True)
"""Progress, notes and errors."""

Advance = Callable[[int, int, str], None]
"""Called with (done, total, note)."""


@contextmanager
def progress(what: str) -> Iterator[Advance]:
    """A bar with the time left on a terminal, a line every few seconds elsewhere."""
    if not err.is_terminal:
        yield _Lines(what)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", style="dim"),
        TimeElapsedColumn(),
        TextColumn("left", style="dim"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err) as bar:
        task = bar.add_task(what, total=None, note="")

        def advance(done: int, total: int, note: str = "") -> None:
            bar.update(task, completed=done, total=total, note=note)

        yield advance


class _Lines:
    """Plain progress: the first, the last, and a line every few seconds in between."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.began = time.monotonic()
        self.first: int | None = None
        self.shown: tuple[float, int] | None = None

    def __call__(self, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if self.first is None:
            self.first, self.began = done, now
        last = self.shown
        if last and (last[1] == done or (done < total and now - last[0] < PLAIN_EVERY)):
            return
        self.shown = now, done
        spent, new = now - self.began, done - self.first
        left = f", about {spent / new * (total - done):.0f} s left" if 0 < new < total - 0 else ""
        if done >= total:
            left = f", {spent:.1f} s"
        say(f"{self.what}: {done}/{total}{left}{f' ({note})' if note else ''}")


def say(text: str) -> None:
    """A note for the user, beside the results."""
    err.print(Text(text))


def show_headline(document: Document) -> None:
    """Print the table of fixed options, router, best fixed and oracles."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("answered by", no_wrap=True)
    level = round(100 * document["bootstrap"]["level"])
    unit = document["cost_unit"].replace(" ", "\n")
    for name, style in (
        ("right %", ""),
        (f"{level} %\ninterval", "dim"),
        (f"mean\n{unit}", ""),
        ("GFLOPs", ""),
        ("points\nto finest", ""),
    ):
        table.add_column(name, justify="right", style=style, no_wrap=True)
    kind = ""
    for row in headline(document):
        if kind and kind != row.kind and row.kind != "oracle_corrected":
            table.add_section()
        kind = row.kind
        table.add_row(
            Text(row.name),
            percent(row.accuracy["value"]),
            interval(row.accuracy).replace(" to ", "–"),
            number(row.cost["value"]),
            number(row.gflops["value"] if row.gflops else None),
            percent(row.minus_finest["value"], signed=True),
            style="bold cyan" if row.kind == "router" else "",
        )
    out.print(table)
    sizes, vision = document["n"], document["vision_gflops"]
    out.print(
        f"{sizes['test']} held-out questions about {sizes['test_groups']} pictures.", style="dim"
    )
    if vision is not None:
        out.print(
            "GFLOPs per answer in the language model; the vision tower adds "
            f"{number(vision)} to each, which routing cannot save.",
            style="dim",
        )


def show_table(header: list[str], rows: list[list[Any]]) -> None:
    """Print a small table; cells may come from the user, so they are not markup."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*[Text(str(cell)) for cell in row])
    out.print(table)

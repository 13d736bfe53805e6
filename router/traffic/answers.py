"""Right answers that people tell afterwards: a CSV sheet to fill in, and back.

The sheet does not show what was answered, so that it sways nobody.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from m3router.data.errors import DataError
from m3router.data.example import Example
from m3router.data.log.oracle_log import OracleLog
from m3router.data.manifest import atomic_write_bytes
from m3router.data.scoring.metrics import AGREEMENT
from m3router.data.tables.cells import Nested
from m3router.data.tables.table import Table, read_cells
from m3router.router.policies.price_sweep import LAST
from m3router.router.policies.references import index_of
from m3router.router.traffic.files import FILE, Record
from m3router.router.traffic.records import example_of

COLUMNS = ("id", "image", "question", "answers", "metric")
BETWEEN = "|"
"""Between several right answers in a cell."""
METRIC = "exact"
SHOWN = 20
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def disputed(
    records: Sequence[Record], log: OracleLog, *, reference: str | None = None
) -> set[str]:
    """Ids of the requests that were answered otherwise than the reference answers in a log.

    What is right cannot matter for the regret of the others: it is 0.

    Args:
        records: what was served.
        log: what every option answers.
        reference: name of the option; None for the last.

    Raises:
        DataError: for an unknown name.
    """
    place = LAST if reference is None else index_of(reference, log.options)
    answers = dict(zip(log.ids, log.laid_out("answer")[:, place], strict=True))
    return {
        one["id"]
        for one in records
        if one["id"] in answers and one["served"]["answer"] != answers[one["id"]]
    }


def write_sheet(
    path: Path,
    records: Sequence[Record],
    *,
    answered: Collection[str],
    only: Collection[str] | None,
) -> int:
    """Write the questions without right answers as CSV, with empty cells for these.

    Args:
        path: The file; UTF-8 with the mark that spreadsheets look for.
        records: See `m3router.router.traffic.read_traffic`.
        answered: Ids of those that have right answers; left out.
        only: Ids of those that are wanted; None for all.

    Returns:
        How many questions were written.

    Raises:
        DataError: The file is there already, or cannot be written.
    """
    if path.exists():
        raise DataError(f"{path} exists; somebody may have filled it in. Choose another name.")
    wanted = [
        one for one in records if one["id"] not in answered and (only is None or one["id"] in only)
    ]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for one in wanted:
        writer.writerow([one["id"], one["image"], _harmless(one["question"]), "", METRIC])
    atomic_write_bytes(path, text.getvalue().encode("utf-8-sig"), mode=FILE)
    return len(wanted)


def read_sheet(path: Path, records: Sequence[Record]) -> list[Example]:
    """Read a sheet that was filled in; rows without an answer are left out.

    Returns:
        The questions, as they were asked, with their right answers.

    Raises:
        DataError: The file cannot be read, columns are missing, an id is unknown or repeated, or an
            answer cannot be one by its metric; up to 20 rows are named, and nothing is taken.
    """
    table = read_cells(path)
    missing = sorted({"id", "answers"}.difference(table.names))
    if missing:
        raise DataError(
            f"{path} has no column {', '.join(missing)}. Fill in a sheet that `m3router traffic "
            "sheet` wrote, and save it as CSV with commas."
        )
    if "metric" not in table.names:
        close = get_close_matches("metric", [name.lower() for name in table.names], n=1)
        if close:
            raise DataError(f"{path} has the column {close[0]!r}: did you mean 'metric'?")
    rows = _rows(table)
    known = {one["id"]: one for one in records}
    found: dict[str, Example] = {}
    problems: list[str] = []
    for number, row in enumerate(rows, start=2):
        if not row["answers"]:
            continue
        identity = row["id"]
        try:
            if identity not in known or identity in found:
                why = "is repeated" if identity in found else "is not a recorded request"
                raise DataError(f"id {identity!r} {why}.")
            found[identity] = _answered(known[identity], row)
        except DataError as error:
            problems.append(f"row {number}: {error}")
    if problems:
        shown = "\n  ".join(problems[:SHOWN])
        rest = f"\n  ... and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise DataError(f"{path}: {len(problems)} bad rows; no answer was taken.\n  {shown}{rest}")
    if not found:
        raise DataError(f"{path} has no answers: fill in the column 'answers'.")
    return list(found.values())


def _rows(table: Table) -> list[dict[str, str]]:
    """The cells that are read, empty where nothing stands in them."""
    names = [name for name in ("id", "answers", "metric") if name in table.names]
    columns = [
        ["" if cell is None or isinstance(cell, Nested) else cell for cell in table.cells(name)]
        for name in names
    ]
    return [dict(zip(names, cells, strict=True)) for cells in zip(*columns, strict=True)]


def _answered(record: Record, row: Mapping[str, str]) -> Example:
    metric = row.get("metric") or METRIC
    if metric == AGREEMENT:
        metric = METRIC
    answers = [text.strip() for text in row["answers"].split(BETWEEN)]
    return example_of({**record, "answers": answers, "metric": metric})


def _harmless(text: str) -> str:
    """A text of a stranger's that no spreadsheet takes for a formula.

    >>> _harmless("=1+1"), _harmless("What is it?")
    ("'=1+1", 'What is it?')
    """
    return f"'{text}" if text.startswith(_FORMULA) else text

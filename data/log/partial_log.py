"""Read a log for looking at it: a finished one, or what an unfinished run has so far."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from m3router.data.errors import DataError
from m3router.data.log.journal import JOURNAL, VERSION, journal_files, latest_rows, read_records
from m3router.data.log.oracle_log import OracleLog
from m3router.data.manifest import MANIFEST
from m3router.data.plain_files import is_there

LOG = "log"


@dataclass(frozen=True, kw_only=True)
class Found:
    """A log and how far it is.

    Attributes:
        log: What was answered so far.
        folder: Where it lies.
        finished: Whether the labelling run finished.
        asked: Examples that the run is about; None where it is not known.
    """

    log: OracleLog
    folder: Path
    finished: bool
    asked: int | None = None


def find_log(folder: Path) -> Found:
    """Read the log in a log folder or in a run folder, finished or not.

    Args:
        folder: A log's folder, or a run folder with ``log/``.

    Returns:
        The finished log where there is one, else the rows of the journal. The journal is only
        read: the run may be going on.

    Raises:
        DataError: There is neither, or it is damaged, or the journal has no answers yet.
    """
    places = (folder, folder / LOG)
    for place in (folder / LOG, folder):
        if is_there(place / MANIFEST):
            return Found(log=OracleLog.read(place), folder=place, finished=True)
    for place in places:
        if is_there(place / JOURNAL):
            return _unfinished(place)
    if folder.is_file():
        raise DataError(
            f"{folder} is a file; give the folder of a run. `m3router import` makes one of a file."
        )
    raise DataError(
        f"{folder} holds no oracle log: expected {MANIFEST} or {JOURNAL} there or in "
        f"{folder / LOG}. Check the path, or run `m3router label` or `import` first."
    )


def _unfinished(folder: Path) -> Found:
    """Take the rows of a journal for a log."""
    metadata, rows = read_journal(folder)
    if not rows:
        raise DataError(f"{folder / JOURNAL} holds no answers yet: wait for the first ones.")
    options = metadata.get("grid")
    if not isinstance(options, list) or not options:
        raise DataError(
            f"{folder / JOURNAL} does not say at which scales its run asks, so it can only be "
            "looked at when it has finished."
        )
    log = OracleLog(
        pd.DataFrame(rows),
        options=[str(option) for option in options],
        cost_unit=str(metadata.get("cost_unit", "cost")),
        metadata=metadata,
    )
    asked = metadata.get("n_examples")
    return Found(
        log=log, folder=folder, finished=False, asked=asked if isinstance(asked, int) else None
    )


def read_journal(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Read the journals of all processes of a run without locking or cutting them.

    Returns:
        The metadata that the run goes by, and the latest row of every (example, scale).

    Raises:
        DataError: A journal is damaged or of another version, or none has begun.
    """
    metadata: dict[str, Any] | None = None
    try:
        for path in reversed(journal_files(folder)):  # the first process recorded the last ones
            for number, (_, _, record) in enumerate(read_records(path)):
                if number and "metadata" not in record:
                    continue
                metadata, known = record.get("metadata"), number or record.get("journal") == VERSION
                if not isinstance(metadata, dict) or not known:
                    raise DataError(f"{path} is not a journal of version {VERSION}.")
        rows = list(latest_rows(folder))
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror or error}.") from error
    if metadata is None:
        raise DataError(f"{folder / JOURNAL} is empty: no labelling run has begun there.")
    return metadata, rows

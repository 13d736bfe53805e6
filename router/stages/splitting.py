"""How a run's log is split: by a seed, by other shares, or as it was given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from m3router.data.errors import DataError
from m3router.data.importers.table import COLUMNS
from m3router.data.json_files import read_json_object
from m3router.data.log.oracle_log import OracleLog
from m3router.data.plain_files import is_there
from m3router.data.splits.assignment import Covered, assigned_split, read_assignment
from m3router.data.splits.split import FRACTIONS, Split, grown_split, split_by_group
from m3router.router.runs.run import Run


@dataclass(frozen=True, kw_only=True)
class Splitting:
    """Where a split comes from.

    Attributes:
        shares: of the images per part, in the order of `m3router.data.splits.split.SPLITS`.
        file: a given assignment, see `m3router.data.splits.assignment.read_assignment`.
        column: what that file calls its column of parts.
        key: what that file calls its column of ids or groups; None for the one that the log's ids
            were imported from, else `id`, `example_id` or `group`.
    """

    shares: tuple[float, ...] = FRACTIONS
    file: Path | None = None
    column: str | None = None
    key: str | None = None

    def apply(self, log: OracleLog, *, seed: int) -> Split:
        """Split a log; `seed` draws what is not given.

        Raises:
            DataError: when the shares or the given assignment do not fit the log.
        """
        if self.file is None:
            return split_by_group(log.groups, seed=seed, fractions=self.shares)
        covered = Covered(
            ids=log.ids,
            groups=[str(group) for group in log.groups],
            columns=log.metadata.get(COLUMNS, {}),
            questions=[str(question) for question in log.questions],
        )
        assignment = read_assignment(self.file, column=self.column, key=self.key, covered=covered)
        return assigned_split(log.ids, log.groups, assignment, seed=seed, shares=self.shares)


def run_split(run: Run, log: OracleLog, splitting: Splitting | None, *, seed: int) -> Split:
    """Split a run's log: as asked, else by seed, where images that the run had keep their part.

    Args:
        run: May hold the split of fewer examples.
        log: The run's.
        splitting: What is asked for; None for the usual shares.
        seed: Of what is drawn.

    Raises:
        DataError: when the shares or the given assignment do not fit the log.
    """
    if splitting is None and is_there(run.split_file):
        try:
            before = read_json_object(run.split_file, redo="Split again.")
        except DataError:  # it is made anew
            before = {}
        grown = grown_split(before, log.groups, seed=seed)
        if grown is not None:
            return grown
    return (splitting or Splitting()).apply(log, seed=seed)

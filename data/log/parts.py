"""Which rows of an oracle log a stage may use."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from m3router.data.errors import NotLearnableError
from m3router.data.log.oracle_log import OracleLog
from m3router.data.log.warnings import same_options, same_sentence
from m3router.data.splits.split import Split

Gaps = Literal["error", "drop"]


def require_choice(log: OracleLog) -> None:
    """Refuse a log of one option, or of several that change nothing.

    Raises:
        NotLearnableError: saying so.
    """
    if len(log.options) < 2:
        raise NotLearnableError(
            f"A router cannot be learned: the log has one option, {log.options[0]}, so there is "
            "nothing to choose between. Add the answers of another one."
        )
    for names in same_options(log):
        if len(names) == len(log.options):
            raise NotLearnableError(f"A router cannot be learned. {same_sentence(names)}")


def part_rows(log: OracleLog, split: Split, part: str, *, gaps: Gaps) -> npt.NDArray[np.intp]:
    """Rows of `log` in one part of the split, without examples that have a gap.

    Args:
        log: the whole log, gaps included; the split's rows index it.
        split: made from this log's groups.
        part: "fit", "tune", "calibrate" or "test".
        gaps: "error" refuses a log with any gap; "drop" leaves those examples out.

    Raises:
        DataError: when finer options were not asked, for gaps with "error", or when the split
            does not fit the log's groups.
    """
    split.prove_disjoint(log.groups)
    if gaps == "error":
        log.require_complete("error")
    log.require_known()
    rows: npt.NDArray[np.intp] = split.part(part)
    return rows[np.asarray(log.complete)[rows]]


def part_sizes(log: OracleLog, split: Split) -> dict[str, dict[str, int]]:
    """Examples and images of every part of the split."""
    return {
        part: {"examples": len(rows), "pictures": len(set(log.groups[rows].tolist()))}
        for part in ("fit", "tune", "calibrate", "test")
        for rows in [split.part(part)]
    }

"""What can be wrong with the rows of a plain table: found for all rows, before any is used."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from data.cells import number_of, verdict_of
from data.importers.joined import listed
from data.log_checks import REACH, within_reach

SHOWN = 3
_ROUNDING = 1e-6
"""A log-probability this little above 0 is 0: sums in half precision end there."""
_KINDS = {
    "confidence": "a number in [0, 1]",
    "logprob": "a number of at most 0 (nats, summed over the answer's tokens)",
}
MEASURED = tuple(_KINDS)
"""Columns about an answer that cascades read."""


class Faults:
    """Sentences about rows that cannot be used, and which rows these are.

    Args:
        rows: How many rows the table has.
    """

    def __init__(self, rows: int) -> None:
        self.sentences: list[str] = []
        self.bad = np.zeros(rows, dtype=bool)

    def add(self, sentence: str, bad: np.ndarray | pd.Series) -> None:
        """Keep a sentence about some rows; ``bad`` is a mask of shape (rows,)."""
        self.sentences.append(sentence)
        self.bad |= np.asarray(bad, dtype=bool)

    def refuse(self, called: str, faults: Sequence[str]) -> None:
        """Tell the first rows of a column whose cells cannot be used, and how many there are."""
        bad = [(row, fault) for row, fault in enumerate(faults, start=1) if fault]
        if not bad:
            return
        self.sentences += [f"{called} in row {row} {fault}." for row, fault in bad[:SHOWN]]
        if len(bad) > SHOWN:
            self.sentences.append(f"{called}: {len(bad) - SHOWN} more rows are so.")
        self.bad |= np.array([bool(fault) for fault in faults])


def verdicts(column: pd.Series, faults: Faults) -> pd.Series:
    """Read right and wrong as scores in [0, 1], missing as NaN."""
    empty = column.isna() | (column == "")
    known = {cell: verdict_of(cell) for cell in column[~empty].unique()}
    values = column.map(known).astype(np.float64)
    bad = ~empty & ~values.between(0, 1)
    if bad.any():
        faults.add(
            f"'correct' must be in [0, 1] or true/false: {int(bad.sum())} rows are not, first "
            f"{column[bad].iloc[0]!r} in row {int(np.flatnonzero(bad)[0]) + 1}. A cell without a "
            "value is empty.",
            bad,
        )
    return values


def numbers(table: pd.DataFrame, name: str, faults: Faults) -> pd.Series:
    """Read a column of finite numbers that are not negative."""
    known = {cell: number_of(cell) for cell in table[name].dropna().unique()}
    values = table[name].map(known).astype(np.float64)
    bad = ~(np.isfinite(values) & (values >= 0))
    if bad.any():
        faults.add(
            f"{name!r} must be a number of at least 0 in every row: {int(bad.sum())} rows have "
            f"none, first {table[name][bad].iloc[0]!r} in row {int(np.flatnonzero(bad)[0]) + 1}. "
            "Write numbers with a decimal point and without separators of thousands.",
            bad,
        )
    return values


def measured(column: pd.Series, name: str, told: list[str]) -> pd.Series:
    """Read what was measured of answers, a confidence or a log-probability; missing as NaN.

    A cell that holds something else is missing too, and told: an answer without a confidence is
    an answer, and tables have columns of this name that mean other things.

    Args:
        column: Its texts; missing ones are None, empty or ``nan``.
        name: A member of :data:`MEASURED`.
        told: Receives sentences about cells that are missing or are not used.
    """
    empty = column.isna() | column.isin(["", "nan", "NaN"])
    known = {cell: number_of(cell) for cell in column[~empty].unique()}
    values = column.map(known).astype(np.float64)
    good = values.between(0, 1) if name == "confidence" else values <= _ROUNDING
    bad = ~empty & ~(good & np.isfinite(values))
    if bad.any():
        told.append(
            f"column {name!r}: {int(bad.sum())} of {len(column)} cells are not {_KINDS[name]}, "
            f"first {column[bad].iloc[0]!r} in row {int(column.index[bad][0]) + 1}; they are "
            "taken as missing"
        )
    if empty.any():
        told.append(
            f"column {name!r}: {int(empty.sum())} of {len(column)} cells are empty; cascades need "
            "it for every answer"
        )
    values = values.mask(bad)
    return values if name == "confidence" else values.clip(upper=0.0)


def check_chance(table: pd.DataFrame, faults: Faults) -> None:
    """Check that no guess is always right."""
    sure = table["chance"] >= 1 if "chance" in table.columns else pd.Series(dtype=bool)
    if sure.any():
        first = int(np.flatnonzero(sure)[0]) + 1
        faults.add(f"'chance' must be below 1: {sure.sum()} rows are not, first row {first}.", sure)


def check_costs(table: pd.DataFrame, faults: Faults) -> None:
    """Check that costs can be computed with; those that are no numbers were told before."""
    if "cost" not in table.columns:
        return
    far = np.isfinite(table["cost"]) & (table["cost"] >= 0) & ~within_reach(table["cost"])
    if far.any():
        first = int(np.flatnonzero(far)[0]) + 1
        faults.add(
            f"'cost' is beyond reach in {far.sum()} rows, first {table['cost'][far].iloc[0]:g} in "
            f"row {first}: {REACH}.",
            far,
        )


def check_keys(table: pd.DataFrame, faults: Faults) -> None:
    """Check that ids, options and questions are there and pairs are not doubled."""
    for name in ("id", "option", "question", "group", "dataset"):
        if name in table.columns:
            empty = (table[name].isna() | (table[name] == "")).to_numpy()
            if empty.any():
                first = int(np.flatnonzero(empty)[0]) + 1
                faults.add(f"{name!r} is empty in {empty.sum()} rows, first row {first}.", empty)
    doubled = table.duplicated(["id", "option"])
    if doubled.any():
        pairs = [tuple(pair) for pair in table[doubled][["id", "option"]].head(5).to_numpy()]
        # A row that says the very same again is harmless; of two that differ none is believed.
        copies = table.duplicated()
        torn = table[~copies].duplicated(["id", "option"], keep=False)
        bad = copies | torn.reindex(table.index, fill_value=False)
        faults.add(f"{doubled.sum()} (id, option) pairs are duplicate, first {pairs}.", bad)


def check_examples(table: pd.DataFrame, faults: Faults) -> None:
    """Check that rows of an id say the same of what does not depend on the option."""
    same = ("group", "dataset", "question", "image", "chance", "reference", "metric")
    names = [name for name in same if name in table.columns]
    left = table[~faults.bad]
    distinct = left[["id", *names]].drop_duplicates()
    torn = distinct["id"][distinct.duplicated("id")].drop_duplicates()
    if len(torn):
        faults.add(
            f"{len(torn)} ids disagree with themselves across options in one of {names} "
            f"({listed(list(torn))}): are two examples using one id?",
            table["id"].isin(torn),
        )

"""Any router log as a plain table: one row per (question, option), right or wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from data.cells import Cell, Nested, key_of, number_of, verdict_of
from data.errors import DataError
from data.importers.image_cells import image_path
from data.importers.joined import UNMAPPED, listed
from data.importers.references import references_in
from data.oracle_log import OracleLog
from data.registry import unknown_name
from data.tables import Table, read_cells

REQUIRED = ("id", "question", "option", "correct")
OPTIONAL = ("image", "cost", "group", "dataset", "chance", "answer", "reference", "metric")
KEYS = frozenset({"id", "group", "option", "dataset"})
"""Columns whose texts are compared, see :func:`data.cells.keys_of`."""
COLUMNS = "columns"
"""Metadata entry: one of our names -> what the table calls that column. A given split is read by
the same column of ids, see :mod:`data.split_columns`."""
SHOWN = 3

_NO_VALUE = "no value in the column 'correct'"


def read_table(
    path: Path, *, cost_unit: str = "cost", columns: Mapping[str, str] | None = None
) -> OracleLog:
    """Read a table in any format of :mod:`data.tables`.

    Columns: ``id``, ``question``, ``option`` and ``correct`` (in [0, 1], or true/false; empty for
    a generation that failed), and optionally ``image``, ``cost``, ``group``, ``dataset``,
    ``chance``, ``answer``, ``reference`` (the reference answer, or a list of them) and ``metric``
    (how answers are compared with it). Options may be anything that answers at a cost: scales,
    sizes of a model, resolutions, providers. Other columns are not used; that, and rows and
    examples without a value, is told in ``metadata["unmapped"]``.

    The options are ordered by their mean cost; without a ``cost`` column by their first
    appearance, and the cost is then the place in that order, from 1. Without a ``group`` column
    the image is the group; without an image every id is a group of its own.

    Args:
        path: The table.
        cost_unit: What the costs count, such as ``"USD"``; ``"rank"`` without costs.
        columns: One of the names above -> what the table calls it, where that is another name.

    Returns:
        The log.

    Raises:
        DataError: The table cannot be read or does not fit; every problem found is listed.
    """
    source = read_cells(path)
    theirs = _their_names(path, source.names, columns or {})
    unmapped = _check_columns(path, source, theirs)
    problems: list[str] = []
    table = _texts(source, theirs, problems)
    correct = _correct(table["correct"], problems)
    cost = _numbers(table, "cost", problems) if "cost" in table.columns else None
    chance = _numbers(table, "chance", problems) if "chance" in table.columns else 0.0
    _check_keys(table, problems)
    if problems:
        lines = "\n  ".join(problems)
        raise DataError(f"{path} cannot be mapped to an oracle log:\n  {lines}")
    options = _options(table["option"], cost)
    rank = table["option"].map({name: float(place) for place, name in enumerate(options, 1)})
    none = [None] * len(table)
    frame = pd.DataFrame(
        {
            "example_id": table["id"],
            "group": _group(table),
            "dataset": table["dataset"] if "dataset" in table.columns else "default",
            "question": table["question"],
            "image": table["image"] if "image" in table.columns else "",
            "scale": table["option"],
            "cost": rank if cost is None else cost,
            "answer": table["answer"] if "answer" in table.columns else None,
            "score": correct,
            "chance": chance,
            "error": [_NO_VALUE if gap else None for gap in correct.isna()],
            "references": [
                None if cell is None else references_in(cell)
                for cell in (table["reference"] if "reference" in table.columns else none)
            ],
            "metric": table["metric"] if "metric" in table.columns else None,
        }
    )
    return OracleLog(
        frame,
        options=options,
        cost_unit="rank" if cost is None else cost_unit,
        metadata={
            "source": f"table {path.name}",
            COLUMNS: theirs,
            UNMAPPED: [*unmapped, *_missing(table, correct, options)],
        },
    )


def _their_names(path: Path, names: Sequence[str], columns: Mapping[str, str]) -> dict[str, str]:
    """Find what the table calls our columns; what is named otherwise gives its own name free."""
    unknown = sorted(set(columns) - set(REQUIRED + OPTIONAL))
    if unknown:
        raise DataError(unknown_name("column", unknown[0], REQUIRED + OPTIONAL))
    absent = sorted(set(columns.values()) - set(names))
    if absent:
        raise DataError(f"{path} has no columns {absent}; it has {list(names)}.")
    if len(set(columns.values())) < len(columns):
        raise DataError(f"A column of {path} is named for two of ours: {dict(columns)}.")
    free = set(names) - set(columns.values())
    own = {name: name for name in REQUIRED + OPTIONAL if name in free}
    return {**own, **columns}


def _check_columns(path: Path, table: Table, theirs: Mapping[str, str]) -> list[str]:
    """Check that the needed columns are there and hold rows; tell what is not used or lacking."""
    missing = [name for name in REQUIRED if name not in theirs]
    if missing:
        raise DataError(
            f"{path} lacks the columns {missing}. Needed: {list(REQUIRED)}; optional: "
            f"{list(OPTIONAL)}; it has {list(table.names)}. Columns of other names: --columns "
            f"{missing[0]}=NAME."
        )
    if not len(table):
        raise DataError(f"{path} holds no rows.")
    used = set(theirs.values())
    unused = [
        f"{name} (of the table)" if name in theirs else name
        for name in table.names
        if name not in used
    ]
    told = [f"columns not used: {unused}"] if unused else []
    if "cost" not in theirs:
        told.append("no column 'cost': an option costs its place in order of appearance, from 1")
    if "image" not in theirs:
        told.append("no column 'image': features of pictures cannot be computed")
    if not {"image", "group"} & set(theirs):
        told.append(
            "no column 'image' or 'group': every id is a group of its own, so a split may have "
            "one picture on both sides"
        )
    return told


def _texts(source: Table, theirs: Mapping[str, str], problems: list[str]) -> pd.DataFrame:
    """Read the used columns, each under our name: texts, None where a cell is missing."""
    found: dict[str, Sequence[Cell]] = {}
    for name, their in theirs.items():
        cells = source.keys(their) if name in KEYS else source.cells(their)
        called = repr(name) if name == their else f"{name!r} ({their!r} of the table)"
        if name == "image":
            distinct = dict.fromkeys(cell for cell in cells if not isinstance(cell, Nested))
            read = {cell: image_path(cell) for cell in distinct}
            pairs = [image_path(c) if isinstance(c, Nested) else read[c] for c in cells]
            _refuse(called, [problem for _, problem in pairs], problems)
            found[name] = [path for path, _ in pairs]
            continue
        if name == "reference":  # the only column that may hold lists
            cells = [str(c.value) if isinstance(c, Nested) else c for c in cells]
        if any(isinstance(cell, Nested) for cell in cells):
            nested = [f"holds {c.kind}" if isinstance(c, Nested) else "" for c in cells]
            _refuse(called, nested, problems)
            cells = [None if isinstance(cell, Nested) else cell for cell in cells]
        found[name] = cells
    return pd.DataFrame(found, dtype=object)


def _refuse(called: str, faults: Sequence[str], problems: list[str]) -> None:
    """Tell the first rows of a column whose cells cannot be used, and how many there are."""
    bad = [(row, fault) for row, fault in enumerate(faults, start=1) if fault]
    problems += [f"{called} in row {row} {fault}." for row, fault in bad[:SHOWN]]
    if len(bad) > SHOWN:
        problems.append(f"{called}: {len(bad) - SHOWN} more rows are so.")


def _missing(table: pd.DataFrame, correct: pd.Series, options: list[str]) -> list[str]:
    """Tell which rows have no value and which ids lack options."""
    told = []
    empty = table["id"][correct.isna()]
    if len(empty):
        told.append(
            f"{len(empty)} rows have no value in the column 'correct'; they are gaps "
            f"({listed(list(dict.fromkeys(empty)))})"
        )
    counts = table.groupby("id", sort=False)["option"].size()
    lacking = counts.index[counts < len(options)]
    if len(lacking):
        told.append(
            f"{len(lacking)} of {len(counts)} ids lack some of the {len(options)} options; those "
            f"are gaps ({listed(list(lacking))})"
        )
    return told


def _correct(column: pd.Series, problems: list[str]) -> pd.Series:
    """Read right and wrong as scores in [0, 1], missing as NaN."""
    empty = column.isna() | (column == "")
    known = {cell: verdict_of(cell) for cell in column[~empty].unique()}
    values = column.map(known).astype(np.float64)
    bad = ~empty & ~values.between(0, 1)
    if bad.any():
        problems.append(
            f"'correct' must be in [0, 1] or true/false: {int(bad.sum())} rows are not, first "
            f"{column[bad].iloc[0]!r} in row {int(np.flatnonzero(bad)[0]) + 1}. A cell without a "
            "value is empty."
        )
    return values


def _numbers(table: pd.DataFrame, name: str, problems: list[str]) -> pd.Series:
    """Read a column of finite numbers that are not negative."""
    known = {cell: number_of(cell) for cell in table[name].dropna().unique()}
    values = table[name].map(known).astype(np.float64)
    bad = ~(np.isfinite(values) & (values >= 0))
    if bad.any():
        problems.append(
            f"{name!r} must be a number of at least 0 in every row: {int(bad.sum())} rows have "
            f"none, first {table[name][bad].iloc[0]!r} in row {int(np.flatnonzero(bad)[0]) + 1}. "
            "Write numbers with a decimal point and without separators of thousands."
        )
    return values


def _check_keys(table: pd.DataFrame, problems: list[str]) -> None:
    """Check that ids, options and questions are there and pairs are not doubled."""
    for name in ("id", "option", "question", "group", "dataset"):
        if name in table.columns:
            empty = np.flatnonzero(table[name].isna() | (table[name] == ""))
            if not empty.size:
                continue
            problems.append(f"{name!r} is empty in {empty.size} rows, first row {empty[0] + 1}.")
    doubled = table[table.duplicated(["id", "option"])]
    if len(doubled):
        pairs = [tuple(pair) for pair in doubled[["id", "option"]].head(5).to_numpy()]
        problems.append(f"{len(doubled)} (id, option) pairs are duplicate, first {pairs}.")


def _options(column: pd.Series, cost: pd.Series | None) -> list[str]:
    """Order the options, cheapest first."""
    if cost is None:
        return list(column.unique())
    means = cost.groupby(column, sort=False).mean()
    return list(means.sort_values(kind="stable").index)


def _group(table: pd.DataFrame) -> pd.Series:
    """Group rows by what they say, by their picture, or by their id."""
    if "group" in table.columns:
        return table["group"]
    if "image" in table.columns:
        named = table["image"].map({path: key_of(path) for path in table["image"].unique()})
        return named.where(named != "", table["id"])
    return table["id"]

"""Any router log as a plain table: one row per (question, option), right or wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from data.cells import Cell, Nested, key_of
from data.errors import DataError
from data.importers.image_cells import image_path
from data.importers.joined import UNMAPPED, listed
from data.importers.references import references_in
from data.importers.table_rows import (
    MEASURED,
    Faults,
    check_chance,
    check_costs,
    check_examples,
    check_keys,
    measured,
    numbers,
    verdicts,
)
from data.lone_groups import lone_groups
from data.oracle_log import OracleLog
from data.registry import unknown_name
from data.tables import Table, read_cells

REQUIRED = ("id", "question", "option", "correct")
OPTIONAL = (
    "image",
    "cost",
    "group",
    "dataset",
    "chance",
    "answer",
    "reference",
    "metric",
    *MEASURED,
)
KEYS = frozenset({"id", "group", "option", "dataset"})
"""Columns whose texts are compared, see :func:`data.cells.keys_of`."""
COLUMNS = "columns"
"""Metadata entry: one of our names -> what the table calls that column. A given split is read by
the same column of ids, see :mod:`data.split_columns`."""

_NO_VALUE = "no value in the column 'correct'"


def read_table(
    path: Path,
    *,
    cost_unit: str = "cost",
    columns: Mapping[str, str] | None = None,
    skip_bad: bool = False,
) -> OracleLog:
    """Read a table in any format of :mod:`data.tables`.

    Columns: ``id``, ``question``, ``option`` and ``correct`` (in [0, 1], or true/false; empty for
    a generation that failed), and optionally ``image``, ``cost``, ``group``, ``dataset``,
    ``chance``, ``answer``, ``reference`` (the reference answer, or a list of them), ``metric``
    (how answers are compared with it), ``confidence`` (in [0, 1]) and ``logprob`` (nats, summed
    over the answer's tokens), which cascades read. Options may be anything that answers at a cost:
    scales, sizes of a model, resolutions, providers. Other columns are not used; that, and rows
    and examples without a value, is told in ``metadata["unmapped"]``.

    The options are ordered by their mean cost; without a ``cost`` column by their first
    appearance, and the cost is then the place in that order, from 1. Without a ``group`` column
    the image is the group; without an image every id is a group of its own.

    Args:
        path: The table.
        cost_unit: What the costs count, such as ``"USD"``; ``"rank"`` without costs.
        columns: One of the names above -> what the table calls it, where that is another name.
        skip_bad: Leave rows that do not fit out, and tell them, instead of refusing the table.

    Returns:
        The log.

    Raises:
        DataError: The table cannot be read or does not fit; every problem found is listed.
    """
    torn: list[str] = []
    source = read_cells(path, left_out=torn if skip_bad else None)
    theirs = _their_names(path, source.names, columns or {})
    unmapped = _check_columns(path, source, theirs)
    if torn:
        unmapped.append(f"{len(torn)} lines cannot be read and were left out ({listed(torn, 3)})")
    faults = Faults(len(source))
    table = _texts(source, theirs, faults)
    table["correct"] = verdicts(table["correct"], faults)
    for name in ("cost", "chance"):
        if name in table.columns:
            table[name] = numbers(table, name, faults)
    check_chance(table, faults)
    check_costs(table, faults)
    for name in MEASURED:
        if name in table.columns:
            table[name] = measured(table[name], name, unmapped)
    check_keys(table, faults)
    if skip_bad:
        check_examples(table, faults)
        table, skipped = _kept(path, table, faults)
        unmapped += skipped
    elif faults.sentences:
        lines = "\n  ".join(faults.sentences)
        advice = "" if faults.bad.all() else "\n--skip-bad leaves these rows out."
        raise DataError(f"{path} cannot be mapped to an oracle log:\n  {lines}{advice}")
    return _log(path, table, theirs, cost_unit=cost_unit, unmapped=unmapped)


def _kept(path: Path, table: pd.DataFrame, faults: Faults) -> tuple[pd.DataFrame, list[str]]:
    """Leave bad rows out, and tell which and why."""
    bad = int(faults.bad.sum())
    if not bad:
        return table, []
    if bad == len(table):
        lines = "\n  ".join(faults.sentences)
        raise DataError(f"{path}: no row is left, all {bad} are bad:\n  {lines}")
    told = f"{bad} of {len(table)} rows are bad and were left out"
    return table[~faults.bad].reset_index(drop=True), [told, *faults.sentences]


def _log(
    path: Path,
    table: pd.DataFrame,
    theirs: Mapping[str, str],
    *,
    cost_unit: str,
    unmapped: Sequence[str],
) -> OracleLog:
    """Lay the rows out as a log."""
    cost = table["cost"] if "cost" in table.columns else None
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
            "score": table["correct"],
            "chance": table["chance"] if "chance" in table.columns else 0.0,
            "error": [_NO_VALUE if gap else None for gap in table["correct"].isna()],
            "references": [
                None if cell is None else references_in(cell)
                for cell in (table["reference"] if "reference" in table.columns else none)
            ],
            "metric": table["metric"] if "metric" in table.columns else None,
            **{name: table[name] for name in MEASURED if name in table.columns},
        }
    )
    first = frame.drop_duplicates("example_id")
    told = [
        *unmapped,
        *_missing(table, table["correct"], options),
        *lone_groups(list(first["group"]), list(first["dataset"])),
    ]
    return OracleLog(
        frame,
        options=options,
        cost_unit="rank" if cost is None else cost_unit,
        metadata={"source": f"table {path.name}", COLUMNS: dict(theirs), UNMAPPED: told},
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
            f"{list(OPTIONAL)}; it has {list(table.names)}. Columns of other names: --column "
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
    if not {"image", "group"} & set(theirs):
        # Whether the questions are about images is not known: most tables without them are text.
        told.append(
            "no column 'group': every id is a group of its own, so a split may have questions that "
            "belong together on both sides"
        )
    return told


def _texts(source: Table, theirs: Mapping[str, str], faults: Faults) -> pd.DataFrame:
    """Read the used columns, each under our name: texts, None where a cell is missing."""
    found: dict[str, Sequence[Cell]] = {}
    for name, their in theirs.items():
        cells = source.keys(their) if name in KEYS else source.cells(their)
        called = repr(name) if name == their else f"{name!r} ({their!r} of the table)"
        if name == "image":
            distinct = dict.fromkeys(cell for cell in cells if not isinstance(cell, Nested))
            read = {cell: image_path(cell) for cell in distinct}
            pairs = [image_path(c) if isinstance(c, Nested) else read[c] for c in cells]
            faults.refuse(called, [problem for _, problem in pairs])
            found[name] = [path for path, _ in pairs]
            continue
        if name == "reference":  # the only column that may hold lists
            cells = [str(c.value) if isinstance(c, Nested) else c for c in cells]
        if any(isinstance(cell, Nested) for cell in cells):
            nested = [f"holds {c.kind}" if isinstance(c, Nested) else "" for c in cells]
            faults.refuse(called, nested)
            cells = [None if isinstance(cell, Nested) else cell for cell in cells]
        found[name] = cells
    return pd.DataFrame(found, dtype=object)


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

"""Any router log as a plain table: one row per (question, option), right or wrong.

What is wrong with the rows is found for all of them, before any is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from m3router.data.errors import DataError, listed
from m3router.data.importers.costs import Costs, by_cost, contradiction, mean_costs
from m3router.data.importers.joined import UNMAPPED, option_costs, references_in
from m3router.data.importers.usage import REPORTED, CellUsage, amount
from m3router.data.log.checks import COUNTS, REACH, within_reach
from m3router.data.log.oracle_log import OracleLog
from m3router.data.log.warnings import lone_groups
from m3router.data.paths import StrPath, as_path
from m3router.data.prices import Prices
from m3router.data.registry import unknown_name
from m3router.data.tables.cells import Cell, Nested, key_of, number_of, verdict_of
from m3router.data.tables.image_cells import image_path
from m3router.data.tables.table import Table, read_cells

SHOWN = 3
_ROUNDING = 1e-6
"""A log-probability this little above 0 is 0: sums in half precision end there."""
_KINDS = {
    "confidence": "a number in [0, 1]",
    "logprob": "a number of at most 0 (nats, summed over the answer's tokens)",
}
MEASURED = tuple(_KINDS)
"""Columns about an answer that cascades read."""


USAGE = (
    "prompt_tokens",
    "image_tokens",
    "cached_tokens",
    "answer_tokens",
    "text_tokens",
    "pixels",
    "seconds",
    "price",
    "flops",
)
"""Columns about what an answer took, see :class:`m3router.data.importers.usage.CellUsage`;
``text_tokens`` are the prompt's without the image's, where ``prompt_tokens`` are not told."""


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
            self.sentences.append(f"{called}: {len(bad) - SHOWN} more rows have the same problem.")
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


def counted(column: pd.Series, name: str, told: list[str]) -> pd.Series:
    """Read what answers took; missing as NaN, as is what is no such number, which is told.

    Args:
        column: Its texts; missing ones are None.
        name: A member of :data:`USAGE`.
        told: Receives a sentence about cells that are not used.
    """
    empty = column.isna()
    known = {cell: amount(cell) for cell in column[~empty].unique()}
    values = column.map(known).astype(np.float64)
    if name in COUNTS or name == "prompt_tokens":
        values = values.mask((values % 1 != 0) | (values < COUNTS.get(name, 0)))
    bad = ~empty & values.isna()
    if bad.any():
        kind = "whole numbers" if name in COUNTS else "numbers of at least 0"
        told.append(
            f"column {name!r}: {int(bad.sum())} of {len(column)} cells are not {kind}, first "
            f"{column[bad].iloc[0]!r} in row {int(column.index[bad][0]) + 1}; they are taken as "
            "missing"
        )
    return values


def count_costs(table: pd.DataFrame, costs: Costs, faults: Faults) -> None:
    """Fill the column ``cost`` in by what was asked for; rows without a verdict need none."""
    if costs.fixed:
        options = [str(name) for name in table["option"].dropna().unique()]
        table["cost"] = table["option"].map(option_costs(options, costs.fixed))
    if not costs.prices and costs.what is None:
        return
    took = _took(table)
    asked = table["option"]
    if costs.prices:
        costs.check([str(name) for name in asked.dropna().unique()])
        pairs = zip(asked, took, strict=True)
        table["price"] = [one.priced(costs.prices.get(name)) for name, one in pairs]
        table["price"] = table["price"].astype(np.float64)
    if costs.what is None:
        return
    pairs = zip(asked, took, strict=True)
    found = pd.Series([costs.of(name, one, None) for name, one in pairs], index=table.index)
    table["cost"] = found.astype(np.float64)
    lack = table["cost"].isna() & table["correct"].notna()
    if lack.any():
        first = f"first row {int(np.flatnonzero(lack)[0]) + 1}"
        faults.add(costs.lacking("'cost'", int(lack.sum()), len(table), first) + ".", lack)


def _took(table: pd.DataFrame) -> list[CellUsage]:
    """What each row's answer took."""
    columns = [
        table[one.name].astype(object).where(table[one.name].notna(), None)
        if one.name in table.columns
        else [None] * len(table)
        for one in fields(CellUsage)
    ]
    names = [one.name for one in fields(CellUsage)]
    return [CellUsage(**dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]


def check_chance(table: pd.DataFrame, faults: Faults) -> None:
    """Check that no guess is always right."""
    sure = table["chance"] >= 1 if "chance" in table.columns else pd.Series(dtype=bool)
    if sure.any():
        first = int(np.flatnonzero(sure)[0]) + 1
        faults.add(f"'chance' must be below 1: {sure.sum()} rows are not, first row {first}.", sure)


def check_costs(table: pd.DataFrame, faults: Faults) -> None:
    """Check that costs can be computed with; those that are not numbers were told before."""
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
    *USAGE,
)
KEYS = frozenset({"id", "group", "option", "dataset"})
"""Columns whose texts are compared, see :func:`m3router.data.tables.cells.keys_of`."""
COLUMNS = "columns"
"""Metadata entry: one of our names -> what the table calls that column. A given split is read by
the same column of ids, see :mod:`m3router.data.splits.assignment`."""

_NO_VALUE = "no value in the column 'correct'"


def read_table(
    path: StrPath,
    *,
    cost_unit: str | None = None,
    costs: Mapping[str, float] | str | None = None,
    prices: Mapping[str, Prices] | None = None,
    columns: Mapping[str, str] | None = None,
    skip_bad: bool = False,
) -> OracleLog:
    """Read a table in any format that :mod:`m3router.data.tables.table` names.

    Columns: ``id``, ``question``, ``option`` and ``correct`` (in [0, 1], or true/false; empty for
    a generation that failed), and optionally ``image``, ``cost``, ``group``, ``dataset``,
    ``chance``, ``answer``, ``reference`` (the reference answer, or a list of them), ``metric``
    (how answers are compared with it), ``confidence`` (in [0, 1]) and ``logprob`` (nats, summed
    over the answer's tokens), which cascades read, and what the answer took (:data:`USAGE`).
    Options may be anything that answers at a cost: scales, sizes of a model, resolutions,
    providers. Other columns are not used; that, and rows and examples without a value, is listed
    in ``metadata["unmapped"]``.

    The options are ordered by their mean cost; without a ``cost`` column by their first
    appearance, and the cost is then the place in that order, from 1. Without a ``group`` column
    the image is the group; without an image every id is a group of its own.

    Args:
        path: The table.
        cost_unit: What the costs count, such as ``"USD"``; ``"rank"`` without costs.
        costs: Option -> cost of an answer; or what of every answer is its cost: a member of
            :data:`m3router.data.importers.usage.QUANTITIES`, or a column of the table. None for
            the column ``cost``.
        prices: Option -> prices of its tokens; the cost where there is no other.
        columns: One of the names above -> what the table calls it, where that is another name.
        skip_bad: Leave rows that do not fit out, and tell them, instead of refusing the table.

    Returns:
        The log.

    Raises:
        DataError: The table cannot be read or does not fit; every problem found is listed.
    """
    path = as_path(path)
    torn: list[str] = []
    source = read_cells(path, left_out=torn if skip_bad else None)
    asked = Costs.given(costs, prices, cost_unit)
    theirs = _their_names(path, source.names, _with_costs(columns or {}, asked))
    if asked.fixed or (asked.what is not None and asked.column is None):
        theirs.pop("cost", None)
    unmapped = _check_columns(path, source, theirs, asked)
    if torn:
        unmapped.append(f"{len(torn)} lines cannot be read and were left out ({listed(torn, 3)})")
    faults = Faults(len(source))
    table = _texts(source, theirs, faults)
    table["correct"] = verdicts(table["correct"], faults)
    for name in ("cost", "chance"):
        if name in table.columns:
            table[name] = numbers(table, name, faults)
    for name in USAGE:
        if name in table.columns:
            table[name] = counted(table[name], name, unmapped)
    count_costs(table, asked, faults)
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
    return _log(path, table, theirs, costs=asked, unmapped=unmapped)


def _with_costs(columns: Mapping[str, str], costs: Costs) -> dict[str, str]:
    """The names of columns, with the one that was asked for as cost."""
    if costs.column is None:
        return dict(columns)
    if "cost" in columns:
        raise DataError(
            f"The cost is asked for twice: as {columns['cost']!r} and as {costs.column!r}. Give "
            "--cost or --column cost=NAME."
        )
    return {**columns, "cost": costs.column}


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
    costs: Costs,
    unmapped: Sequence[str],
) -> OracleLog:
    """Lay the rows out as a log."""
    cost = table["cost"] if "cost" in table.columns else None
    unit = costs.unit_of(ranks=cost is None)
    options, disorder = _options(table, unit)
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
            **_usage(table),
        }
    )
    first = frame.drop_duplicates("example_id")
    told = [
        *unmapped,
        *disorder,
        *_missing(table, table["correct"], options),
        *lone_groups(list(first["group"]), list(first["dataset"])),
    ]
    return OracleLog(
        frame,
        options=options,
        cost_unit=unit,
        metadata={"source": f"table {path.name}", COLUMNS: dict(theirs), UNMAPPED: told},
    )


def _their_names(path: Path, names: Sequence[str], columns: Mapping[str, str]) -> dict[str, str]:
    """Find what the table calls our columns; what is named otherwise gives its own name free."""
    unknown = sorted(set(columns) - set(REQUIRED + OPTIONAL))
    if unknown:
        raise DataError(unknown_name("column", unknown[0], REQUIRED + OPTIONAL))
    absent = sorted(set(columns.values()) - set(names))
    if absent:
        raise DataError(f"{path} has no columns {', '.join(absent)}; it has {listed(names, 12)}.")
    if len(set(columns.values())) < len(columns):
        raise DataError(f"A column of {path} is named for two of ours: {dict(columns)}.")
    free = set(names) - set(columns.values())
    own = {name: name for name in REQUIRED + OPTIONAL if name in free}
    return {**own, **columns}


def _check_columns(path: Path, table: Table, theirs: Mapping[str, str], costs: Costs) -> list[str]:
    """Check that the needed columns are there and hold rows; tell what is not used or lacking."""
    missing = [name for name in REQUIRED if name not in theirs]
    if missing:
        raise DataError(
            f"{path} lacks the columns {', '.join(missing)}. Needed: {', '.join(REQUIRED)}; "
            f"optional: {', '.join(OPTIONAL)}; it has {listed(table.names, 12)}. Columns of other "
            f"names: --column {missing[0]}=NAME."
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
    if "cost" not in theirs and costs.what is None and not costs.fixed:
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


def _usage(table: pd.DataFrame) -> dict[str, Any]:
    """The columns of the log about what answers took."""
    found: dict[str, Any] = {
        name: table[name] for name in USAGE if name in table.columns and name != "prompt_tokens"
    }
    if "image_tokens" in found:
        known = found["image_tokens"].notna()
        found["image_tokens_from"] = [REPORTED if one else None for one in known]
        if "prompt_tokens" in table.columns and "text_tokens" not in found:
            text = table["prompt_tokens"] - found["image_tokens"]
            found["text_tokens"] = text.clip(lower=0)
    return found


def _options(table: pd.DataFrame, unit: str) -> tuple[list[str], list[str]]:
    """Order the options, cheapest first, and say where numbers as names are ordered otherwise."""
    rows, ids = pd.factorize(table["id"])
    places, names = pd.factorize(table["option"])
    if "cost" not in table.columns:
        return list(names), []
    wide = np.full((len(ids), len(names)), np.nan)
    wide[rows, places] = table["cost"]
    means = mean_costs(wide)
    return by_cost(list(names), means), contradiction(list(names), means, unit, meant=False)


def _group(table: pd.DataFrame) -> pd.Series:
    """Group rows by what they say, by their image, or by their id."""
    if "group" in table.columns:
        return table["group"]
    if "image" in table.columns:
        named = table["image"].map({path: key_of(path) for path in table["image"].unique()})
        return named.where(named != "", table["id"])
    return table["id"]

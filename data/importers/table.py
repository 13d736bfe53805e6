"""Any router log as a plain table: one row per (question, option), right or wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from data.errors import DataError
from data.importers.joined import UNMAPPED, listed
from data.importers.references import references_in
from data.oracle_log import OracleLog
from data.registry import unknown_name

REQUIRED = ("id", "question", "option", "correct")
OPTIONAL = ("image", "cost", "group", "dataset", "chance", "answer", "reference", "metric")

_NO_VALUE = "no value in the column 'correct'"
_WORDS = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}


def read_table(
    path: Path, *, cost_unit: str = "cost", columns: Mapping[str, str] | None = None
) -> OracleLog:
    """Read a CSV or Parquet table.

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
        path: The table, ``.csv`` or ``.parquet``.
        cost_unit: What the costs count, such as ``"USD"``; ``"rank"`` without costs.
        columns: One of the names above -> what the table calls it, where that is another name.

    Returns:
        The log.

    Raises:
        DataError: The table cannot be read or does not fit; every problem found is listed.
    """
    table = _renamed(path, _read(path), columns or {})
    unmapped = _check_columns(path, table)
    problems: list[str] = []
    correct = _correct(table["correct"], problems)
    cost = _numbers(table, "cost", problems) if "cost" in table.columns else None
    chance = _numbers(table, "chance", problems) if "chance" in table.columns else 0.0
    _check_keys(table, problems)
    if problems:
        listed = "\n  ".join(problems)
        raise DataError(f"{path} cannot be mapped to an oracle log:\n  {listed}")
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
            UNMAPPED: [*unmapped, *_missing(table, correct, options)],
        },
    )


def _read(path: Path) -> pd.DataFrame:
    """Read a table with every cell as a text or None."""
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise DataError(f"{path} must be a .csv or .parquet file, got {suffix or 'no suffix'!r}.")
    try:
        table = _read_csv(path) if suffix == ".csv" else pd.read_parquet(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, pd.errors.ParserError, pa.ArrowException) as error:
        raise DataError(f"{path} is no readable {suffix} table: {error}") from error
    texts = pd.DataFrame({name: _texts(table[name]) for name in table.columns}, dtype=object)
    return texts.where(texts.notna() & (texts != ""), None)


def _read_csv(path: Path) -> pd.DataFrame:
    """Read texts separated by commas.

    Raises:
        ValueError: It is no such file, or its rows have more cells than there are names.
    """
    table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    if not isinstance(table.index, pd.RangeIndex):  # pandas took the first cells for names of rows
        names = list(table.columns)
        table = table.reset_index()
        if (table.iloc[:, len(names) :] != "").any(axis=None):
            raise ValueError(
                "rows have more cells than the first line has names. Put texts with commas in "
                "quotation marks."
            )
        table = table.iloc[:, : len(names)].set_axis(names, axis="columns")
    if len(table.columns) == 1:
        for mark in ";\t|":
            if mark in table.columns[0]:
                raise ValueError(f"it is separated by {mark!r}. Save it with commas instead.")
    return table


def _renamed(path: Path, table: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    """Call columns by our names; a column that already has such a name loses it."""
    unknown = sorted(set(columns) - set(REQUIRED + OPTIONAL))
    if unknown:
        raise DataError(unknown_name("column", unknown[0], REQUIRED + OPTIONAL))
    absent = sorted(set(columns.values()) - set(table.columns))
    if absent:
        raise DataError(f"{path} has no columns {absent}; it has {list(table.columns)}.")
    doubled = len(set(columns.values())) < len(columns)
    if doubled:
        raise DataError(f"A column of {path} is named for two of ours: {dict(columns)}.")
    theirs = {name: f"{name} (of the table)" for name in columns if name in table.columns}
    ours = {name: ours for ours, name in columns.items()}
    return table.rename(columns={**theirs, **ours})


def _check_columns(path: Path, table: pd.DataFrame) -> list[str]:
    """Check that the needed columns are there and hold rows; tell what is not used or lacking."""
    missing = [name for name in REQUIRED if name not in table.columns]
    if missing:
        raise DataError(
            f"{path} lacks the columns {missing}. Needed: {list(REQUIRED)}; optional: "
            f"{list(OPTIONAL)}; it has {list(table.columns)}. Columns of other names: --columns "
            f"{missing[0]}=NAME."
        )
    if table.empty:
        raise DataError(f"{path} holds no rows.")
    unused = [name for name in table.columns if name not in REQUIRED + OPTIONAL]
    told = [f"columns not used: {unused}"] if unused else []
    if "cost" not in table.columns:
        told.append("no column 'cost': an option costs its place in order of appearance, from 1")
    if "image" not in table.columns:
        told.append("no column 'image': features of pictures cannot be computed")
    if not {"image", "group"} & set(table.columns):
        told.append(
            "no column 'image' or 'group': every id is a group of its own, so a split may have "
            "one picture on both sides"
        )
    return told


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


def _texts(column: pd.Series) -> pd.Series:
    """Write a column's cells as texts; those that are texts already without the slow way."""
    if pd.api.types.infer_dtype(column, skipna=True) == "string":
        return column.str.strip()
    return column.map(_text)


def _text(cell: object) -> str:
    """Write a cell as text; whole floats without ``.0``, missing as empty."""
    if cell is None or cell is pd.NA or (isinstance(cell, float) and np.isnan(cell)):
        return ""
    if isinstance(cell, float | np.floating) and float(cell).is_integer():
        return str(int(cell))
    return str(cell).strip()


def _correct(column: pd.Series, problems: list[str]) -> pd.Series:
    """Read right and wrong as scores in [0, 1], missing as NaN."""
    words = column.map(lambda cell: _WORDS.get(str(cell).lower(), cell))
    values = pd.to_numeric(words, errors="coerce").astype(np.float64)
    bad = (values.isna() & column.notna()) | (values.notna() & ~values.between(0, 1))
    if bad.any():
        problems.append(
            f"'correct' must be in [0, 1] or true/false: {int(bad.sum())} rows are not, first "
            f"{column[bad].iloc[0]!r} in row {int(np.flatnonzero(bad)[0]) + 1}."
        )
    return values


def _numbers(table: pd.DataFrame, name: str, problems: list[str]) -> pd.Series:
    """Read a column of finite numbers that are not negative."""
    values = pd.to_numeric(table[name], errors="coerce").astype(np.float64)
    bad = ~(np.isfinite(values) & (values >= 0))
    if bad.any():
        problems.append(
            f"{name!r} must be a number of at least 0 in every row: {int(bad.sum())} rows have "
            f"none, first {table[name][bad].iloc[0]!r} in row {int(np.flatnonzero(bad)[0]) + 1}."
        )
    return values


def _check_keys(table: pd.DataFrame, problems: list[str]) -> None:
    """Check that ids, options and questions are there and pairs are not doubled."""
    for name in ("id", "option", "question", "group", "dataset"):
        if name in table.columns and table[name].isna().any():
            empty = np.flatnonzero(table[name].isna())
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
        return table["image"].fillna(table["id"])
    return table["id"]

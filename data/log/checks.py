"""Which columns an oracle log has, and whether given rows fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from m3router.data.errors import DataError, MismatchError
from m3router.data.scoring.metrics import AGREEMENT

ASKED = "asked"
UNTIL_CORRECT = "until-correct"
"""Value of the metadata key :data:`ASKED` in logs whose examples were asked from the coarsest scale
up to the first right answer: rows at finer scales have neither a score nor an error."""


JUDGE = "judge"
"""Key of what is recorded of the judge in the metadata of logs whose answers were judged."""

SCHEMA = pa.schema(
    [
        pa.field("example_id", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("question", pa.string(), nullable=False),
        pa.field("image", pa.string(), nullable=False),
        pa.field("scale", pa.string(), nullable=False),
        pa.field("cost", pa.float64()),
        pa.field("answer", pa.string()),
        pa.field("score", pa.float64()),
        pa.field("logprob", pa.float64()),
        pa.field("confidence", pa.float64()),
        pa.field("answer_tokens", pa.int64()),
        pa.field("text_tokens", pa.int64()),
        pa.field("flops", pa.float64()),
        pa.field("vision_flops", pa.float64()),
        pa.field("chance", pa.float64(), nullable=False),
        pa.field("error", pa.string()),
        pa.field("references", pa.list_(pa.string())),
        pa.field("metric", pa.string()),
        pa.field("max_new_tokens", pa.int64()),
        pa.field("finish", pa.string()),
        pa.field("image_tokens", pa.int64()),
        pa.field("image_tokens_from", pa.string()),
        pa.field("cached_tokens", pa.int64()),
        pa.field("seconds", pa.float64()),
        pa.field("attempts", pa.int64()),
        pa.field("pixels", pa.int64()),
        pa.field("price", pa.float64()),
    ]
)
"""Columns of ``oracle.parquet``. ``cost`` is in the log's cost unit, ``score`` in [0, 1] or null
when there is an ``error``, ``logprob`` in nats summed over the answer's tokens, ``confidence``
the first token's top probability, the token counts whole numbers or null, ``flops`` the language
model's floating-point operations for the answer; ``vision_flops`` those of tower and projector
for the image at this option. ``references`` are the reference answers, empty
where the example has none and null where they are not known, ``metric`` how answers were compared
with them, ``max_new_tokens`` the tokens of the longest answer that was allowed, and ``finish`` one
of :data:`FINISHES`, or null where nothing was generated or it is not known.

What else is known of a cell's usage (:class:`m3router.m3core.options.Usage`), null where it is not:
``image_tokens`` all tokens that stand for the image and ``image_tokens_from`` one of
:data:`TOKEN_SOURCES`, ``text_tokens`` all others of the prompt, ``cached_tokens`` those of the
prompt that a server had read before, ``seconds`` of wall-clock time, ``attempts`` the requests that
were sent, ``pixels`` of the image as it was sent or shown, ``price`` in the unit of the prices that
were given."""

TOKEN_SOURCES = ("counted", "reported", "derived")
"""Where a number of image tokens comes from: counted where the prompt was built, reported by a
server, or derived as the difference to a request without the image."""

STOP, LENGTH = "stop", "length"
FINISHES = (STOP, LENGTH)
"""Why an answer ended: the model ended it, or it was cut at its longest length."""

SMALLEST, LARGEST = 1e-30, 1e30
"""Costs that can be computed with: squares and inverses of what lies beyond do not fit a number."""
REACH = f"a cost is 0, or from {SMALLEST:g} to {LARGEST:g}; count it in another unit"

USAGE = (
    "image_tokens",
    "image_tokens_from",
    "cached_tokens",
    "seconds",
    "attempts",
    "pixels",
    "price",
)
"""Columns of what a cell cost beyond cost, tokens and operations. A Matryoshka model leaves them
empty: its image tokens are its cost."""
OPTIONAL = (
    "answer",
    "logprob",
    "confidence",
    "answer_tokens",
    "text_tokens",
    "flops",
    "vision_flops",
    "error",
    "references",
    "metric",
    "max_new_tokens",
    "finish",
    *USAGE,
)
LATER = ("references", "metric", "max_new_tokens")
"""What earlier versions did not record of an example: journals that were resumed by a later one may
have it in some rows only."""
COUNTS = {
    "answer_tokens": 0,
    "text_tokens": 0,
    "max_new_tokens": 1,
    "image_tokens": 0,
    "cached_tokens": 0,
    "attempts": 1,
    "pixels": 1,
}
"""Columns of whole numbers -> the smallest that makes sense."""
PER_EXAMPLE = ("group", "dataset", "question", "image", "chance", *LATER)


def scored_by_agreement(metadata: Mapping[str, Any]) -> bool:
    """Whether a log has no reference answers, so that right means to agree with the last option."""
    return metadata.get(ASKED) == AGREEMENT


def checked_frame(
    frame: pd.DataFrame, options: Sequence[str], *, unknown: bool = False
) -> pd.DataFrame:
    """Check rows and bring them into the log's own order and types.

    Args:
        frame: One row per (example, scale); columns beyond :data:`SCHEMA` are refused.
        options: The scales, cheapest first.
        unknown: Whether rows may have neither a score nor an error, because they were not asked.

    Returns:
        All columns of :data:`SCHEMA`; rows by example in order of first appearance, then by
        option; token counts as floats, so that a missing one is NaN; references as tuples.

    Raises:
        DataError: Anything that does not fit, with the first examples that show it.
    """
    if not options or len(set(options)) != len(options):
        raise DataError(f"An oracle log needs options, each once, got {list(options)}.")
    _check_columns(frame)
    rows = pd.DataFrame(index=range(len(frame)))
    for field in SCHEMA:
        given = frame[field.name].to_numpy() if field.name in frame.columns else None
        rows[field.name] = _typed(field, given, len(frame))
    for name in LATER:
        rows[name] = _same_everywhere(rows, name)
    _check_cells(rows, options)
    _check_values(rows, unknown)
    example, _ = pd.factorize(rows["example_id"])
    option = rows["scale"].map({name: code for code, name in enumerate(options)})
    order = np.lexsort((option.to_numpy(), example))
    return rows.iloc[order].reset_index(drop=True)


def within_reach(costs: pd.Series) -> pd.Series:
    """Which costs can be computed with; see :data:`REACH`."""
    return (costs == 0) | costs.between(SMALLEST, LARGEST)


def row_numbers(ids: Sequence[str], keys: np.ndarray) -> np.ndarray:
    """Turn what a user selects examples by into row numbers.

    Args:
        ids: The example ids, length N.
        keys: Ids, row numbers in [0, N), or a mask of shape (N,).

    Returns:
        Row numbers, in the order of the keys.

    Raises:
        MismatchError: Ids that are not among ``ids``.
        DataError: Row numbers that do not exist, or a mask of another length.
    """
    count = len(ids)
    if keys.dtype == np.bool_:
        if keys.shape != (count,):
            raise DataError(f"A mask must have {count} entries, got {keys.shape}.")
        return np.flatnonzero(keys)
    if keys.size == 0:
        return np.empty(0, dtype=np.intp)
    if np.issubdtype(keys.dtype, np.integer):
        if keys.min() < 0 or keys.max() >= count:
            raise DataError(
                f"The log has rows 0 to {count - 1}, asked for {keys.min()} to {keys.max()}."
            )
        return keys.astype(np.intp)
    row_of = {name: row for row, name in enumerate(ids)}
    unknown = [str(key) for key in keys if str(key) not in row_of]
    if unknown:
        raise MismatchError(
            f"The log has no {len(unknown)} of the {keys.size} examples asked for (first: "
            f"{', '.join(map(repr, unknown[:5]))}): they are from another log."
        )
    return np.array([row_of[str(key)] for key in keys], dtype=np.intp)


def _check_columns(frame: pd.DataFrame) -> None:
    """Check the names of the columns."""
    names = set(SCHEMA.names)
    missing = sorted(names - set(OPTIONAL) - set(frame.columns))
    unknown = sorted(set(map(str, frame.columns)) - names)
    if missing or unknown:
        raise DataError(
            f"The rows are not an oracle log: missing columns: {', '.join(missing) or 'none'}; "
            f"unknown columns: {', '.join(unknown) or 'none'}. Needed: "
            f"{', '.join(n for n in SCHEMA.names if n not in OPTIONAL)}; optional: "
            f"{', '.join(OPTIONAL)}."
        )


def _typed(field: pa.Field, given: np.ndarray | None, length: int) -> pd.Series:
    """Give one column its type; missing values become None (text) or NaN (number)."""
    if given is None:
        given = np.full(length, None, dtype=object)
    if pa.types.is_list(field.type):
        return pd.Series([_texts(field.name, cell) for cell in given], dtype=object)
    missing = np.asarray(pd.isna(given))
    if not pa.types.is_string(field.type):
        try:
            numbers = given.astype(object)
            numbers[missing] = np.nan
            return pd.Series(numbers.astype(np.float64))
        except (TypeError, ValueError) as error:
            raise DataError(f"Column {field.name!r} must hold numbers: {error}.") from error
    if missing.any() and not field.nullable:
        raise DataError(f"Column {field.name!r} has an empty cell; every row needs a text.")
    texts = given[~missing]
    if texts.size and pd.api.types.infer_dtype(texts) != "string":
        value = next(value for value in texts if not isinstance(value, str))
        raise DataError(
            f"Column {field.name!r} must hold texts, got {type(value).__name__} {value!r}."
        )
    cells = given.astype(object)
    cells[missing] = None
    return pd.Series(cells, dtype=object)


def _texts(name: str, cell: Any) -> tuple[str, ...] | None:
    """Read a cell that holds a list of texts; None, NaN and NA are None."""
    if isinstance(cell, list | tuple | np.ndarray):
        texts = tuple(cell)
        if all(isinstance(text, str) for text in texts):
            return texts
    elif cell is None or cell is pd.NA or (isinstance(cell, float) and np.isnan(cell)):
        return None
    raise DataError(f"Column {name!r} must hold lists of texts, got {cell!r}.")


def _same_everywhere(rows: pd.DataFrame, name: str) -> pd.Series:
    """A column of examples in which rows that do not tell take what others of the example tell."""
    column = rows[name]
    known = column.notna()
    if known.all() or not known.any():
        return column
    told = dict(zip(rows["example_id"][known], column[known], strict=True))
    filled = [
        value if there else told.get(example)
        for example, value, there in zip(rows["example_id"], column, known, strict=True)
    ]
    return pd.Series(filled, dtype=column.dtype)


def _check_cells(rows: pd.DataFrame, options: Sequence[str]) -> None:
    """Check that every row stands for one cell of the grid, and examples agree with themselves."""
    strange = rows.loc[~rows["scale"].isin(list(options)), "scale"].unique()
    if len(strange):
        raise DataError(
            f"The log has rows at {', '.join(map(repr, strange[:5]))}, its options are "
            f"{', '.join(options)}: it is of another scale grid."
        )
    doubled = rows[rows.duplicated(["example_id", "scale"])]
    if len(doubled):
        first = doubled.iloc[0]
        raise DataError(
            f"{len(doubled)} rows are doubled, first example {first['example_id']!r} at option "
            f"{first['scale']!r}: every (example, option) may stand there once."
        )
    distinct = rows[["example_id", *PER_EXAMPLE]].drop_duplicates()
    torn = distinct[distinct.duplicated("example_id")]
    if len(torn):
        name = torn.iloc[0]["example_id"]
        versions = distinct[distinct["example_id"] == name]
        columns = [column for column in PER_EXAMPLE if versions[column].nunique(dropna=False) > 1]
        raise DataError(
            f"{torn['example_id'].nunique()} examples disagree with themselves across options, "
            f"first {name!r} in {', '.join(columns)}: are two examples using one id?"
        )


def _check_values(rows: pd.DataFrame, unknown: bool) -> None:
    """Check ranges, and that a row has either a score or an error, or may be unknown."""
    score, failed = rows["score"], rows["error"].notna()
    _refuse(rows, score.notna() & ~score.between(0, 1), "a score outside [0, 1]")
    _refuse(rows, failed & score.notna(), "a score although the generation failed")
    _refuse(rows, ~failed & score.isna() & (not unknown), "neither a score nor an error")
    cost = rows["cost"]
    _refuse(rows, cost.notna() & ~(np.isfinite(cost) & (cost >= 0)), "a negative or infinite cost")
    _refuse(rows, cost.notna() & ~within_reach(cost), f"a cost beyond reach ({REACH})")
    _refuse(rows, ~failed & cost.isna(), "a score without a cost")
    for name, least in COUNTS.items():
        count = rows[name]
        whole = np.isfinite(count) & (count >= least) & (count == np.floor(count))
        kind = "no whole number of at least 1" if least else "no whole number"
        _refuse(rows, count.notna() & ~whole, f"{kind} as {name}")
    for name in ("flops", "vision_flops", "seconds", "price"):
        amount = rows[name]
        bad = amount.notna() & ~(np.isfinite(amount) & (amount >= 0))
        _refuse(rows, bad, f"a negative or infinite number as {name}")
    for name, known in (("finish", FINISHES), ("image_tokens_from", TOKEN_SOURCES)):
        strange = rows[name].notna() & ~rows[name].isin(known)
        article = "an" if name[0] in "aeiou" else "a"
        _refuse(rows, strange, f"{article} {name} that is none of {', '.join(known)}")
    chance = rows["chance"]
    _refuse(rows, ~((chance >= 0) & (chance < 1)), "a chance level outside [0, 1)")


def _refuse(rows: pd.DataFrame, bad: pd.Series, what: str) -> None:
    """Raise if any row is bad, naming the first."""
    if bad.any():
        first = rows[bad].iloc[0]
        raise DataError(
            f"{int(bad.sum())} rows of the log have {what}, first example "
            f"{first['example_id']!r} at option {first['scale']!r} (score {first['score']}, "
            f"cost {first['cost']}, chance {first['chance']}, error {first['error']!r})."
        )

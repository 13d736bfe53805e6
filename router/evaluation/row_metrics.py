"""The metrics of a row: one table that document, console, HTML page, CSV and LaTeX read.

A row is a fixed option, a policy or an oracle on the test examples. A new metric is one entry of
`ROW_METRICS`: it is then measured for every row and has a column in every headline table. What is
said of a whole method, over all budgets, is `m3router.router.evaluation.metric_table`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np

from m3router.router.metrics.paired_bootstrap import Columns, Pair
from m3router.router.text.numbers import number, percent

NOTHING: Mapping[str, Any] = {"value": None, "low": None, "high": None}


class Table(Protocol):
    """What rows are measured in: the columns "<quantity>/<row>" of all rows.

    Attributes:
        columns: of all rows, with one bootstrap.
        best_column: the row of the best fixed option.
        reference_column: the row of the reference option.
        finest_column: the row of the last option, which savings are against.
    """

    columns: Columns
    best_column: str
    reference_column: str
    finest_column: str


@dataclass(frozen=True, kw_only=True)
class RowMetric:
    """One metric of a row.

    Attributes:
        name: its key in the document.
        title: above its column on the page; {unit}, {measure} and {reference} stand for what
            `m3router.router.evaluation.documents.column_words` says of an evaluation.
        function: of a table and the name of a row's columns; gives {"value", "low", "high"}, or
            None where it is not known.
        format: "percent" for shares in [0, 1], "points" for differences of such, "number" else.
        needs: name of the metric that some row must have for a column; "" for a column anyway.
        console: above its column on the console; None for no column there.
        column: what its column is called in files; "" for none there and on the page.
        interval: whether the console has the interval beside it.
    """

    name: str
    title: str
    function: Callable[[Table, str], dict[str, Any] | None]
    format: Literal["percent", "points", "number"] = "percent"
    needs: str = ""
    console: str | None = None
    column: str = ""
    interval: bool = False

    def text(self, estimate: Mapping[str, Any] | None) -> str:
        """The number as it is shown."""
        value = (estimate or NOTHING)["value"]
        if self.format == "number":
            return number(value)
        return percent(value, signed=self.format == "points")


def _mean(quantity: str, table: Table, row: str) -> dict[str, Any] | None:
    column = f"{quantity}/{row}"
    return table.columns.estimate(column).to_dict() if column in table.columns else None


def _less(other: Literal["best", "reference"], table: Table, row: str) -> dict[str, Any]:
    against = table.best_column if other == "best" else table.reference_column
    return table.columns.estimate(f"accuracy/{row}", minus=f"accuracy/{against}").to_dict()


def _per_second(table: Table, row: str) -> dict[str, Any] | None:
    """Answers per second of what took so many seconds each; None where they took no time."""
    column = f"seconds/{row}"
    if column not in table.columns:
        return None

    def inverse(seconds: Any) -> Any:
        empty = np.full(np.shape(seconds), np.nan)
        return np.divide(1.0, seconds, out=empty, where=np.asarray(seconds) > 0)

    pair = table.columns.pair(column)
    return table.columns.estimated(pair.then(inverse)).to_dict() if pair.value > 0 else None


def saved_of(table: Table, spent: Pair, quantity: str) -> dict[str, Any]:
    """1 - what is spent / what the finest option spends, in means, with its interval."""

    def less(own: Any, finest: Any) -> Any:
        empty = np.full(np.shape(finest), np.nan)
        return 1 - np.divide(own, finest, out=empty, where=np.asarray(finest) > 0)

    pair = spent.then(less, table.columns.pair(f"{quantity}/{table.finest_column}"))
    return table.columns.estimated(pair, least=2).to_dict()


def _saved(quantity: str, table: Table, row: str) -> dict[str, Any] | None:
    column = f"{quantity}/{row}"
    if column not in table.columns or f"{quantity}/{table.finest_column}" not in table.columns:
        return None
    return saved_of(table, table.columns.pair(column), quantity)


ROW_METRICS: tuple[RowMetric, ...] = (
    RowMetric(
        name="accuracy",
        title="{measure}",
        function=partial(_mean, "accuracy"),
        console="{measure} %",
        column="accuracy",
        interval=True,
    ),
    RowMetric(
        name="cost",
        title="mean {unit}",
        function=partial(_mean, "cost"),
        format="number",
        console="mean\n{unit}",
        column="cost",
    ),
    RowMetric(
        name="gflops",
        title="GFLOPs, language model",
        function=partial(_mean, "gflops"),
        format="number",
        needs="gflops",
        console="GFLOPs",
        column="language_gflops",
    ),
    RowMetric(
        name="total_gflops",
        title="GFLOPs, everything",
        function=partial(_mean, "total_gflops"),
        format="number",
        needs="total_gflops",
        column="total_gflops",
    ),
    RowMetric(
        name="seconds",
        title="seconds per answer",
        function=partial(_mean, "seconds"),
        format="number",
        needs="seconds",
        console="seconds",
        column="seconds",
    ),
    RowMetric(
        name="per_second",
        title="answers per second",
        function=_per_second,
        format="number",
        needs="per_second",
        console="answers\nper s",
        column="answers_per_second",
    ),
    RowMetric(
        name="price",
        title="price per answer",
        function=partial(_mean, "price"),
        format="number",
        needs="price",
        console="price",
        column="price",
    ),
    # Against the reference of the row's own policy, so it is told with each policy.
    RowMetric(name="regret", title="regret", function=partial(_mean, "regret")),
    RowMetric(
        name="minus_reference",
        title="Δ vs. {reference}",
        function=partial(_less, "reference"),
        format="points",
        console="Δ vs.\n{reference}",
        column="minus_reference",
    ),
    RowMetric(
        name="minus_best_fixed",
        title="Δ vs. best fixed",
        function=partial(_less, "best"),
        format="points",
        column="minus_best_fixed",
    ),
)


AMOUNTS: dict[str, tuple[str, str]] = {
    "cost": ("mean {unit}", "{unit}"),
    "gflops": ("GFLOPs, language model", "GFLOPs,\nlanguage\nmodel"),
    "tower_gflops": ("GFLOPs, tower", ""),
    "total_gflops": ("GFLOPs, everything", "GFLOPs,\neverything"),
    "image_tokens": ("image tokens", "image\ntokens"),
    "seconds": ("seconds per answer", "seconds"),
    "price": ("price per answer", "price"),
}
"""Quantity of a row -> titles on the page and on the console; all are of all that was asked."""


def _usage(name: str, title: str, console: str) -> tuple[RowMetric, ...]:
    """A quantity, and the share of it that is saved."""
    amount = RowMetric(
        name=name,
        title=title,
        function=partial(_mean, name),
        format="number",
        needs=name,
        console=console or None,
        column=name,
    )
    saved = RowMetric(
        name=f"saved_{name}",
        title="saved",
        function=partial(_saved, name),
        needs=f"saved_{name}",
        console="saved %",
        column=f"saved_{name}",
    )
    return (amount, saved) if console else (amount,)  # a tower's cost is a part of everything


USAGE_METRICS: tuple[RowMetric, ...] = tuple(
    metric for name, titles in AMOUNTS.items() for metric in _usage(name, *titles)
)
"""What answers used, and the share of it that is saved of the last option's, in the same way."""


def measured(table: Table, row: str) -> dict[str, dict[str, Any] | None]:
    """Every metric of a row."""
    known = {one.name: one for one in (*USAGE_METRICS, *ROW_METRICS)}
    return {name: metric.function(table, row) for name, metric in known.items()}


Rows = Sequence[Mapping[str, Any]]
"""Rows of a document, or what of them is shown: name of a metric -> its estimate, or None."""


def shown(rows: Rows) -> list[RowMetric]:
    """Metrics with a column on the page and in files, of which some row knows something."""
    return [one for one in _known(rows) if one.column]


def on_the_console(rows: Rows) -> list[RowMetric]:
    """Metrics with a column on the console."""
    return [one for one in _known(rows) if one.console]


def _known(rows: Rows) -> list[RowMetric]:
    """Metrics of which some row knows something; what costs are counted in is not there twice."""
    twice = same_as_cost(rows)
    return [one for one in ROW_METRICS if one.name not in twice and is_known(one, rows)]


def same_as_cost(rows: Rows) -> set[str]:
    """Quantities that are the cost itself on every row, as image tokens or seconds may be."""
    return {
        name
        for name in AMOUNTS
        if name != "cost" and all(row.get(name) == row["cost"] for row in rows)
    }


def is_known(metric: RowMetric, rows: Rows) -> bool:
    """Whether some row has what a metric needs."""
    needed = [row.get(metric.needs) or NOTHING for row in rows]
    return not metric.needs or any(one["value"] is not None for one in needed)

"""The metrics of a row: one table that document, console, HTML page, CSV and LaTeX read.

A row is a fixed option, a policy or an oracle on the test examples. A new metric is one entry of
`ROW_METRICS`: it is then measured for every row and has a column in every headline table. What is
said of a whole method, over all budgets, is `m3router.router.evaluation.metric_table`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

from m3router.router.metrics.paired_bootstrap import Columns
from m3router.router.text.numbers import number, percent

NOTHING: Mapping[str, Any] = {"value": None, "low": None, "high": None}


class Table(Protocol):
    """What rows are measured in: the columns "<quantity>/<row>" of all rows.

    Attributes:
        columns: of all rows, with one bootstrap.
        best_column: the row of the best fixed option.
        reference_column: the row of the reference option.
    """

    columns: Columns
    best_column: str
    reference_column: str


@dataclass(frozen=True, kw_only=True)
class RowMetric:
    """One metric of a row.

    Attributes:
        name: its key in the document.
        title: above its column on the page; "{unit}" stands for the log's cost unit.
        function: of a table and the name of a row's columns; gives {"value", "low", "high"}, or
            None where it is not known.
        format: "percent" for shares in [0, 1], "points" for differences of such, "number" else.
        needs: "gflops" for a column only where the log knows them.
        console: above its column on the console; None for no column there.
        column: what its column is called in files; "" for none there and on the page.
        interval: whether the console has the interval beside it.
    """

    name: str
    title: str
    function: Callable[[Table, str], dict[str, Any] | None]
    format: Literal["percent", "points", "number"] = "percent"
    needs: Literal["", "gflops"] = ""
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


ROW_METRICS: tuple[RowMetric, ...] = (
    RowMetric(
        name="accuracy",
        title="accuracy",
        function=partial(_mean, "accuracy"),
        console="accuracy %",
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
    # Against the reference of the row's own policy, so it is told with each policy.
    RowMetric(name="regret", title="regret", function=partial(_mean, "regret")),
    RowMetric(
        name="minus_reference",
        title="Δ vs. reference",
        function=partial(_less, "reference"),
        format="points",
        console="Δ vs.\nreference",
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


def measured(table: Table, row: str) -> dict[str, dict[str, Any] | None]:
    """Every metric of a row."""
    return {metric.name: metric.function(table, row) for metric in ROW_METRICS}


def shown(*, counted: bool) -> list[RowMetric]:
    """Metrics with a column on the page and in files; `counted` is whether GFLOPs are known."""
    return [one for one in ROW_METRICS if one.column and (counted or not one.needs)]


def on_the_console(*, counted: bool) -> list[RowMetric]:
    """Metrics with a column on the console."""
    return [one for one in ROW_METRICS if one.console and (counted or not one.needs)]

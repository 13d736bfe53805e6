"""The metrics of a method: one table that document, console, HTML page, CSV and LaTeX read.

A new metric is one entry of `METRICS`: it is then measured for every method with a curve, and has
a column wherever methods stand beside each other.

Every number comes from the columns' means, and its interval from the same function of the means
of other samples of the images. Notation for shapes: n test examples, P points, S shares of calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from m3router.router.evaluation.comparison import CURVES, Comparison
from m3router.router.evaluation.methods import GOALS, AppliedMethod
from m3router.router.metrics.apgr import LEVELS, apgr, cpt, why_undefined
from m3router.router.metrics.calibration_error import expected_calibration_error
from m3router.router.metrics.intervals import LEAST_FOR_CURVES
from m3router.router.metrics.paired_bootstrap import SHARE, Estimate, Pair

NOTHING = Estimate(None, None, None).to_dict()
ROUTER = "router"
ONE_COST = "every option costs the same on the mean, so that there are no budgets to average over"
MANY_TIMES = 10
"""Times the cost of the best fixed option from which on it is said so, not in per cent."""


class Measured:
    """One method of a comparison, and what metrics are made of.

    Attributes:
        table: all methods on the same examples.
        name: of the method.
        method: with its knob set; it has a curve.
    """

    def __init__(self, table: Comparison, name: str) -> None:
        self.table = table
        self.name = name
        self.method: AppliedMethod = table.methods[name]

    def area(self, name: str) -> Pair:
        """AIQ of a method's curve, or of "fixed", "oracle", "corrected" or "corrected-upper"."""
        return self.table.area(name)

    def estimated(self, pair: Pair) -> dict[str, Any]:
        """A number with the interval of its samples."""
        return self.table.columns.estimated(pair).to_dict()

    def over_costs(self, found: dict[str, Any]) -> dict[str, Any]:
        """A number over all budgets, or the reason where there is only one budget."""
        low, high = self.table.range
        return found if low < high else NOTHING | {"reason": ONE_COST}

    @property
    def calls(self) -> Pair | None:
        """Shares of calls (S,) to the strong end; None for a method without such calls."""
        return self._column("ends-calls")

    @property
    def calls_accuracy(self) -> Pair | None:
        """Accuracies (S,) at those shares."""
        return self._column("ends-accuracy")

    def _column(self, name: str) -> Pair | None:
        column = f"{name}/{self.name}"
        return self.table.columns.pair(column) if column in self.table.columns else None


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric.

    Attributes:
        name: its key in the document, and its column in files.
        title: above its column.
        function: of a method that is measured; gives {"value", "low", "high"} with a "reason"
            where it is undefined, a number, or a mapping that holds such an estimate.
        format: "percent" for shares in [0, 1], "points" for differences of such, "number" else.
        needs: what a method must have, else it is None: "probabilities".
        of: the methods that have it: "all", the "router", or the "others".
        digits: after the point, on the page.
        held_in: key of the estimate that is shown where the function gives more than one, else "".
        console: above its column on the console, where that is not the title; None for no column.
        column: whether the page and files have a column of it.
    """

    name: str
    title: str
    function: Callable[[Measured], Any]
    format: Literal["percent", "points", "number"] = "percent"
    needs: tuple[Literal["probabilities"], ...] = ()
    of: Literal["all", "router", "others"] = "all"
    digits: int = 1
    held_in: str = ""
    console: str | None = ""
    column: bool = True

    def is_of(self, name: str) -> bool:
        """Whether the method of this name has it."""
        return self.of == "all" or (self.of == "router") == (name == ROUTER)

    def estimate(self, metrics: Mapping[str, Any]) -> Mapping[str, Any]:
        """What of a method's metrics is shown; all None where a document does not have it."""
        found = metrics.get(self.name)
        if self.held_in and isinstance(found, Mapping):
            found = found.get(self.held_in)
        if isinstance(found, int | float):
            return {**NOTHING, "value": found}
        return found if isinstance(found, Mapping) else NOTHING


def measure(table: Comparison, name: str) -> dict[str, Any]:
    """The metrics of a method with a curve, as `evaluation.evaluate.evaluate` describes them."""
    one = Measured(table, name)
    lacking = {"probabilities"} if one.method.p is None else set()
    found: dict[str, Any] = {"range": {"low": table.range[0], "high": table.range[1]}}
    for metric in METRICS:
        if metric.is_of(name):
            found[metric.name] = None if lacking & set(metric.needs) else metric.function(one)
    return {**found, "ends": _ends(one)}


# --- the functions ---------------------------------------------------------------------------


def _aiq(one: Measured, name: str | None = None) -> dict[str, Any]:
    """A mean of accuracies, so that it cannot leave [0, 1]."""
    area = one.area(name or one.name)
    found = one.table.columns.bounded(area, bounds=SHARE, least=LEAST_FOR_CURVES)
    return one.over_costs(found.to_dict())


def _less(one: Measured, other: str) -> dict[str, Any]:
    return one.over_costs(one.estimated(one.area(one.name).then(np.subtract, one.area(other))))


def _headroom(one: Measured) -> dict[str, Any]:
    return one.estimated(one.area("oracle").then(np.subtract, one.area("fixed")))


def _gap_closed(one: Measured, ceiling: str) -> dict[str, Any]:
    """Of areas: (own - mixing) / (the corrected oracle's curve - mixing)."""
    own, fixed, most = (one.area(name) for name in (one.name, "fixed", ceiling))
    return one.over_costs(one.table.share_of_gap(own, floor=fixed, ceiling=most))


def _calibration_error(one: Measured) -> float:
    assert one.method.p is not None  # it needs probabilities
    return expected_calibration_error(one.method.p.ravel(), one.table.test.scores.ravel())


def _saved(one: Measured, goal: str) -> dict[str, Any]:
    """How much less than the best fixed option is spent at a share of its accuracy."""
    table, columns = one.table, one.table.columns
    setting, share, best = one.method.goals[goal], GOALS[goal], one.table.best_column
    accuracy = columns.pair(f"accuracy/{best}")
    found: dict[str, Any] = {}

    def less(cost: Any, spent: Any) -> Any:
        """1 - cost / spent; NaN where nothing is spent or the accuracy never reached."""
        empty = np.full(np.shape(spent), np.nan)
        return 1 - np.divide(cost, spent, out=empty, where=np.asarray(spent) > 0)

    for what, quantity in (("", "cost"), ("_gflops", "gflops"), ("_total_gflops", "total_gflops")):
        own, drawn = f"{quantity}/{one.name}:{goal}", quantity in CURVES
        known = own in columns and f"{quantity}/{best}" in columns
        spent = columns.pair(f"{quantity}/{best}") if known else None
        if drawn:
            found[f"hindsight{what}"] = None
        if spent is not None and drawn:
            curve = table.curves(one.name, by=quantity)
            least = curve.then(lambda line, target: line.cost_of(share * target), accuracy)
            found[f"hindsight{what}"] = _saving(one, least.then(less, spent), of=spent)
        found[f"calibrated{what}"] = (
            None
            if spent is None
            else _saving(
                one, columns.pair(own).then(less, spent), cost=columns.estimate(own), of=spent
            )
        )
    title = f"{100 * share:.0f} % of best fixed"
    row = table.setting_row(one.name, setting, name=title, kind="router")
    return {**found, "row": row, "policy": row.get("policy")}


def _saving(one: Measured, pair: Pair, *, of: Pair, cost: Estimate | None = None) -> dict[str, Any]:
    """A saving, or the reason where it is none, or where nothing is answered.

    Args:
        one: the method.
        pair: 1 - cost / spent.
        of: what is spent; where it is the same for every image, the cost's interval is used.
        cost: the cost with its interval.
    """
    if one.table.answers_nothing:
        return NOTHING | {"reason": "no option is better than a blind guess"}
    value, spent = float(pair.value), float(of.value)
    if not np.isfinite(value):
        free = not spent > 0
        why = "the best fixed option costs nothing" if free else "no price is known to reach it"
        return NOTHING | {"reason": f"nothing can be saved: {why}"}
    if value < 0:
        more = f"{-100 * value:.0f} % more than"
        if 1 - value >= MANY_TIMES:
            more = f"{1 - value:,.0f} times as much as"
        return NOTHING | {"reason": f"nothing is saved: it costs {more} the best fixed option"}
    if cost is None or cost.low is None or cost.high is None:
        return one.estimated(pair)
    if not spent > 0 or not np.allclose(of.draws, spent, rtol=1e-9):
        return one.estimated(pair)
    return {"value": value, "low": 1 - cost.high / spent, "high": 1 - cost.low / spent}


def _between_ends(one: Measured, function: Callable[..., Any]) -> dict[str, Any]:
    """A function of shares of calls and accuracies between the first and the last option."""
    calls, accuracy = one.calls, one.calls_accuracy
    if calls is None or accuracy is None:
        reason = "undefined: there are no two ends that it chooses between"
        return NOTHING | {"reason": reason}
    weak, strong = one.table.options[0], one.table.options[-1]
    columns = one.table.columns
    gap = columns.estimate(f"accuracy/fixed:{strong}", minus=f"accuracy/fixed:{weak}")
    more = columns.mean(f"cost/fixed:{strong}") - columns.mean(f"cost/fixed:{weak}")
    why = why_undefined(weak, strong, difference=gap.value, low=gap.low, more=float(more))
    return NOTHING | {"reason": why} if why else one.estimated(calls.then(function, accuracy))


def _ends(one: Measured) -> dict[str, Any] | None:
    """The curve over the share of calls to the last option, which APGR and CPT are read off."""
    calls, accuracy = one.calls, one.calls_accuracy
    if calls is None or accuracy is None:
        return None
    return {
        "weak": one.table.options[0],
        "strong": one.table.options[-1],
        "calls": calls.value.tolist(),
        "accuracy": accuracy.value.tolist(),
    }


METRICS: tuple[Metric, ...] = (
    Metric(name="aiq", title="AIQ", function=_aiq, digits=2),
    Metric(
        name="aiq_minus_router",
        title="Δ vs. router",
        function=lambda one: _less(one, ROUTER),
        format="points",
        of="others",
        digits=2,
    ),
    Metric(
        name="saved_at_99",
        title="saved at 99 %",
        function=lambda one: _saved(one, "saved_at_99"),
        held_in="calibrated",
        console=None,
    ),
    Metric(
        name="saved_at_100",
        title="saved at 100 %",
        function=lambda one: _saved(one, "saved_at_100"),
        held_in="calibrated",
        console=None,
    ),
    Metric(
        name="gap_closed",
        title="gap closed",
        function=lambda one: _gap_closed(one, "corrected"),
        console="gap closed %",
    ),
    Metric(
        name="ece",
        title="calibration error",
        function=_calibration_error,
        needs=("probabilities",),
        console=None,
    ),
    Metric(
        name="apgr",
        title="APGR",
        function=lambda one: _between_ends(one, apgr),
        console=None,
    ),
    Metric(
        name="cpt_50",
        title="CPT(50 %)",
        function=lambda one: _between_ends(one, partial(cpt, level=LEVELS["cpt_50"])),
        console=None,
    ),
    Metric(
        name="cpt_80",
        title="CPT(80 %)",
        function=lambda one: _between_ends(one, partial(cpt, level=LEVELS["cpt_80"])),
        console=None,
        column=False,
    ),
    Metric(
        name="aiq_fixed",
        title="AIQ of mixing fixed options",
        function=lambda one: _aiq(one, "fixed"),
        console=None,
        column=False,
    ),
    Metric(
        name="aiq_minus_fixed",
        title="less mixing fixed options",
        function=lambda one: _less(one, "fixed"),
        format="points",
        console=None,
        column=False,
    ),
    Metric(
        name="gap_closed_upper",
        title="gap closed, only new answers are guesses",
        function=lambda one: _gap_closed(one, "corrected-upper"),
        console=None,
        column=False,
    ),
    Metric(
        name="headroom",
        title="headroom",
        function=_headroom,
        format="points",
        of="router",
        console=None,
        column=False,
    ),
)
"""In the order of their columns; last those that the document alone has."""


def console_metrics() -> list[Metric]:
    """Those with a column on the console."""
    return [metric for metric in METRICS if metric.console is not None]


def column_metrics() -> list[Metric]:
    """Those with a column on the page and in files."""
    return [metric for metric in METRICS if metric.column]

"""What is said about a whole curve: areas, savings, gaps closed, APGR and CPT.

Every number comes from the columns' means, and its interval from the same function of the means
of other samples of the images. Notation for shapes: n test examples, P points, S shares of calls.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from router.calibration import expected_calibration_error
from router.evaluation.comparison import Comparison
from router.evaluation.methods import GOALS, Setting
from router.metrics.apgr import LEVELS, apgr, cpt, why_undefined
from router.metrics.bootstrap import Estimate
from router.metrics.curves import Curves
from router.metrics.intervals import LEAST_FOR_CURVES
from router.metrics.paired_bootstrap import SHARE, Pair

NOTHING = Estimate(None, None, None).to_dict()
ONE_COST = "every option costs the same on the mean, so that there are no budgets to average over"
MANY_TIMES = 10
"""Times the cost of the best fixed option from which on it is told so, not in per cent."""


class Measures:
    """Numbers of the curves of a comparison."""

    def __init__(self, table: Comparison) -> None:
        self.table = table
        self.columns = table.columns
        self._areas: dict[str, Pair] = {}

    def arm(self, name: str, *, kind: str = "router") -> dict[str, Any]:
        """All about one arm, as `evaluate` describes it."""
        arm = self.table.arms[name]
        has_curve = arm.knob is not None
        return {
            "about": arm.about,
            "rows": self.table.arm_rows(name, kind=kind),
            "curve": self.curve(name) if has_curve else None,
            "metrics": self.metrics(name) if has_curve else None,
        }

    def curve(self, name: str) -> dict[str, Any]:
        """The points of a curve with the band of its accuracy."""
        bounded = name not in ("corrected", "corrected-upper")
        low, high = self.columns.bands(f"curve-accuracy/{name}") if bounded else (None, None)
        work = f"curve-gflops/{name}"
        curve: dict[str, Any] = {
            "cost": self.columns.mean(f"curve-cost/{name}").tolist(),
            "accuracy": self.columns.mean(f"curve-accuracy/{name}").tolist(),
            "low": low or self._none(name),
            "high": high or self._none(name),
            "gflops": self.columns.mean(work).tolist() if work in self.columns else None,
        }
        arm = self.table.arms.get(name)
        if arm is not None and arm.knob is not None:
            curve[arm.knob] = list(arm.values)
        return curve

    def metrics(self, name: str) -> dict[str, Any]:
        """The metrics of a curve, as `evaluate` describes them."""
        estimated, area, arm = self._estimated, self._area, self.table.arms[name]
        own, fixed = area(name), area("fixed")
        result: dict[str, Any] = {
            "range": {"low": self.table.range[0], "high": self.table.range[1]},
            "aiq": self._aiq(own),
            "aiq_fixed": self._aiq(fixed),
            "aiq_minus_fixed": self._over_costs(estimated(own.then(np.subtract, fixed))),
            "gap_closed": self._closed(own, fixed, area("corrected")),
            "gap_closed_upper": self._closed(own, fixed, area("corrected-upper")),
            "ece": None,
        }
        if name == "router":
            result["headroom"] = estimated(area("oracle").then(np.subtract, fixed))
        else:
            less = own.then(np.subtract, area("router"))
            result["aiq_minus_router"] = self._over_costs(estimated(less))
        if arm.p is not None:
            scores = self.table.test.scores
            result["ece"] = expected_calibration_error(arm.p.ravel(), scores.ravel())
        for goal, setting in arm.goals.items():
            result[goal] = self._saved(name, goal, setting)
        return result | self._ends(name)

    def _area(self, name: str) -> Pair:
        if name not in self._areas:
            low, high = self.table.range
            area = partial(Curves.area, low=low, high=high)
            self._areas[name] = self.table.curves(name).then(area)
        return self._areas[name]

    def _aiq(self, area: Pair) -> dict[str, Any]:
        """A mean of accuracies, so that it cannot leave [0, 1]."""
        found = self.columns.bounded(area, bounds=SHARE, least=LEAST_FOR_CURVES)
        return self._over_costs(found.to_dict())

    def _closed(self, own: Pair, floor: Pair, ceiling: Pair) -> dict[str, Any]:
        return self._over_costs(self.table.share_of_gap(own, floor=floor, ceiling=ceiling))

    def _over_costs(self, found: dict[str, Any]) -> dict[str, Any]:
        """What is said over all budgets, in words where there is only one budget."""
        low, high = self.table.range
        return found if low < high else NOTHING | {"reason": ONE_COST}

    def _none(self, name: str) -> list[None]:
        return [None] * len(self.columns.mean(f"curve-accuracy/{name}"))

    def _saved(self, name: str, goal: str, setting: Setting) -> dict[str, Any]:
        """How much less than the best fixed option is spent at a share of its accuracy."""
        pair, best = self.columns.pair, self.table.best_column
        share = GOALS[goal]
        accuracy = pair(f"accuracy/{best}")
        found: dict[str, Any] = {}

        def less(cost: Any, spent: Any) -> Any:
            """1 - cost / spent; NaN where nothing is spent or the accuracy never reached."""
            empty = np.full(np.shape(spent), np.nan)
            return 1 - np.divide(cost, spent, out=empty, where=np.asarray(spent) > 0)

        for what, quantity in (("", "cost"), ("_gflops", "gflops")):
            if f"{quantity}/{best}" not in self.columns:
                found |= {f"hindsight{what}": None, f"calibrated{what}": None}
                continue
            spent = pair(f"{quantity}/{best}")
            curve = self.table.curves(name, by=quantity)
            least = curve.then(lambda one, target: one.cost_of(share * target), accuracy)
            own = pair(f"{quantity}/{name}:{goal}")
            found[f"hindsight{what}"] = self._saving(least.then(less, spent), of=spent)
            cost = self.columns.estimate(f"{quantity}/{name}:{goal}")
            found[f"calibrated{what}"] = self._saving(own.then(less, spent), cost=cost, of=spent)
        title = f"{100 * share:.0f} % of best fixed"
        row = self.table.setting_row(name, setting, name=title, kind="router")
        return {**found, "row": row, "policy": row.get("policy")}

    def _saving(
        self, pair: Pair, *, cost: Estimate | None = None, of: Pair | None = None
    ) -> dict[str, Any]:
        """A saving, in words where it is none, or where nothing is answered.

        Args:
            pair: 1 - cost / spent.
            cost: the cost with its interval.
            of: what is spent; where it is the same for every image, the cost's interval is used.
        """
        if self.table.answers_nothing:
            return NOTHING | {"reason": "no option is better than a blind guess"}
        value = float(pair.value)
        if not np.isfinite(value):
            free = of is not None and not float(of.value) > 0
            why = "the best fixed option costs nothing" if free else "no price is known to reach it"
            return NOTHING | {"reason": f"nothing can be saved: {why}"}
        if value < 0:
            more = f"{-100 * value:.0f} % more than"
            if 1 - value >= MANY_TIMES:
                more = f"{1 - value:,.0f} times as much as"
            return NOTHING | {"reason": f"nothing is saved: it costs {more} the best fixed option"}
        if cost is None or cost.low is None or cost.high is None or of is None:
            return self._estimated(pair)
        spent = float(of.value)
        if not spent > 0 or not np.allclose(of.draws, spent, rtol=1e-9):
            return self._estimated(pair)
        ends = {"low": 1 - cost.high / spent, "high": 1 - cost.low / spent}
        return {"value": value, **ends}

    def _ends(self, name: str) -> dict[str, Any]:
        """APGR and CPT between the first and the last option, where they are defined."""
        column, options = f"ends-calls/{name}", self.table.options
        if column not in self.columns:
            reason = "undefined: there are no two ends that it chooses between"
            return {key: NOTHING | {"reason": reason} for key in ("apgr", *LEVELS)} | {"ends": None}
        calls = self.columns.pair(column)
        accuracy = self.columns.pair(f"ends-accuracy/{name}")
        weak, strong = options[0], options[-1]
        gap = self.columns.estimate(f"accuracy/fixed:{strong}", minus=f"accuracy/fixed:{weak}")
        ends = {
            "weak": weak,
            "strong": strong,
            "calls": calls.value.tolist(),
            "accuracy": accuracy.value.tolist(),
        }
        more = self.columns.mean(f"cost/fixed:{strong}") - self.columns.mean(f"cost/fixed:{weak}")
        reason_why = why_undefined(
            weak, strong, difference=gap.value, low=gap.low, more=float(more)
        )
        if reason_why is not None:
            return {
                "apgr": NOTHING | {"reason": reason_why},
                **{key: NOTHING | {"reason": reason_why} for key in LEVELS},
                "ends": ends,
            }
        return {
            "apgr": self._estimated(calls.then(apgr, accuracy)),
            **{
                key: self._estimated(calls.then(partial(cpt, level=level), accuracy))
                for key, level in LEVELS.items()
            },
            "ends": ends,
        }

    def _estimated(self, pair: Pair) -> dict[str, Any]:
        return self.columns.estimated(pair).to_dict()

"""What is said about a whole curve: areas, savings, gaps closed, APGR and CPT.

Every number comes from the columns' means, and its interval from the same function of the means
of every draw. Notation for shapes: n test examples, P points of a curve, S shares of calls.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from router.analysis.arms import GOALS, Setting
from router.analysis.bootstrap import Estimate
from router.analysis.columns import Pair
from router.analysis.comparison import Comparison
from router.analysis.ends import LEVELS, apgr, cpt, why_undefined
from router.analysis.hulls import Hulls, hypervolumes, saved
from router.calibration import expected_calibration_error

NOTHING = Estimate(None, None, None).to_dict()


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
        low, high = self.columns.bands(f"curve-accuracy/{name}")
        work = f"curve-gflops/{name}"
        curve: dict[str, Any] = {
            "cost": self.columns.mean(f"curve-cost/{name}").tolist(),
            "accuracy": self.columns.mean(f"curve-accuracy/{name}").tolist(),
            "low": low,
            "high": high,
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
        result = {
            "range": {"low": self.table.range[0], "high": self.table.range[1]},
            "aiq": estimated(own),
            "aiq_fixed": estimated(fixed),
            "aiq_minus_fixed": estimated(own.then(np.subtract, fixed)),
            "hypervolume": estimated(self._hypervolume(name)),
            "gap_closed": self.table.share_of_gap(own, floor=fixed, ceiling=area("corrected")),
            "gap_closed_upper": self.table.share_of_gap(
                own, floor=fixed, ceiling=area("corrected-upper")
            ),
            "ece": None,
        }
        if name != "router":
            result["aiq_minus_router"] = estimated(own.then(np.subtract, area("router")))
        if arm.p is not None:
            scores = self.table.test.scores
            result["ece"] = expected_calibration_error(arm.p.ravel(), scores.ravel())
        for goal, setting in arm.goals.items():
            result[goal] = self._saved(name, goal, setting)
        return result | self._ends(name)

    def _area(self, name: str) -> Pair:
        if name not in self._areas:
            low, high = self.table.range
            self._areas[name] = self.table.hull(name).then(partial(Hulls.area, low=low, high=high))
        return self._areas[name]

    def _hypervolume(self, name: str) -> Pair:
        """In units of the dearest fixed option's cost: between 0 and 1."""
        high = self.table.range[1]

        def volume(cost: Any, accuracy: Any) -> Any:
            if high <= 0:
                return np.full(np.shape(cost)[:-1], np.nan)
            return hypervolumes(cost, accuracy, reference_cost=high) / high

        accuracy = self.columns.pair(f"curve-accuracy/{name}")
        return self.columns.pair(f"curve-cost/{name}").then(volume, accuracy)

    def _saved(self, name: str, goal: str, setting: Setting) -> dict[str, Any]:
        """How much less than the best fixed option is spent at a share of its accuracy."""
        pair, best = self.columns.pair, self.table.best_column
        share = GOALS[goal]
        accuracy = pair(f"accuracy/{best}")
        found: dict[str, Any] = {}
        for what, quantity in (("", "cost"), ("_gflops", "gflops")):
            if f"{quantity}/{best}" not in self.columns:
                found |= {f"hindsight{what}": None, f"calibrated{what}": None}
                continue
            spent = pair(f"{quantity}/{best}")

            def at(cost: Any, score: Any, target: Any, spent: Any) -> Any:
                return saved(cost, score, target=share * np.asarray(target), spent=spent)

            def by(cost: Any, spent: Any) -> Any:
                empty = np.full(np.shape(spent), np.nan)
                return 1 - np.divide(cost, spent, out=empty, where=np.asarray(spent) > 0)

            curve = pair(f"curve-{quantity}/{name}")
            found[f"hindsight{what}"] = self._estimated(
                curve.then(at, pair(f"curve-accuracy/{name}"), accuracy, spent)
            )
            own = pair(f"{quantity}/{name}:{goal}")
            found[f"calibrated{what}"] = self._estimated(own.then(by, spent))
        title = f"{100 * share:.0f} % of best fixed"
        row = self.table.setting_row(name, setting, name=title, kind="router")
        return {**found, "row": row, "policy": row.get("policy")}

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
        reason_why = why_undefined(weak, strong, difference=gap.value, low=gap.low)
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

    def _estimated(self, pair: Pair) -> dict[str, float | None]:
        return self.columns.estimated(pair).to_dict()

"""The rows of an evaluation: fixed options, ways of choosing and oracles on the same examples.

Notation for shapes: n test examples, K options, P points of a curve.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from router.analysis import metrics
from router.analysis.arms import Arm, Part, Setting
from router.analysis.bootstrap import Estimate
from router.analysis.columns import Columns, Pair
from router.analysis.curves import curve_prices
from router.analysis.ends import strong_calls
from router.analysis.hulls import Hulls, concave_hulls
from router.analysis.knowing import corrected_curve
from router.analysis.oracles import RULES, corrected_rows, oracle_rows
from router.outcomes import Asked
from router.sweep import choose_at

KEPT = 0.99  # share of the best fixed accuracy for "saved_at_99"
QUANTITIES = ("accuracy", "cost", "gflops", "regret")
UNDEFINED = Estimate(None, None, None)


class Comparison:
    """Collects the per-example columns of every row, then turns them into rows.

    Column names are "<quantity>/<row>", with the quantities of `QUANTITIES`; curves are blocks
    "curve-accuracy/<arm>", "curve-cost/<arm>" and "curve-gflops/<arm>" of (n, P). What is more
    than rows (areas, savings) is `router.analysis.measures`.
    """

    def __init__(
        self, test: Part, columns: Columns, *, options: tuple[str, ...], points: int
    ) -> None:
        self.test = test
        self.columns = columns
        self.options = options
        self.points = points
        self.best = metrics.best_fixed(test.scores, test.costs)
        self.best_column = f"fixed:{options[self.best]}"
        self.arms: dict[str, Arm] = {}
        self._hulls: dict[str, Pair] = {}
        mean_costs = test.costs.mean(axis=0)
        self.range = float(mean_costs.min()), float(mean_costs.max())
        self._add_fixed()
        self._add_oracles()

    def add(self, name: str, arm: Arm) -> None:
        """Columns of a way of choosing: its settings, its curve and the settings that save."""
        self.arms[name] = arm
        for setting in [*arm.settings, *arm.goals.values()]:
            self._add_asked(f"{name}:{setting.name}", setting.asked, reads=arm.reads)
        if arm.knob is not None:
            self._add_curve(name, arm.curve, reads=arm.reads)
        if arm.calls is not None and len(self.options) > 1:
            sent, scores = strong_calls(arm.calls), self.test.scores
            self.columns.add(f"ends-calls/{name}", sent.astype(np.float64))
            self.columns.add(f"ends-accuracy/{name}", np.where(sent, scores[:, -1:], scores[:, :1]))

    def hull(self, name: str, *, by: str = "cost") -> Pair:
        """Hulls of a curve, of the data and of the draws."""
        key = f"curve-{by}/{name}"
        if key not in self._hulls:
            accuracy = self.columns.pair(f"curve-accuracy/{name}")
            self._hulls[key] = self.columns.pair(key).then(concave_hulls, accuracy)
        return self._hulls[key]

    def fixed_rows(self) -> list[dict[str, Any]]:
        """One row for every option."""
        return [self.row(f"fixed:{option}", name=option, kind="fixed") for option in self.options]

    def arm_rows(self, arm: str, *, kind: str) -> list[dict[str, Any]]:
        """The settings of an arm, with the gaps they close and how they differ from the router."""
        rows = []
        for setting in self.arms[arm].settings:
            row = self.setting_row(arm, setting, name=setting.name, kind=kind)
            row["gap_closed"] = self._gaps_closed(f"{arm}:{setting.name}")
            if arm != "router" and f"accuracy/router:{setting.name}" in self.columns:
                row["minus_router"] = self.columns.estimate(
                    f"accuracy/{arm}:{setting.name}", minus=f"accuracy/router:{setting.name}"
                ).to_dict()
            rows.append(row)
        return rows

    def setting_row(self, arm: str, setting: Setting, *, name: str, kind: str) -> dict[str, Any]:
        """The row of one setting; see `row`."""
        row = self.row(f"{arm}:{setting.name}", name=name, kind=kind)
        if setting.policy is not None:
            row["policy"] = dict(setting.policy)
        return row

    def last_rows(self) -> list[dict[str, Any]]:
        """The best fixed option and the oracles."""
        best = self.options[self.best]
        return [
            self.row(self.best_column, name=f"best fixed ({best})", kind="best_fixed"),
            self.row("oracle:first_correct", name="oracle (raw)", kind="oracle"),
            self._corrected_row("first_correct"),
        ]

    def oracles(self) -> dict[str, dict[str, Any]]:
        """What an oracle reaches under every rule, raw and corrected for chance."""
        return {
            rule: {
                "raw": self.row(f"oracle:{rule}", name=f"oracle, {rule}", kind="oracle"),
                "corrected": self._corrected_row(rule)
                if f"accuracy/corrected:{rule}" in self.columns
                else None,
            }
            for rule in RULES
            if f"accuracy/oracle:{rule}" in self.columns
        }

    def row(self, column: str, *, name: str, kind: str) -> dict[str, Any]:
        """One line of the table; see `router.analysis.evaluation.evaluate`."""
        finest = f"fixed:{self.options[-1]}"
        estimate = self.columns.estimate
        row: dict[str, Any] = {"name": name, "kind": kind}
        for quantity in QUANTITIES:
            known = f"{quantity}/{column}" in self.columns
            row[quantity] = estimate(f"{quantity}/{column}").to_dict() if known else None
        for what, other in (("best_fixed", self.best_column), ("finest", finest)):
            row[f"minus_{what}"] = estimate(
                f"accuracy/{column}", minus=f"accuracy/{other}"
            ).to_dict()
        row |= self._mixture(column)
        if f"shares/{column}" in self.columns:
            shares = self.columns.mean(f"shares/{column}")
            row["shares"] = dict(zip(self.options, shares.tolist(), strict=True))
        return row

    def _mixture(self, column: str) -> dict[str, Any]:
        """Mixing fixed options at random at the row's own mean cost, in every draw anew."""
        pair, hull, spent = self.columns.pair, self.hull("fixed"), self.columns.pair
        cost = spent(f"cost/{column}")
        mixed = hull.then(Hulls.at, cost)
        own = pair(f"accuracy/{column}").then(np.subtract, mixed)
        weights = hull.then(Hulls.weights, cost)

        def of_options(by_option: Any, costs: Any, parts: Any) -> Any:
            """The mixture of what the two options cost, found by their mean costs (B, K)."""
            low, high, share = parts
            at = [np.abs(costs - one[..., None]).argmin(axis=-1)[..., None] for one in (low, high)]
            first, second = (np.take_along_axis(by_option, one, axis=-1)[..., 0] for one in at)
            return first + share * (second - first)

        costs = pair("curve-cost/fixed")
        mixture = {
            "accuracy": self.columns.estimated(mixed).to_dict(),
            "cost": self.columns.estimated(costs.then(of_options, costs, weights)).to_dict(),
            "gflops": None,
        }
        if self.test.gflops is not None:
            work = pair("curve-gflops/fixed").then(of_options, costs, weights)
            mixture["gflops"] = self.columns.estimated(work).to_dict()
        return {"minus_mixing": self.columns.estimated(own).to_dict(), "mixing": mixture}

    def _gaps_closed(self, column: str) -> dict[str, Any]:
        """Shares of what was to be gained that a row gains; see `evaluate`."""
        pair = self.columns.pair
        accuracy, cost = pair(f"accuracy/{column}"), pair(f"cost/{column}")
        mixed = self.hull("fixed").then(Hulls.at, cost)
        best = pair(f"accuracy/{self.best_column}")
        ends = {
            "own_cost": (self.hull("corrected").then(Hulls.at, cost), mixed),
            "own_cost_upper": (self.hull("corrected-upper").then(Hulls.at, cost), mixed),
            "own_cost_raw": (self.hull("oracle").then(Hulls.at, cost), mixed),
            "corrected": (pair("accuracy/corrected:first_correct"), best),
            "raw": (pair("accuracy/oracle:first_correct"), best),
        }
        return {
            name: self.share_of_gap(accuracy, floor=floor, ceiling=ceiling)
            for name, (ceiling, floor) in ends.items()
        }

    def share_of_gap(self, mine: Pair, *, floor: Pair, ceiling: Pair) -> dict[str, Any]:
        """(mine - floor) / (ceiling - floor); undefined unless the gap is clearly positive."""
        gap = ceiling.then(np.subtract, floor)
        size = self.columns.estimated(gap)
        if size.value is None:
            return UNDEFINED.to_dict() | {"reason": "nothing is defined at that cost"}
        if size.value <= 1e-12:
            return UNDEFINED.to_dict() | {"reason": "there is no gap to close"}
        if size.low is None or size.low <= 0:
            return UNDEFINED.to_dict() | {"reason": "the gap to close may be 0"}

        def share(found: Any, whole: Any) -> Any:
            empty = np.full(np.shape(whole), np.nan)
            return np.divide(found, whole, out=empty, where=np.asarray(whole) > 0)

        gained = mine.then(np.subtract, floor)
        return self.columns.estimated(gained.then(share, gap)).to_dict()

    def _corrected_row(self, rule: str) -> dict[str, Any]:
        """The corrected oracle; where it falls below the best fixed option, that option."""
        own = f"corrected:{rule}"
        row = self.row(own, name="oracle (chance-corrected)", kind="oracle_corrected")
        pair, estimated = self.columns.pair, self.columns.estimated
        best, finest = f"accuracy/{self.best_column}", f"accuracy/fixed:{self.options[-1]}"
        found, fixed = pair(f"accuracy/{own}"), pair(best)
        top = found.then(np.maximum, fixed)
        row["accuracy"] = estimated(top).to_dict()
        row["minus_best_fixed"] = estimated(top.then(np.subtract, fixed)).to_dict()
        row["minus_finest"] = estimated(top.then(np.subtract, pair(finest))).to_dict()

        def spent(a: Any, b: Any, fixed: Any, cost: Any, each: Any) -> Any:
            """The best fixed option's cost where its accuracy is taken, else the estimate."""
            least, most = each[..., 0], each[..., 1]
            return np.where(np.asarray(a) < b, fixed, np.clip(cost, least, most))

        for quantity in ("cost", "gflops"):
            if f"{quantity}/{own}" in self.columns:
                parts = (f"{quantity}/{self.best_column}", f"{quantity}/{own}", f"span-{quantity}")
                inside = found.then(spent, fixed, *(pair(part) for part in parts))
                row[quantity] = estimated(inside).to_dict()
        return row

    def _add_fixed(self) -> None:
        """Columns of every fixed option, and of all of them as one curve."""
        n, test = len(self.test.rows), self.test
        for k, option in enumerate(self.options):
            asked = Asked.once(np.full(n, k, dtype=np.intp), options=len(self.options))
            self._add_asked(f"fixed:{option}", asked, reads=())
        self.columns.add("curve-accuracy/fixed", test.scores)
        for name, values in (("cost", test.costs), ("gflops", test.gflops)):
            if values is not None:
                self.columns.add(f"curve-{name}/fixed", values)
                ends = np.stack([values.min(axis=1), values.max(axis=1)], axis=1)
                self.columns.add(f"span-{name}", ends)

    def _add_oracles(self) -> None:
        """Columns of the oracles under every rule, and the curves of both over the price."""
        test = self.test
        for rule in RULES:
            if rule == "matches_full" and test.said is None:
                continue
            said = np.zeros(test.scores.shape, dtype=np.intp) if test.said is None else test.said
            self._add_oracle(f"oracle:{rule}", *oracle_rows(rule, test.scores, test.costs, said))
            if test.gflops is not None:
                _, work = oracle_rows(rule, test.scores, test.gflops, said)
                self.columns.add(f"gflops/oracle:{rule}", work)
            corrected = corrected_rows(rule, test.scores, test.costs, test.chance)
            if corrected is None:
                continue
            self._add_oracle(f"corrected:{rule}", *corrected)
            if test.gflops is not None:
                found = corrected_rows(rule, test.scores, test.gflops, test.chance)
                if found is not None:
                    self.columns.add(f"gflops/corrected:{rule}", found[1])
        prices = curve_prices(test.scores, test.costs, points=self.points)
        k = len(self.options)
        curve = [
            Asked.once(choose_at(test.scores, test.costs, price), options=k) for price in prices
        ]
        self._add_curve("oracle", curve, reads=())
        # Without answers every option counts as a new guess, at both ends.
        repeats = None if test.said is None else metrics.repeated_answers(test.said)
        for name, same in (("corrected", None), ("corrected-upper", repeats)):
            accuracy, cost = corrected_curve(
                test.scores, test.costs, test.chance, points=self.points, repeats=same
            )
            self.columns.add(f"curve-accuracy/{name}", accuracy)
            self.columns.add(f"curve-cost/{name}", cost)

    def _add_oracle(self, name: str, accuracy: Any, cost: Any) -> None:
        self.columns.add(f"accuracy/{name}", accuracy)
        self.columns.add(f"cost/{name}", cost)

    def _add_asked(self, name: str, asked: Asked, *, reads: Sequence[str]) -> None:
        found = self.test.outcome(asked, reads=reads)
        self.columns.add(f"accuracy/{name}", found.score)
        self.columns.add(f"cost/{name}", found.cost)
        self.columns.add(f"regret/{name}", np.maximum(self.test.scores[:, -1] - found.score, 0.0))
        shares = (found.final[:, None] == np.arange(len(self.options))).astype(np.float64)
        self.columns.add(f"shares/{name}", shares)
        if found.gflops is not None:
            self.columns.add(f"gflops/{name}", found.gflops)

    def _add_curve(self, name: str, curve: Sequence[Asked], *, reads: Sequence[str]) -> None:
        found = [self.test.outcome(asked, reads=reads) for asked in curve]
        self.columns.add(f"curve-accuracy/{name}", np.stack([one.score for one in found], axis=1))
        self.columns.add(f"curve-cost/{name}", np.stack([one.cost for one in found], axis=1))
        if self.test.gflops is not None:
            work = [one.gflops for one in found if one.gflops is not None]
            self.columns.add(f"curve-gflops/{name}", np.stack(work, axis=1))

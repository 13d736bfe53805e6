"""The rows of an evaluation: fixed options, routers and oracles, measured on the same examples.

Notation for shapes: n test examples, K options, P points of a curve.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from router.analysis import metrics
from router.analysis.columns import Columns
from router.analysis.curves import curve_prices, curve_rows
from router.analysis.metrics import Array
from router.estimators.base import Floats
from router.policy import Policy

KEPT = 0.99  # share of the best fixed accuracy for "saved_at_99"


@dataclass(frozen=True, kw_only=True)
class Part:
    """The rows of one part: scores, costs and gflops (n, K), groups and chance (n,)."""

    rows: npt.NDArray[np.intp]
    scores: Floats
    costs: Floats
    gflops: Floats | None
    groups: np.ndarray
    chance: Floats


class Comparison:
    """Collects the per-example columns of every row, then turns them into numbers.

    Column names are "<quantity>/<row>", with the quantities accuracy, cost, gflops and regret;
    curves are blocks "curve-accuracy/<arm>" and "curve-cost/<arm>" of (n, P).
    """

    def __init__(
        self, test: Part, columns: Columns, *, options: tuple[str, ...], points: int
    ) -> None:
        self.test = test
        self.columns = columns
        self.options = options
        self.points = points
        self.best = metrics.best_fixed(test.scores, test.costs)
        self.arms: dict[str, dict[str, Any]] = {}
        mean_costs = test.costs.mean(axis=0)
        self.range = float(mean_costs.min()), float(mean_costs.max())
        self._add_fixed()
        self._add_oracles()

    def add_router(self, arm: str, p: Floats, policies: Mapping[str, Policy], goal: Policy) -> None:
        """Columns of one router: its policies, its curve, and the policy that saves most."""
        for name, policy in policies.items():
            self._add_choice(f"{arm}:{name}", policy.choose(p, self.test.costs))
        self._add_choice(f"goal:{arm}", goal.choose(p, self.test.costs))
        prices = self._add_curve(arm, p)
        self.arms[arm] = {"policies": policies, "goal": goal, "prices": prices}

    def report(self) -> dict[str, Any]:
        """All numbers, JSON-able."""
        best = f"fixed:{self.options[self.best]}"
        rows = [self._row(f"fixed:{option}", name=option, kind="fixed") for option in self.options]
        rows += self._router_rows("router")
        rows.append(
            self._row(best, name=f"best fixed ({self.options[self.best]})", kind="best_fixed")
        )
        rows.append(self._row("oracle", name="oracle (raw)", kind="oracle"))
        rows.append(self._corrected_row())
        others = [arm for arm in self.arms if arm != "router"]
        first_correct = metrics.first_correct(self.test.scores, self.test.costs)
        stable = metrics.stable(self.test.scores, self.test.costs)
        return {
            "rows": rows,
            "best_fixed": self.options[self.best],
            "curve": self._curve("router"),
            "fixed_curve": self._curve("fixed"),
            "metrics": self._metrics("router"),
            "ablations": {
                arm: {
                    "rows": self._router_rows(arm),
                    "curve": self._curve(arm),
                    "metrics": self._metrics(arm),
                }
                for arm in others
            },
            "sufficient": {
                "first_correct": self._shares(first_correct),
                "stable": self._shares(stable),
            },
        }

    def _add_fixed(self) -> None:
        """Columns of every fixed option, and of all of them as one block."""
        n = len(self.test.rows)
        for k, option in enumerate(self.options):
            self._add_choice(f"fixed:{option}", np.full(n, k, dtype=np.intp))
        self.columns.add("curve-accuracy/fixed", self.test.scores)
        self.columns.add("curve-cost/fixed", self.test.costs)

    def _add_oracles(self) -> None:
        """Columns of the raw oracle, its curve over the price, and the corrected oracle."""
        test = self.test
        self._add_choice("oracle", metrics.oracle_choice(test.scores, test.costs))
        self._add_curve("oracle", test.scores)
        accuracy, cost = metrics.corrected_oracle_rows(
            test.scores, test.costs, test.chance, never_known="cheapest"
        )
        self.columns.add("accuracy/corrected", accuracy)
        self.columns.add("cost/corrected", cost)
        self.columns.add("least/corrected", test.costs.min(axis=1))
        self.columns.add("most/corrected", test.costs.max(axis=1))
        if test.gflops is not None:
            _, work = metrics.corrected_oracle_rows(
                test.scores, test.gflops, test.chance, never_known="cheapest"
            )
            self.columns.add("gflops/corrected", work)
            self.columns.add("least-gflops/corrected", test.gflops.min(axis=1))
            self.columns.add("most-gflops/corrected", test.gflops.max(axis=1))

    def _add_choice(self, name: str, choice: metrics.Choice) -> None:
        test = self.test
        self.columns.add(f"accuracy/{name}", metrics.taken(test.scores, choice))
        self.columns.add(f"cost/{name}", metrics.taken(test.costs, choice))
        self.columns.add(f"regret/{name}", metrics.regret_rows(test.scores, choice))
        shares = (choice[:, None] == np.arange(len(self.options))).astype(np.float64)
        self.columns.add(f"shares/{name}", shares)
        if test.gflops is not None:
            self.columns.add(f"gflops/{name}", metrics.taken(test.gflops, choice))

    def _add_curve(self, arm: str, p: Floats) -> list[float]:
        test = self.test
        prices = curve_prices(p, test.costs, points=self.points)
        cost, accuracy = curve_rows(p, test.scores, test.costs, prices)
        self.columns.add(f"curve-accuracy/{arm}", accuracy)
        self.columns.add(f"curve-cost/{arm}", cost)
        return prices

    def _row(self, column: str, *, name: str, kind: str) -> dict[str, Any]:
        best, finest = f"fixed:{self.options[self.best]}", f"fixed:{self.options[-1]}"
        estimate = self.columns.estimate
        row: dict[str, Any] = {"name": name, "kind": kind}
        for quantity in ("accuracy", "cost", "gflops", "regret"):
            known = f"{quantity}/{column}" in self.columns
            row[quantity] = estimate(f"{quantity}/{column}").to_dict() if known else None
        for what, other in (("best_fixed", best), ("finest", finest)):
            row[f"minus_{what}"] = estimate(
                f"accuracy/{column}", minus=f"accuracy/{other}"
            ).to_dict()
        if f"shares/{column}" in self.columns:
            shares = self.columns.mean(f"shares/{column}")
            row["shares"] = dict(zip(self.options, shares.tolist(), strict=True))
        return row

    def _router_rows(self, arm: str) -> list[dict[str, Any]]:
        rows = []
        for name, policy in self.arms[arm]["policies"].items():
            column = f"{arm}:{name}"
            row = self._row(column, name=name, kind="router")
            row["policy"] = _describe(policy)
            row["gap_closed"] = self._gaps_closed(column)
            if arm != "router" and f"accuracy/router:{name}" in self.columns:
                row["minus_router"] = self.columns.estimate(
                    f"accuracy/{column}", minus=f"accuracy/router:{name}"
                ).to_dict()
            rows.append(row)
        return rows

    def _corrected_row(self) -> dict[str, Any]:
        row = self._row("corrected", name="oracle (chance-corrected)", kind="oracle_corrected")
        best = f"accuracy/fixed:{self.options[self.best]}"
        finest = f"accuracy/fixed:{self.options[-1]}"
        of = self.columns.statistic
        names = ("accuracy/corrected", best)
        row["accuracy"] = of(np.maximum, *names).to_dict()
        row["minus_best_fixed"] = of(lambda a, b: np.maximum(a, b) - b, *names).to_dict()
        row["minus_finest"] = of(lambda a, b, f: np.maximum(a, b) - f, *names, finest).to_dict()

        def spent(*of_draws: Array) -> Array:
            """The best fixed option's cost where its accuracy is taken, else the estimate."""
            corrected, fixed, own, cost, least, most = of_draws
            return np.where(corrected < fixed, own, np.clip(cost, least, most))

        own = self.options[self.best]
        ends = ("cost/corrected", "least/corrected", "most/corrected")
        row["cost"] = of(spent, *names, f"cost/fixed:{own}", *ends).to_dict()
        if self.test.gflops is not None:
            ends = ("gflops/corrected", "least-gflops/corrected", "most-gflops/corrected")
            row["gflops"] = of(spent, *names, f"gflops/fixed:{own}", *ends).to_dict()
        return row

    def _gaps_closed(self, column: str) -> dict[str, Any]:
        """Gap closed against the raw oracle at the router's own cost, in full, and corrected."""
        best = f"accuracy/fixed:{self.options[self.best]}"
        mine = (f"accuracy/{column}", best)

        def at_own_cost(
            a: Floats, b: Floats, c: Floats, costs: Floats, accuracies: Floats
        ) -> float:
            oracle = metrics.accuracy_at_cost(costs, accuracies, float(c))
            return metrics.gap_closed(float(a), float(b), oracle)

        def corrected(a: Floats, b: Floats, oracle: Floats) -> float:
            return metrics.gap_closed(float(a), float(b), max(float(oracle), float(b)))

        each = self.columns.statistic_of_each
        curve = ("curve-cost/oracle", "curve-accuracy/oracle")
        return {
            "own_cost": each(at_own_cost, *mine, f"cost/{column}", *curve).to_dict(),
            "raw": each(corrected, *mine, "accuracy/oracle").to_dict(),
            "corrected": each(corrected, *mine, "accuracy/corrected").to_dict(),
        }

    def _metrics(self, arm: str) -> dict[str, Any]:
        each = self.columns.statistic_of_each
        curve = (f"curve-cost/{arm}", f"curve-accuracy/{arm}")
        fixed = ("curve-cost/fixed", "curve-accuracy/fixed")
        best = self.options[self.best]
        reference = (f"accuracy/fixed:{best}", f"cost/fixed:{best}")

        def saved(c: Floats, a: Floats, accuracy: Floats, cost: Floats) -> float:
            target, spent = KEPT * float(accuracy), float(cost)
            return metrics.saved_at(c, a, target=target, reference_cost=spent)

        def saved_by_goal(cost: Floats, spent: Floats) -> float:
            return float(1 - cost / spent) if spent > 0 else float("nan")

        goal = self.arms[arm]["goal"]
        result = {
            "range": {"low": self.range[0], "high": self.range[1]},
            "aiq": each(self._aiq, *curve).to_dict(),
            "aiq_fixed": each(self._aiq, *fixed).to_dict(),
            "aiq_minus_fixed": each(self._aiq_difference, *curve, *fixed).to_dict(),
            "hypervolume": each(self._hypervolume, *curve).to_dict(),
            "saved_at_99": {
                "hindsight": each(saved, *curve, *reference).to_dict(),
                "calibrated": each(saved_by_goal, f"cost/goal:{arm}", reference[1]).to_dict(),
                "row": self._row(f"goal:{arm}", name="99 % of best fixed", kind="router"),
                "policy": _describe(goal),
            },
        }
        if arm != "router":
            main = ("curve-cost/router", "curve-accuracy/router")
            result["aiq_minus_router"] = each(self._aiq_difference, *curve, *main).to_dict()
        return result

    def _aiq(self, cost: Floats, accuracy: Floats) -> float:
        low, high = self.range
        return metrics.aiq(cost, accuracy, low=low, high=high) if low < high else float("nan")

    def _aiq_difference(self, c: Floats, a: Floats, other_c: Floats, other_a: Floats) -> float:
        return self._aiq(c, a) - self._aiq(other_c, other_a)

    def _hypervolume(self, cost: Floats, accuracy: Floats) -> float:
        """In units of the dearest fixed option's cost: between 0 and 1."""
        high = self.range[1]
        if high <= 0:
            return float("nan")
        return metrics.hypervolume(cost, accuracy, reference_cost=high) / high

    def _curve(self, arm: str) -> dict[str, Any]:
        low, high = self.columns.bands(f"curve-accuracy/{arm}")
        curve: dict[str, Any] = {
            "cost": self.columns.mean(f"curve-cost/{arm}").tolist(),
            "accuracy": self.columns.mean(f"curve-accuracy/{arm}").tolist(),
            "low": low,
            "high": high,
        }
        if arm in self.arms:
            curve["price"] = self.arms[arm]["prices"]
        return curve

    def _shares(self, choice: metrics.Choice) -> dict[str, float]:
        counts = np.bincount(choice, minlength=len(self.options)) / len(choice)
        return dict(zip(self.options, counts.tolist(), strict=True))


def _describe(policy: Policy) -> dict[str, Any]:
    return {
        "kind": policy.kind,
        "lam": policy.lam,
        "cost_scale": policy.cost_scale,
        "knob": dict(policy.knob),
        "calibration": dict(policy.calibration),
        "fallback": policy.fallback,
        "reason": policy.reason,
    }

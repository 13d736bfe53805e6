"""The rows of an evaluation: fixed options, ways of choosing and oracles on the same examples.

Nothing is chosen on the examples that are measured: the best fixed option, and which fixed options
are worth mixing, are those of all other parts.

Notation for shapes: n test examples, K options, P points of a curve.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from m3router.router.estimators.base import Floats
from m3router.router.evaluation import row_metrics
from m3router.router.evaluation.methods import AppliedMethod, Part, Setting
from m3router.router.evaluation.price_curves import curve_prices
from m3router.router.evaluation.summary_text import answers_nothing
from m3router.router.evaluation.usage import TOWER
from m3router.router.metrics import choices, hull, oracles
from m3router.router.metrics.apgr import strong_calls
from m3router.router.metrics.curves import Curves, curves
from m3router.router.metrics.oracle_curve import corrected_curve
from m3router.router.metrics.oracles import RULES, choice_by, corrected_weights
from m3router.router.metrics.paired_bootstrap import SHARE, Columns, Estimate, Pair
from m3router.router.policies.outcomes import Asked, Outcome
from m3router.router.policies.price_sweep import Choice, choose_at

UNDEFINED = Estimate(None, None, None)
AGAINST = {"router": "minus_router", "calibrated cascade": "minus_calibrated_cascade"}
"""Method -> what rows of the others are called that are compared with its curve at equal cost."""
LEAST_FOR_SHARES = 100
"""Images below which no share of a gap is given: it would be mostly chance."""
CURVES = ("cost", "gflops")
"""What curves are drawn over; all else is told of rows alone."""
UNSURE = 0.5
"""Half the width of a gap's interval, in gaps, above which no share of it is given."""


class Comparison:
    """Collects the per-example columns of every row, then turns them into rows.

    Column names are "<quantity>/<row>": accuracy, regret, cost, gflops and what else answers used
    (`m3router.router.evaluation.usage`); curves are blocks
    "curve-accuracy/<method>", "curve-cost/<method>" and "curve-gflops/<method>" of (n, P). What is
    said of a whole curve (areas, savings) is `m3router.router.evaluation.metric_table`.
    """

    def __init__(
        self,
        test: Part,
        before: Part,
        columns: Columns,
        *,
        options: tuple[str, ...],
        reference: int,
    ) -> None:
        self.test = test
        self.columns = columns
        self.options = options
        self.best = choices.best_fixed(before.scores, before.costs)
        self.best_column = f"fixed:{options[self.best]}"
        self.reference = reference
        self.reference_column = f"fixed:{options[reference]}"
        self.finest_column = f"fixed:{options[-1]}"
        self._amounts = {"cost": test.costs, **test.amounts}
        self._tower_once = test.usage is not None and test.usage.once
        # By rising cost here, which may be another order than where they were chosen.
        chosen = hull.worth_mixing(before.scores, before.costs)
        self.mixed = sorted(chosen, key=lambda k: float(test.costs[:, k].mean()))
        self.methods: dict[str, AppliedMethod] = {}
        self._curves: dict[str, Pair] = {}
        self._areas: dict[str, Pair] = {}
        mean_costs = test.costs.mean(axis=0)
        self.range = float(mean_costs.min()), float(mean_costs.max())
        self._add_fixed()
        self._add_oracles()
        chance = float(np.mean(test.chance))
        each = [columns.estimate(f"accuracy/fixed:{option}").to_dict() for option in options]
        self.answers_nothing = answers_nothing(each, chance=chance)

    def add(self, name: str, method: AppliedMethod) -> None:
        """Columns of a way of choosing: its settings, its curve and the settings that save."""
        self.methods[name] = method
        for setting in [*method.settings, *method.goals.values()]:
            self._add_asked(
                f"{name}:{setting.name}",
                setting.asked,
                reads=method.reads,
                against=setting.against,
            )
        if method.knob is not None:
            self._add_curve(name, method.curve, reads=method.reads)
        if method.calls is not None and len(self.options) > 1:
            sent, scores = strong_calls(method.calls), self.test.scores
            self.columns.add(f"ends-calls/{name}", sent.astype(np.float64))
            self.columns.add(f"ends-accuracy/{name}", np.where(sent, scores[:, -1:], scores[:, :1]))

    def curves(self, name: str, *, by: str = "cost") -> Pair:
        """The curve of a method, of the data and of all samples; "fixed" is that of mixing."""
        key = f"curve-{by}/{name}"
        if key not in self._curves:
            pairs = [self.columns.pair(key), self.columns.pair(f"curve-accuracy/{name}")]
            if name == "fixed":
                pairs = [pair.then(lambda means: means[..., self.mixed]) for pair in pairs]
            self._curves[key] = pairs[0].then(curves, pairs[1])
        return self._curves[key]

    def area(self, name: str) -> Pair:
        """AIQ of the same curve, over the range of the options' mean costs."""
        if name not in self._areas:
            low, high = self.range
            area = partial(Curves.area, low=low, high=high)
            self._areas[name] = self.curves(name).then(area)
        return self._areas[name]

    def curve(self, name: str) -> dict[str, Any]:
        """The points of a curve with the band of its accuracy, JSON-able."""
        cost, work = self.columns.mean(f"curve-cost/{name}").tolist(), f"curve-gflops/{name}"
        bounded = name not in ("corrected", "corrected-upper")
        low, high = self.columns.bands(f"curve-accuracy/{name}") if bounded else (None, None)
        curve: dict[str, Any] = {
            "cost": cost,
            "accuracy": self.columns.mean(f"curve-accuracy/{name}").tolist(),
            "low": low or [None] * len(cost),
            "high": high or [None] * len(cost),
            "gflops": self.columns.mean(work).tolist() if work in self.columns else None,
        }
        method = self.methods.get(name)
        if method is not None and method.knob is not None:
            curve[method.knob] = list(method.values)
        return curve

    def fixed_rows(self) -> list[dict[str, Any]]:
        """One row for every option."""
        return [self.row(f"fixed:{option}", name=option, kind="fixed") for option in self.options]

    def method_rows(self, method: str, *, kind: str) -> list[dict[str, Any]]:
        """The settings of a method, the gaps they close and how they differ from the router."""
        rows = []
        for setting in self.methods[method].settings:
            row = self.setting_row(method, setting, name=setting.name, kind=kind)
            row["gap_closed"] = self._gaps_closed(f"{method}:{setting.name}")
            for name, key in AGAINST.items():
                if method != name and name in self.methods and self.methods[name].knob is not None:
                    row[key] = self._minus_curve(f"{method}:{setting.name}", name)
            rows.append(row)
        return rows

    def setting_row(self, method: str, setting: Setting, *, name: str, kind: str) -> dict[str, Any]:
        """The row of one setting; see `row`."""
        row = self.row(f"{method}:{setting.name}", name=name, kind=kind)
        if setting.policy is not None:
            row["policy"] = dict(setting.policy)
        return row

    def last_rows(self) -> list[dict[str, Any]]:
        """The best fixed option and the oracles."""
        best = self.options[self.best]
        rows = [
            self.row(self.best_column, name=f"best fixed ({best})", kind="best_fixed"),
            self.row("oracle:first_correct", name="oracle (raw)", kind="oracle"),
        ]
        corrected = self._corrected_row("first_correct")
        return rows if corrected is None else [*rows, corrected]

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
        """One line of the table; see `m3router.router.evaluation.evaluate.evaluate`."""
        row: dict[str, Any] = {"name": name, "kind": kind, **row_metrics.measured(self, column)}
        row |= self._mixture(column, given=kind in ("fixed", "best_fixed"))
        if f"shares/{column}" in self.columns:
            shares = self.columns.mean(f"shares/{column}")
            row["shares"] = dict(zip(self.options, shares.tolist(), strict=True))
        return row

    def _mixture(self, column: str, *, given: bool) -> dict[str, Any]:
        """Mixing fixed options at random at the row's own mean cost, in every draw anew."""
        pair, curve = self.columns.pair, self.curves("fixed")
        cost = pair(f"cost/{column}")
        mixed = curve.then(Curves.at, cost)
        own = pair(f"accuracy/{column}").then(np.subtract, mixed)
        weights = curve.then(Curves.between, cost)

        def of_options(by_option: Any, parts: Any) -> Any:
            """The mixture of what the two options cost, of mean costs (B, K)."""
            before, after, share = parts
            of_mixed = by_option[..., self.mixed]
            first, second = (
                np.take_along_axis(of_mixed, one[..., None], axis=-1)[..., 0]
                for one in (before, after)
            )
            return first + share * (second - first)

        mixture = {
            "accuracy": self.columns.bounded(mixed, bounds=SHARE).to_dict(),
            "cost": self._spent(pair("curve-cost/fixed").then(of_options, weights)),
            "gflops": None,
        }
        if self.test.gflops is not None:
            mixture["gflops"] = self._spent(pair("curve-gflops/fixed").then(of_options, weights))
        if given:  # a fixed option is in the mixture, or below it, on whatever images
            less = self.columns.estimated(own, least=2)
        else:
            less = self.columns.bounded(own, bounds=(-1.0, 1.0))
        return {"minus_mixing": less.to_dict(), "mixing": mixture}

    def _spent(self, pair: Pair) -> dict[str, Any]:
        return self.columns.estimated(pair, least=2).to_dict()

    def _minus_curve(self, column: str, method: str) -> dict[str, Any]:
        """Accuracy less that of a method's curve at the same mean cost."""
        cost = self.columns.pair(f"cost/{column}")
        other = self.curves(method).then(Curves.at, cost)
        gain = self.columns.pair(f"accuracy/{column}").then(np.subtract, other)
        found = self.columns.bounded(gain, bounds=(-1.0, 1.0)).to_dict()
        if found["value"] is None:
            return found | {"reason": f"the {method} never spends so little"}
        return found

    def _gaps_closed(self, column: str) -> dict[str, Any]:
        """Shares of what was to be gained that a row gains; see `evaluate`."""
        pair = self.columns.pair
        accuracy, cost = pair(f"accuracy/{column}"), pair(f"cost/{column}")
        mixed = self.curves("fixed").then(Curves.at, cost)
        best = pair(f"accuracy/{self.best_column}")
        ends = {
            "own_cost": (self.curves("corrected").then(Curves.at, cost), mixed),
            "own_cost_upper": (self.curves("corrected-upper").then(Curves.at, cost), mixed),
            "own_cost_raw": (self.curves("oracle").then(Curves.at, cost), mixed),
            "corrected": (pair("accuracy/corrected:first_correct"), best),
            "raw": (pair("accuracy/oracle:first_correct"), best),
        }
        return {
            name: self.share_of_gap(accuracy, floor=floor, ceiling=ceiling)
            for name, (ceiling, floor) in ends.items()
        }

    def share_of_gap(self, mine: Pair, *, floor: Pair, ceiling: Pair) -> dict[str, Any]:
        """(mine - floor) / (ceiling - floor), in words where that would say nothing."""
        gap = ceiling.then(np.subtract, floor)
        size = self.columns.estimated(gap, least=2)
        gained = mine.then(np.subtract, floor)
        if size.value is None or not np.isfinite(float(gained.value)):
            return UNDEFINED.to_dict() | {"reason": "nothing is defined at that cost"}
        if size.value <= 1e-12:
            return UNDEFINED.to_dict() | {"reason": "there is no gap to close"}
        if self.columns.images < LEAST_FOR_SHARES:
            few = f"too few images: {self.columns.images}, of at least {LEAST_FOR_SHARES}"
            return UNDEFINED.to_dict() | {"reason": few}
        if size.low is None or size.high is None or size.low <= 0:
            return UNDEFINED.to_dict() | {"reason": "the gap to close may be 0"}
        if (size.high - size.low) / 2 > UNSURE * size.value:
            return UNDEFINED.to_dict() | {"reason": "the gap to close is known too badly"}
        if float(gained.value) < 0:
            return UNDEFINED.to_dict() | {"reason": "nothing of the gap is closed"}
        if float(gained.value) > size.value:
            return UNDEFINED.to_dict() | {
                "reason": "it is above that end of the oracle, which is not a ceiling here"
            }

        def share(found: Any, whole: Any) -> Any:
            empty = np.full(np.shape(whole), np.nan)
            return np.divide(found, whole, out=empty, where=np.asarray(whole) > 0)

        return self.columns.estimated(gained.then(share, gap)).to_dict()

    def _corrected_row(self, rule: str) -> dict[str, Any] | None:
        """The corrected oracle; None where the correction says nothing.

        It says nothing where it is not above the best fixed option, which an oracle may always
        take. In draws where it falls below that option, that option counts.
        """
        own = f"corrected:{rule}"
        if self.columns.mean(f"accuracy/{own}") <= self.columns.mean(
            f"accuracy/{self.best_column}"
        ):
            return None
        row = self.row(own, name="oracle (chance-corrected)", kind="oracle_corrected")
        pair, bounded = self.columns.pair, self.columns.bounded
        found, fixed = pair(f"accuracy/{own}"), pair(f"accuracy/{self.best_column}")
        reference = pair(f"accuracy/{self.reference_column}")
        top = found.then(np.maximum, fixed)
        row["accuracy"] = bounded(top, bounds=SHARE, most=len(self.test.rows)).to_dict()
        for what, other in (("best_fixed", fixed), ("reference", reference)):
            less = top.then(np.subtract, other)
            row[f"minus_{what}"] = bounded(less, bounds=(-1.0, 1.0)).to_dict()

        def spent(a: Any, b: Any, fixed: Any, cost: Any, each: Any) -> Any:
            """The best fixed option's cost where its accuracy is taken, else the estimate."""
            least, most = each[..., 0], each[..., 1]
            return np.where(np.asarray(a) < b, fixed, np.clip(cost, least, most))

        for quantity, values in self._amounts.items():
            if f"{quantity}/{own}" in self.columns:
                parts = (f"{quantity}/{self.best_column}", f"{quantity}/{own}", f"span-{quantity}")
                inside = found.then(spent, fixed, *(pair(part) for part in parts))
                row[quantity] = bounded(inside, bounds=_within(values)).to_dict()
                row[f"saved_{quantity}"] = row_metrics.saved_of(self, inside, quantity)
        return row

    def _add_fixed(self) -> None:
        """Columns of every fixed option, and of all of them as one curve."""
        n, test = len(self.test.rows), self.test
        for k, option in enumerate(self.options):
            asked = Asked.once(np.full(n, k, dtype=np.intp), options=len(self.options))
            self._add_asked(f"fixed:{option}", asked, reads=(), given=True)
        self.columns.add("curve-accuracy/fixed", test.scores, bounds=SHARE)
        for name, values in self._amounts.items():
            if name in CURVES:
                self.columns.add(f"curve-{name}/fixed", values)
            if np.isfinite(values).all():
                ends = np.stack([values.min(axis=1), values.max(axis=1)], axis=1)
                self.columns.add(f"span-{name}", ends)

    def _add_oracles(self) -> None:
        """Columns of the oracles under every rule, and the curves of both over the price."""
        test = self.test
        for rule in RULES:
            if rule == "matches_full" and test.said is None:
                continue
            said = np.zeros(test.scores.shape, dtype=np.intp) if test.said is None else test.said
            choice = choice_by(rule, test.scores, test.costs, said)
            accuracy = choices.taken(test.scores, choice)
            self.columns.add(f"accuracy/oracle:{rule}", accuracy, bounds=SHARE)
            for name, values in self._amounts.items():
                spent = choices.taken(values, choice)
                if np.isfinite(spent).all():
                    self.columns.add(f"{name}/oracle:{rule}", spent, bounds=_within(values))
            corrected = corrected_weights(rule, test.scores, test.costs, test.chance)
            if corrected is None:
                continue
            # A single row may lie outside of [0, 1]: no bounds.
            self.columns.add(f"accuracy/corrected:{rule}", corrected[0])
            for name, values in self._amounts.items():
                if np.isfinite(values).all():
                    mean = (corrected[1] * values).sum(axis=1)
                    self.columns.add(f"{name}/corrected:{rule}", mean)
        prices = curve_prices(test.scores, test.costs)
        k = len(self.options)
        curve = [
            Asked.once(choose_at(test.scores, test.costs, price), options=k) for price in prices
        ]
        self._add_curve("oracle", curve, reads=())
        # Without answers every option counts as a new guess, at both ends.
        repeats = None if test.said is None else oracles.repeated_answers(test.said, test.costs)
        for name, same in (("corrected", None), ("corrected-upper", repeats)):
            accuracy, cost = corrected_curve(test.scores, test.costs, test.chance, repeats=same)
            self.columns.add(f"curve-accuracy/{name}", accuracy)
            self.columns.add(f"curve-cost/{name}", cost)

    def _add_asked(
        self,
        name: str,
        asked: Asked,
        *,
        reads: Sequence[str],
        against: Choice | None = None,
        given: bool = False,
    ) -> None:
        """Columns of what was asked.

        Args:
            name: of the row.
            asked: what it asked.
            reads: feature blocks that it reads.
            against: option (n,) that its regret is against; None for the table's reference.
            given: whether what it costs does not depend on a choice.
        """
        found = self.test.outcome(asked, reads=reads)
        self.columns.add(f"accuracy/{name}", found.score, bounds=SHARE)
        several = bool((asked.options.sum(axis=1) > 1).any() or reads)
        bounds = None if given else _within(self.test.costs, several=several)
        self.columns.add(f"cost/{name}", found.cost, bounds=bounds)
        if against is None:
            against = np.full(len(found.score), self.reference, dtype=np.intp)
        regret = np.maximum(choices.taken(self.test.scores, against) - found.score, 0.0)
        self.columns.add(f"regret/{name}", regret, bounds=None if given else SHARE)
        shares = (found.final[:, None] == np.arange(len(self.options))).astype(np.float64)
        self.columns.add(f"shares/{name}", shares)
        spent = self.test.spent(asked, reads=reads, gflops=found.gflops)
        for quantity, values in spent.items():
            bounds = None
            if not given:  # the router's own encoder comes on top of what options use
                again = several and not (quantity == TOWER and self._tower_once)
                low, high = _within(self._amounts[quantity], several=again)
                bounds = low, max(high, float(values.max()))
            self.columns.add(f"{quantity}/{name}", values, bounds=bounds)

    def _add_curve(self, name: str, curve: Sequence[Asked], *, reads: Sequence[str]) -> None:
        found = [self.test.outcome(asked, reads=reads) for asked in curve]
        scores, costs = (np.stack(part, axis=1) for part in _parts(found))
        self.columns.add(f"curve-accuracy/{name}", scores, bounds=SHARE)
        self.columns.add(f"curve-cost/{name}", costs)
        if self.test.gflops is not None:
            work = [one.gflops for one in found if one.gflops is not None]
            self.columns.add(f"curve-gflops/{name}", np.stack(work, axis=1))


def _within(costs: Floats, *, several: bool = False) -> tuple[float, float]:
    """The least and the most that one question can cost, at costs (n, K) of one option each.

    What is not known of some options, NaN, is left out.
    """
    most = np.nansum(costs, axis=1) if several else costs
    return float(np.nanmin(costs)), float(np.nanmax(most))


def _parts(found: Sequence[Outcome]) -> tuple[list[Any], list[Any]]:
    return [one.score for one in found], [one.cost for one in found]

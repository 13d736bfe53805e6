"""The stage that calibrates a policy together with a cascade."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.errors import DataError
from data.oracle_log import OracleLog
from data.splits import SPLITS, Split
from router.baselines.base import Known
from router.baselines.escalation import Escalating, escalating
from router.cascade import Cascade, cascade_path
from router.costs import routed_costs
from router.knobs import for_price
from router.outcomes import Prices, outcome_of
from router.parts import Gaps, part_rows
from router.policy import Binding
from router.router import ScaleRouter
from router.run import Run
from router.stages.learning import predictions, record_policies

PRICES = 200  # that are tried on the calibrate part


def escalate_stage(
    run: Run,
    *,
    name: str = "default",
    budget: float | None = None,
    max_loss_points: float | None = None,
) -> Cascade:
    """Learn on the tune part when to ask again, and choose the price on the calibrate part.

    Args:
        run: must hold a trained router; receives `policies/<name>.json`, which chooses the first
            option, and `cascades/<name>.json`, which goes on from its answer.
        name: of both.
        budget: most mean cost per question, everything that is asked included.
        max_loss_points: or: at most so many points of accuracy below the finest option.

    Raises:
        DataError: unless exactly one of the two is given, or when no price meets it.
        NotLearnableError: when the log has no confidences, or too few pictures to tune on.
        MismatchError: when router, log, features and split do not belong together.
    """
    if (budget is None) == (max_loss_points is None):
        raise DataError("To escalate, give either a budget or a maximal loss.")
    path = run.policy(name)
    router, log = run.read_router(), run.read_log()
    split = run.read_split(log)
    rows = {part: part_rows(log, split, part, gaps=_gaps(router)) for part in SPLITS}
    if not len(rows["calibrate"]):
        raise DataError("The calibrate part has no complete example. Label more pictures.")
    used = np.concatenate([rows["tune"], rows["calibrate"]])
    rows["test"] = rows["test"][:0]  # nothing of it is looked at
    p = predictions(router, run.read_features(log), log, used)
    contender = escalating(Known.of(log, rows), p, reads=tuple(router.blocks))
    tried = _tried(contender, log, rows["calibrate"], router)
    if budget is not None:
        knob, met = {"budget": float(budget)}, tried.cost <= budget * (1 + 1e-9)
        wanted = np.where(met, -tried.cost, np.inf)
    else:
        points = float(max_loss_points or 0.0)
        target = log.scores[rows["calibrate"], -1].mean() - points / 100
        knob, met = {"max_loss_points": points}, tried.accuracy >= target - 1e-12
        wanted = np.where(met, tried.cost, np.inf)
    if not met.any():
        raise DataError(
            f"No price meets {knob} on the {len(rows['calibrate'])} calibration examples: costs go "
            f"from {tried.cost.min():.6g} to {tried.cost.max():.6g} {log.cost_unit}, accuracies "
            f"to {tried.accuracy.max():.4f}. Ask for less, or calibrate without --escalate."
        )
    place, binding = int(np.argmin(wanted)), _binding(router, split)
    rule, inside = contender.stopping, rows["calibrate"]
    price = float(tried.prices[place])
    cascade = Cascade(
        binding=binding,
        stopping=rule,
        price=price,
        knob=knob,
        calibration={
            "n": float(len(inside)),
            "mean_cost": float(tried.cost[place]),
            "accuracy": float(tried.accuracy[place]),
            "asked_again": float(tried.again[place]),
        },
    )
    costs = routed_costs(log.costs[inside], router.blocks)
    first = for_price(p[inside], costs, price=price * rule.eager, binding=binding)
    first.write(path)
    cascade.write(cascade_path(run.root, name))
    record_policies(run)
    return cascade


@dataclass(frozen=True)
class _Tried:
    """Prices (P,) with the mean cost, accuracy and share of examples asked again at each."""

    prices: np.ndarray
    cost: np.ndarray
    accuracy: np.ndarray
    again: np.ndarray


def _tried(contender: Escalating, log: OracleLog, rows: np.ndarray, router: ScaleRouter) -> _Tried:
    alone = log.costs[rows]
    costs = Prices(alone=alone, routed=routed_costs(alone, router.blocks))
    prices = contender.settings(rows, points=PRICES)
    found = []
    for price in prices:
        asked = contender.asks(rows, price)
        one = outcome_of(asked, scores=log.scores[rows], costs=costs, gflops=None)
        again = (asked.options.sum(axis=1) > 1).mean()
        found.append((one.cost.mean(), one.score.mean(), again))
    cost, accuracy, again = np.array(found).T
    return _Tried(np.array(prices), cost, accuracy, again)


def _gaps(router: ScaleRouter) -> Gaps:
    gaps: Gaps = router.metadata["gaps"]
    return gaps


def _binding(router: ScaleRouter, split: Split) -> Binding:
    return Binding(
        options=router.options,
        cost_unit=router.cost_unit,
        router=router.fingerprint,
        split=split.fingerprint,
    )

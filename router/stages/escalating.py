"""The stage that calibrates a policy together with a cascade."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Unpack

import numpy as np

from m3router.data.errors import DataError
from m3router.data.log.oracle_log import OracleLog
from m3router.data.log.parts import part_rows
from m3router.data.splits.split import SPLITS
from m3router.router.cascade.rule import Cascade, cascade_path
from m3router.router.estimators.base import Floats
from m3router.router.evaluation.escalation import Escalating, escalating
from m3router.router.evaluation.methods import Known
from m3router.router.metrics.curves import most_expensive_within
from m3router.router.policies import risk_bounds as risk
from m3router.router.policies.costs import routed_costs
from m3router.router.policies.guarantee import (
    Exam,
    Labelled,
    Strategies,
    Target,
    UncertifiedError,
    certify,
)
from m3router.router.policies.knobs import Knobs
from m3router.router.policies.outcomes import Prices, outcome_of
from m3router.router.runs.calibration_data import CalibrationData, known_costs
from m3router.router.runs.run import AnyRun, as_run
from m3router.router.stages.learning import record_policies
from m3router.router.text.numbers import number, plain
from m3router.router.training.scale_router import ScaleRouter

TRIED = 64
"""Prices that are tried on the calibration split; a budget is met more exactly than these."""
CERTIFIED = 200
"""Prices from the tune split that are certified one after the other."""


def escalate_stage(run: AnyRun, *, name: str = "default", **knobs: Unpack[Knobs]) -> Cascade:
    """Learn on the tune split when to ask again, and choose the price on the calibration split.

    Args:
        run: must hold a trained router; receives `cascades/<name>.json`, and in
            `policies/<name>.json` the plain router's policy for the same target, to compare with.
        name: of both.
        knobs: a budget, a loss as observed, a maximal loss or a maximal regret, for the answers
            that are given in the end and with the cost of everything that is asked.

    Raises:
        DataError: unless exactly one of these is given, when no price meets it, for a cap, a
            calibration split too small for the target, or an unknown reference.
        NotLearnableError: when the log has no confidences, or too few images to tune on.
        MismatchError: when router, log, features and split do not belong together.
    """
    run = as_run(run)
    target, budget, lost = Target.of(knobs), knobs.get("budget"), knobs.get("max_loss_observed")
    if [budget, lost, target].count(None) != 2 or knobs.get("price") is not None:
        raise DataError("To escalate, give one of a budget, a maximal loss and a maximal regret.")
    if knobs.get("cap") is not None:
        raise DataError("A cascade cannot be capped: what it asks again would break the cap.")
    path, run = run.policy_file(name), run.opened()
    router, log = run.router(), run.log()
    split = run.split(log)
    features = run.features(log)
    data = CalibrationData.of(router, log, features, split)
    plain = data.policy(**knobs)
    rows = {part: part_rows(log, split, part, gaps=router.metadata["gaps"]) for part in SPLITS}
    rows["test"] = rows["test"][:0]  # nothing of it is looked at
    inside, p = rows["calibrate"], np.full(log.scores.shape, np.nan)
    p[inside] = data.calibrate.p
    if data.tune is not None:
        p[rows["tune"]] = data.tune.p
    known = Known.of(log, rows, costs=known_costs(router, features, log))
    contender = escalating(known, p, reads=tuple(router.blocks))
    guarantee: dict[str, Any] = {}
    if target is not None:
        tried, place, kept = _certified(
            contender, log, inside, router, data, replace(target, reference=plain.reference)
        )
        guarantee = data.promised(kept, reference=plain.reference)
    elif budget is not None:
        tried = _tried(contender, log, inside, router)
        met = tried.cost <= budget * (1 + 1e-9)
        place = _best(np.where(met, -tried.cost, np.inf), plain.knob, tried, log.cost_unit)
        if place > 0 and not met[place - 1]:  # prices ascend, so that the one before is beyond
            finer = _dearest(
                contender, log, inside, router, tried.prices[place - 1 : place + 1], budget
            )
            tried, place = _tried(contender, log, inside, router, [finer]), 0
    else:
        tried = _tried(contender, log, inside, router)
        fixed = data.calibrate.scores[:, plain.reference_index].mean()
        met = tried.accuracy >= fixed - plain.knob["max_loss_points"] / 100 - 1e-12
        place = _best(np.where(met, tried.cost, np.inf), plain.knob, tried, log.cost_unit)
    price = float(tried.prices[place])
    cascade = Cascade(
        binding=plain.binding,
        rule=contender.learned.rule(price),
        price=price,
        reference=plain.reference,
        knob=dict(plain.knob),
        calibration={
            "n": float(len(inside)),
            "mean_cost": float(tried.cost[place]),
            "accuracy": float(tried.accuracy[place]),
            "asked_again": float(tried.again[place]),
        },
        guarantee=guarantee,
    )
    plain.write(path)
    cascade.write(cascade_path(run.root, name))
    record_policies(run)
    return cascade


@dataclass(frozen=True)
class _Tried:
    """Prices (P,) with the mean cost, accuracy and share of examples asked again at each."""

    prices: Floats
    cost: Floats
    accuracy: Floats
    again: Floats


def _tried(
    contender: Escalating,
    log: OracleLog,
    rows: np.ndarray,
    router: ScaleRouter,
    prices: list[float] | None = None,
) -> _Tried:
    alone = log.costs[rows]
    costs = Prices(alone=alone, routed=routed_costs(alone, router.blocks))
    listed = contender.settings(rows, points=TRIED) if prices is None else prices
    found = []
    for price in listed:
        asked = contender.asks(rows, price)
        one = outcome_of(asked, scores=log.scores[rows], costs=costs, gflops=None)
        again = (asked.options.sum(axis=1) > 1).mean()
        found.append((one.cost.mean(), one.score.mean(), again))
    cost, accuracy, again = np.array(found).T
    return _Tried(np.array(listed), cost, accuracy, again)


def _dearest(
    contender: Escalating,
    log: OracleLog,
    rows: np.ndarray,
    router: ScaleRouter,
    between: Floats,
    budget: float,
) -> float:
    """The price between one beyond a budget and one within it that just meets it."""

    def cost_at(price: float) -> float:
        return float(_tried(contender, log, rows, router, [price]).cost[0])

    beyond, within = between.tolist()
    return most_expensive_within(cost_at, within, beyond, budget)


def _best(wanted: Floats, knob: Mapping[str, float], tried: _Tried, unit: str) -> int:
    """The place of the least value; refuses when none is finite."""
    if not np.isfinite(wanted).any():
        asked = (
            f"a budget of {plain(knob['budget'])} {unit}"
            if "budget" in knob
            else f"a loss of at most {plain(knob['max_loss_points'])} points"
        )
        raise DataError(
            f"No price meets {asked} on the calibration split: mean costs go from "
            f"{plain(tried.cost.min())} to {plain(tried.cost.max())} {unit}, accuracies to "
            f"{100 * tried.accuracy.max():.1f} %. Ask for less, or calibrate without --escalate."
        )
    return int(np.argmin(wanted))


def _certified(
    contender: Escalating,
    log: OracleLog,
    inside: np.ndarray,
    router: ScaleRouter,
    data: CalibrationData,
    target: Target,
) -> tuple[_Tried, int, dict[str, Any]]:
    """The prices that are certified, the place of the cheapest, and what it guarantees.

    Rules and prices come from the tune split, and are tested in the order of rising prices, by what
    the cascade answers in the end. The target names its reference.
    """
    tune, part = contender.learned.tune, data.examined(target)
    exam = Exam.of(
        part,
        target,
        router.options,
        tune=Labelled(
            p=tune.p,
            costs=tune.costs.routed,
            scores=tune.scores,
            groups=tune.groups,
            most=part.most,
        ),
    )
    prices = contender.tuned_prices(points=CERTIFIED)
    asked = [contender.tuned_asks(price) for price in prices]
    every, rows = np.arange(len(tune.p)), np.arange(len(inside))

    def given(rung: int) -> Floats:
        found = contender.asks(inside, prices[rung]).final
        return np.asarray(part.scores[rows, found])

    certified = certify(
        exam,
        [
            Strategies(
                costs=np.array([tune.costs.of(one).mean() for one in asked]),
                tuned=[tune.scores[every, one.final] for one in asked],
                given=given,
                free=True,
            )
        ],
    )
    if not certified.rungs:
        ladder = certified.ladder
        first = exam.counted.losses(given(ladder.first), gains=ladder.gains)
        needed = risk.images_needed(first, target.alpha, delta=target.delta, bound=exam.bound)
        advice = "no number of images certifies that" if needed is None else f"about {needed} do"
        if needed is not None and needed <= first.images:
            advice = "another sample of as many may do"
        what = "a net loss" if target.max_regret is None else "a regret"
        raise UncertifiedError(
            f"No cascade is certified for {what} of at most {target.share} with "
            f"{target.percent} confidence on {first.questions} questions about {first.images} "
            f"images: the most careful one had {what} of {number(first.risk, digits=2)} "
            f"({advice}). Ask for less, or calibrate without --escalate."
        )
    tried = _tried(contender, log, inside, router, [prices[rung] for rung in certified.rungs])
    place = int(np.argmin(tried.cost))
    rung = certified.rungs[place]
    return tried, place, certified.guarantee(given(rung), rung)

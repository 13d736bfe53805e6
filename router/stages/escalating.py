"""The stage that calibrates a policy together with a cascade."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from data.errors import DataError
from data.log.oracle_log import OracleLog
from data.splits.split import SPLITS, Split
from router import risk
from router.analysis.curves import dearest_within
from router.analysis.words import words_of
from router.baselines.base import Known
from router.baselines.escalation import Escalating, escalating
from router.calibration_data import predictions
from router.cascade import Cascade, cascade_path
from router.costs import routed_costs
from router.counting import Counted, climbed, promising
from router.estimators.base import Floats
from router.guarantee import Target, UncertifiedError, described, ladders, refuse_too_small
from router.guarantee_text import SENTENCE, guarantee_sentence
from router.knobs import for_budget, for_max_loss
from router.outcomes import Prices, outcome_of
from router.parts import Gaps, part_rows
from router.policy import Binding, Policy
from router.references import chosen
from router.router import DATASETS, TOLD, ScaleRouter
from router.run import Run
from router.stages.learning import calibrate_stage, record_policies
from router.thinning import SEED, thin

TRIED = 64
"""Prices that are tried on the calibrate part; a budget is met more exactly than these."""
CERTIFIED = 200
"""Prices from the tune part that are certified one after the other."""


def escalate_stage(
    run: Run,
    *,
    name: str = "default",
    budget: float | None = None,
    max_loss_points: float | None = None,
    target: Target | None = None,
    reference: str | None = None,
) -> Cascade:
    """Learn on the tune part when to ask again, and choose the price on the calibrate part.

    Args:
        run: must hold a trained router; receives `cascades/<name>.json`, and in
            `policies/<name>.json` the plain router's policy for the same target, to compare with.
        name: of both.
        budget: most mean cost per question, everything that is asked included.
        max_loss_points: or: at most so many points of accuracy below the reference option.
        target: or: a regret to be guaranteed for the answers that are given in the end; its
            reference is not read.
        reference: name of the option that losses are against; None for the best one of the
            calibrate part.

    Raises:
        DataError: unless exactly one of the three is given, when no price meets it, for a target
            with a cap, a calibrate part too small for the target, or an unknown reference.
        NotLearnableError: when the log has no confidences, or too few pictures to tune on.
        MismatchError: when router, log, features and split do not belong together.
    """
    if [budget, max_loss_points, target].count(None) != 2:
        raise DataError("To escalate, give one of a budget, a maximal loss and a maximal regret.")
    if target is not None and target.cap is not None:
        raise DataError("A cascade cannot be capped: what it asks again would break the cap.")
    path = run.policy(name)
    router, log = run.read_router(), run.read_log()
    split = run.read_split(log)
    rows = {part: part_rows(log, split, part, gaps=_gaps(router)) for part in SPLITS}
    inside = rows["calibrate"]
    if not len(inside):
        raise DataError("The calibrate part has no complete example. Label more questions.")
    used = np.concatenate([rows["tune"], inside])
    rows["test"] = rows["test"][:0]  # nothing of it is looked at
    p = predictions(router, run.read_features(log), log, used)
    contender = escalating(Known.of(log, rows), p, reads=tuple(router.blocks))
    binding = _binding(router, split)
    costs, scores = routed_costs(log.costs[inside], router.blocks), log.scores[inside]
    named = chosen(reference, router.options, scores=scores, costs=costs)
    against = router.options.index(named)
    guarantee: dict[str, object] = {}
    plain: Policy | None = None
    if target is not None:
        target = replace(target, reference=named)
        certified = _certified(contender, log, rows, router, target)
        tried, place, kept = certified
        if router.told:
            kept = {**kept, DATASETS: TOLD}
        told = guarantee_sentence(
            kept,
            reference=named,
            words=words_of(log),
            singles=len(np.unique(log.groups[inside])) == len(inside),
        )
        guarantee = {**kept, SENTENCE: told}
        knob = target.knob
    elif budget is not None:
        plain = for_budget(p[inside], costs, budget=budget, binding=binding, reference=named)
        tried, knob = _tried(contender, log, inside, router), {"budget": float(budget)}
        met = tried.cost <= budget * (1 + 1e-9)
        place = _best(np.where(met, -tried.cost, np.inf), knob, tried, log.cost_unit)
        if place > 0 and not met[place - 1]:  # prices ascend, so that the one before is beyond
            finer = _dearest(
                contender, log, inside, router, tried.prices[place - 1 : place + 1], budget
            )
            tried, place = _tried(contender, log, inside, router, [finer]), 0
    else:
        points = float(max_loss_points or 0.0)
        plain = for_max_loss(
            p[inside],
            costs,
            scores=scores,
            max_loss_points=points,
            binding=binding,
            reference=named,
        )
        tried, knob = _tried(contender, log, inside, router), {"max_loss_points": points}
        met = tried.accuracy >= scores[:, against].mean() - points / 100 - 1e-12
        place = _best(np.where(met, tried.cost, np.inf), knob, tried, log.cost_unit)
    price = float(tried.prices[place])
    cascade = Cascade(
        binding=binding,
        rule=contender.learned.rule(price),
        price=price,
        reference=named,
        knob=knob,
        calibration={
            "n": float(len(inside)),
            "mean_cost": float(tried.cost[place]),
            "accuracy": float(tried.accuracy[place]),
            "asked_again": float(tried.again[place]),
        },
        guarantee=guarantee,
    )
    if plain is None:
        calibrate_stage(run, name=name, target=target, reference=named)
    else:
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
    return dearest_within(cost_at, within, beyond, budget)


def _best(wanted: Floats, knob: dict[str, float], tried: _Tried, unit: str) -> int:
    """The place of the least value; refuses when none is finite."""
    if not np.isfinite(wanted).any():
        asked = (
            f"a budget of {knob['budget']:g} {unit}"
            if "budget" in knob
            else f"a loss of at most {knob['max_loss_points']:g} points"
        )
        raise DataError(
            f"No price meets {asked} on the calibrate part: mean costs go from "
            f"{tried.cost.min():.6g} to {tried.cost.max():.6g} {unit}, accuracies to "
            f"{100 * tried.accuracy.max():.1f} %. Ask for less, or calibrate without --escalate."
        )
    return int(np.argmin(wanted))


def _certified(
    contender: Escalating,
    log: OracleLog,
    rows: dict[str, np.ndarray],
    router: ScaleRouter,
    target: Target,
) -> tuple[_Tried, int, dict[str, object]]:
    """The last price of the tune part's list up to which every one is certified.

    The target names its reference. As `router.guarantee.for_target`, with what the cascade answers
    in the end: rules and prices come from the tune part, and are tested in the order of rising
    prices.
    """
    inside, tune = rows["calibrate"], contender.learned.tune
    against = router.options.index(str(target.reference))
    images = len(np.unique(log.groups[inside]))
    sizes = np.unique(log.groups[np.concatenate([rows["fit"], rows["tune"]])], return_counts=True)
    most = target.most_for(sizes[1], images=images)
    scores = log.scores[inside]
    bound = target.bound or risk.default_bound(scores, most, low=-target.gains)
    ids = np.asarray(log.ids)[inside]
    part = Counted(thinned=thin(ids, log.groups[inside], most=most), against=scores[:, against])
    learned = Counted(
        thinned=thin(np.arange(len(tune.p)), tune.groups, most=most),
        against=tune.scores[:, against],
    )
    prices = contender.tuned_prices(points=CERTIFIED)
    asked = [contender.tuned_asks(price) for price in prices]
    every = np.arange(len(tune.p))
    _, ladder = promising(
        ladders(
            [tune.scores[every, one.final] for one in asked],
            np.array([tune.costs.of(one).mean() for one in asked]),
            learned,
            target,
            free=True,
        ),
        alpha=target.alpha,
        delta=target.delta,
        images=images,
        fallback=float(tune.costs.routed[:, against].mean()),
    )

    def given(rung: int) -> Floats:
        found = contender.asks(inside, prices[rung]).final
        return np.asarray(scores[np.arange(len(inside)), found])

    certified = climbed(given, ladder, part, alpha=target.alpha, delta=target.delta, bound=bound)
    if not certified:
        refuse_too_small(part.losses(part.against), target, bound)
        first = part.losses(given(ladder.first), gains=ladder.gains)
        needed = risk.pictures_needed(first, target.alpha, delta=target.delta, bound=bound)
        advice = "no number of pictures certifies that" if needed is None else f"about {needed} do"
        if needed is not None and needed <= first.pictures:
            advice = "another sample of as many may do"
        what = "a net loss" if target.max_regret is None else "a regret"
        raise UncertifiedError(
            f"No cascade is certified for {what} of {target.alpha:g} at confidence "
            f"{target.confidence:g} on {first.questions} questions about {first.pictures} "
            f"pictures: the most careful one had {what} of {first.risk:.2g} ({advice}). Ask for "
            "less, or calibrate without --escalate."
        )
    tried = _tried(contender, log, inside, router, prices[ladder.first : ladder.first + certified])
    place = int(np.argmin(tried.cost))
    best = given(ladder.first + place)
    kept = described(
        part.losses(best, gains=ladder.gains),
        target,
        bound,
        expected=ladder.expected[ladder.first + place],
        observed=part.losses(best, gains=target.gains).risk,
    )
    return tried, place, {**kept, "seed": SEED}


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

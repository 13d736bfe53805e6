"""What options are expected to cost: exact where seen, between what was seen elsewhere."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3router.data.errors import DataError
from m3router.router.evaluation.evaluate import default_budgets
from m3router.router.policies.expected_costs import ExpectedCosts
from m3router.router.policies.fitting import for_budget
from m3router.router.policies.guarantee import Labelled, Target, for_target
from m3router.router.policies.policy import Binding

SIDES = st.integers(1, 6000)
SIZES = st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=12)
COSTS = st.floats(0, 1e6)


@given(SIZES, st.lists(st.tuples(COSTS, COSTS), min_size=12, max_size=12), st.tuples(SIDES, SIDES))
def test_costs_are_exact_where_seen_and_between_the_seen_elsewhere(sizes, costs, asked):
    paid = np.array(costs[: len(sizes)])
    seen = np.array(sizes, dtype=np.intp)
    learned = ExpectedCosts.learn(paid, seen)
    again = ExpectedCosts.of_payload(json.loads(json.dumps(learned.payload())), options=2)
    found = again.of(np.vstack([seen, [asked]]).astype(np.intp), len(sizes) + 1)
    np.testing.assert_array_equal(found, learned.of(np.vstack([seen, [asked]]), len(sizes) + 1))
    assert np.isfinite(found).all()
    for row, size in enumerate(sizes):
        of_size = paid[(seen == size).all(axis=1)]
        np.testing.assert_allclose(found[row], of_size.mean(axis=0), rtol=1e-12)
        if len(of_size) == 1:
            np.testing.assert_array_equal(found[row], of_size[0])
    tolerance = 1e-9 * (1 + paid.max())  # means of equal sizes are rounded
    assert (found[-1] >= paid.min(axis=0) - tolerance).all()
    assert (found[-1] <= paid.max(axis=0) + tolerance).all()
    np.testing.assert_allclose(learned.of(None, 3), np.tile(paid.mean(axis=0), (3, 1)), rtol=1e-12)


def test_nearer_sizes_weigh_more():
    sizes = np.array([[100, 100], [1000, 1000]])
    learned = ExpectedCosts.learn(np.array([[1.0], [11.0]]), sizes)
    near, middle = learned.of(np.array([[110, 110], [316, 316]]), 2)[:, 0]
    distance = np.log([1.1, 1000 / 110])
    assert near == pytest.approx((1 / distance[0] + 11 / distance[1]) / (1 / distance).sum())
    assert middle == pytest.approx(6, abs=0.02)


def test_what_always_costs_the_same_is_expected_to_the_digit():
    paid = np.tile([0.1, 0.3], (7, 1))
    learned = ExpectedCosts.learn(paid, np.array([[10 + n, 20] for n in range(7)]))
    assert learned.constant and not len(learned.sizes) and learned.is_exact(None)
    assert learned.of(np.array([[9999, 1]]), 1).tolist() == [[0.1, 0.3]]


def test_costs_that_are_none_are_refused():
    with pytest.raises(DataError, match="got 0 examples"):
        ExpectedCosts.learn(np.zeros((0, 2)), None)
    with pytest.raises(DataError, match="some without such costs"):
        ExpectedCosts.learn(np.array([[1.0, np.nan]]), None)
    with pytest.raises(DataError, match="damaged"):
        ExpectedCosts.of_payload({"means": [1.0]}, options=2)


BINDING = Binding(options=("low", "mid", "high"), cost_unit="seconds", router="", split="")


def noisy(count, seed=0):
    """Seconds that vary far more between answers than between options, and who is right."""
    random = np.random.default_rng(seed)
    p = np.sort(random.random((count, 3)), axis=1)
    paid = np.array([1.0, 1.1, 1.3]) * random.uniform(0.2, 1.8, (count, 3))
    return p, np.tile(paid.mean(axis=0), (count, 1)), paid, (random.random(p.shape) < p) * 1.0


@pytest.mark.parametrize("seed", range(5))
def test_default_budgets_can_be_met_by_who_does_not_know_the_costs(seed):
    p, costs, paid, _ = noisy(60, seed)
    budgets = default_budgets(paid, costs)
    assert len(budgets) == 3
    for budget in budgets:
        made = for_budget(p, costs, budget=budget, binding=BINDING, paid=paid)
        choice = made.choose(p, costs)
        assert made.calibration["mean_cost"] == paid[np.arange(60), choice].mean() <= budget


@pytest.mark.parametrize("seed", range(5))
def test_budgets_between_the_extremes_of_what_was_paid_are_kept(seed):
    """What is paid may rise with the price: where it is least there may be no cheapest option."""
    p, costs, paid, _ = noisy(12, seed)
    prices = [0.0, *np.geomspace(1e-4, 1e4, 400)]
    made = [(p - price * costs).argmax(axis=1) for price in prices]
    reached = [paid[np.arange(12), choice].mean() for choice in made]
    for budget in np.linspace(min(reached), max(reached), 9):
        policy = for_budget(p, costs, budget=float(budget), binding=BINDING, paid=paid)
        assert policy.calibration["mean_cost"] <= budget * (1 + 1e-9)


def test_a_guaranteed_policy_is_the_cheapest_certified_by_what_was_paid():
    random = np.random.default_rng(3)
    n = 400
    hard = random.random(n) < 0.4
    scores = np.column_stack([~hard, np.ones(n), np.ones(n)]).astype(float)
    p = np.column_stack([np.where(hard, 0.1, 0.7), np.full(n, 0.95), np.full(n, 0.97)])
    costs = np.tile([1.0, 2.0, 3.0], (n, 1))
    paid = np.where(hard[:, None], costs, [[9.0, 2.0, 3.0]])  # the cheapest turned out dear
    names = np.array([str(one) for one in range(n)])
    part = Labelled(p=p, costs=costs, scores=scores, groups=names, most=1, paid=paid, ids=names)
    target = Target(max_regret=0.05, reference="high")
    made = for_target(part, tune=part, target=target, binding=BINDING)
    assert not made.fallback and made.calibration["mean_cost"] == 2.0

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from m3router.data.errors import DataError, MismatchError
from m3router.router.policies.fitting import for_budget, for_max_loss, for_price
from m3router.router.policies.policy import Binding, Policy
from m3router.router.policies.references import best_option


def binding(k):
    options = tuple(f"s{i}" for i in range(k))
    return Binding(options=options, cost_unit="visual tokens", router="r" * 64, split="s" * 64)


def priced(lam, k, *, cost_scale=1.0):
    return Policy(binding=binding(k), kind="price", lam=lam, cost_scale=cost_scale)


def mean_cost(policy, p, costs):
    return costs[np.arange(len(p)), policy.choose(p, costs)].mean()


@st.composite
def problems(draw):
    """Arbitrary probabilities, positive costs in any order, and scores, all (N, K)."""
    shape = draw(st.tuples(st.integers(1, 30), st.integers(1, 9)))
    p = draw(hnp.arrays(np.float64, shape, elements=st.floats(0, 1, width=32)))
    costs = draw(hnp.arrays(np.float64, shape, elements=st.floats(1, 600, width=16)))
    scores = draw(hnp.arrays(np.float64, shape, elements=st.sampled_from([0.0, 0.3, 1.0])))
    return p, costs, scores


@st.composite
def exact_problems(draw):
    """Values whose products and sums are exact in floats, so that monotonicity is strict."""
    shape = draw(st.tuples(st.integers(1, 30), st.integers(1, 9)))
    p = draw(hnp.arrays(np.int64, shape, elements=st.integers(0, 256))) / 256
    costs = draw(hnp.arrays(np.int64, shape, elements=st.integers(0, 600))).astype(float)
    return p, costs


@given(exact_problems(), st.integers(0, 4096), st.integers(0, 4096))
def test_mean_cost_never_rises_with_the_price(problem, first, second):
    p, costs = problem
    low, high = sorted((first / 65536, second / 65536))
    k = p.shape[1]
    assert mean_cost(priced(high, k), p, costs) <= mean_cost(priced(low, k), p, costs)


def within(costs, share):
    """A cap that leaves every row an option: from the highest least cost to the highest cost."""
    low, high = costs.min(axis=1).max(), costs.max()
    return float(low + share * (high - low))


kinds = st.sampled_from(["price", "regret", "fixed"])
places = st.integers(0, 8)
shares = st.none() | st.floats(0, 1)


@given(problems(), st.floats(0, 10), kinds, shares, places)
def test_one_decision_equals_the_batch(problem, lam, kind, share, place):
    p, costs, _ = problem
    cap = None if share is None else within(costs, share)
    policy = replace(priced(lam, p.shape[1], cost_scale=123.4), kind=kind, cap=cap)
    policy = replace(policy, reference=f"s{place % p.shape[1]}")
    choices = policy.choose(p, costs)
    assert [policy.decide(q, c) for q, c in zip(p, costs, strict=True)] == choices.tolist()


def stands_for(place, inside, costs):
    """What stands for an option where only those `inside` exist, told in words in the docs."""
    before = [k for k in inside if k <= place]
    return before[-1] if before else min(inside, key=lambda k: costs[k])


@given(problems(), st.floats(0, 10), kinds, st.floats(0, 1), places)
def test_the_cap_is_never_exceeded_and_binds_nothing_else(problem, lam, kind, share, place):
    p, costs, _ = problem
    rows, cap, place = np.arange(len(p)), within(costs, share), place % p.shape[1]
    policy = replace(priced(lam, p.shape[1]), kind=kind, cap=cap, reference=f"s{place}")
    assert np.all(costs[rows, policy.choose(p, costs)] <= cap)
    # each row is decided as if the options beyond the cap did not exist
    for q, c, choice in zip(p, costs, policy.choose(p, costs), strict=True):
        inside = np.flatnonzero(c <= cap)
        against = inside.tolist().index(stands_for(place, inside, c))
        alone = replace(priced(lam, len(inside)), kind=kind, reference=f"s{against}")
        assert inside[alone.decide(q[inside], c[inside])] == choice


@given(problems(), st.floats(0, 1), st.floats(0, 1))
def test_a_budget_under_a_cap_keeps_both(problem, fraction, share):
    p, costs, _ = problem
    cap, least = within(costs, share), costs.min(axis=1).mean()
    budget = least + fraction * (costs.max(axis=1).mean() - least)
    policy = for_budget(p, costs, budget=budget, cap=cap, binding=binding(p.shape[1]))
    assert mean_cost(policy, p, costs) <= budget * (1 + 1e-9)
    assert np.all(costs[np.arange(len(p)), policy.choose(p, costs)] <= cap)
    assert policy.knob == {"budget": budget, "cap": cap}


@given(exact_problems(), places)
def test_against_regret_price_zero_takes_the_reference_unless_nothing_can_be_lost(problem, place):
    p, costs = problem
    place %= p.shape[1]
    policy = replace(priced(0.0, p.shape[1]), kind="regret", reference=f"s{place}")
    for q, choice in zip(p, policy.choose(p, costs), strict=True):
        assert choice == place or q[place] * (1 - q[choice]) == 0


@given(problems(), st.floats(0, 10), shares, places)
def test_against_regret_nothing_that_costs_more_than_the_reference_is_chosen(
    problem, lam, share, place
):
    p, costs, _ = problem
    rows, cap = np.arange(len(p)), None if share is None else within(costs, share)
    policy = replace(priced(lam, p.shape[1]), kind="regret", cap=cap)
    policy = replace(policy, reference=f"s{place % p.shape[1]}")
    reference = costs[rows, policy.reference_choice(costs)]
    assert np.all(costs[rows, policy.choose(p, costs)] <= reference)


@given(problems(), shares, places)
def test_under_a_cap_the_reference_is_the_last_allowed_up_to_it_else_the_cheapest(
    problem, share, place
):
    p, costs, _ = problem
    cap, place = np.inf if share is None else within(costs, share), place % p.shape[1]
    policy = replace(priced(0.0, p.shape[1]), reference=f"s{place}", cap=cap)
    wanted = [stands_for(place, np.flatnonzero(c <= cap), c) for c in costs]
    assert policy.reference_choice(costs).tolist() == wanted
    if share is None:
        assert wanted == [place] * len(p)


@given(problems(), shares)
def test_the_best_option_is_the_best_of_all_that_always_take_one(problem, share):
    p, costs, scores = problem
    rows, cap = np.arange(len(p)), None if share is None else within(costs, share)
    found = []
    for place in range(p.shape[1]):
        policy = replace(priced(0.0, p.shape[1]), kind="fixed", reference=f"s{place}", cap=cap)
        choice = policy.choose(p, costs)
        found.append((round(scores[rows, choice].mean(), 12), costs[rows, choice].mean()))
    best = best_option(scores, costs, cap=cap)
    assert found[best][0] == max(one[0] for one in found)
    tied = [cost for accuracy, cost in found if accuracy == found[best][0]]
    assert found[best][1] == pytest.approx(min(tied))


def test_a_reference_that_there_is_not_is_refused_with_the_nearest():
    p, costs = np.array([[0.5, 0.9]] * 2), np.array([[2.0, 10.0]] * 2)
    with pytest.raises(DataError, match="reference must be one of its options s0, s1"):
        replace(priced(0.0, 2), reference="s2")
    message = "Unknown reference option 'S1'. Did you mean 's1'. Known: s0, s1"
    with pytest.raises(DataError, match=message):
        for_max_loss(
            p, costs, scores=np.ones((2, 2)), max_loss_points=0, binding=binding(2), reference="S1"
        )


def test_a_loss_is_against_the_best_option_or_the_one_that_is_named():
    # the most expensive option is worse than the one before it, and the router knows
    p, costs = np.array([[0.2, 0.9, 0.5]] * 4), np.array([[1.0, 9.0, 36.0]] * 4)
    scores = np.array([[0.0, 1.0, 1.0], [0.0, 1.0, 0.0]] * 2)
    for points, accuracy in ((0, 1.0), (50, 1.0)):
        policy = for_max_loss(p, costs, scores=scores, max_loss_points=points, binding=binding(3))
        assert (policy.reference, policy.calibration["accuracy"]) == ("s1", accuracy)
        assert not policy.fallback
    named = for_max_loss(
        p, costs, scores=scores, max_loss_points=50, binding=binding(3), reference="s2"
    )
    assert (named.reference, named.calibration["accuracy"]) == ("s2", 0.0)
    # a router that is wrong about everything falls back to the best option, not to the last
    hopeless = for_max_loss(
        np.array([[0.9, 0.1, 0.5]] * 4), costs, scores=scores, max_loss_points=0, binding=binding(3)
    )
    assert (hopeless.kind, hopeless.fallback, hopeless.reference) == ("fixed", True, "s1")
    assert hopeless.choose(p, costs).tolist() == [1] * 4
    assert "goes to the reference option, s1" in hopeless.reason


@given(problems(), st.floats(0, 1))
def test_budget_is_met_by_the_dearest_policy_that_meets_it(problem, fraction):
    p, costs, _ = problem
    least, most = costs.min(axis=1).mean(), costs.max(axis=1).mean()
    budget = least + fraction * (most - least)
    policy = for_budget(p, costs, budget=budget, binding=binding(p.shape[1]))
    reached = mean_cost(policy, p, costs)
    assert reached <= budget or reached == pytest.approx(budget)
    assert policy.calibration == {"n": len(p), "mean_cost": pytest.approx(reached)}
    # no other price within the budget spends more: a dense grid as reference
    for lam in np.concatenate([[0.0], np.geomspace(1e-6, 10, 200)]):
        other = mean_cost(replace(policy, lam=lam), p, costs)
        assert other > budget or other <= reached + 1e-6


@given(problems(), st.floats(-5, 60))
def test_loss_is_met_by_the_cheapest_price_or_it_falls_back(problem, points):
    p, costs, scores = problem
    best = np.lexsort((costs.mean(axis=0), -scores.mean(axis=0)))[0]
    target = scores[:, best].mean() - points / 100
    policy = for_max_loss(
        p, costs, scores=scores, max_loss_points=points, binding=binding(p.shape[1])
    )
    rows = np.arange(len(p))
    choice = policy.choose(p, costs)
    assert policy.calibration["accuracy"] == pytest.approx(scores[rows, choice].mean())
    if policy.fallback:
        assert policy.kind == "fixed"
        # Equal means may differ in their last bit, by the order of their terms.
        assert np.all(choice == choice[0])
        assert scores[:, choice[0]].mean() == pytest.approx(scores[:, best].mean(), abs=1e-12)
        assert "no price reaches" in policy.reason
    else:
        assert scores[rows, choice].mean() >= target - 1e-9
    for lam in np.concatenate([[0.0], np.geomspace(1e-6, 10, 200)]):
        other = replace(policy, kind="price", lam=lam)
        if scores[rows, other.choose(p, costs)].mean() >= target + 1e-9:
            assert not policy.fallback
            assert mean_cost(policy, p, costs) <= mean_cost(other, p, costs) + 1e-6


def test_a_given_price_is_kept_per_unit_of_cost():
    p, costs = np.array([[0.5, 0.9]] * 2), np.array([[2.0, 10.0]] * 2)
    for price, chosen in ((0.049, 1), (0.051, 0)):  # 0.4 of probability for 8 units
        policy = for_price(p, costs, price=price, binding=binding(2))
        assert policy.price == pytest.approx(price)
        assert policy.decide(p[0], costs[0]) == chosen
        assert policy.calibration == {"n": 2, "mean_cost": [2.0, 10.0][chosen]}
    assert for_price(p, costs, price=0.1, cap=5.0, binding=binding(2)).knob == {
        "price": 0.1,
        "cap": 5.0,
    }


def test_a_cap_below_the_cheapest_option_is_refused_everywhere():
    p, costs = np.array([[0.5, 0.9]] * 2), np.array([[2.0, 10.0], [4.0, 10.0]])
    message = "cap of 3 is below the cheapest option of .* costs 4"
    for kind in ("price", "regret", "fixed"):
        policy = replace(priced(0.1, 2), kind=kind, cap=3.0)
        assert policy.decide(p[0], costs[0]) == 0
        with pytest.raises(DataError, match=message):
            policy.decide(p[1], costs[1])
        with pytest.raises(DataError, match=message):
            policy.choose(p, costs)
    with pytest.raises(DataError, match=message):
        for_price(p, costs, price=0.0, cap=3.0, binding=binding(2))
    with pytest.raises(DataError, match=message):
        for_budget(p, costs, budget=5.0, cap=3.0, binding=binding(2))


def test_a_loss_under_a_cap_is_against_the_best_within_it():
    p, costs = np.array([[0.2, 0.5, 0.9]] * 4), np.array([[1.0, 9.0, 36.0]] * 4)
    scores = np.array([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]] * 2)
    policy = for_max_loss(p, costs, scores=scores, max_loss_points=0, cap=9.0, binding=binding(3))
    assert not policy.fallback
    assert policy.choose(p, costs).tolist() == [1] * 4
    worse = for_max_loss(p, costs, scores=scores, max_loss_points=-10, cap=9.0, binding=binding(3))
    assert worse.fallback
    assert "reference option, s1, or what stands for it within the cap of 9" in worse.reason
    assert worse.decide(p[0], costs[0]) == 1


def test_price_zero_takes_the_best_estimate_and_ties_go_to_the_cheaper():
    p = np.array([[0.2, 0.9, 0.5], [0.7, 0.7, 0.7], [0.7, 0.7, 0.1]])
    costs = np.array([[1.0, 9.0, 36.0], [9.0, 1.0, 36.0], [5.0, 5.0, 1.0]])
    assert priced(0.0, 3).choose(p, costs).tolist() == [1, 1, 0]


def test_costs_need_not_grow_with_the_scale():
    policy = for_budget(
        np.array([[0.5, 0.6], [0.5, 0.6]]),
        np.array([[10.0, 4.0], [1.0, 8.0]]),
        budget=2.5,
        binding=binding(2),
    )
    assert policy.calibration["mean_cost"] == 2.5


def test_a_budget_that_allows_everything_costs_nothing():
    p = np.array([[0.1, 0.9]] * 3)
    policy = for_budget(p, np.array([[1.0, 9.0]] * 3), budget=9.0, binding=binding(2))
    assert policy.lam == 0
    assert policy.choose(p, np.array([[1.0, 9.0]] * 3)).tolist() == [1, 1, 1]


@pytest.mark.parametrize("budget", [0.9, 0.0, -1.0, float("nan")])
def test_a_budget_below_the_cheapest_option_is_refused(budget):
    p, costs = np.array([[0.1, 0.9]]), np.array([[1.0, 9.0]])
    with pytest.raises(DataError, match="at least 1 visual tokens.*Raise the budget"):
        for_budget(p, costs, budget=budget, binding=binding(2))


def test_nothing_qualifies_says_so():
    p, costs = np.array([[0.9, 0.2]] * 4), np.array([[1.0, 9.0]] * 4)
    scores = np.array([[0.0, 1.0]] * 4)
    policy = for_max_loss(p, costs, scores=scores, max_loss_points=1, binding=binding(2))
    assert policy.fallback
    assert "0.9900 on the 4 calibration examples (best 0.0000)" in policy.reason
    assert policy.calibration == {"n": 4, "mean_cost": 9.0, "accuracy": 1.0}
    assert policy.decide(p[0], costs[0]) == 1


def test_the_most_expensive_option_need_not_be_the_best():
    p, costs = np.array([[0.9, 0.3]] * 4), np.array([[1.0, 9.0]] * 4)
    scores = np.array([[1.0, 0.0]] * 4)
    policy = for_max_loss(
        p, costs, scores=scores, max_loss_points=-50, binding=binding(2), reference="s1"
    )
    assert not policy.fallback
    assert policy.calibration["accuracy"] == 1.0


def test_scores_with_gaps_are_refused():
    with pytest.raises(DataError, match="gaps drop"):
        for_max_loss(
            np.array([[0.5, 0.5]]),
            np.array([[1.0, 2.0]]),
            scores=np.array([[1.0, np.nan]]),
            max_loss_points=1,
            binding=binding(2),
        )


@pytest.mark.parametrize("kind", ["price", "regret", "fixed"])
@pytest.mark.parametrize(
    ("p", "costs"),
    [
        ([np.nan, 0.5], [1.0, 2.0]),
        ([0.5, 0.5], [1.0, np.inf]),
        ([0.5, 0.5], [1.0, -1.0]),
        ([0.5, 1.1], [1.0, 2.0]),
        ([-0.1, 0.5], [1.0, 2.0]),
    ],
)
def test_what_is_no_probability_or_cost_is_refused(kind, p, costs):
    policy = replace(priced(0.1, 2), kind=kind)
    with pytest.raises(DataError, match="must lie in .0, 1., and costs be finite"):
        policy.decide(np.array(p), np.array(costs))
    with pytest.raises(DataError):
        policy.choose(np.array([p]), np.array([costs]))


def test_another_number_of_options_is_refused():
    with pytest.raises(MismatchError, match="2 options.*got 3"):
        priced(0.1, 2).decide(np.full(3, 0.5), np.ones(3))
    with pytest.raises(MismatchError, match="2 options.*got 3"):
        priced(0.1, 2).choose(np.full((1, 3), 0.5), np.ones((1, 3)))


@pytest.mark.parametrize(
    "change",
    [
        {"lam": -1.0},
        {"lam": float("nan")},
        {"cost_scale": 0.0},
        {"kind": "cheapest"},
        {"cap": -1.0},
        {"cap": float("nan")},
        {"reference": "s2"},
    ],
)
def test_invalid_rules_are_refused(change):
    with pytest.raises(DataError, match="A policy"):
        replace(priced(0.1, 2), **change)


def test_round_trip(tmp_path):
    p, costs = np.array([[0.1, 0.9]] * 3), np.array([[1.0, 9.0]] * 3)
    for policy in (
        for_budget(p, costs, budget=3, binding=binding(2)),
        for_max_loss(p, costs, scores=1 - p, max_loss_points=-100, binding=binding(2)),
    ):
        policy.write(tmp_path / "policy.json")
        assert Policy.read(tmp_path / "policy.json") == policy


def test_every_edited_byte_is_refused(tmp_path):
    path = tmp_path / "policy.json"
    priced(0.25, 2).write(path)
    content = path.read_bytes()
    for position in range(len(content)):
        for bit in (1, 16):
            damaged = bytearray(content)
            damaged[position] ^= bit
            path.write_bytes(bytes(damaged))
            with pytest.raises(DataError):
                Policy.read(path)
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match=str(path)):
            Policy.read(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="Cannot read the policy at .*policy.json"):
        Policy.read(tmp_path / "policy.json")


def test_a_policy_for_something_else_names_both_sides():
    policy = priced(0.1, 2)
    policy.check_fits(options=("s0", "s1"), router="r" * 64, split="s" * 64)
    policy.check_fits(options=["s0", "s1"])
    with pytest.raises(MismatchError, match="s0, s1,.* with 1, 576. C"):
        policy.check_fits(options=("1", "576"))
    with pytest.raises(MismatchError, match="another router .*rrrrrrrrrrrr and xxxxxxxxxxxx"):
        policy.check_fits(options=("s0", "s1"), router="x" * 64)
    with pytest.raises(MismatchError, match="another split .*ssssssssssss and yyyyyyyyyyyy"):
        policy.check_fits(options=("s0", "s1"), split="y" * 64)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("knob", "message"), [("price", "price"), ("budget", "budget"), ("loss", "maximal loss")]
)
def test_numbers_that_are_none_are_refused_by_name(knob, message, number):
    p, costs = np.full((4, 2), 0.5), np.tile([1.0, 2.0], (4, 1))
    with pytest.raises(DataError, match=message):
        if knob == "price":
            for_price(p, costs, price=number, binding=binding(2))
        elif knob == "budget":
            for_budget(p, costs, budget=number, binding=binding(2))
        else:
            for_max_loss(p, costs, scores=p, max_loss_points=number, binding=binding(2))


def test_a_negative_price_is_refused_as_it_was_given():
    p, costs = np.full((4, 2), 0.5), np.tile([1.0, 576.0], (4, 1))
    with pytest.raises(DataError, match="it is -1"):
        for_price(p, costs, price=-1.0, binding=binding(2))

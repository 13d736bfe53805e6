from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from m3router.data.errors import DataError
from m3router.router.policies.price_sweep import choose_at, sweep, worths


def exact_choice(p, costs, price):
    """The rule for one example in rational arithmetic: best value, then cheapest, then first."""
    value = [
        Fraction(float(q)) - Fraction(price) * Fraction(float(c))
        for q, c in zip(p, costs, strict=True)
    ]
    return min(range(len(p)), key=lambda k: (-value[k], costs[k], k))


def exact_outcomes(p, costs):
    """Every distinct mean cost in order of rising price, by trying all crossings of all lines."""
    crossings = {Fraction(0)}
    for q, c in zip(p, costs, strict=True):
        for i in range(len(q)):
            for j in range(len(q)):
                if c[i] > c[j] and q[i] > q[j]:
                    gain = Fraction(float(q[i])) - Fraction(float(q[j]))
                    crossings.add(gain / (Fraction(float(c[i])) - Fraction(float(c[j]))))
    outcomes = []
    for price in sorted(crossings):
        choice = [exact_choice(q, c, price) for q, c in zip(p, costs, strict=True)]
        cost = sum(Fraction(float(c[k])) for c, k in zip(costs, choice, strict=True)) / len(p)
        if not outcomes or outcomes[-1] != cost:
            outcomes.append(cost)
    return [float(cost) for cost in outcomes]


@st.composite
def problems(draw, max_rows=6):
    """Probabilities in 1/64 and whole costs: the rule's arithmetic is then exact in floats."""
    shape = draw(st.tuples(st.integers(1, max_rows), st.integers(1, 5)))
    p = draw(hnp.arrays(np.int64, shape, elements=st.integers(0, 64))) / 64
    costs = draw(hnp.arrays(np.int64, shape, elements=st.integers(0, 40))).astype(float)
    return p, costs


@given(problems())
def test_finds_every_outcome_and_no_other(problem):
    p, costs = problem
    found = sweep(p, costs).cost
    np.testing.assert_allclose(np.unique(found), np.unique(exact_outcomes(p, costs)), atol=1e-9)


@given(problems(max_rows=20))
def test_every_price_gives_the_outcome_it_says(problem):
    p, costs = problem
    scores = (p > 0.5).astype(float)
    steps = sweep(p, costs, scores=scores)
    rows = np.arange(len(p))
    for price, cost, accuracy in zip(steps.prices, steps.cost, steps.accuracy, strict=True):
        choice = choose_at(p, costs, price)
        assert costs[rows, choice].mean() == pytest.approx(cost, abs=1e-9)
        assert scores[rows, choice].mean() == pytest.approx(accuracy, abs=1e-9)


@given(problems(max_rows=20), st.booleans(), st.floats(0, 1), st.integers(-1, 4))
def test_every_price_gives_the_outcome_it_says_under_a_cap_and_against_regret(
    problem, regret, share, reference
):
    p, costs = problem
    least = costs.min(axis=1).max()
    cap = float(least + share * (costs.max() - least))
    reference = min(reference, p.shape[1] - 1)
    steps = sweep(p, costs, regret=regret, cap=cap, reference=reference)
    worth = worths(p, costs, regret=regret, cap=cap, reference=reference)
    for price, cost in zip(steps.prices, steps.cost, strict=True):
        chosen = costs[np.arange(len(p)), choose_at(worth, costs, price)]
        assert chosen.mean() == pytest.approx(cost, abs=1e-9)
        assert np.all(chosen <= cap)


@given(problems())
def test_goes_from_the_best_estimate_to_the_cheapest(problem):
    p, costs = problem
    steps = sweep(p, costs)
    assert steps.prices[0] == 0
    assert np.all(np.diff(steps.prices) > 0)
    assert np.all(np.diff(steps.cost) <= 1e-9)
    best = p.max(axis=1, keepdims=True)
    dearest = np.where(p == best, costs, np.inf).min(axis=1).mean()
    assert steps.cost[0] == pytest.approx(dearest)
    assert steps.cost[-1] == pytest.approx(costs.min(axis=1).mean(), abs=1e-9)


@given(problems(), st.integers(0, 64))
def test_choice_equals_exact_arithmetic(problem, price):
    p, costs = problem
    choice = choose_at(p, costs, price / 1024)
    for row, taken in enumerate(choice):
        assert taken == exact_choice(p[row], costs[row], Fraction(price, 1024))


def test_closed_form():
    # at price w: 0.9 - 10 w against 0.5 - 2 w crosses at w = 0.05
    steps = sweep(np.array([[0.5, 0.9]]), np.array([[2.0, 10.0]]), scores=np.array([[0.0, 1.0]]))
    np.testing.assert_allclose(steps.cost, [10, 2])
    np.testing.assert_allclose(steps.accuracy, [1, 0])
    assert steps.prices[1] > 0.05


def test_without_scores_the_accuracy_is_undefined():
    assert np.isnan(sweep(np.array([[0.5, 0.9]]), np.array([[2.0, 10.0]])).accuracy).all()


@pytest.mark.parametrize(
    ("p", "costs", "message"),
    [
        (np.zeros((0, 2)), np.zeros((0, 2)), "neither empty"),
        (np.zeros((2, 2)), np.zeros((2, 3)), r"\(2, 2\) and \(2, 3\)"),
        (np.array([[0.5, np.nan]]), np.ones((1, 2)), "row 0, option 1"),
        (np.array([[0.5, 1.5]]), np.ones((1, 2)), "option 1 has 1.5"),
        (np.array([[0.5, 0.5]]), np.array([[1.0, np.nan]]), "Costs must be finite"),
        (np.array([[0.5, 0.5]]), np.array([[1.0, -1.0]]), "option 1 has -1.0"),
    ],
)
def test_bad_input_is_refused(p, costs, message):
    with pytest.raises(DataError, match=message):
        sweep(p, costs)

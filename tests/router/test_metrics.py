from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from m3router.data.errors import DataError
from m3router.router.cascade.rule import Rule
from m3router.router.metrics import choices, hull, oracles
from m3router.router.metrics.oracle_curve import corrected_curve
from m3router.router.policies.price_sweep import choose_at, decide_at

TOKENS = np.array([1.0, 9.0, 36.0, 144.0, 576.0])


@st.composite
def curves(draw, max_points=12):
    """Costs and accuracies (P,) on a small grid, so that ties and duplicates are frequent."""
    n = draw(st.integers(1, max_points))
    cost = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 12))).astype(float)
    accuracy = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 8))) / 8
    return cost, accuracy


# --- sufficiency ---


def test_rules_by_hand():
    scores = np.array(
        [
            [0, 1, 0, 1, 1],  # lucky at 9
            [1, 1, 1, 1, 1],
            [0, 0, 0, 0, 0],  # never correct
            [1, 1, 1, 1, 0],  # wrong at the finest
            [0, 0.4, 0.6, 0.5, 1],  # soft
        ],
        dtype=float,
    )
    costs = np.tile(TOKENS, (5, 1))
    assert oracles.first_correct(scores, costs).tolist() == [1, 0, 0, 0, 2]
    assert oracles.stable(scores, costs).tolist() == [3, 0, 0, 0, 2]
    assert oracles.oracle_choice(scores, costs).tolist() == [1, 0, 0, 0, 4]
    assert oracles.first_correct(scores, costs, threshold=0.4)[4] == 1


def test_cheapest_is_by_cost_not_by_name():
    scores = np.array([[1.0, 1.0, 1.0]])
    costs = np.array([[7.0, 3.0, 5.0]])
    assert oracles.first_correct(scores, costs).tolist() == [1]
    assert oracles.oracle_choice(scores, costs).tolist() == [1]


def test_matches_full_needs_no_truth():
    answers = np.array([["a", "b", "b"], ["c", "d", "e"], ["f", "f", "f"]], dtype=object)
    costs = np.tile([1.0, 2.0, 3.0], (3, 1))
    assert oracles.matches_full(answers, costs).tolist() == [1, 2, 0]


@given(hnp.arrays(np.float64, (15, 4), elements=st.sampled_from([0.0, 0.3, 1.0])))
def test_no_choice_beats_the_raw_oracle(scores):
    costs = np.tile(TOKENS[:4], (15, 1))
    best = choices.taken(scores, oracles.oracle_choice(scores, costs))
    np.testing.assert_array_equal(best, scores.max(axis=1))


@st.composite
def unordered(draw, *, rows=6, options=4):
    """Scores, costs on a small grid in any order, and answers, all (N, K): ties are frequent."""
    shape = (rows, options)
    scores = draw(hnp.arrays(np.float64, shape, elements=st.sampled_from([0.0, 1.0])))
    costs = draw(hnp.arrays(np.float64, shape, elements=st.sampled_from([1.0, 2.0, 3.0])))
    said = draw(hnp.arrays(np.int64, shape, elements=st.integers(0, 2)))
    return scores, costs, said


def least(options, costs):
    """Of some options the cheapest for this example, then the first in rank."""
    return min(options, key=lambda k: (costs[k], k))


@given(unordered())
def test_ties_go_to_the_option_that_is_cheaper_for_the_example(drawn):
    scores, costs, said = drawn
    every = range(costs.shape[1])
    found = {
        "best": oracles.oracle_choice(scores, costs),
        "first": oracles.first_correct(scores, costs),
        "stable": oracles.stable(scores, costs),
        "full": oracles.matches_full(said.astype(object), costs),
        "worth": choose_at(scores, costs, 0.0),
        "one": [
            decide_at(p, c, 0.0, kind="price", cap=None)
            for p, c in zip(scores.tolist(), costs.tolist(), strict=True)
        ],
    }
    for row, (score, cost, text) in enumerate(zip(scores, costs, said, strict=True)):
        right = [k for k in every if score[k] == 1]
        lasting = [k for k in every if score[k:].all()]
        alike = [k for k in every if text[k] == text[-1]]
        best = [k for k in every if score[k] == score.max()]
        expected = {"best": best, "first": right, "stable": lasting, "full": alike}
        expected |= {"worth": best, "one": best}
        for name, options in expected.items():
            assert found[name][row] == least(options or every, cost), name


@given(unordered(), st.integers(0, 3))
def test_of_equal_options_a_cascade_asks_the_cheaper(drawn, at):
    scores, costs, _ = drawn
    found = Rule.following(scores, costs, np.full(len(scores), at), 0.0)
    for row, (score, cost) in enumerate(zip(scores, costs, strict=True)):
        finer = [k for k in range(at + 1, costs.shape[1]) if score[k] > score[at]]
        assert found[row] == (least(finer, cost) if finer else -1)


@given(unordered())
def test_without_chance_the_corrected_oracle_is_the_raw_one_at_any_costs(drawn):
    scores, costs, said = drawn
    raw = oracles.oracle_rows("first_correct", scores, costs, said)
    chance = np.zeros(len(scores))
    whole = oracles.corrected_rows("first_correct", scores, costs, chance)
    curve = [one[:, 0] for one in corrected_curve(scores, costs, chance)]
    for found in (whole, curve):
        np.testing.assert_allclose(found[0], raw[0], atol=1e-12)
        np.testing.assert_allclose(found[1], raw[1], atol=1e-12)


# --- the corrected oracle ---


def answers_of(knows, chance, generator):
    return (knows | (generator.random(knows.shape) < chance[:, None])).astype(float)


def truth_of(knows, chance, costs):
    """Accuracy and cost of an oracle that sees the knowledge: first that knows, else finest."""
    any_known = knows.any(axis=1)
    first = np.where(any_known, knows.argmax(axis=1), knows.shape[1] - 1)
    return np.where(any_known, 1.0, chance).mean(), choices.taken(costs, first).mean()


def test_corrected_oracle_is_unbiased_on_simulated_answerers():
    """Known truth: the mean of many simulated logs is the oracle that sees the knowledge."""
    generator = np.random.default_rng(0)
    n, k = 300, 4
    knows = generator.random((n, k)) < np.array([0.1, 0.2, 0.3, 0.4])
    chance = generator.choice([0.0, 0.25, 0.5], size=n)
    costs = np.tile(TOKENS[:k], (n, 1)) + generator.random((n, k))
    accuracy, cost = truth_of(knows, chance, costs)
    raw, found = [], []
    for _ in range(400):
        scores = answers_of(knows, chance, generator)
        rows = oracles.corrected_oracle_rows(scores, costs, chance)
        found.append([rows[0].mean(), rows[1].mean()])
        raw.append(scores.max(axis=1).mean())
    mean = np.mean(found, axis=0)
    error = np.std(found, axis=0) / np.sqrt(len(found))
    assert abs(mean[0] - accuracy) < 4 * error[0]
    assert abs(mean[1] - cost) < 4 * error[1]
    assert np.mean(raw) > accuracy + 0.03  # what the correction is for


def test_corrected_oracle_is_unbiased_when_nothing_is_known():
    generator = np.random.default_rng(1)
    n, k, g = 4000, 3, 0.5
    chance, costs = np.full(n, g), np.tile(TOKENS[:k], (n, 1))
    scores = answers_of(np.zeros((n, k), dtype=bool), chance, generator)
    accuracy, cost = oracles.corrected_oracle_rows(scores, costs, chance)
    assert scores.max(axis=1).mean() == pytest.approx(1 - 0.5**3, abs=0.03)
    assert accuracy.mean() == pytest.approx(g, abs=4 * accuracy.std() / np.sqrt(n))
    assert cost.mean() == pytest.approx(36.0, abs=4 * cost.std() / np.sqrt(n))


def test_correlated_guesses_are_over_corrected():
    """The warning in the docstring: one guess for all options gives less than the truth."""
    generator = np.random.default_rng(2)
    n, k, g = 4000, 4, 0.5
    knows = (generator.random(n) < 0.6)[:, None] & (np.arange(k) >= 1)
    lucky = np.broadcast_to((generator.random(n) < g)[:, None], (n, k))
    scores = (knows | lucky).astype(float)
    costs = np.tile(TOKENS[:k], (n, 1))
    truth, _ = truth_of(knows, np.full(n, g), costs)
    accuracy, _ = oracles.corrected_oracle_rows(scores, costs, np.full(n, g))
    assert accuracy.mean() < truth - 0.05


def sticky_answerer(n, k, *, choices, persistence, generator):
    """Answers of models that know from some scale on; a guess may simply be repeated.

    Answer 0 is right, the others are wrong; known from scale k means never.
    """
    knows = np.arange(k) >= generator.integers(0, k + 1, size=n)[:, None]
    said = generator.integers(choices, size=(n, k))
    for j in range(1, k):
        repeats = generator.random(n) < persistence
        said[repeats, j] = said[repeats, j - 1]
    said[knows] = 0
    return knows, said


@pytest.mark.parametrize("persistence", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("choices", [2, 4, 20])
def test_the_truth_lies_between_new_guesses_everywhere_and_only_at_new_answers(
    persistence, choices
):
    generator = np.random.default_rng(4)
    n, k = 20_000, 5
    knows, said = sticky_answerer(
        n, k, choices=choices, persistence=persistence, generator=generator
    )
    scores, costs = (said == 0).astype(float), np.tile(TOKENS, (n, 1))
    chance = np.full(n, 1 / choices)
    truth, _ = truth_of(knows, chance, costs)
    low, _ = oracles.corrected_oracle_rows(scores, costs, chance)
    repeats = oracles.repeated_answers(said)
    high, _ = oracles.corrected_oracle_rows(scores, costs, chance, repeats=repeats)
    assert low.mean() <= truth + 4 * low.std() / np.sqrt(n)
    assert high.mean() >= truth - 4 * high.std() / np.sqrt(n)
    assert high.mean() <= scores.max(axis=1).mean() + 1e-12
    if persistence == 1:  # one guess for all scales: exact where repeated answers are known
        assert high.mean() == pytest.approx(truth, abs=4 * high.std() / np.sqrt(n))
    if persistence == 0:  # a new guess at every scale: exact where each counts
        assert low.mean() == pytest.approx(truth, abs=4 * low.std() / np.sqrt(n))


@given(unordered())
def test_a_cheaper_option_is_the_one_that_costs_less_for_the_example(drawn):
    _, costs, said = drawn
    every = range(costs.shape[1])
    expected = [
        [any(t[j] == t[k] and (c[j], j) < (c[k], k) for j in every) for k in every]
        for t, c in zip(said, costs, strict=True)
    ]
    np.testing.assert_array_equal(oracles.repeated_answers(said, costs), expected)


@given(hnp.arrays(np.int64, (7, 4), elements=st.integers(0, 3)))
def test_an_answer_repeats_when_a_cheaper_option_gave_it(said):
    expected = [[row[k] in row[:k] for k in range(4)] for row in said.tolist()]
    np.testing.assert_array_equal(oracles.repeated_answers(said), expected)


@given(hnp.arrays(np.float64, (8, 3), elements=st.sampled_from([0.0, 1.0])))
def test_without_chance_it_is_the_raw_oracle(scores):
    costs = np.tile([1.0, 9.0, 36.0], (8, 1))
    accuracy, cost = oracles.corrected_oracle_rows(
        scores, costs, np.zeros(8), never_known="cheapest"
    )
    choice = oracles.oracle_choice(scores, costs)
    np.testing.assert_allclose(accuracy, choices.taken(scores, choice))
    np.testing.assert_allclose(cost, choices.taken(costs, choice))


@given(
    hnp.arrays(np.float64, (6, 3), elements=st.floats(0, 1)),
    hnp.arrays(np.float64, 6, elements=st.sampled_from([0.0, 0.25, 0.5])),
)
def test_corrected_rows_are_never_above_the_raw_oracle(scores, chance):
    costs = np.tile([1.0, 9.0, 36.0], (6, 1))
    accuracy, _ = oracles.corrected_oracle_rows(scores, costs, chance)
    assert np.all(accuracy <= scores.max(axis=1) + 1e-12)


def test_weights_of_the_cost_sum_to_one():
    generator = np.random.default_rng(3)
    scores = generator.random((20, 5))
    _, cost = oracles.corrected_oracle_rows(scores, np.full((20, 5), 7.0), np.full(20, 0.3))
    np.testing.assert_allclose(cost, 7.0)


@pytest.mark.parametrize("chance", [np.ones(2), np.full(2, -0.1), np.full(2, np.nan), np.zeros(3)])
def test_bad_chance_is_refused(chance):
    with pytest.raises(DataError, match="Chance"):
        oracles.corrected_oracle_rows(np.zeros((2, 2)), np.ones((2, 2)), chance)


def test_unknown_convention_is_refused():
    with pytest.raises(DataError, match="never_known"):
        oracles.corrected_oracle_rows(
            np.zeros((2, 2)), np.ones((2, 2)), np.zeros(2), never_known="middle"
        )


# --- one policy ---


def test_best_fixed_need_not_be_the_finest_and_ties_are_cheaper():
    costs = np.tile([1.0, 9.0, 36.0], (2, 1))
    assert choices.best_fixed(np.array([[0, 1, 0], [0, 1, 1]]), costs) == 1
    assert choices.best_fixed(np.array([[1, 0, 0], [0, 1, 1]]), costs) == 0
    assert choices.best_fixed(np.array([[1, 0], [0, 1]]), np.array([[5.0, 2.0]] * 2)) == 1


def test_regret_counts_only_losses_against_the_reference():
    scores = np.array([[0, 1], [1, 0], [1, 1], [0, 0], [0.4, 1.0]], dtype=float)
    choice = np.zeros(5, dtype=np.intp)
    np.testing.assert_allclose(choices.regret_rows(scores, choice, choice + 1), [1, 0, 0, 0, 0.6])
    np.testing.assert_allclose(choices.regret_rows(scores, choice + 1, choice), [0, 1, 0, 0, 0])
    np.testing.assert_allclose(choices.regret_rows(scores, choice, choice), 0)


# --- curves, each against brute force ---


def dominates(a, b):
    return a[0] <= b[0] and a[1] >= b[1] and a != b


@given(curves())
def test_pareto_front_is_exactly_the_undominated_points(curve):
    points = list(zip(*(values.tolist() for values in curve), strict=True))
    front = hull.pareto_front(*curve)
    kept = [points[i] for i in front]
    undominated = {b for b in points if not any(dominates(a, b) for a in points)}
    assert set(kept) == undominated
    assert len(kept) == len(set(kept))
    assert kept == sorted(kept)


def accuracy_on_hull(curve, budget):
    cost, accuracy = hull.nondecreasing_hull(*curve)
    return np.interp(budget, cost, accuracy) if budget >= cost[0] else float("nan")


def best_mixture(curve, budget):
    """Best accuracy of any mixture of two points within a budget; NaN when none fits."""
    best = float("nan")
    points = list(zip(*curve, strict=True))
    for (c1, a1), (c2, a2) in itertools.product(points, points):
        for share in (0.0, 1.0) if c1 == c2 else (0.0, 1.0, (budget - c2) / (c1 - c2)):
            if 0 <= share <= 1 and share * c1 + (1 - share) * c2 <= budget + 1e-12:
                best = np.fmax(best, share * a1 + (1 - share) * a2)
    return best


@given(curves(max_points=7), st.integers(0, 14))
def test_hull_is_the_best_mixture_within_budget(curve, budget):
    found = accuracy_on_hull(curve, float(budget))
    np.testing.assert_allclose(found, best_mixture(curve, float(budget)), atol=1e-9)


@given(curves())
def test_hull_is_concave_and_rising(curve):
    cost, accuracy = hull.nondecreasing_hull(*curve)
    assert np.all(np.diff(cost) > 0)
    assert np.all(np.diff(accuracy) > 0)
    assert np.all(np.diff(np.diff(accuracy) / np.diff(cost)) < 0)


@given(curves(max_points=6))
def test_aiq_is_the_mean_of_the_hull(curve):
    low, high = 1.0, 9.0
    # every vertex has a whole cost: the trapezoid rule on a grid of quarters is exact except
    # in the one cell where the hull begins, which a fine grid makes negligible
    grid = np.linspace(low, high, 8001)
    reached = np.nan_to_num([accuracy_on_hull(curve, x) for x in grid[::20]])
    expected = np.trapezoid(reached, grid[::20]) / (high - low)
    assert hull.aiq(*curve, low=low, high=high) == pytest.approx(expected, abs=0.003)


def test_aiq_closed_forms():
    # a line from (0, 0) to (1, 1), then flat: 1/2 * 1 + 1 * 1 over [0, 2]
    line = np.array([0.0, 1.0]), np.array([0.0, 1.0])
    assert hull.aiq(*line, low=0, high=2) == pytest.approx(0.75)
    # a worse and more expensive point changes nothing
    worse = np.array([0.0, 1.0, 1.5]), np.array([0.0, 1.0, 0.2])
    assert hull.aiq(*worse, low=0, high=2) == pytest.approx(0.75)
    # a single point answers from its own cost on
    assert hull.aiq(np.array([5.0]), np.array([0.8]), low=0, high=10) == pytest.approx(0.4)
    assert hull.aiq(np.array([5.0]), np.array([0.8]), low=0, high=5) == 0
    with pytest.raises(DataError, match="low < high"):
        hull.aiq(*line, low=1, high=1)


@pytest.mark.parametrize(
    ("cost", "accuracy"),
    [
        (np.zeros(0), np.zeros(0)),
        (np.zeros(2), np.zeros(3)),
        (np.array([np.nan]), np.zeros(1)),
        (np.zeros((1, 1)), np.zeros((1, 1))),
    ],
)
def test_bad_curves_are_refused(cost, accuracy):
    with pytest.raises(DataError, match="curve"):
        hull.pareto_front(cost, accuracy)

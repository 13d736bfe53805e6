"""How trials are judged and on what, against references written differently."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3router.data.errors import DataError
from m3router.data.splits.folds import cross_fit, quarter
from m3router.router.policies.price_sweep import choose_at
from m3router.router.tuning.objective import BUDGETS, budgets, curve, dominated, halves, overall

COSTS = np.array([1.0, 9.0, 36.0, 144.0])


def draw(seed, n=25):
    generator = np.random.default_rng(seed)
    p = generator.random((n, len(COSTS)))
    return p, np.tile(COSTS, (n, 1)), (generator.random(p.shape) < p).astype(float)


def reachable(p, costs, scores, at):
    """Best accuracy within a mean budget: all pairs of prices, mixed."""
    points = set()
    ratios = {
        (p[i, a] - p[i, b]) / (costs[i, a] - costs[i, b])
        for i in range(len(p))
        for a, b in itertools.combinations(range(p.shape[1]), 2)
    }
    prices = sorted(ratio for ratio in ratios if ratio > 0)
    for price in [0.0, *[w * (1 + e) for w in prices for e in (-1e-9, 1e-9)], 1e3]:
        choice = choose_at(p, costs, price)
        rows = np.arange(len(p))
        points.add((float(costs[rows, choice].mean()), float(scores[rows, choice].mean())))
    best = max((a for c, a in points if c <= at * (1 + 1e-9)), default=0.0)
    for (c1, a1), (c2, a2) in itertools.permutations(points, 2):
        if c1 <= at < c2:
            best = max(best, a1 + (a2 - a1) * (at - c1) / (c2 - c1))
    return best


@given(st.integers(0, 2**32 - 1))
def test_a_curve_is_what_mixing_prices_reaches(seed):
    p, costs, scores = draw(seed, n=8)
    at = budgets(costs)
    reached = curve(p, costs, scores, at=at, blocks=["image"])
    for place in (0, 7, 16, 25, BUDGETS - 1):
        expected = reachable(p, costs, scores, at[place])
        np.testing.assert_allclose(reached[place], expected, atol=1e-6)
    assert np.all(np.diff(reached) >= -1e-12)


def test_budgets_are_even_in_the_logarithm_and_shared_by_both_halves():
    at = budgets(np.tile(COSTS, (3, 1)))
    assert (at[0], at[-1]) == pytest.approx((1, 144))
    np.testing.assert_allclose(at[1:] / at[:-1], 144 ** (1 / (BUDGETS - 1)))
    assert at[BUDGETS // 2] == pytest.approx(12)
    low, high = halves(np.where(at <= 12.001, 0.25, 0.75))
    assert low == 0.25
    assert high == pytest.approx((0.25 + 16 * 0.75) / 17)
    assert overall((low, high)) == (low + high) / 2


def test_costs_may_be_free_or_equal():
    p, _, scores = draw(0, n=12)
    free = np.tile([0.0, 1.0, 2.0, 4.0], (12, 1))
    assert budgets(free)[[0, -1]].tolist() == [0.0, 4.0]
    assert np.isfinite(curve(p, free, scores, at=budgets(free), blocks=[])).all()
    equal = np.ones((12, 4))
    reached = curve(p, equal, scores, at=budgets(equal), blocks=[])
    assert len(set(halves(reached))) == 1


def test_a_thrown_away_peek_is_paid_for():
    p, costs, scores = draw(3, n=200)
    at = budgets(costs)
    plain = curve(p, costs, scores, at=at, blocks=["image"])
    peeking = curve(p, costs, scores, at=at, blocks=["image", "peek"])
    assert np.all(peeking <= plain + 1e-12)
    assert peeking[BUDGETS // 2] < plain[BUDGETS // 2]


def test_dominated_means_nowhere_above_the_median_and_somewhere_below():
    earlier = [np.full(5, level) for level in (0.1, 0.5, 0.9)]
    assert not dominated(np.full(5, 0.5), earlier)  # equal to the median
    assert dominated(np.array([0.5, 0.5, 0.4, 0.5, 0.5]), earlier)
    assert not dominated(np.array([0.1, 0.1, 0.1, 0.1, 0.51]), earlier)
    assert dominated(np.full(5, 0.2), earlier)


members = st.lists(st.integers(0, 30), min_size=12, max_size=90).filter(
    lambda values: len(set(values)) >= 9
)


@given(members, st.integers(2, 3), st.integers(0, 1000))
def test_every_row_is_judged_once_by_a_fit_without_its_image(values, folds, seed):
    groups = np.array([f"g{value}" for value in values], dtype=object)
    half = {f"g{value}" for value in sorted(set(values))[::2]}
    inside = np.array([group in half for group in groups])
    parts = {"fit": np.flatnonzero(inside), "tune": np.flatnonzero(~inside)}
    cut = cross_fit(groups, parts, folds=folds, seed=seed)
    assert sorted(np.concatenate([fold.judge for fold in cut])) == list(range(len(groups)))
    for fold in cut:
        rows = np.concatenate([fold.fit, fold.stop, fold.judge])
        assert sorted(rows) == list(range(len(groups)))
        sets = [set(groups[part]) for part in (fold.fit, fold.stop, fold.judge)]
        assert all(sets)
        assert not any(a & b for a, b in itertools.combinations(sets, 2))


def test_one_fold_judges_on_tune_alone_and_never_stops_there():
    groups = np.array([f"g{i // 2}" for i in range(80)], dtype=object)
    parts = {"fit": np.arange(60), "tune": np.arange(60, 80)}
    (fold,) = cross_fit(groups, parts, folds=1, seed=0)
    assert fold.judge.tolist() == parts["tune"].tolist()
    assert sorted(np.concatenate([fold.fit, fold.stop])) == parts["fit"].tolist()
    assert len(set(groups[fold.stop])) == 5  # a sixth of thirty images
    look = quarter(groups, fold, seed=0)
    assert set(look.fit) < set(fold.fit)
    assert len(set(groups[look.fit])) == 6  # a quarter of 25
    assert look.judge is fold.judge


@pytest.mark.parametrize(("folds", "message"), [(0, "at least one fold"), (9, "cannot be divided")])
def test_folds_that_cannot_be_are_refused(folds, message):
    groups = np.array(["a", "b", "c", "d"], dtype=object)
    parts = {"fit": np.array([0, 1, 2]), "tune": np.array([3])}
    with pytest.raises(DataError, match=message):
        cross_fit(groups, parts, folds=folds, seed=0)


def test_a_single_image_to_fit_on_is_refused():
    groups = np.array(["a", "a", "b"], dtype=object)
    with pytest.raises(DataError, match="1 cannot be divided"):
        cross_fit(groups, {"fit": np.array([0, 1]), "tune": np.array([2])}, folds=1, seed=0)

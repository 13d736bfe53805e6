"""Where curves are looked at, and what is read off them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3router.router.evaluation.price_curves import curve_prices, curve_rows
from m3router.router.metrics.curves import POINTS, curves, ladder, most_expensive_within, places
from m3router.router.policies.price_sweep import choose_at, sweep

COSTS = np.array([1.0, 9.0, 36.0, 144.0, 576.0])


def probabilities(seed, n=400):
    generator = np.random.default_rng(seed)
    need = generator.standard_normal((n, 1)) * 2
    p = 1 / (1 + np.exp(need - np.array([-1.0, 0.5, 1.5, 2.5, 3.0])))
    return p, (generator.random((n, 1)) < p).astype(float), np.tile(COSTS, (n, 1))


def test_a_third_of_the_places_is_where_the_curve_is_steep():
    found = places(1.0, 576.0)
    assert len(found) == POINTS
    assert np.all(np.diff(found) > 0)
    assert found[0] == 1.0 and found[-1] == pytest.approx(576.0)
    assert 0.25 < np.mean(found < 9) < 0.5
    assert 0.5 < np.mean(found < 36) < 0.7


@given(st.integers(0, 2**32 - 1))
def test_reading_off_a_curve_is_interpolation(seed):
    generator = np.random.default_rng(seed)
    draws, points = int(generator.integers(1, 5)), int(generator.integers(1, 9))
    cost = np.sort(generator.uniform(1, 100, (draws, points)), axis=1)
    accuracy = generator.uniform(0, 1, (draws, points))
    low, high = 5.0, 90.0
    backwards = bool(generator.integers(2)) and points > 1
    one = curves(cost[:, ::-1], accuracy[:, ::-1]) if backwards else curves(cost, accuracy)
    at = generator.uniform(0, 120, draws)
    for b in range(draws):
        wanted = np.interp(at[b], cost[b], accuracy[b]) if at[b] >= cost[b, 0] else np.nan
        np.testing.assert_allclose(one.at(at)[b], wanted)
        start = min(max(low, cost[b, 0]), high)
        inner = cost[b][(cost[b] > start) & (cost[b] < high)]
        grid = np.concatenate([[start], inner, [high]])
        area = np.trapezoid(np.interp(grid, cost[b], accuracy[b]), grid) / (high - low)
        np.testing.assert_allclose(one.area(low, high)[b], area, atol=1e-12)
    target = generator.uniform(0, 1, draws)
    for b, least in enumerate(one.cost_of(target)):
        if np.isnan(least):
            assert accuracy[b].max() < target[b]
        else:
            grid = np.linspace(cost[b, 0], max(least, cost[b, 0]), 200)
            grid = grid[grid < least - 1e-9]
            assert np.all(np.interp(grid, cost[b], accuracy[b]) < target[b] + 1e-9)
            assert np.interp(least, cost[b], accuracy[b]) >= target[b] - 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_twice_as_many_places_change_no_printed_digit(seed):
    p, scores, costs = probabilities(seed)
    areas = []
    for points in (POINTS, 2 * POINTS, 4000):
        spent, right = curve_rows(p, scores, costs, curve_prices(p, costs, points=points))
        areas.append(float(curves(spent.mean(axis=0), right.mean(axis=0)).area(1.0, 576.0)))
    assert areas[0] == pytest.approx(areas[1], abs=2e-4)  # points are printed to 0.1, AIQ to 0.01
    assert areas[0] == pytest.approx(areas[2], abs=3e-4)


def test_prices_reach_the_places():
    p, _, costs = probabilities(0)
    steps = sweep(p, costs)
    spent = np.array([COSTS[choose_at(p, costs, price)].mean() for price in curve_prices(p, costs)])
    assert np.all(np.diff(spent) < 0)
    assert spent[0] == pytest.approx(steps.cost[0]) and spent[-1] == pytest.approx(1.0)
    wanted = places(float(steps.cost[-1]), float(steps.cost[0]))
    nearest = np.abs(wanted[:, None] - spent[None, :]).min(axis=1)
    assert np.all(nearest <= 576 / len(p) + 1e-9)  # one question more or less


def test_a_ladder_reaches_the_same_places_without_knowing_breakpoints():
    p, _, costs = probabilities(1)

    def cost_at(price):
        return float(COSTS[choose_at(p, costs, price)].mean())

    found = np.array([cost_at(price) for price in ladder(cost_at, costs)])
    wanted = places(found.min(), found.max())
    nearest = np.abs(wanted[:, None] - found[None, :]).min(axis=1)
    assert np.mean(nearest <= np.maximum(0.05 * wanted, 2.0)) > 0.95
    assert found.min() == pytest.approx(1.0)
    assert ladder(lambda price: 3.0, np.full((5, 2), 3.0)) == [0.0]


@pytest.mark.parametrize("budget", [2.0, 12.0, 31.5, 72.0, 144.0, 300.0])
def test_budgets_are_met_within_a_hundredth(budget):
    p, _, costs = probabilities(2, n=3000)

    def cost_at(price):
        return float(COSTS[choose_at(p, costs, price)].mean())

    price = most_expensive_within(cost_at, 1.0, 0.0, budget)
    assert 0.99 * budget <= cost_at(price) <= budget

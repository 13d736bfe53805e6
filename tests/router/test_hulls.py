"""The hulls of many draws against the functions of one curve, which are tested by themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from router.analysis.hulls import concave_hulls, hypervolumes, saved

from router.analysis import metrics


@st.composite
def curves(draw):
    """Costs and accuracies (3, P), with ties as often as not."""
    seed, points = draw(st.integers(0, 2**32 - 1)), draw(st.integers(1, 9))
    generator = np.random.default_rng(seed)
    digits = draw(st.integers(0, 3))
    return (
        np.round(10 * generator.random((3, points)), digits),
        np.round(generator.random((3, points)), digits + 1),
    )


@given(curves())
def test_vertices_are_those_of_one_curve(curve):
    cost, accuracy = curve
    hulls = concave_hulls(cost, accuracy)
    for b in range(len(cost)):
        x, y = metrics.nondecreasing_hull(cost[b], accuracy[b])
        np.testing.assert_allclose(hulls.cost[b, : len(x)], x)
        np.testing.assert_allclose(hulls.accuracy[b, : len(x)], y)
        assert set(hulls.cost[b, len(x) :]) <= {x[-1]}


@given(curves(), st.floats(-1, 12))
def test_value_area_volume_and_savings(curve, at):
    cost, accuracy = curve
    hulls = concave_hulls(cost, accuracy)
    value, area = hulls.at(np.full(3, at)), hulls.area(2.0, 7.0)
    volume = hypervolumes(cost, accuracy, reference_cost=7.0)
    less = saved(cost, accuracy, target=np.full(3, 0.5), spent=np.full(3, 8.0))
    for b in range(len(cost)):
        one = cost[b], accuracy[b]
        np.testing.assert_allclose(value[b], metrics.accuracy_at_cost(*one, at))
        np.testing.assert_allclose(area[b], metrics.aiq(*one, low=2.0, high=7.0), atol=1e-12)
        np.testing.assert_allclose(
            volume[b], metrics.hypervolume(*one, reference_cost=7.0), atol=1e-12
        )
        np.testing.assert_allclose(less[b], metrics.saved_at(*one, target=0.5, reference_cost=8.0))


@given(curves(), st.floats(0, 12))
def test_the_weights_mix_to_the_value(curve, at):
    cost, accuracy = curve
    hulls = concave_hulls(cost, accuracy)
    low, high, share = hulls.weights(np.full(3, at))
    mixed = hulls.at(low) + share * (hulls.at(high) - hulls.at(low))
    inside = np.clip(at, hulls.cost[:, 0], hulls.cost[:, -1])
    np.testing.assert_allclose(low + share * (high - low), inside, atol=1e-12)
    np.testing.assert_allclose(mixed, hulls.at(inside), atol=1e-9)
    assert np.all((share >= 0) & (share <= 1))


def test_one_curve_needs_no_draws():
    hull = concave_hulls(np.array([1.0, 2.0, 3.0]), np.array([0.2, 0.8, 0.5]))
    assert float(hull.at(np.array(1.5))) == pytest.approx(0.5)
    assert float(hull.at(np.array(9.0))) == pytest.approx(0.8)
    assert float(hull.area(1.0, 3.0)) == pytest.approx((0.5 + 0.8) / 2)


def test_draws_of_a_single_group_are_undefined_not_an_error():
    nothing = np.full((2, 3), np.nan)
    hulls = concave_hulls(nothing, nothing)
    assert np.isnan(hulls.at(np.full(2, np.nan))).all()
    assert np.isnan(hulls.area(0.0, 1.0)).all()

"""What options are expected to cost: exact where seen, between what was seen elsewhere."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3router.data.errors import DataError
from m3router.router.policies.expected_costs import ExpectedCosts

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

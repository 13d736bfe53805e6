from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3router.data.errors import DataError
from m3router.router.policies.costs import routed_costs
from m3router.router.policies.outcomes import Asked, Prices, outcome_of


def random_asked(seed):
    """Options asked in order, as a cascade asks them, with what everything costs."""
    generator = np.random.default_rng(seed)
    n, k = int(generator.integers(1, 9)), int(generator.integers(1, 6))
    first = generator.integers(0, k, n)
    final = np.array([generator.integers(f, k) for f in first])
    options = generator.random((n, k)) < 0.5
    options &= (np.arange(k) >= first[:, None]) & (np.arange(k) <= final[:, None])
    options[np.arange(n), first] = options[np.arange(n), final] = True
    costs = generator.random((n, k)).cumsum(axis=1)
    return Asked(first=first, final=final, options=options), costs, generator.random((n, k))


@given(st.integers(0, 2**32 - 1), st.sampled_from([(), ("image",), ("image", "peek")]))
def test_everything_that_was_asked_is_paid_for(seed, reads):
    asked, costs, scores = random_asked(seed)
    routed = routed_costs(costs, reads)
    found = outcome_of(asked, scores=scores, costs=Prices(alone=costs, routed=routed), gflops=None)
    for i in range(len(costs)):
        spent = routed[i, asked.first[i]]
        for k in range(costs.shape[1]):
            if asked.options[i, k] and k != asked.first[i]:
                spent += costs[i, k]
        assert found.cost[i] == pytest.approx(spent)
        assert found.cost[i] >= costs[i, asked.first[i]] - 1e-12
        assert found.score[i] == scores[i, asked.final[i]]
    assert found.gflops is None


def test_asking_once_costs_what_the_option_costs():
    costs = np.array([[1.0, 4.0], [1.0, 4.0]])
    asked = Asked.once(np.array([0, 1]), options=2)
    both = Prices(alone=costs, routed=costs)
    work = Prices(alone=2 * costs, routed=2 * costs)
    found = outcome_of(asked, scores=costs / 4, costs=both, gflops=work)
    assert found.cost.tolist() == [1.0, 4.0]
    assert found.score.tolist() == [0.25, 1.0]
    assert found.gflops is not None and found.gflops.tolist() == [2.0, 8.0]


def test_an_answer_that_was_not_asked_for_is_refused():
    with pytest.raises(DataError, match="among those that were asked"):
        Asked(first=np.array([0]), final=np.array([1]), options=np.array([[True, False]]))
    with pytest.raises(DataError, match=r"\(n, K\)"):
        Asked(first=np.array([0]), final=np.array([0]), options=np.array([True]))

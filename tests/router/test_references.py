"""Choosing the reference on the questions that a guarantee is tested on."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, binomtest, norm

from m3router.data.errors import DataError
from m3router.router.policies.references import best_option, chosen, index_of, under_cap


@pytest.mark.parametrize("truth", [(0.6, 0.8, 0.8, 0.8), (0.7, 0.8, 0.78, 0.82), (0.8, 0.8, 0.8)])
@pytest.mark.parametrize("together", [0.0, 0.5])
def test_a_regret_against_the_best_that_is_chosen_there_fails_no_more_often(truth, together):
    """Options of nearly one accuracy, so that chance alone picks the reference of each draw.

    The policy always takes option 0. Its certified regret is just below the true one against each
    option in turn: the hardest case.
    """
    generator = np.random.default_rng(0)
    draws, n, threshold = 1000, 300, norm.ppf(truth)

    def right(m):
        shared = np.sqrt(together) * generator.standard_normal((m, 1))
        own = np.sqrt(1 - together) * generator.standard_normal((m, len(truth)))
        return (shared + own < threshold).astype(float)

    many = right(200_000)
    true = np.maximum(0, many - many[:, :1]).mean(axis=0)
    costs = np.tile(np.arange(1.0, len(truth) + 1), (n, 1))
    parts = [right(n) for _ in range(draws)]
    references = np.array([best_option(part, costs) for part in parts])
    assert len(set(references.tolist()) - {0}) > 1
    lost = np.array(
        [np.maximum(0, s[:, r] - s[:, 0]).sum() for s, r in zip(parts, references, strict=True)]
    )
    for alpha in 0.99 * true[1:]:
        failed = (binom.cdf(lost, n, alpha) <= 0.05) & (true[references] > alpha)
        assert binomtest(int(failed.sum()), draws, 0.05, alternative="greater").pvalue > 0.01


def test_what_stands_for_each_option_under_a_cap():
    costs = np.array([[1.0, 5.0, 9.0], [4.0, 2.0, 9.0], [9.0, 9.0, 3.0]])
    names = np.tile([0.0, 1.0, 2.0], (3, 1))
    assert under_cap(names, costs).tolist() == names.tolist()
    # the second row's first option and the third row's first two are beyond the cap
    assert under_cap(names, costs, cap=3).tolist() == [[0, 0, 0], [1, 1, 1], [2, 2, 2]]
    assert under_cap(names, costs, cap=5).tolist() == [[0, 1, 1], [0, 1, 1], [2, 2, 2]]
    with pytest.raises(DataError, match="cap of 2 is below the cheapest option of row 2"):
        best_option(names, costs, cap=2)


def test_the_best_under_a_cap_is_another_than_without():
    scores = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    costs = np.tile([1.0, 5.0, 9.0], (2, 1))
    options = ("a", "b", "c")
    assert chosen(None, options, scores=scores, costs=costs) == "c"
    assert chosen(None, options, scores=scores, costs=costs, cap=5) == "b"
    assert chosen("a", options, scores=scores, costs=costs, cap=5) == "a"


def test_an_unknown_name_tells_the_nearest_and_all():
    assert index_of("384px", ("384px", "768px")) == 0
    with pytest.raises(
        DataError, match="Unknown reference option '768'. Did you mean '768px'. Known: 384px, 768px"
    ):
        index_of("768", ("384px", "768px"))

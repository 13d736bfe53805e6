from __future__ import annotations

import numpy as np
import pytest

from m3router.data.errors import DataError
from m3router.router.metrics import paired_bootstrap
from m3router.router.metrics.intervals import percentile_interval as interval
from m3router.router.metrics.paired_bootstrap import (
    Columns,
    Estimate,
    cluster_means,
    estimate,
    group_sums,
)


def test_equals_repeating_the_rows():
    """Independent reference: the same draws, carried out by copying rows."""
    generator = np.random.default_rng(0)
    groups = np.array([f"g{i}" for i in generator.integers(0, 6, size=25)])
    values = generator.random((25, 3))
    names = np.unique(groups)
    found = cluster_means(values, groups, draws=40, seed=9)
    draws = np.random.default_rng(9).multinomial(len(names), [1 / len(names)] * len(names), 40)
    for weights, mean in zip(draws, found, strict=True):
        rows = np.concatenate(
            [
                np.flatnonzero(groups == name)
                for name, w in zip(names, weights, strict=True)
                for _ in range(w)
            ]
        )
        np.testing.assert_allclose(mean, values[rows].mean(axis=0))


def test_spread_equals_the_standard_error_of_the_mean():
    values = np.random.default_rng(1).standard_normal((400, 1))
    means = cluster_means(values, np.arange(400), draws=4000, seed=0)
    assert means.std() == pytest.approx(values.std() / 20, rel=0.05)


def test_copies_of_an_example_add_no_information():
    """Ten questions with one answer per image are as uncertain as one question per image."""
    values = np.random.default_rng(2).random((60, 1))
    once = cluster_means(values, np.arange(60), draws=2000, seed=3)
    tenfold = cluster_means(
        np.repeat(values, 10, axis=0), np.repeat(np.arange(60), 10), draws=2000, seed=3
    )
    np.testing.assert_allclose(tenfold, once)
    ignored = cluster_means(np.repeat(values, 10, axis=0), np.arange(600), draws=2000, seed=3)
    assert ignored.std() < 0.5 * tenfold.std()


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    generator = np.random.default_rng(4)
    covered = 0
    for trial in range(300):
        level = generator.normal(0.5, 0.2, size=60)
        values = np.repeat(level, 3) + generator.normal(0, 0.1, size=180)
        means = cluster_means(values[:, None], np.repeat(np.arange(60), 3), draws=400, seed=trial)
        low, high = interval(means[:, 0])
        covered += low <= 0.5 <= high
    assert 0.91 <= covered / 300 <= 0.98


def test_chunks_make_no_difference_to_shape_or_spread(monkeypatch):
    values = np.random.default_rng(5).random((50, 2))
    whole = cluster_means(values, np.arange(50), draws=300, seed=0)
    monkeypatch.setattr(paired_bootstrap, "CHUNK_ENTRIES", 50 * 7)
    chunked = cluster_means(values, np.arange(50), draws=300, seed=0)
    np.testing.assert_allclose(chunked, whole, rtol=1e-12)  # sums in another order


def test_group_sums_follow_the_labels():
    sums, sizes = group_sums(np.array([[1.0], [2.0], [4.0]]), ["b", "a", "b"])
    assert sums.tolist() == [[2.0], [5.0]]
    assert sizes.tolist() == [1, 2]


def test_a_single_group_has_no_interval():
    means = cluster_means(np.ones((3, 1)), ["g"] * 3, draws=10)
    assert estimate(1.0, means[:, 0]) == Estimate(1.0, None, None)


def test_undefined_draws_count_as_the_lowest():
    samples = np.arange(1000.0)
    samples[:10] = np.nan
    assert interval(samples) == (24.0, 974.0)
    samples[:100] = np.nan
    assert interval(samples) == (None, 974.0)
    assert interval(np.full(100, np.nan)) == (None, None)
    assert estimate(float("nan"), np.ones(10)).to_dict() == dict.fromkeys(("value", "low", "high"))


@pytest.mark.parametrize("values", [np.zeros((0, 1)), np.zeros((3, 1)), np.zeros(2)])
def test_misshapen_input_is_refused(values):
    with pytest.raises(DataError, match="N groups"):
        cluster_means(values, ["a", "b"])


def test_columns_share_their_draws():
    generator = np.random.default_rng(6)
    base = generator.random(200)
    columns = Columns(np.arange(200), draws=500)
    columns.add("a", base)
    columns.add("b", base + 0.1)
    columns.add("block", np.column_stack([base, 2 * base]), bounds=(0.0, 2.0))
    difference = columns.estimate("b", minus="a")
    # paired: a constant difference has no uncertainty, though each mean has
    np.testing.assert_allclose([difference.low, difference.value, difference.high], 0.1)
    assert columns.estimate("a").high - columns.estimate("a").low > 0.03
    np.testing.assert_allclose(columns.samples("block")[:, 1], 2 * columns.samples("a"))
    doubled = columns.estimated(
        columns.pair("a").then(lambda a, block: block[..., 1] - 2 * a, columns.pair("block"))
    )
    np.testing.assert_allclose([doubled.low, doubled.high], 0, atol=1e-12)
    low, high = columns.bands("block")
    np.testing.assert_allclose([low[1], high[1]], [2 * low[0], 2 * high[0]], rtol=0.1)
    assert low[0] < columns.mean("a") < high[0]
    with pytest.raises(ValueError, match="'a' was added"):
        columns.add("a", base)

"""Intervals against exact ones, and against truths that are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from experiments.intervals.run import against, draw, measured, truths
from m3router.router.metrics.intervals import (
    apart,
    difference_interval,
    jackknife_variance,
    mean_interval,
    stretched_interval,
)
from m3router.router.metrics.paired_bootstrap import SHARE, Columns


def estimate_of(values, groups, *, bounds=SHARE):
    columns = Columns(np.asarray(groups))
    columns.add("it", np.asarray(values, dtype=float), bounds=bounds)
    return columns.estimate("it")


@pytest.mark.parametrize("right", [0, 1])
@pytest.mark.parametrize("images", [2, 6, 40])
def test_all_right_or_all_wrong_is_exact_over_images(right, images):
    """Two right answers of two are not 100 (100 to 100)."""
    found = estimate_of([right] * images, range(images))
    exact = binomtest(right * images, images).proportion_ci(0.95, method="exact")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))
    # Ten questions about each image say no more about other images.
    tenfold = estimate_of([right] * 10 * images, np.repeat(np.arange(images), 10))
    assert (tenfold.low, tenfold.high) == pytest.approx((found.low, found.high))


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_independent_answers_have_nearly_wilsons_interval(seed):
    generator = np.random.default_rng(seed)
    n = int(generator.integers(60, 400))
    values = generator.random(n) < generator.uniform(0.05, 0.95)
    if values.all() or not values.any():
        return
    found = estimate_of(values, range(n))
    share = binomtest(int(values.sum()), n).proportion_ci(0.95, method="wilson")
    assert found.low == pytest.approx(share.low, abs=0.012)
    assert found.high == pytest.approx(share.high, abs=0.012)
    assert 0 <= found.low <= values.mean() <= found.high <= 1


def test_copies_add_nothing_and_a_single_image_has_no_interval():
    values = np.random.default_rng(0).random(50) < 0.7
    once = estimate_of(values, range(50))
    copied = estimate_of(np.repeat(values, 8), np.repeat(np.arange(50), 8))
    assert copied.low == pytest.approx(once.low, abs=0.01)
    assert copied.high == pytest.approx(once.high, abs=0.01)
    alone = estimate_of([1.0, 0.0], ["a", "a"])
    assert (alone.value, alone.low, alone.high) == (0.5, None, None)


def test_the_jackknife_of_a_mean_is_its_variance():
    values = np.random.default_rng(1).standard_normal(30)
    left_out = (values.sum() - values) / 29
    assert jackknife_variance(left_out) == pytest.approx(values.var(ddof=1) / 30)


def test_scaled_values_have_scaled_intervals():
    values = np.random.default_rng(2).random(80)
    low, high = mean_interval(values.mean(), 0.001, bounds=(0.0, 1.0), groups=80)
    other = mean_interval(1 + 575 * values.mean(), 575**2 * 0.001, bounds=(1.0, 576.0), groups=80)
    assert other == (pytest.approx(1 + 575 * low), pytest.approx(1 + 575 * high))


def test_differences_that_never_differ_are_not_known_to_be_nothing():
    """Alike on 20 images: up to 1 - 0.025^(1/20) of all images may differ, either way."""
    low, high = difference_interval((0, 0), (0, 0), 0.0, differing=0, groups=20, examples=140)
    assert (low, high) == pytest.approx((-(1 - 0.025 ** (1 / 20)), 1 - 0.025 ** (1 / 20)))


def test_values_around_a_centre_stay_within_reach():
    low, high = apart((0.1, 0.001), (0.0, 0.0), reach=(0.3, 0.0), groups=12, examples=60)
    assert 0 < low < 0.1 < high <= 0.3  # nothing can lie below


def test_a_few_dear_questions_widen_the_mean_cost_upwards():
    """199 questions at 9 tokens and one at 576: the truth may well be three times as many."""
    found = estimate_of([9.0] * 199 + [576.0], range(200), bounds=(1.0, 576.0))
    share = binomtest(1, 200).proportion_ci(0.95, method="wilson")
    assert found.high == pytest.approx(9 + 567 * share.high, rel=0.15)
    assert found.low == pytest.approx(9 + 567 * share.low, rel=0.05)


def test_stretching_follows_student_and_the_jackknife():
    generator = np.random.default_rng(3)
    values = generator.standard_normal(6)
    draws = values[generator.integers(0, 6, size=(20_000, 6))].mean(axis=1)
    left_out = (values.sum() - values) / 5
    low, high = stretched_interval(float(values.mean()), draws, left_out)
    half = 2.5706 * values.std(ddof=1) / np.sqrt(6)
    assert high - low == pytest.approx(2 * half, rel=0.08)


@pytest.fixture(scope="module")
def population():
    return truths(draw(5000, np.random.default_rng(0), questions=4))


@pytest.mark.parametrize("images", [10, 40])
def test_the_evaluations_intervals_cover_a_known_truth(population, images):
    """A short run of `experiments/intervals`, whose recorded one has 200 repeats."""
    generator, repeats = np.random.default_rng(images), 40
    truth, prices = population
    held: dict[str, list[bool]] = {name: [] for name in against(truth, 0)}
    for seed in range(repeats):
        test, before = (draw(times * images, generator, questions=4) for times in (1, 4))
        found, best = measured(test, before, prices, seed=seed)
        for name, true in against(truth, best).items():
            if found[name]["low"] is not None:
                held[name].append(found[name]["low"] <= true <= found[name]["high"])
    for name, kept in held.items():
        curves = "AIQ" in name or "gap" in name
        if "saved" in name:  # in words where nothing is saved, or nothing answered
            assert len(kept) >= repeats / 2, name
        else:
            none = curves and images < 20 or "gap" in name
            assert len(kept) == (0 if none else repeats), name
        # 40 repeats of 95 %: below 0.85 once in three hundred times.
        assert not kept or np.mean(kept) >= 0.85, name


def test_a_range_of_one_value_leaves_nothing_open():
    with np.errstate(all="raise"):
        low, high = mean_interval(np.array([7.0, 7.0]), np.zeros(2), bounds=(7.0, 7.0), groups=5)
    assert low.tolist() == high.tolist() == [7.0, 7.0]

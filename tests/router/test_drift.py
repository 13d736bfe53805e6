from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from m3router.data.errors import DataError
from m3router.router.monitoring.drift import (
    COMPONENTS,
    IMAGES,
    TOGETHER,
    Sample,
    components,
    holm,
    one_each,
    permutation_test,
    shifts,
    standardised,
)


def sample(images, generator, *, image=0.0, question=0.0, questions=3):
    """Images with several questions; image features are the same for all of an image."""
    groups = np.repeat(np.arange(images), questions)
    picture = image + generator.standard_normal((images, 5))
    asked = question + generator.standard_normal((len(groups), 4))
    return Sample(blocks={"image": picture[groups], "question": asked}, groups=groups)


def test_false_alarms_are_as_rare_as_stated():
    level, draws, alarms = 0.1, 400, 0
    for seed in range(draws):
        generator = np.random.default_rng(seed)
        found = shifts(sample(25, generator), sample(15, generator), level=level, seed=seed)
        alarms += min(one.adjusted for one in found.values()) <= level
    # no more than the rate explains, and not because it never rings
    assert binomtest(alarms, draws, level, alternative="greater").pvalue > 0.01
    assert alarms > 0.02 * draws


def test_a_clear_shift_is_seen_in_the_block_that_shifted():
    rang = {"image": 0, "question": 0, TOGETHER: 0}
    for seed in range(20):
        generator = np.random.default_rng(seed)
        found = shifts(
            sample(80, generator), sample(60, generator, image=0.8), level=0.01, seed=seed
        )
        for name, one in found.items():
            rang[name] += one.adjusted <= 0.01
    assert rang["image"] >= 19
    assert rang[TOGETHER] >= 19
    assert rang["question"] <= 1


def test_a_change_of_what_goes_together_is_seen_only_together():
    # each block by itself is unchanged; in the traffic the question follows the image
    generator = np.random.default_rng(0)
    blocks = [generator.standard_normal((200, 2)) for _ in range(3)]
    before = Sample(blocks={"image": blocks[0], "question": blocks[1]}, groups=np.arange(200))
    after = Sample(blocks={"image": blocks[2], "question": blocks[2]}, groups=np.arange(200))
    found = shifts(before, after, level=0.01)
    assert found[TOGETHER].adjusted <= 0.01
    assert found["image"].adjusted > 0.05


def test_questions_about_few_images_are_not_taken_for_many():
    # 12 images a side and 40 questions each: the images differ, the source does not
    alarms = 0
    for seed in range(60):
        generator = np.random.default_rng(seed)
        found = shifts(
            sample(12, generator, questions=40),
            sample(12, generator, questions=40),
            level=0.1,
            seed=seed,
        )
        alarms += min(one.adjusted for one in found.values()) <= 0.1
    assert binomtest(alarms, 60, 0.1, alternative="greater").pvalue > 0.01


def test_the_discrepancy_equals_its_definition():
    generator = np.random.default_rng(4)
    x, y = generator.standard_normal((7, 3)), 1 + generator.standard_normal((5, 3))
    both = standardised(np.vstack([x, y]))
    distances = [float(((a - b) ** 2).sum()) for a, b in itertools.permutations(both, 2)]
    median = float(np.median(distances))

    def mean_kernel(rows, columns):
        values = [np.exp(-((a - b) ** 2).sum() / median) for a in rows for b in columns]
        return sum(values) / len(values)

    left, right = both[:7], both[7:]
    expected = mean_kernel(left, left) + mean_kernel(right, right) - 2 * mean_kernel(left, right)
    mmd2, _ = permutation_test(
        np.vstack([x, y]), np.arange(12) >= 7, permutations=1, generator=generator
    )
    assert mmd2 == pytest.approx(expected)


def test_the_p_value_counts_every_split_when_there_are_few():
    # two far clusters of three: 2 of the 20 splits are as extreme as the observed one
    features = np.array([[0.0], [0.1], [0.2], [9.0], [9.1], [9.2]])
    _, p_value = permutation_test(
        features,
        np.arange(6) >= 3,
        permutations=4000,
        generator=np.random.default_rng(0),
    )
    assert p_value == pytest.approx(0.1, abs=0.02)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_holm_is_the_closed_test(values):
    p_values = {str(place): value for place, value in enumerate(values)}
    found = holm(p_values)
    for name in p_values:
        others = [one for one in p_values if one != name]
        subsets = itertools.chain.from_iterable(
            itertools.combinations(others, size) for size in range(len(others) + 1)
        )
        closed = max(
            min(1.0, (1 + len(rest)) * min(p_values[one] for one in (name, *rest)))
            for rest in subsets
        )
        assert found[name] == pytest.approx(closed)


@pytest.mark.parametrize("shape", [(30, 8), (30, 100), (100, 40)])
def test_components_keep_the_most_variance(shape):
    features = standardised(np.random.default_rng(1).standard_normal(shape))
    kept = components(features)
    strongest = np.linalg.svd(features, compute_uv=False)[:COMPONENTS] ** 2
    np.testing.assert_allclose(
        np.sort((kept**2).sum(axis=0))[::-1], strongest, rtol=1e-6, atol=1e-9
    )


def test_features_that_never_vary_are_no_drift_and_no_crash():
    flat = Sample(blocks={"image": np.full((20, 3), 0.1)}, groups=np.arange(20))
    found = shifts(flat, flat, level=0.05)
    assert set(found) == {"image"}
    assert found["image"].p_value == 1


def test_one_question_of_each_image_is_compared():
    generator = np.random.default_rng(0)
    groups = np.repeat([f"g{i}" for i in range(50)], 4)
    rows = one_each(groups, generator)
    assert sorted(groups[rows]) == sorted(set(groups.tolist()))
    many = one_each(np.arange(3 * IMAGES), generator)
    assert len(set(many.tolist())) == IMAGES


def test_a_single_image_is_refused():
    one = Sample(blocks={"image": np.zeros((3, 2))}, groups=np.array(["a"] * 3))
    with pytest.raises(DataError, match="at least 2 on each side; one side has 1"):
        shifts(one, one, level=0.05)


@pytest.mark.parametrize("level", [1e-7, 1e-320])
def test_levels_that_would_take_for_ever_are_refused(level):
    generator = np.random.default_rng(0)
    with pytest.raises(DataError, match="would take too many permutations"):
        shifts(sample(5, generator), sample(5, generator), level=level)

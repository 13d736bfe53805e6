from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3router.data.errors import DataError
from m3router.router.policies.thinning import FULL, default_most, thin


@st.composite
def questions(draw):
    """Up to 40 questions with names, about up to 9 images."""
    n = draw(st.integers(1, 40))
    groups = [f"image {draw(st.integers(0, 8))}" for _ in range(n)]
    return np.array([f"q{i}" for i in range(n)]), np.array(groups)


def kept(ids, groups, **how):
    """Names of the questions that are kept, by image; and images in order."""
    found = thin(ids, groups, **how)
    names = [set(ids[found.rows[found.image == g]].tolist()) for g in range(len(found.sizes))]
    images = [groups[found.rows[found.image == g][0]] for g in range(len(found.sizes))]
    return dict(zip(images, names, strict=True)), images


@given(questions(), st.integers(1, 6), st.randoms(use_true_random=False), st.integers(0, 3))
def test_neither_the_order_of_questions_nor_other_images_matter(asked, most, shuffle, seed):
    ids, groups = asked
    names, order = kept(ids, groups, most=most, seed=seed)
    mixed = np.array(shuffle.sample(range(len(ids)), len(ids)))
    assert kept(ids[mixed], groups[mixed], most=most, seed=seed) == (names, order)
    some = np.isin(groups, order[: max(1, len(order) // 2)])
    alone, its_order = kept(ids[some], groups[some], most=most, seed=seed)
    assert alone == {name: names[name] for name in alone}
    assert its_order == [name for name in order if name in alone]


@given(questions(), st.integers(1, 6))
def test_at_most_so_many_and_more_keep_what_fewer_keep(asked, most):
    ids, groups = asked
    fewer, _ = kept(ids, groups, most=most)
    more, _ = kept(ids, groups, most=most + 1)
    for name, own in fewer.items():
        of_image = int((groups == name).sum())
        assert len(own) == min(of_image, most)
        assert own <= more[name]


@given(questions(), st.integers(1, 6))
def test_sums_are_those_of_the_kept_questions(asked, most):
    ids, groups = asked
    values = np.random.default_rng(0).random(len(ids))
    found = thin(ids, groups, most=most)
    assert found.sums(values).sum() == pytest.approx(values[found.rows].sum())
    assert found.sizes.sum() == len(found.rows)
    assert len(found.sizes) == len(set(groups.tolist()))


def test_every_question_of_an_image_is_kept_equally_often():
    ids = np.array(["a", "b", "c", "d"])
    counts = dict.fromkeys(ids.tolist(), 0)
    for seed in range(2000):
        for row in thin(ids, ["image"] * 4, most=1, seed=seed).rows:
            counts[ids[row]] += 1
    assert min(counts.values()) > 420 and max(counts.values()) < 580  # 500 each, three deviations


@pytest.mark.parametrize(
    ("sizes", "most"),
    [
        ([7] * 50, 7),
        ([1] * 1999 + [300], 1),  # one image in two thousand
        ([1, 1, 2, 2], 2),  # three quarters full
        ([1, 1, 1, 2], 1),
        (list(range(1, 14)), 7),
    ],
)
def test_the_default_is_the_largest_that_leaves_images_three_quarters_full(sizes, most):
    sizes = np.array(sizes)
    assert default_most(sizes, images=10**6) == most
    assert np.minimum(sizes, most).mean() >= FULL * most


def test_where_images_are_few_they_must_be_fuller_or_count_with_one_question():
    sizes = np.arange(1, 14)
    found = [default_most(sizes, images=n, alpha=0.01, delta=0.05) for n in (350, 400, 450, 2000)]
    assert found == [1, 3, 6, 7]  # 299 images are needed at least
    every = np.full(9, 7)  # all are full
    found = [default_most(every, images=n, alpha=0.01, delta=0.05) for n in (320, 360, 365, 400)]
    assert found == [1, 1, 7, 7]
    # a net loss may be made up for
    net = [
        default_most(every, images=n, alpha=0.01, delta=0.05, gains=True) for n in (200, 320, 400)
    ]
    assert net == [7, 7, 7]
    assert default_most(sizes, images=310, alpha=0.01, delta=0.05, gains=True) == 2


def test_what_cannot_be_thinned_is_refused():
    with pytest.raises(DataError, match="at least 1 question; most is 0"):
        thin(["a"], ["b"], most=0)
    with pytest.raises(DataError, match="0 ids and 0 images"):
        thin([], [], most=1)
    with pytest.raises(DataError, match="2 ids and 1 images"):
        thin(["a", "b"], ["c"], most=1)
    with pytest.raises(DataError, match="no images to choose"):
        default_most(np.array([]), images=3)

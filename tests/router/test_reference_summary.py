"""Which option is the reference, told in numbers and in words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3router.data.errors import DataError
from m3router.router.evaluation.reference_summary import (
    not_the_best,
    reference_sentence,
    reference_summary,
)
from m3router.router.policies.price_sweep import reference_allowed
from m3router.router.text.words import Words

OPTIONS = ("low", "mid", "high")
TEXTS = Words(images=False, scales=False)


def summary(scores, costs=(1.0, 12.0, 36.0), *, options=OPTIONS, **knobs):
    scores = np.asarray(scores, dtype=float)
    costs = np.broadcast_to(np.asarray(costs, dtype=float), scores.shape)
    groups = knobs.pop("groups", np.arange(len(scores)) // 2)
    return reference_summary(scores, costs, groups, options=options, **knobs)


def world(right, n=400):
    """Scores (n, K) of which exactly these shares are right."""
    return np.stack([np.arange(n) % 100 < 100 * share for share in right], axis=1)


def test_the_best_option_is_the_reference_and_the_warning_says_why():
    found = summary(world([0.2, 0.6, 0.43]))
    assert (found["option"], found["named"], found["n"], found["groups"]) == (
        "mid",
        False,
        400,
        200,
    )
    assert found["accuracy"]["value"] == pytest.approx(0.6)
    assert found["accuracy"]["low"] < 0.6 < found["accuracy"]["high"]
    (warning,) = not_the_best(found)
    assert warning.startswith(
        "The most expensive option, high, is not the best on the calibration split: it has 43.0 % "
        "right and mid 60.0 % (-17.0 points, "
    )
    assert "at 33 % of its cost; mid is the reference of losses, regrets and fallbacks" in warning
    assert warning.endswith("--reference NAME names another.")
    assert warning.count(". ") == 0  # one sentence
    told = reference_sentence(found)
    assert told.startswith("Reference option: mid, the best of the calibration split; 60.0 % right")
    assert told.endswith("on its 400 questions about 200 images.")


def test_nothing_is_warned_of_where_the_most_expensive_is_the_best():
    assert not_the_best(summary(world([0.2, 0.6, 0.61]))) == []


def test_the_most_expensive_is_told_by_its_cost_not_by_its_rank():
    found = summary(world([0.6, 0.5, 0.4]), (36.0, 12.0, 1.0))
    assert (found["option"], found["most_expensive"]["option"]) == ("low", "low")
    assert not_the_best(found) == []
    (warning,) = not_the_best(summary(world([0.4, 0.5, 0.6]), (36.0, 12.0, 1.0)))
    assert "The most expensive option, low, is not the best" in warning
    assert "high 60.0 %" in warning and "at 3 % of its cost" in warning


def test_a_tie_goes_to_the_cheaper_and_is_told_as_one():
    found = summary(world([0.2, 0.6, 0.6]))
    assert found["option"] == "mid"
    (warning,) = not_the_best(found)
    assert "is no better than mid on the calibration split: both have 60.0 % right" in warning


def test_a_named_reference_is_kept_and_the_warning_stays():
    found = summary(world([0.2, 0.6, 0.43]), named="high")
    assert (found["option"], found["named"], found["best"]["option"]) == ("high", True, "mid")
    (warning,) = not_the_best(found)
    assert "high is the reference of losses" in warning
    assert reference_sentence(found).startswith("Reference option: high, as asked; 43.0 % right")
    with pytest.raises(DataError, match="Did you mean 'high'"):
        summary(world([0.2, 0.6, 0.43]), named="hihg")


def test_one_option_and_equal_costs_are_said_in_words():
    alone = summary(world([0.5]), (3.0,), options=("only",))
    assert reference_sentence(alone).startswith("Reference option: only, the only one; 50.0 %")
    assert not_the_best(alone) == []
    equal = summary(world([0.4, 0.7, 0.5]), (3.0, 3.0, 3.0))
    assert equal["option"] == "mid"
    assert "the best of the calibration split, where all options cost the same;" in (
        reference_sentence(equal)
    )
    assert not_the_best(equal) == []
    free = summary(world([0.4, 0.7, 0.5]), (0.0, 0.0, 0.0))
    assert free["most_expensive"] is None and not_the_best(free) == []


def test_the_words_fit_logs_without_images():
    for groups in (np.arange(400), np.arange(400) // 2):
        found = summary(world([0.2, 0.6, 0.43]), groups=groups)
        told = reference_sentence(found, TEXTS) + " ".join(not_the_best(found))
        assert "image" not in told and "scale" not in told and "finest" not in told
    assert reference_sentence(summary(world([0.2, 0.6, 0.43])), TEXTS).endswith(
        "on its 400 questions in 200 groups."
    )


def test_one_image_has_no_interval_and_no_dash():
    found = summary(world([0.2, 0.6, 0.43]), groups=np.zeros(400))
    told = reference_sentence(found) + " ".join(not_the_best(found))
    assert "–" not in told and "None" not in told
    assert "(-17.0 points) at" in told


def test_under_a_cap_the_best_of_what_it_allows_is_the_reference():
    scores = world([0.2, 0.6, 0.9])
    found = summary(scores, cap=20.0)
    assert (found["option"], found["cap"]) == ("mid", 20.0)
    assert "within the cap of 20" in reference_sentence(found)
    with pytest.raises(DataError, match="cap of 0.5 is below the cheapest option"):
        summary(scores, cap=0.5)


@given(st.integers(1, 5), st.integers(1, 12), st.integers(0, 2**31), st.floats(0, 1))
def test_the_reference_is_never_worse_than_another_option(k, n, seed, share):
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, 3, (n, k)) / 2
    costs = generator.integers(0, 9, (n, k)).astype(float)
    low = costs.min(axis=1).max()
    cap = float(low + share * (costs.max() - low))
    options = tuple(f"s{i}" for i in range(k))
    found = summary(scores, costs, options=options, cap=cap)
    rows = np.arange(n)
    each = [scores[rows, reference_allowed(costs <= cap, costs, r)].mean() for r in range(k)]
    assert found["accuracy"]["value"] == pytest.approx(max(each))
    told = reference_sentence(found) + " ".join(not_the_best(found))
    assert "–" not in told and "nan" not in told

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3router.data.errors import DataError
from m3router.router.metrics.calibration_error import calibration_errors, expected_calibration_error
from m3router.router.policies.price_sweep import sweep
from m3router.router.training.probability_calibration import (
    METHODS,
    Calibration,
    choose_calibration,
    cross_fitted,
    fit_calibration,
)


def answers(n, k=3, *, temperature=1.0, bend=1.0, seed=0):
    """Probabilities that were said (N, K) and scores (N, K); right where both knobs are 1."""
    generator = np.random.default_rng(seed)
    truth = 1 / (1 + np.exp(-2 * generator.standard_normal((n, k))))
    said = 1 / (1 + ((1 - truth) / truth) ** (1 / temperature))
    return said**bend, (generator.random((n, k)) < truth).astype(float)


def in_groups(n, size=4):
    return [f"g{row // size}" for row in range(n)]


def test_temperature_finds_what_was_done():
    p, scores = answers(20_000, temperature=0.5)
    fitted = fit_calibration(p, scores, method="temperature")
    np.testing.assert_allclose(fitted.temperatures, 2.0, rtol=0.07)
    odds = np.log(p / (1 - p))
    by_hand = 1 / (1 + np.exp(-odds / np.array(fitted.temperatures)))
    np.testing.assert_allclose(fitted.apply(p), by_hand, rtol=1e-9)


def test_the_method_follows_what_is_wrong():
    """Nothing, a temperature, or a bend that no temperature can undo."""
    for knobs, expected in (
        ({}, ("none", "temperature")),
        ({"temperature": 0.4}, ("temperature",)),
        ({"bend": 4.0}, ("isotonic",)),
    ):
        p, scores = answers(4_000, **knobs)
        calibration, report = choose_calibration(p, scores, groups=in_groups(4_000))
        assert calibration.method == report["method"]
        assert report["method"] in expected
        fresh, held = answers(8_000, seed=1, **knobs)
        before = calibration_errors(fresh, held)
        after = calibration_errors(calibration.apply(fresh), held)
        assert after["overall"] < 0.02
        if expected != ("none", "temperature"):
            assert before["overall"] > 0.05
        json.dumps(report, allow_nan=False)


@pytest.mark.parametrize("method", METHODS)
def test_no_order_within_an_option_is_lost(method):
    """Ties would let a policy's cost jump: no two examples become equal, none change places."""
    p, scores = answers(300, bend=3.0)
    fitted = fit_calibration(p, scores, method=method)
    grid = np.linspace(0, 1, 1001)
    q = fitted.apply(np.tile(grid[:, None], (1, 3)))
    assert np.all((q >= 0) & (q <= 1))
    assert np.all(np.diff(q, axis=0) > 0)
    costs = np.tile([1.0, 9.0, 36.0], (300, 1))
    assert len(sweep(fitted.apply(p), costs).prices) > 0.8 * len(sweep(p, costs).prices)


@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from([0.0, 0.3, 1.0])), min_size=1))
def test_any_probabilities_and_scores_can_be_calibrated(cells):
    p, scores = (np.array(one)[:, None] for one in zip(*cells, strict=True))
    for method in METHODS:
        fitted = fit_calibration(p, scores, method=method)
        q = fitted.apply(p)
        assert np.all((q >= 0) & (q <= 1))
        order = np.argsort(p[:, 0], kind="stable")
        assert np.all(np.diff(q[order, 0]) >= 0)
        np.testing.assert_array_equal(fitted.apply(p[0]), q[0])
        again = Calibration.of_payload(json.loads(json.dumps(fitted.payload())))
        assert again == fitted


def test_an_option_without_a_lesson_is_left_alone():
    p, scores = answers(200, k=2)
    p[:, 0], scores[:, 1] = 0.3, 0.0
    for method in METHODS:
        np.testing.assert_allclose(fit_calibration(p, scores, method=method).apply(p), p)


def test_the_group_of_an_example_never_calibrates_it():
    """Other scores in one group change nothing about that group's own corrected probabilities."""
    p, scores = answers(80)
    groups = in_groups(80)
    inside = np.array(groups) == "g7"
    other = scores.copy()
    other[inside] = 1 - other[inside]
    for method in METHODS[1:]:
        first = cross_fitted(p, scores, groups=groups, method=method)
        second = cross_fitted(p, other, groups=groups, method=method)
        np.testing.assert_array_equal(first[inside], second[inside])
        assert not np.array_equal(first[~inside], second[~inside])
    one = cross_fitted(p, scores, groups=["all"] * 80, method="isotonic")
    np.testing.assert_array_equal(one, p)  # a single group leaves nothing to fit on


def test_cross_fitting_is_not_fooled_by_its_own_noise():
    """On few examples isotonic regression fits noise; its loss on its own examples hides that."""
    chosen = []
    for seed in range(20):
        p, scores = answers(60, k=1, seed=seed)
        chosen.append(choose_calibration(p, scores, groups=in_groups(60))[1]["method"])
    assert chosen.count("isotonic") <= 2


def plain_error(p, scores, bins):
    """Plug-in reference: loops, bins by rank."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    total = 0.0
    for part in np.array_split(np.array(order), bins):
        total += abs(sum(p[i] - scores[i] for i in part)) / len(p)
    return total


def test_calibration_error_of_a_large_sample_is_the_plain_one():
    p, scores = answers(30_000, k=1, temperature=0.4)
    found = expected_calibration_error(p[:, 0], scores[:, 0], bins=10)
    assert found == pytest.approx(plain_error(p[:, 0], scores[:, 0], 10), abs=2e-4)


def test_calibration_error_has_less_bias_than_the_plain_one():
    """True probabilities have none; on 150 examples the plain estimate is far from that."""
    plain, ours = [], []
    for seed in range(60):
        p, scores = answers(150, k=1, seed=seed)
        plain.append(plain_error(p[:, 0], scores[:, 0], 15))
        ours.append(expected_calibration_error(p[:, 0], scores[:, 0]))
    assert np.mean(ours) < 0.7 * np.mean(plain)
    assert min(ours) >= 0


def test_calibration_error_of_constants():
    scores = np.array([1.0, 0.0] * 500)
    assert expected_calibration_error(np.full(1000, 0.5), scores) < 0.02
    assert expected_calibration_error(np.full(1000, 0.9), scores) == pytest.approx(0.4, abs=0.01)
    assert expected_calibration_error(np.ones(3), np.ones(3)) == 0.0
    assert expected_calibration_error(np.ones(1), np.zeros(1)) == 1.0
    # equal probabilities stay together, whatever the order of the rows
    mixed = np.array([0.5] * 10 + [0.2] * 10)
    right = np.array([0.0] * 5 + [1.0] * 5 + [0.0] * 10)
    order = np.random.default_rng(0).permutation(20)
    assert expected_calibration_error(mixed, right) == pytest.approx(
        expected_calibration_error(mixed[order], right[order])
    )


@pytest.mark.parametrize(
    ("p", "scores", "message"),
    [
        ([[1.2]], [[1.0]], "row 0, option 0 has 1.2"),
        ([[np.nan]], [[1.0]], "Probabilities must lie in"),
        ([[0.2]], [[1.5]], "scores of shape"),
        ([[0.2]], [[np.nan]], "scores of shape"),
        ([[0.2, 0.3]], [[1.0]], "scores of shape"),
        (np.zeros((0, 2)), np.zeros((0, 2)), "neither empty"),
    ],
)
def test_bad_input_is_refused(p, scores, message):
    p, scores = np.array(p), np.array(scores)
    with pytest.raises(DataError, match=message):
        calibration_errors(p, scores)
    for method in METHODS:
        with pytest.raises(DataError, match=message):
            fit_calibration(p, scores, method=method)


def test_unknown_methods_bins_and_groups_are_refused():
    p, scores = answers(10)
    with pytest.raises(DataError, match="'platt'"):
        fit_calibration(p, scores, method="platt")
    with pytest.raises(DataError, match="at least 1 bin"):
        expected_calibration_error(p[:, 0], scores[:, 0], bins=0)
    with pytest.raises(DataError, match="one group per example: 10, not 3"):
        choose_calibration(p, scores, groups=["a", "b", "c"])
    with pytest.raises(DataError, match="for 3 options, but got 2"):
        fit_calibration(p, scores, method="isotonic").apply(p[:, :2])


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"method": "sigmoid", "temperatures": [], "knots": []},
        {"method": "none", "temperatures": [1.0], "knots": []},
        {"method": "temperature", "temperatures": [], "knots": []},
        {"method": "temperature", "temperatures": [0.0], "knots": []},
        {"method": "temperature", "temperatures": ["x"], "knots": []},
        {"method": "isotonic", "temperatures": [], "knots": [[[0, 1], [0.5, 0.5]]]},
        {"method": "isotonic", "temperatures": [], "knots": [[[0, 1], [0.5, 1.5]]]},
        {"method": "isotonic", "temperatures": [], "knots": [[[0, 1], [0.5]]]},
    ],
)
def test_what_is_no_calibration_is_refused(payload):
    with pytest.raises(DataError):
        Calibration.of_payload(payload)

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from m3router.data.errors import DataError
from m3router.data.log.oracle_log import OracleLog
from m3router.router.evaluation.breakdown import by_dataset, lost_questions, reliability
from m3router.router.metrics.calibration_error import expected_calibration_error
from m3router.router.training.targets import apply_rule


def with_datasets(log: OracleLog, names: list[str]) -> OracleLog:
    frame = log.frame
    frame["dataset"] = np.repeat(names, len(log.options))
    return OracleLog(frame, options=log.options, cost_unit=log.cost_unit, metadata=log.metadata)


def test_datasets_weighted_by_size_give_the_whole(build_log):
    generator = np.random.default_rng(0)
    log = build_log((generator.random((90, 5)) < 0.5).astype(float))
    log = with_datasets(log, ["a"] * 60 + ["b"] * 30)
    choice = generator.integers(0, 5, size=90)
    parts = by_dataset(log, {"mine": choice}, costs=log.costs, best="576", reference="9", draws=50)
    assert [(one["dataset"], one["n"]) for one in parts] == [("a", 60), ("b", 30)]
    for k, option in enumerate(log.options):
        total = sum(one["n"] * one["fixed"][option]["value"] for one in parts) / 90
        assert total == pytest.approx(log.scores[:, k].mean())
    total = sum(one["n"] * one["policies"]["mine"]["accuracy"]["value"] for one in parts) / 90
    assert total == pytest.approx(log.scores[np.arange(90), choice].mean())
    for one in parts:
        assert sum(one["policies"]["mine"]["shares"].values()) == pytest.approx(1.0)
        assert one["oracle"]["value"] >= max(f["value"] for f in one["fixed"].values())
        assert one["policies"]["mine"]["accuracy"]["low"] is not None


def test_lost_questions_are_right_at_the_reference_and_wrong_as_routed(build_log):
    scores = np.array([[0, 0, 1.0], [1, 0, 0], [0, 1, 1], [0, 0, 0], [0, 0.4, 1], [0, 0, 1]])
    log = with_datasets(build_log(scores), ["a", "a", "a", "b", "b", "b"])
    choice = np.array([0, 0, 1, 0, 1, 2])
    p = np.tile([0.2, 0.5, 0.9], (6, 1))
    p[0, 0] = 0.8
    last = np.full(6, 2)
    result = lost_questions(log, choice, p, reference=last)
    assert (result["n"], result["lost"], result["won"]) == (6, 2, 1)
    assert result["by_dataset"] == {"a": 1, "b": 1}
    assert [one["id"] for one in result["examples"]] == ["e0", "e4"]
    first = result["examples"][0]
    assert (first["chosen"], first["score"], first["score_reference"]) == ("1", 0.0, 1.0)
    assert (first["sufficiency"], first["sufficiency_reference"]) == (0.8, 0.9)
    shortened = lost_questions(log, choice, p, reference=last, limit=1)
    assert [one["id"] for one in shortened["examples"]] == ["e0"]
    # against another option for each: what it says is of that option
    other = lost_questions(log, choice, p, reference=np.array([2, 0, 2, 2, 2, 1]))
    assert [one["id"] for one in other["examples"]] == ["e0", "e4"]
    mid = lost_questions(log, np.zeros(6, dtype=np.intp), p, reference=np.array([1, 1, 1, 1, 1, 2]))
    found = {one["id"]: one for one in mid["examples"]}
    assert list(found) == ["e2", "e5", "e4"]
    assert [found[name]["reference"] for name in ("e2", "e4", "e5")] == ["9", "9", "36"]
    assert (found["e4"]["score_reference"], found["e5"]["sufficiency_reference"]) == (0.4, 0.9)
    assert mid["won"] == 1


def test_nothing_lost_is_an_empty_list(build_log):
    log = build_log(np.ones((4, 3)))
    choice = np.zeros(4, dtype=np.intp)
    result = lost_questions(log, choice, np.ones((4, 3)), reference=choice + 2)
    assert (result["lost"], result["won"], result["examples"]) == (0, 0, [])


def test_reliability_in_closed_form():
    p = np.array([[0.2, 1.0]] * 10)
    scores = np.array([[1.0, 1.0]] * 2 + [[0.0, 1.0]] * 8)
    result = reliability(p, scores, ("coarse", "fine"), bins=1)
    assert result["options"]["coarse"]["ece"] == pytest.approx(0.0)
    assert result["options"]["coarse"]["brier"] == pytest.approx(0.2 * 0.8)
    assert result["options"]["fine"] == {
        "brier": 0.0,
        "ece": 0.0,
        "bins": [{"low": 1.0, "high": 1.0, "n": 10, "predicted": 1.0, "observed": 1.0}],
    }
    assert reliability(1 - p, scores, ("c", "f"), bins=1)["options"]["f"]["ece"] == 1.0


@given(
    p=hnp.arrays(np.float64, (23, 2), elements=st.floats(0, 1)),
    scores=hnp.arrays(np.float64, (23, 2), elements=st.floats(0, 1)),
    bins=st.integers(1, 40),
)
def test_reliability_bins_hold_every_example_once(p, scores, bins):
    result = reliability(p, scores, ("a", "b"), bins=bins)
    for k, one in enumerate(result["options"].values()):
        assert sum(group["n"] for group in one["bins"]) == 23
        mean = sum(group["n"] * group["observed"] for group in one["bins"]) / 23
        assert mean == pytest.approx(scores[:, k].mean(), abs=1e-9)
        assert 0 <= one["ece"] <= 1
        assert one["ece"] == expected_calibration_error(p[:, k], scores[:, k])


def test_the_stable_rule_needs_every_finer_option_to_be_right(build_log):
    scores = np.array([[1, 0, 1.0], [0, 1, 1], [1, 1, 0.5], [np.nan, 1, 1]])
    log = build_log(scores)
    changed = apply_rule(log, "stable")
    expected = np.array([[0, 0, 1.0], [0, 1, 1], [0.5, 0.5, 0.5]])
    assert np.array_equal(changed.scores[:3], expected)
    assert np.isnan(changed.scores[3, 0])
    assert changed.metadata["rule"] == "stable"
    assert np.array_equal(log.scores[:3], scores[:3])


def test_the_rule_matches_full_needs_no_truth(build_log):
    log = build_log(np.zeros((2, 3)))
    with pytest.raises(DataError, match="compares answers"):
        apply_rule(log, "matches_full")
    frame = log.frame
    frame["answer"] = ["Red ", "blue", "red", "7", "7", "7"]
    changed = apply_rule(
        OracleLog(frame, options=log.options, cost_unit="visual tokens"), "matches_full"
    )
    assert changed.scores.tolist() == [[1, 0, 1], [1, 1, 1]]


def test_the_default_rule_changes_nothing_and_others_must_exist(build_log):
    log = build_log(np.eye(3))
    assert apply_rule(log, "first_correct") is log
    with pytest.raises(DataError, match="Did you mean 'stable'"):
        apply_rule(log, "stabl")

from __future__ import annotations

import json
import shutil

import pytest

QUICK = ("--estimator", "knn", "--no-ablations")


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "copy")


@pytest.fixture
def quick(invoke, copy):
    """A run of the estimator that studies fit soonest."""
    result = invoke("train", copy, *QUICK)
    assert result.exit_code == 0, result.output
    return copy


def test_compare_prints_a_table_and_json(invoke, finished, copy):
    retrained = invoke("train", copy, *QUICK)
    assert retrained.exit_code == 0, retrained.output
    result = invoke("compare", finished, copy, "--draws", 50, "--budget", 36)
    assert result.exit_code == 2  # the copy's policies are of the router that was replaced
    assert "--policy default)" in result.stderr and "(m3router calibrate " in result.stderr
    assert invoke("calibrate", copy, "--budget", 100).exit_code == 0
    result = invoke("compare", finished, copy, "--draws", 50, "--budget", 36)
    assert result.exit_code == 0, result.output
    for row in ("AIQ", "accuracy at 36 visual tokens", "saved at 99 % of best fixed"):
        assert row in result.stdout
    assert "paired permutation test by image" in " ".join(result.stdout.split())
    result = invoke("compare", finished, copy, "--draws", 50, "--json")
    document = json.loads(result.stdout)
    assert (document["a"], document["b"]) == (str(finished), str(copy))
    assert {"difference", "low", "high", "p_value"} <= set(document["differences"][0])


def test_compare_refuses_another_split(invoke, finished, copy):
    assert invoke("train", copy, "--seed", 7, *QUICK).exit_code == 0
    result = invoke("compare", finished, copy)
    assert result.exit_code == 2
    assert "seed 0" in result.stderr
    assert "seed 7" in result.stderr


def test_study_learning_curve_answers_and_is_kept(invoke, quick):
    options = ("--share", 0.5, "--seeds", 1, "--draws", 20)
    result = invoke("study", "learning-curve", quick, *options)
    assert result.exit_code == 0, result.output
    shown = " ".join(result.stdout.split())
    assert "over mixing fixed options" in shown
    assert "tune split are used on top" in shown
    assert (quick / "learning-curve/learning-curve.png").is_file()
    before = (quick / "learning-curve/study.json").read_bytes()
    assert invoke("study", "learning-curve", quick, *options).exit_code == 0
    assert (quick / "learning-curve/study.json").read_bytes() == before


def test_study_leave_one_out_by_dataset(invoke, quick):
    result = invoke("study", "leave-one-out", quick, "--draws", 20)
    assert result.exit_code == 0, result.output
    assert {"short", "long"} <= set(result.stdout.split())
    result = invoke("study", "leave-one-out", quick, "--by", "colour")
    assert result.exit_code == 2
    assert "Unknown column of the log 'colour'. Known: " in result.stderr


def test_an_unknown_study_is_a_usage_error(invoke, copy):
    assert invoke("study", "nothing", copy).exit_code == 2

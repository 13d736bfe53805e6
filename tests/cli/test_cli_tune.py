from __future__ import annotations

import csv
import json
import shutil

import pytest

from m3router.data.splits.split import SPLITS
from m3router.router.training.scale_router import ScaleRouter

QUARTERS = (0.25, "25%", "0.25", "25 %")
QUICK = ("--estimator", "knn", "--no-ablations")


@pytest.fixture(scope="module")
def _tuned(invoke, _finished, tmp_path_factory):
    run = shutil.copytree(_finished, tmp_path_factory.mktemp("tuned") / "run")
    result = invoke("tune", run, "--estimator", "logistic", "--trials", 3)
    assert result.exit_code == 0, result.output
    return run, result


@pytest.fixture
def tuned(_tuned, tmp_path):
    run, result = _tuned
    return shutil.copytree(run, tmp_path / "tuned"), result


def test_tune_then_train_with_it(invoke, tuned):
    run, result = tuned
    assert "3 trials judged in full, 0 pruned, 0 failed" in result.stdout
    assert "--tuned" in result.stderr
    found = json.loads((run / "tuning/study.json").read_text())
    assert f"{found['chosen']}*" in result.stdout
    assert invoke("train", run, "--tuned", "--no-ablations").exit_code == 0
    router = ScaleRouter.read(run / "router")
    assert router.metadata["tuning"]["trial"] == found["chosen"]
    assert router.metadata["split"] == found["made_from"]["split"]
    stale = invoke("evaluate", run)  # the policy is of the earlier router
    assert stale.exit_code == 2
    assert "calibrate" in stale.stderr
    assert invoke("calibrate", run, "--budget", 100).exit_code == 0
    assert invoke("evaluate", run, "--draws", 20).exit_code == 0


def test_tune_goes_on_where_it_stopped(invoke, tuned):
    run, _ = tuned
    again = invoke("tune", run, "--estimator", "logistic", "--trials", 4)
    assert again.exit_code == 0, again.output
    with (run / "tuning/tuning.csv").open() as file:
        assert [row["trial"] for row in csv.DictReader(file)] == ["0", "1", "2", "3"]
    out_of_time = invoke("tune", run, "--estimator", "logistic", "--trials", 9, "--timeout", 0)
    assert out_of_time.exit_code == 0
    assert "4 of 9 trials are done: the same command goes on" in out_of_time.stderr
    other = invoke("tune", run, "--trials", 4, "--estimator", "logistic", "--seed", 8)
    assert other.exit_code == 2
    assert "--study" in other.stderr


def test_what_tuning_brings_cannot_be_given_again(invoke, tuned):
    run, _ = tuned
    for option in (["--estimator", "logistic"], ["--seed", 0], ["--split", "x.csv"]):
        result = invoke("train", run, "--tuned", *option)
        assert result.exit_code == 2
        assert "cannot go with --tuned" in result.output.replace("\n", " ")
    assert invoke("train", run, "--trial", 1).exit_code == 2
    assert invoke("train", run, "--tuned", "--trial", 77).exit_code == 2
    assert invoke("train", run, "--tuned", "--trial", 1, "--no-ablations").exit_code == 0
    assert ScaleRouter.read(run / "router").metadata["tuning"]["trial"] == 1


def test_a_missing_study_says_what_to_run(invoke, finished):
    result = invoke("train", finished, "--tuned")
    assert result.exit_code == 2
    assert "m3router tune" in result.stderr.replace("\n", " ")


def test_shares_and_given_splits(invoke, finished, tmp_path):
    shares = [f"--split-share={part}={share}" for part, share in zip(SPLITS, QUARTERS, strict=True)]
    result = invoke("train", finished, *shares, *QUICK)
    assert result.exit_code == 0, result.output
    assert "fit 36, tune 36, calibrate 36, test 36" in result.stdout
    stale = invoke("evaluate", finished)
    assert stale.exit_code == 2
    assert "default.json" in stale.stderr
    for wrong, code, said in (
        (["--split-share=fit=90%", *shares[1:]], 2, "sum to 1"),
        (shares[1:], 2, "lack fit"),
        ([*shares, shares[0]], 2, "given twice"),
        (["--split-share=fit", *shares[1:]], 2, "expected PART=FRACTION"),
        (["--split-share=fit=1", *shares[1:]], 2, "for per cent write 1%"),
    ):
        refused = invoke("train", finished, *wrong)
        assert refused.exit_code == code
        assert said in " ".join(refused.stderr.split())

    given = tmp_path / "official.csv"
    lines = [
        f"{image}-{place},{'train' if image < 30 else 'test'}"
        for image in range(36)
        for place in range(4)
    ]
    given.write_text("\n".join(["id,official", *lines]))
    train = ["train", finished, *QUICK, "--split", given]
    result = invoke(*train, "--split-column", "official")
    assert result.exit_code == 0, result.output
    assert "test 24" in result.stdout
    assert "--split-column" in invoke(*train).stderr.replace("\n", " ")
    given.write_text("\n".join(["id,official", *lines[1:], "0-0,test"]))
    result = invoke(*train, "--split-column", "official")
    assert result.exit_code == 2
    assert "0.png (test and train)" in result.stderr.replace("\n", " ")
    assert invoke("train", finished, "--split-column", "official").exit_code == 2

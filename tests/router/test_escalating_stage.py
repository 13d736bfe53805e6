"""calibrate --escalate on a run folder, and what evaluate tells of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from data.errors import DataError, MismatchError, NotLearnableError
from router.cascade import Cascade, cascade_path
from router.checks import check_run
from router.cli.main import app
from router.policy import Policy
from router.run import Run
from router.stages.escalating import escalate_stage
from router.stages.learning import calibrate_stage, train_stage
from router.stages.reporting import evaluate_stage
from tests.router.answered import answered_world


def run_of(root, **world):
    made = answered_world(**world)
    run = Run(root)
    made.log.write(run.log)
    made.features.write(run.features)
    train_stage(run, ablations=False)
    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return run_of(tmp_path_factory.mktemp("trained"), n=600)


@pytest.fixture
def run(trained, tmp_path):
    return Run(Path(shutil.copytree(trained.root, tmp_path / "run")))


def test_a_policy_and_its_cascade(run):
    cascade = escalate_stage(run, name="sure", budget=100)
    assert cascade == Cascade.read(cascade_path(run.root, "sure"))
    assert cascade.calibration["mean_cost"] <= 100
    policy = Policy.read(run.policy("sure"))
    assert policy.knob == cascade.knob and policy.calibration["mean_cost"] <= 100
    assert policy.binding == cascade.binding
    document = evaluate_stage(run, draws=50, budgets=[100])
    names = [row["name"] for row in document["escalation"]["rows"]]
    assert names == ["budget 100", "sure"]
    first, own = document["escalation"]["rows"]
    assert own["policy"]["kind"] == "cascade"
    assert own["cost"] == first["cost"]  # the same rule, learned from the same part
    assert "sure" not in [row["name"] for row in document["rows"]]
    assert all(check.ok for check in check_run(run))


def test_a_tolerable_loss_takes_the_cheapest(run):
    loose = escalate_stage(run, max_loss_points=5.0)
    tight = escalate_stage(run, max_loss_points=0.5)
    assert loose.calibration["mean_cost"] < tight.calibration["mean_cost"]


def test_the_test_part_is_not_read(run):
    before = escalate_stage(run, budget=100)
    log = run.read_log()
    rows = run.read_split(log).test
    frame = log.frame
    touched = frame["example_id"].isin([log.ids[row] for row in rows])
    frame.loc[touched, ["confidence", "logprob"]] = [0.5, -3.0]
    frame.loc[touched, "score"] = 1 - frame.loc[touched, "score"]
    poisoned = type(log)(frame, options=log.options, cost_unit=log.cost_unit, metadata=log.metadata)
    poisoned.write(run.log)
    train_stage(run, ablations=False)
    after = escalate_stage(run, budget=100)
    assert after.rule == before.rule
    assert (after.price, after.calibration) == (before.price, before.calibration)


def test_a_new_policy_of_that_name_loses_the_cascade(run):
    escalate_stage(run, budget=100)
    calibrate_stage(run, budget=100)
    assert not cascade_path(run.root, "default").exists()


def test_a_cascade_of_another_router_is_refused(run):
    escalate_stage(run, budget=100)
    path = cascade_path(run.root, "default")
    kept = path.read_bytes()
    train_stage(run, estimator="lightgbm", ablations=False)
    calibrate_stage(run, budget=100)
    path.write_bytes(kept)
    with pytest.raises(MismatchError, match="Calibrate it again"):
        evaluate_stage(run, draws=50)
    assert not all(check.ok for check in check_run(run))


def test_what_cannot_be_met_is_told(run, tmp_path):
    with pytest.raises(DataError, match="either a budget or a maximal loss"):
        escalate_stage(run)
    with pytest.raises(DataError, match=r"No price meets .*Ask for less"):
        escalate_stage(run, budget=0.5)
    with pytest.raises(DataError, match="No price meets"):
        escalate_stage(run, max_loss_points=-90)
    silent = run_of(tmp_path / "silent", n=300, confidence=np.nan)
    with pytest.raises(NotLearnableError, match="no confidences"):
        escalate_stage(silent, budget=100)


def test_from_the_command_line(run):
    runner = CliRunner()
    done = runner.invoke(app, ["calibrate", str(run.root), "--budget", "100", "--escalate"])
    assert done.exit_code == 0, done.output
    assert "asked again" in done.output
    done = runner.invoke(
        app, ["calibrate", str(run.root), "--budget", "100", "--cap", "144", "--escalate"]
    )
    assert done.exit_code != 0
    done = runner.invoke(app, ["evaluate", str(run.root), "--draws", "50"])
    assert done.exit_code == 0, done.output
    for said in ("confidence cascade", "router + escalation", "fixed scales mixed at random"):
        assert said in done.output
    rows = json.loads((run.evaluation / "evaluation.json").read_text())["escalation"]["rows"]
    (row,) = (row for row in rows if row["policy"]["kind"] == "cascade")
    right = f"{100 * row['accuracy']['value']:.1f} % right"
    assert f"router + escalation, default: {right}" in done.output


def test_two_options_print_and_keep_their_apgr(tmp_path):
    run = run_of(tmp_path / "two", n=900, options=2)
    done = CliRunner().invoke(app, ["evaluate", str(run.root), "--draws", "50"])
    assert done.exit_code == 0, done.output
    document = json.loads((run.evaluation / "evaluation.json").read_text())
    value = document["metrics"]["apgr"]["value"]
    assert f"APGR between 144 and 576: {value:.3f}" in done.output
    assert 0.5 < value < 1

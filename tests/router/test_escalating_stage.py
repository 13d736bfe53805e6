"""calibrate --escalate on a run folder, and what evaluate tells of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from m3router.data.errors import DataError, MismatchError, NotLearnableError
from m3router.router.cascade.rule import Cascade, cascade_path
from m3router.router.cli.main import app
from m3router.router.estimators import DEFAULT
from m3router.router.policies.policy import Policy
from m3router.router.runs.calibration_data import predictions
from m3router.router.runs.run import Run
from m3router.router.stages.checks import check_run
from m3router.router.stages.escalating import escalate_stage
from m3router.router.stages.evaluating import evaluate_stage
from m3router.router.stages.learning import calibrate_stage, train_stage
from m3router.router.stages.monitoring import monitor_stage
from tests.router.answered import answered_world


def run_of(root, *, estimator="lightgbm", **world):
    made = answered_world(**world)
    run = Run(root)
    made.log.write(run.log_folder)
    made.features.write(run.features_folder)
    train_stage(run, estimator=estimator, ablations=False)
    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    # three options: what answers tell is learned for every pair of them
    return run_of(tmp_path_factory.mktemp("trained"), n=600, options=3, estimator=DEFAULT)


@pytest.fixture
def run(trained, tmp_path):
    return Run(Path(shutil.copytree(trained.root, tmp_path / "run")))


def test_a_policy_and_its_cascade(run):
    cascade = escalate_stage(run, name="sure", budget=100)
    assert cascade == Cascade.read(cascade_path(run.root, "sure"))
    assert cascade.calibration["mean_cost"] <= 100
    policy = Policy.read(run.policy_file("sure"))
    assert policy.knob == cascade.knob and policy.calibration["mean_cost"] <= 100
    assert policy.binding == cascade.binding
    document = evaluate_stage(run, draws=20, budgets=[100])
    names = [row["name"] for row in document["escalation"]["rows"]]
    assert names == ["budget 100", "sure"]
    first, own = document["escalation"]["rows"]
    assert own["policy"]["kind"] == "cascade"
    assert own["cost"] == first["cost"]  # the same rule, learned from the same part
    assert "sure" not in [row["name"] for row in document["rows"]]
    assert all(check.ok for check in check_run(run))


def test_a_tolerable_loss_takes_the_cheapest(run):
    loose = escalate_stage(run, max_loss_observed=0.05)
    tight = escalate_stage(run, max_loss_observed=0.005)
    assert loose.calibration["mean_cost"] < tight.calibration["mean_cost"]


def test_the_test_part_is_not_read(run):
    before = escalate_stage(run, budget=100)
    log = run.log()
    rows = run.split(log).test
    frame = log.frame
    touched = frame["example_id"].isin([log.ids[row] for row in rows])
    frame.loc[touched, ["confidence", "logprob"]] = [0.5, -3.0]
    frame.loc[touched, "score"] = 1 - frame.loc[touched, "score"]
    poisoned = type(log)(frame, options=log.options, cost_unit=log.cost_unit, metadata=log.metadata)
    poisoned.write(run.log_folder)
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
    train_stage(run, estimator="knn", ablations=False)
    calibrate_stage(run, budget=100)
    path.write_bytes(kept)
    with pytest.raises(MismatchError, match="Calibrate it again"):
        evaluate_stage(run, draws=20)
    assert not all(check.ok for check in check_run(run))


def test_what_cannot_be_met_is_told(run, tmp_path):
    with pytest.raises(DataError, match="one of a budget, a maximal loss and a maximal regret"):
        escalate_stage(run)
    with pytest.raises(DataError, match=r"The budget must be at least 36 visual tokens"):
        escalate_stage(run, budget=0.5)
    with pytest.raises(DataError, match="No price meets"):
        escalate_stage(run, max_loss_observed=-0.9)
    silent = run_of(tmp_path / "silent", n=300, options=3, estimator="knn", confidence=np.nan)
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
    done = runner.invoke(app, ["evaluate", str(run.root), "--draws", "20"])
    assert done.exit_code == 0, done.output
    for said in ("confidence cascade", "router + escalation", "fixed scales mixed at random"):
        assert said in done.output
    rows = json.loads((run.evaluation_folder / "evaluation.json").read_text())["escalation"]["rows"]
    (row,) = (row for row in rows if row["policy"]["kind"] == "cascade")
    right = f"{100 * row['accuracy']['value']:.1f} % right"
    assert f"router + escalation, default: {right}" in done.output


def test_two_options_print_and_keep_their_apgr(tmp_path):
    run = run_of(tmp_path / "two", n=900, options=2)
    done = CliRunner().invoke(app, ["evaluate", str(run.root), "--draws", "20"])
    assert done.exit_code == 0, done.output
    document = json.loads((run.evaluation_folder / "evaluation.json").read_text())
    value = document["metrics"]["apgr"]["value"]
    assert f"APGR between 144 and 576: {value:.3f}" in done.output
    assert 0.5 < value < 1


def test_the_regret_of_a_cascade_is_certified(tmp_path):
    run = run_of(tmp_path, n=6000, options=3)
    cascade = escalate_stage(run, name="safe", max_regret=0.05)
    kept = cascade.guarantee
    assert kept["max_regret"] == 0.05 and kept["p_value"] <= 0.05 < 1
    assert kept["regret"] < 0.05 and kept["upper_limit"] <= 0.05 + 1e-6
    log = run.log()
    rows = run.split(log).calibrate
    p = predictions(run.router(), run.features(log), log, rows)[rows]
    signals = [np.asarray(log.laid_out(name), float)[rows] for name in ("confidence", "logprob")]
    asked = cascade.rule.ask(
        p, log.costs[rows], log.costs[rows], cascade.rule.believe(p, *signals), cascade.price
    )
    final = log.scores[rows, asked.final]
    regret = np.maximum(0, log.scores[rows, -1] - final).mean()
    assert regret == pytest.approx(kept["regret"])
    plain = Policy.read(run.policy_file("safe"))
    assert plain.guarantee["max_regret"] == 0.05
    assert cascade.calibration["mean_cost"] < plain.calibration["mean_cost"]
    assert Cascade.read(cascade_path(run.root, "safe")) == cascade
    strict = escalate_stage(run, max_regret=0.02)
    assert strict.calibration["mean_cost"] > cascade.calibration["mean_cost"]


def test_the_net_loss_of_a_cascade_is_certified(tmp_path):
    run = run_of(tmp_path, n=3000, options=3)
    cascade = escalate_stage(run, name="net", max_loss=0.05)
    kept = cascade.guarantee
    assert kept["max_loss"] == 0.05 and kept["p_value"] <= 0.05 and "max_regret" not in kept
    log = run.log()
    rows = run.split(log).calibrate
    p = predictions(run.router(), run.features(log), log, rows)[rows]
    signals = [np.asarray(log.laid_out(name), float)[rows] for name in ("confidence", "logprob")]
    asked = cascade.rule.ask(
        p, log.costs[rows], log.costs[rows], cascade.rule.believe(p, *signals), cascade.price
    )
    net = (log.scores[rows, cascade.reference_index] - log.scores[rows, asked.final]).mean()
    assert net == pytest.approx(kept["loss"])
    assert kept["loss"] < kept["upper_limit"] <= 0.05
    assert cascade.knob == {"max_loss": 0.05, "confidence": 0.95}
    plain = Policy.read(run.policy_file("net"))
    assert plain.guarantee["max_loss"] == 0.05


def test_a_regret_that_no_cascade_meets_is_refused(run):
    with pytest.raises(DataError, match=r"calibration split is too small .* at least \d+ such"):
        escalate_stage(run, max_regret=0.001)
    with pytest.raises(DataError, match="cannot be capped"):
        escalate_stage(run, max_regret=0.2, cap=144)
    with pytest.raises(DataError, match="one of a budget, a maximal loss and a maximal regret"):
        escalate_stage(run, budget=100, max_regret=0.2)


def test_what_is_monitored_is_the_cascade(run, tmp_path):
    cascade = escalate_stage(run, name="both", budget=100)
    made = answered_world(n=400, options=3, seed=5)
    fresh = Run(tmp_path / "fresh")
    frame, features = made.log.frame, made.features
    frame["example_id"] = "fresh-" + frame["example_id"]
    frame["group"] = "fresh-" + frame["group"]
    log = type(made.log)(frame, options=made.log.options, cost_unit=made.log.cost_unit)
    log.write(fresh.log_folder)
    ids = tuple(f"fresh-{name}" for name in features.ids)
    table = type(features)(ids=ids, blocks=features.blocks, metadata=features.metadata)
    table.write(fresh.features_folder)
    found = monitor_stage(run, fresh, name="both")
    for name in ("cost", "accuracy"):
        kept = cascade.calibration[{"cost": "mean_cost"}.get(name, name)]
        assert found[name]["calibrate"] == pytest.approx(kept)
    assert found["cost"]["fresh"] == pytest.approx(cascade.calibration["mean_cost"], rel=0.3)
    assert not found["alarm"]
    frame["confidence"] = None
    type(log)(frame, options=log.options, cost_unit=log.cost_unit).write(fresh.log_folder)
    table.write(fresh.features_folder)
    with pytest.raises(DataError, match=r"goes by the confidence of answers; \d+ of \d+"):
        monitor_stage(run, fresh, name="both")


def test_a_cascade_is_against_the_best_option_or_the_one_that_is_named(tmp_path):
    made = answered_world(n=1200)
    frame = made.log.frame
    top = frame["scale"] == made.log.options[-1]
    frame.loc[top, "score"] *= np.random.default_rng(0).random(int(top.sum())) < 0.5
    log = type(made.log)(
        frame, options=made.log.options, cost_unit=made.log.cost_unit, metadata=made.log.metadata
    )
    run = Run(tmp_path / "run")
    log.write(run.log_folder)
    made.features.write(run.features_folder)
    train_stage(run, estimator="lightgbm", ablations=False)
    rows = run.split(log).calibrate
    accuracy = log.scores[rows].mean(axis=0)
    best = log.options[int(accuracy.argmax())]
    assert best != log.options[-1]
    cascade = escalate_stage(run, max_loss_observed=0.0)
    assert cascade.reference == best == Policy.read(run.policy_file("default")).reference
    assert cascade.calibration["accuracy"] >= accuracy.max() - 1e-12
    named = escalate_stage(run, max_loss_observed=0.0, reference=log.options[-1])
    assert named.reference == log.options[-1]
    assert named.calibration["mean_cost"] <= cascade.calibration["mean_cost"]
    kept = escalate_stage(run, name="kept", max_regret=0.2)
    assert kept.reference == kept.guarantee["reference"] == best
    assert f"right at the reference option, {best}, and" in kept.guarantee["sentence"]
    net = CliRunner().invoke(
        app, ["calibrate", str(run.root), "--max-loss", "10%", "--escalate", "--policy", "net"]
    )
    assert net.exit_code == 0, net.output
    sentence = Cascade.read(cascade_path(run.root, "net")).guarantee["sentence"]
    assert f"at most 10 points below that of the reference option, {best}" in sentence
    assert sentence in net.output
    document = evaluate_stage(run, draws=20, budgets=[100])
    assert document["reference"]["option"] == best
    told = {row["name"]: row for row in document["escalation"]["rows"]}
    assert told["net"]["policy"]["reference"] == best
    # regret of a cascade is against its own reference
    fixed = {row["name"]: row for row in document["rows"] if row["kind"] == "fixed"}
    assert told["net"]["regret"]["value"] >= (
        fixed[best]["accuracy"]["value"] - told["net"]["accuracy"]["value"] - 1e-9
    )

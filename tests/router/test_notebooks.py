"""What notebooks show, and the tables and decisions that Python programs read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from m3router import FeatureTable, OracleLog, Run, evaluate, train_router
from m3router.data import split_by_group
from m3router.data.cards import bars, card, table
from m3router.data.errors import DataError, MismatchError
from m3router.router import Evaluation, calibrate_stage, evaluate_stage, train_stage
from m3router.router.runs.calibration_data import CalibrationData

OPTIONS = ("small", "big", "<b>huge")


@pytest.fixture(scope="module")
def log() -> OracleLog:
    random, rows = np.random.default_rng(0), []
    for n in range(200):
        for place, option in enumerate(OPTIONS):
            about = {"example_id": f"{n}", "group": f"{n // 2}", "dataset": "d", "image": "a.png"}
            score = float(random.random() < 0.4 + 0.25 * place)
            cost = 4.0**place
            text = {"question": "<script>?", "scale": option, "cost": cost, "score": score}
            rows.append({**about, **text, "chance": 0.0})
    return OracleLog(
        pd.DataFrame(rows),
        options=OPTIONS,
        cost_unit="<i>tokens",
        metadata={"model": "<script>m"},
    )


def test_a_frame_orders_its_options(log, tmp_path):
    frame = log.frame
    assert frame["scale"].dtype == pd.CategoricalDtype(OPTIONS, ordered=True)
    assert list(frame.groupby("scale")["score"].mean().index) == list(OPTIONS)
    assert (frame["scale"] > "small").sum() == 2 * len(log)
    log.write(str(tmp_path / "log"))
    again = OracleLog.read(str(tmp_path / "log")).frame
    assert again.equals(frame) and again["scale"].dtype == frame["scale"].dtype
    joined = frame.merge(again, on=["example_id", "scale"])
    both = pd.concat([frame, again])
    frame.to_parquet(tmp_path / "frame.parquet")
    kept = pd.read_parquet(tmp_path / "frame.parquet")
    for one in (joined, both, kept, log.errors()):
        assert list(one["scale"].cat.categories) == list(OPTIONS) and one["scale"].cat.ordered
    made = OracleLog(frame, options=OPTIONS, cost_unit=log.cost_unit, metadata=log.metadata)
    assert made.frame.equals(frame)


@pytest.fixture(scope="module")
def run(log, tmp_path_factory) -> Run:
    """A run without a model: log and features from arrays."""
    run = Run(str(tmp_path_factory.mktemp("arrays") / "run"))
    log.write(run.log_folder)
    features = np.column_stack([log.scores[:, 0] + np.linspace(0, 1, len(log)), np.ones(len(log))])
    FeatureTable(ids=log.ids, blocks={"question": features}).write(str(run.features_folder))
    return run


def test_a_run_shows_how_far_it_is(run):
    assert "Next: train" in run._repr_html_() and "200 examples, &lt;script&gt;m" in str(
        run._repr_html_()
    )
    assert "Next: label" in Run("nowhere <b>")._repr_html_()
    assert "nowhere &lt;b&gt;" in Run("nowhere <b>")._repr_html_()
    train_stage(run, estimator="logistic", progress=False)
    assert "Next: calibrate" in run._repr_html_()
    calibrate_stage(run, budget=8.0)
    with pytest.raises(DataError, match="evaluate"):
        run.evaluation()
    evaluation = evaluate_stage(run.root, draws=20, progress=False)
    assert run.evaluation() == evaluation and isinstance(evaluation, Evaluation)
    assert "Next: report" in run._repr_html_()
    for shown in (run.opened(), run):
        assert shown.features().ids == shown.log().ids == run.log().ids
        assert len(shown.split().test) and list(shown.policies()) == ["default"]
        assert shown.policy() == shown.policies()["default"] and shown.cascades() == {}
        assert shown.cascade() is None
    with pytest.raises(DataError, match=r"Unknown policy 'defualt'. Did you mean 'default'\?"):
        run.policy("defualt")
    for part in (run.features(), run.split(), run.router(), run.log(), evaluation):
        assert len(repr(part)) < 400


def test_an_evaluation_is_a_table_and_a_card(run, log):
    evaluation = evaluate_stage(run, draws=20, progress=False)
    frame = evaluation.to_frame()
    assert list(frame.columns[:5]) == [
        "method",
        "kind",
        "accuracy",
        "accuracy_low",
        "accuracy_high",
    ]
    assert (frame.dtypes[2:] == "float64").all() and frame["method"].is_unique
    assert {"fixed", "router", "best_fixed", "baseline"} <= set(frame["kind"])
    fixed = frame[frame["kind"] == "fixed"]
    assert list(fixed["method"]) == [f"fixed {name}" for name in OPTIONS]
    test = run.split().test
    assert fixed["accuracy"].to_numpy() == pytest.approx(log.scores[test].mean(axis=0))
    assert (fixed["accuracy_low"] <= fixed["accuracy"]).all()
    assert evaluation.verdict == evaluation["verdict"]["text"] != ""
    json.dumps(evaluation)
    page = evaluation._repr_html_()
    assert "<svg" in page and "<script" not in page and "<b>huge" not in page
    assert "&lt;i&gt;tokens" in page
    assert Evaluation({}).to_frame().empty and "Evaluation" in Evaluation({})._repr_html_()


def test_the_way_without_a_pipeline(log):
    random = np.random.default_rng(0)
    mine = random.normal(size=(len(log), 4)) + log.scores[:, :1]
    features = FeatureTable(ids=log.ids, blocks={"mine": mine})
    split = split_by_group(log.groups)
    router = train_router(log, features, split, estimator="logistic")
    policy = CalibrationData.of(router, log, features, split).policy(budget=6.0)
    p = router.predict({"mine": mine})
    assert np.array_equal(p, router.predict(features)) and p.shape == (len(log), 3)
    chosen = policy.choose(p, log.costs)
    for row in range(5):
        place = policy.decide(p[row], log.costs[row])
        assert place == chosen[row] == policy.decide(p[row].tolist(), log.costs[row].tolist())
        by_name = dict(zip(OPTIONS, p[row], strict=True))
        costs = dict(zip(reversed(OPTIONS), log.costs[row][::-1], strict=True))
        assert policy.decide(by_name, costs) == OPTIONS[place]
    with pytest.raises(MismatchError, match="Did you mean 'small'"):
        policy.decide({"smal": 0.1, "big": 0.2, "<b>huge": 0.3}, costs)
    with pytest.raises(MismatchError, match=r"p has no value for <b>huge"):
        policy.decide({"small": 0.1, "big": 0.2}, costs)
    with pytest.raises(MismatchError, match="costs has no names"):
        policy.decide(by_name, log.costs[0])
    assert evaluate(log, p, split=split).verdict
    assert np.array_equal(p, router.predict(mine))
    for wrong in ({"theirs": mine}, None, [mine]):
        with pytest.raises(MismatchError, match="reads the feature blocks"):
            router.predict(wrong)


def test_a_log_is_a_card(log):
    page = log._repr_html_()
    assert "200 examples in 100 groups" in page and "&lt;script&gt;m" in page
    assert "<script" not in page and "<b>huge" not in page


def test_cards_escape_all_they_are_given():
    bad = "<img src=x onerror='alert(1)'>"
    for page in (card(bad, bad), table([bad], [[bad]]), bars({bad: 0.5}, chosen=bad)):
        assert "<img" not in page and "&lt;img" in page
    assert "–" in bars({"a": float("nan")}) and Path("x")
    assert len(card("x" * 10_000)) < 1000

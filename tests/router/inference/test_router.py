"""Deciding without the model that answers: the same as calibrated, from raw images."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from m3router.data.errors import DataError, MismatchError, ModelError
from m3router.data.log.parts import part_rows
from m3router.m3core.encoders import load_encoder
from m3router.m3core.options import Usage, options_named
from m3router.router.features.size import image_sizes
from m3router.router.inference.route_lines import route_lines
from m3router.router.inference.router import Router, counted_costs
from m3router.router.policies.policy import Policy
from m3router.router.runs.calibration_data import CalibrationData, labelled
from m3router.router.runs.run import Run
from m3router.router.stages.evaluating import evaluate_stage
from m3router.router.stages.labelling import featurize_stage
from m3router.router.stages.learning import train_stage
from m3router.router.training.scale_router import ScaleRouter
from tests.router.inference.world import QUESTIONS, SIZES, invoke, paid


@pytest.fixture(scope="module")
def router(imported):
    return Router.load(imported.run.root)


def test_decisions_are_those_that_the_policy_was_calibrated_with(imported, router):
    run = imported.run.opened()
    trained, log = run.router(), run.log()
    assert list(trained.blocks) == ["image", "question", "size"]
    rows = part_rows(log, run.split(log), "test", gaps="error")
    part = labelled(trained, run.features(log), log, rows)
    policy = Policy.read(run.policy_file("default"))
    decisions = router.decide_many(
        [imported.images / log.images[row] for row in rows], [log.questions[row] for row in rows]
    )
    for row, decision in enumerate(decisions):
        assert list(decision.costs.values()) == part.costs[row].tolist()
        np.testing.assert_allclose(list(decision.estimates.values()), part.p[row], atol=1e-5)
    chosen = [log.options.index(one.option) for one in decisions]
    assert chosen == policy.choose(part.p, part.costs).tolist()
    assert len(set(chosen)) == 2


def test_choices_go_by_expected_costs_and_count_what_was_paid(imported):
    run = imported.run.opened()
    data = CalibrationData.read(run)
    part, policy = data.calibrate, Policy.read(run.policy_file("default"))
    assert not np.array_equal(part.costs, part.paid)
    choice = policy.choose(part.p, part.costs)
    spent = part.paid[np.arange(len(choice)), choice].mean()
    assert policy.calibration["mean_cost"] == spent <= 80
    document = evaluate_stage(run, draws=10)
    (row,) = (one for one in document["rows"] if one["name"] == "default")
    log, trained = run.log(), run.router()
    rows = part_rows(log, run.split(log), "test", gaps="error")
    test = labelled(trained, run.features(log), log, rows)
    choice = policy.choose(test.p, test.costs)
    true = log.costs[rows][np.arange(len(rows)), choice].mean()
    assert row["cost"]["value"] == pytest.approx(true)


def test_expected_costs_are_kept_with_the_router_and_not_needed_of_older_ones(imported, tmp_path):
    folder = imported.run.arm()
    trained = ScaleRouter.read(folder)
    expected = trained.expected_costs
    assert expected is not None and len(expected.sizes) == 4 and not expected.constant
    text = (folder / "router.json").read_text()
    (tmp_path / "router.json").write_text(text.replace('"counted": false', '"counted": true'))
    with pytest.raises(DataError, match="does not match its own SHA-256"):
        ScaleRouter.read(tmp_path)
    older = replace(trained, expected_costs=None)
    assert older.fingerprint != trained.fingerprint
    older.write(tmp_path / "older")
    assert json.loads((tmp_path / "older" / "router.json").read_text())["schema"] < 4
    assert ScaleRouter.read(tmp_path / "older").expected_costs is None


def test_a_router_without_expected_costs_takes_the_means_of_its_log(imported, tmp_path):
    run = Run(tmp_path)
    imported.run.copy_data(tmp_path)
    run.split_file.write_bytes(imported.run.split_file.read_bytes())
    older = replace(ScaleRouter.read(imported.run.arm()), expected_costs=None)
    older.write(run.arm())
    decision = Router.load(tmp_path).decide(imported.images / "0.png", QUESTIONS[0], option="low")
    log = run.log()
    rows = part_rows(log, run.split(log), "fit", gaps="error")
    np.testing.assert_allclose(list(decision.costs.values()), log.costs[rows].mean(axis=0))
    assert decision.option == "low" and decision.guarantee == ""


def test_images_may_be_files_or_opened_and_rules_may_change(router, imported, opened):
    file = imported.images / "3.png"
    by_file = router.decide(file, QUESTIONS[1])
    by_image = router.decide(opened(3), QUESTIONS[1])
    assert replace(by_file, milliseconds={}) == replace(by_image, milliseconds={})
    assert by_file.cost_unit == "tokens" and "budget 80" in by_file.reason
    assert set(by_file.milliseconds) == {"vision", "features", "route"}
    # The mean of two questions of that size, neither of which is known before it is asked.
    means = [np.mean([paid((300, 200), one, q) for q in QUESTIONS]) for one in router.options]
    np.testing.assert_allclose(list(by_file.costs.values()), means)
    assert router.decide(file, QUESTIONS[1], budget=1000).option == "high"
    assert router.decide(file, QUESTIONS[1], budget=45).option == "low"
    assert router.decide(file, "?", option="high").option == "high"


def test_a_model_s_own_counts_decide_where_policies_were_fitted_by_them(imported, opened):
    trained = ScaleRouter.read(imported.run.arm())
    expected = replace(trained.expected_costs, counted=True)
    kept = {"max_regret": 0.5, "confidence": 0.9, "pictures": 9, "questions": 18, "most": 2}
    policy = replace(Policy.read(imported.run.policy_file("default")), kind="price", guarantee=kept)
    encoder = load_encoder(imported.encoder)
    counting = Router(router=trained, encoder=encoder, costs=expected, policy=policy)
    assert counting.counts
    image, question = opened(0), QUESTIONS[1]
    assert counting.decide(image, question).guarantee.startswith("With 90 % confidence")
    assert counting.decide(image.resize((41, 30)), question).guarantee == ""  # nobody counted it
    counts = counted_costs(Counting(), [image, image.resize((41, 30))])
    assert counts is not None
    found = counting.decide_many([image, image.resize((41, 30))], [question] * 2, costs=counts)
    assert [one.costs["high"] for one in found] == [1200.0, 1230.0]
    assert all(one.guarantee for one in found)
    router = Router(router=trained, encoder=encoder, costs=trained.expected_costs, policy=policy)
    (decision,) = router.decide_many([image], [question], costs=counts[:1])
    assert decision == replace(router.decide(image, question), milliseconds=decision.milliseconds)


class Counting:
    """As far as costs are asked of it, a model with two options: a fifth of the pixels, and all."""

    options = options_named(["low", "high"])

    def count(self, image, option):
        area = float(image.width * image.height)
        return Usage(cost=area if option == "high" else area / 5)


def test_what_cannot_be_decided_is_said(router, imported):
    with pytest.raises(MismatchError, match="'low'"):
        router.decide(imported.images / "0.png", "what?", option="lo")
    with pytest.raises(DataError, match="has no image"):
        router.decide(None, "what?")
    with pytest.raises(DataError, match="empty"):
        router.decide(imported.images / "0.png", " ")
    with pytest.raises(DataError, match="at most one"):
        router.decide(imported.images / "0.png", "?", option="low", budget=3)
    with pytest.raises(DataError, match="careful"):
        router.decide(imported.images / "0.png", "?", policy="careful")


def test_another_encoder_than_the_trained_one_is_refused(imported):
    with pytest.raises(MismatchError, match="trained on features of .*but the encoder is fake@"):
        Router.load(imported.run.root, encoder="fake")
    with pytest.raises(ModelError):
        Router.load(imported.run.root, encoder="nowhere-at-all")


def test_lines_give_decisions_or_error_records_in_their_order(router, imported):
    lines = [
        json.dumps({"id": "a", "image": "0.png", "question": QUESTIONS[0], "answers": ["x"]}),
        "{",
        json.dumps({"id": "b", "image": "missing.png", "question": QUESTIONS[0]}),
        "",
        json.dumps({"image": "1.png", "question": QUESTIONS[1]}),
        json.dumps({"id": "c", "image": "1.png"}),
        json.dumps({"id": "d", "image": "../secret.png", "question": "?"}),
        json.dumps({"id": None, "image": "1.png", "question": QUESTIONS[1]}),
        json.dumps({"id": "\ud800", "image": "1.png", "question": QUESTIONS[1]}),
    ]
    records = list(route_lines(router, [one.encode() for one in lines], images=imported.images))
    assert [one["id"] for one in records] == ["a", "2", "b", "5", "c", "d", "8", "9"]
    assert ["error" in one for one in records] == [
        False,
        True,
        True,
        False,
        True,
        True,
        False,
        True,
    ]
    assert "half of a surrogate pair" in records[-1]["error"]
    alone = router.decide(imported.images / "1.png", QUESTIONS[1])
    assert records[3]["option"] == alone.option
    assert records[3]["estimates"] == pytest.approx(dict(alone.estimates), abs=1e-5)
    assert records[3]["costs"] == alone.costs


def test_the_command_takes_the_run_first_or_last(imported, opened, tmp_path):
    run, file = imported.run.root, imported.images / "2.png"
    first = invoke("route", run, file, QUESTIONS[0], "--json")
    last = invoke("route", file, QUESTIONS[0], run, "--json")
    assert first.exit_code == 0 and first.stdout == last.stdout
    record = json.loads(first.stdout)
    assert record["option"] in ("low", "high") and set(record["costs"]) == {"low", "high"}
    shown = invoke("route", run, file, QUESTIONS[0])
    assert f"{record['option']} ◀" in shown.output and "budget 80" in shown.output
    asked = tmp_path / "asked.jsonl"
    asked.write_text(json.dumps({"id": "x", "image": "2.png", "question": QUESTIONS[0]}) + "\n{\n")
    routed = tmp_path / "routed.jsonl"
    words = ("--examples", asked, "--images", imported.images, "--out", routed)
    result = invoke("route", run, *words)
    assert result.exit_code == 3 and "1 not" in result.output
    one, bad = map(json.loads, routed.read_text().splitlines())
    assert one == {"id": "x", **record} and set(bad) == {"id", "error"}


def test_sizes_need_images_and_are_read_back_to_the_pixel(imported):
    with pytest.raises(DataError, match="size look at images"):
        featurize_stage(imported.run, feature_groups=["size"])
    log = imported.run.log()
    found = image_sizes(imported.run.features(log))
    assert found.tolist() == [list(SIZES[int(name.split("-")[0]) % 4]) for name in log.ids]


def test_questions_alone_need_neither_image_nor_encoder(imported, tmp_path):
    run = Run(tmp_path)
    imported.run.copy_data(tmp_path)
    featurize_stage(run, feature_groups=["question"], questions="hashed")
    train_stage(run, estimator="logistic", feature_groups=["question"])
    router = Router.load(tmp_path, encoder="nowhere")  # not looked for
    decision = router.decide(None, QUESTIONS[0], budget=100)
    assert router.needs_image is False and decision.option in router.options


def test_the_command_decides_for_a_table(imported, opened, tmp_path):
    (tmp_path / "q.csv").write_text(f"image;question;source\n0.png;{QUESTIONS[0]};x\n")
    (tmp_path / "q.jsonl").write_text(json.dumps({"image": "0.png", "question": QUESTIONS[0]}))
    told = [
        invoke(
            "route", imported.run.root, "--examples", tmp_path / name, "--images", imported.images
        )
        for name in ("q.csv", "q.jsonl")
    ]
    assert told[0].exit_code == 0, told[0].output
    assert told[0].stdout == told[1].stdout

"""`calibrate` with a guarantee, a price or a cap, and `monitor` on fresh traffic."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from m3router.data.log.oracle_log import OracleLog
from m3router.data.log.parts import part_rows
from m3router.router.features.table import FeatureTable
from m3router.router.policies.costs import routed_costs
from m3router.router.policies.guarantee import Target, for_target
from m3router.router.policies.policy import Policy
from m3router.router.runs.calibration_data import labelled
from m3router.router.runs.run import Run
from m3router.router.stages.checks import check_run
from m3router.router.stages.learning import train_stage
from tests.router.conftest import make_world

PROMISE = ("--max-regret", 0.1)


def write_run(folder, log, features):
    run = Run(folder)
    log.write(run.log_folder)
    features.write(run.features_folder, inputs={"log": run.inputs("log")["log"]})
    return run


def traffic_of(folder, *, n=800, seed=99, shift=0.0, spoil=0.0, prefix="fresh-"):
    """Labelled traffic from the world that the run was trained on, or from a changed one."""
    world = make_world(n, seed=seed)
    frame = world.log.frame
    frame["group"] = prefix + frame["group"]
    if spoil:  # coarse options go wrong where they were right
        coarse = frame["scale"] != world.log.options[-1]
        drawn = np.random.default_rng(0).random(len(frame)) < spoil
        frame.loc[coarse & drawn, "score"] = 0.0
        frame.loc[~coarse, "score"] = 1.0
    log = OracleLog(frame, options=world.log.options, cost_unit=world.log.cost_unit)
    blocks = {**world.features.blocks, "image": world.features.blocks["image"] + shift}
    return write_run(folder, log, replace(world.features, blocks=blocks)).root


@pytest.fixture(scope="module")
def _trained(tmp_path_factory):
    world = make_world(3000)
    run = write_run(tmp_path_factory.mktemp("world") / "run", world.log, world.features)
    train_stage(run, ablations=False)
    return run.root


@pytest.fixture
def trained(_trained, tmp_path):
    return shutil.copytree(_trained, tmp_path / "run")


@pytest.fixture(scope="module")
def _small(tmp_path_factory):
    world = make_world(600)
    run = write_run(tmp_path_factory.mktemp("small") / "run", world.log, world.features)
    train_stage(run, estimator="knn", ablations=False)
    return run.root


@pytest.fixture
def small(_small, tmp_path):
    """A run of few images: for what is refused, whatever could be promised."""
    return shutil.copytree(_small, tmp_path / "small")


def calibrate_part(folder):
    run = Run(folder)
    router, log = run.router(), run.log()
    rows = part_rows(log, run.split(log), "calibrate", gaps="error")
    return labelled(router, run.features(log), log, rows)


def test_a_guarantee_is_said_and_recorded(invoke, trained):
    result = invoke("calibrate", trained, *PROMISE, "--policy", "safe")
    assert result.exit_code == 0, result.output
    policy = Policy.read(trained / "policies/safe.json")
    sentence = policy.guarantee["sentence"]
    assert sentence in result.stdout
    assert "at most 10 % of questions are right at the reference option, 576, and" in sentence
    assert "95 % confidence" in sentence and "each image counting with at most 2 questions" in (
        sentence
    )
    part = calibrate_part(trained)
    choice = policy.choose(part.p, part.costs)
    lost = (part.scores[:, -1] == 1) & (part.scores[np.arange(len(choice)), choice] == 0)
    assert policy.guarantee["regret"] == pytest.approx(lost.mean())
    assert policy.guarantee["bound"] == "deadline"  # two questions about each image
    assert policy.guarantee["pictures"] == len(set(part.groups.tolist()))
    assert policy.calibration["mean_cost"] < 576
    assert all(check.ok for check in check_run(Run(trained)))
    evaluated = invoke("evaluate", trained, "--draws", 20)
    assert evaluated.exit_code == 0
    assert f"router, safe, as calibrated: {sentence}" in evaluated.stdout
    assert invoke("report", trained).exit_code == 0
    assert sentence in (trained / "report/report.html").read_text(encoding="utf-8")


def test_labels_of_fit_and_test_do_not_matter(invoke, trained, tmp_path):
    # poisoned: every score outside of the calibrate and the tune split is turned around
    invoke("calibrate", trained, *PROMISE)
    honest = Policy.read(trained / "policies/default.json")
    run = Run(trained)
    log = run.log()
    frame, parts = log.frame, run.split(log)
    kept = {log.ids[row] for name in ("calibrate", "tune") for row in parts.part(name)}
    other = ~frame["example_id"].isin(kept)
    frame.loc[other, "score"] = 1 - frame.loc[other, "score"]
    poisoned = OracleLog(frame, options=log.options, cost_unit=log.cost_unit, metadata=log.metadata)
    router = run.router()
    split, features = run.split(log), run.features(log)
    part, tune = (
        labelled(router, features, poisoned, split.part(name)) for name in ("calibrate", "tune")
    )
    target = Target(max_regret=0.1)
    again = for_target(part, tune=tune, target=target, binding=honest.binding)
    told = {"sentence": honest.guarantee["sentence"]}
    assert replace(again, guarantee={**again.guarantee, **told}) == honest


def test_a_net_loss_is_said_recorded_and_monitored(invoke, trained, tmp_path):
    result = invoke("calibrate", trained, "--max-loss", "8%", "--policy", "net")
    assert result.exit_code == 0, result.output
    policy = Policy.read(trained / "policies/net.json")
    kept, part = policy.guarantee, calibrate_part(trained)
    assert kept["sentence"] in result.stdout
    assert "at most 8 points below" in kept["sentence"]
    choice = policy.choose(part.p, part.costs)
    lost = part.scores[:, policy.reference_index] - part.scores[np.arange(len(choice)), choice]
    assert kept["loss"] == pytest.approx(lost.mean())
    assert kept["max_loss"] == 0.08 and kept["p_value"] <= 0.05
    assert kept["loss"] < kept["upper_limit"] <= 0.08
    fresh = traffic_of(tmp_path / "fresh", n=2400)
    found = json.loads(
        invoke("monitor", trained, "--traffic", fresh, "--policy", "net", "--json").stdout
    )
    assert found["regret"]["max_loss"] == 0.08 and found["regret"]["max_regret"] is None
    assert found["regret"]["verdict"] in ("holds", "not enough evidence")
    assert found["regret"]["images"] == found["regret"]["pictures"] == 1200
    assert not found["alarm"]
    assert set(found["drift"]) == {"all blocks together", "image", "question"}
    spoiled = traffic_of(tmp_path / "spoiled", n=2400, spoil=0.5)
    result = invoke("monitor", trained, "--traffic", spoiled, "--policy", "net")
    assert result.exit_code == 4
    assert "Net loss of at most 8 %: violated." in result.stdout.replace("\n", " ")


def test_images_count_with_as_many_questions_as_declared(invoke, trained):
    result = invoke("calibrate", trained, *PROMISE, "--most", 1, "--policy", "one")
    assert result.exit_code == 0, result.output
    kept = Policy.read(trained / "policies/one.json").guarantee
    assert (kept["most"], kept["bound"]) == (1, "binomial")
    assert kept["questions"] == kept["images"]
    assert "each image counting with one question" in kept["sentence"]
    assert invoke("calibrate", trained, "--budget", 50, "--most", 1).exit_code == 2
    invoke("calibrate", trained, *PROMISE, "--bound", "binomial", "--policy", "same")
    assert Policy.read(trained / "policies/same.json").guarantee == kept


def test_a_calibrate_part_that_is_too_small_is_an_error_with_a_number(invoke, trained):
    result = invoke("calibrate", trained, "--max-regret", 0.001)
    assert result.exit_code == 2
    said = result.stderr.replace("\n", " ")
    assert (
        "calibration split is too small for a regret of at most 0.1 % with 95 % confidence" in said
    )
    assert "images are needed" in said
    assert not (trained / "policies/default.json").exists()


def test_nothing_qualifies_falls_back_and_says_how_much_it_takes(invoke, tmp_path):
    # features that say nothing: the router can only move all questions at once
    world = make_world(1000)
    blocks = {"image": np.ones((1000, 2))}
    run = write_run(tmp_path / "run", world.log, replace(world.features, blocks=blocks))
    train_stage(run)
    result = invoke("calibrate", run.root, "--max-regret", 0.05)
    assert result.exit_code == 0, result.output
    assert "Falls back to the reference option" in result.stdout
    assert "200 questions about 100 images" in result.stdout
    assert "such images" in result.stdout or "no number of images" in result.stdout
    policy = Policy.read(run.policy_file("default"))
    assert policy.kind == "fixed"
    assert policy.calibration["mean_cost"] == 576


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        (["--max-regret", "100%"], "--max-regret must lie between 0 % and 100 %"),
        (
            ["--max-regret", 0.1, "--confidence", "100%"],
            "--confidence must lie between 0 % and 100 %",
        ),
        (["--max-regret", 0.1, "--bound", "bentkuss"], "Did you mean 'bentkus'?"),
        (
            ["--max-regret", 0.1, "--bound", "binomial", "--most", 2],
            "one question for each image",
        ),
        (["--max-regret", 0.1, "--most", 0], "at least 1 question; most is 0"),
        (["--cap", 0.5], "cap of 0.5 is below the cheapest option"),
        (["--price", -1], "price must be finite and at least 0; it is -1"),
    ],
)
def test_what_cannot_be_asked_for_is_one_clean_error(invoke, small, knobs, said):
    result = invoke("calibrate", small, *knobs)
    assert result.exit_code == 2
    assert said in result.stderr.replace("\n", " ")


def test_a_bound_without_a_guarantee_is_a_wrong_option(invoke, small):
    assert invoke("calibrate", small, "--budget", 50, "--bound", "betting").exit_code == 2


@pytest.mark.parametrize("knobs", [[], ["--price", 0.0001], ["--budget", 30], [*PROMISE]])
def test_a_cap_goes_with_every_knob_and_alone(invoke, trained, knobs):
    result = invoke("calibrate", trained, "--cap", 36, *knobs)
    assert result.exit_code == 0, result.output
    policy, part = Policy.read(trained / "policies/default.json"), calibrate_part(trained)
    assert policy.cap == 36
    assert np.all(part.costs[np.arange(len(part.p)), policy.choose(part.p, part.costs)] <= 36)
    if "--max-regret" in knobs:
        assert invoke("evaluate", trained, "--draws", 20).exit_code == 0


def test_a_policy_for_another_grid_is_refused(invoke, small, tmp_path):
    invoke("calibrate", small, *PROMISE)
    other = replace(Policy.read(small / "policies/default.json"))
    binding = replace(other.binding, options=("1", "4", "16", "64", "256"))
    replace(other, binding=binding, reference="256").write(small / "policies/default.json")
    result = invoke("evaluate", small)
    assert result.exit_code == 2
    said = " ".join(result.stderr.split())
    assert "1, 4, 16, 64, 256" in said and "1, 9, 36, 144, 576" in said


def test_an_edited_or_truncated_policy_is_refused(invoke, small):
    invoke("calibrate", small, *PROMISE)
    path = small / "policies/default.json"
    content = path.read_text()
    for damaged in (content.replace('"confidence": 0.95', '"confidence": 0.99'), content[:-20]):
        assert damaged != content
        path.write_text(damaged)
        result = invoke("evaluate", small)
        assert result.exit_code == 2
        assert "cut short or edited" in result.stderr.replace("\n", " ")


def test_unchanged_traffic_holds(invoke, trained, tmp_path):
    invoke("calibrate", trained, *PROMISE)
    fresh = traffic_of(tmp_path / "fresh", n=4000)  # it was calibrated close to its target
    result = invoke("monitor", trained, "--traffic", fresh)
    assert result.exit_code == 0, result.output
    assert "Regret of at most 10 %: holds" in result.stdout


def test_drift_and_a_broken_promise_are_exit_code_4(invoke, trained, tmp_path):
    invoke("calibrate", trained, *PROMISE)
    moved = traffic_of(tmp_path / "moved", shift=0.7)
    result = invoke("monitor", trained, "--traffic", moved)
    assert result.exit_code == 4, result.output
    assert "Alarm" in result.stdout
    broken = traffic_of(tmp_path / "broken", spoil=0.5)
    result = invoke("monitor", trained, "--traffic", broken)
    assert result.exit_code == 4, result.output
    assert "violated" in result.stdout


def test_little_traffic_is_exit_code_5_and_says_how_much_is_needed(invoke, trained, tmp_path):
    invoke("calibrate", trained, *PROMISE)
    few = traffic_of(tmp_path / "few", n=40)
    result = invoke("monitor", trained, "--traffic", few)
    assert result.exit_code == 5, result.output
    assert "not enough evidence" in result.stdout
    assert "needed" in result.stdout or "above the target" in result.stdout


def test_a_policy_without_a_guarantee_is_watched_for_drift_only(invoke, trained, tmp_path):
    invoke("calibrate", trained, "--budget", 100)
    fresh = traffic_of(tmp_path / "fresh")
    result = invoke("monitor", trained, "--traffic", fresh)
    assert result.exit_code == 0, result.output
    assert "no guarantee" in result.stdout


def test_traffic_about_images_of_the_run_is_refused(invoke, small, tmp_path):
    invoke("calibrate", small, *PROMISE)
    same = traffic_of(tmp_path / "same", n=600, prefix="")
    result = invoke("monitor", small, "--traffic", same)
    assert result.exit_code == 2
    assert "shares" in result.stderr
    assert "rename the groups" in result.stderr.replace("\n", " ")


def test_traffic_that_does_not_fit_is_refused(invoke, small, tmp_path):
    invoke("calibrate", small, *PROMISE)
    fresh = traffic_of(tmp_path / "fresh", n=200)
    missing = invoke("monitor", small, "--traffic", fresh, "--policy", "saef")
    assert missing.exit_code == 2
    assert "default" in missing.stderr
    run = Run(fresh)
    table = run.features(run.log())
    replace(table, metadata={"source": "another encoder"}).write(run.features_folder)
    other = invoke("monitor", small, "--traffic", fresh)
    assert other.exit_code == 2
    assert "another encoder" in other.stderr.replace("\n", " ")
    narrow = FeatureTable(ids=table.ids, blocks={"image": table.blocks["image"]})
    narrow.write(run.features_folder)
    assert invoke("monitor", small, "--traffic", fresh).exit_code == 2


def test_a_router_that_peeks_pays_for_it_when_it_is_calibrated(invoke, tmp_path):
    world = make_world(400)
    blocks = {"image": world.features.blocks["image"], "peek": world.features.blocks["question"]}
    run = write_run(tmp_path / "run", world.log, replace(world.features, blocks=blocks))
    quick = {"estimator": "knn", "ablations": False}
    assert list(train_stage(run, **quick).blocks) == ["image"]  # a peek is asked for
    train_stage(run, feature_groups=["image", "peek"], **quick)
    assert invoke("calibrate", run.root, "--price", 0).exit_code == 0
    part, log = calibrate_part(run.root), world.log
    assert np.all(part.costs[:, 1:] == log.costs[: len(part.costs), 1:] + 1)
    policy = Policy.read(run.policy_file("default"))
    choice = policy.choose(part.p, part.costs)
    paid = routed_costs(np.tile(log.costs[0], (len(choice), 1)), ["peek"])
    expected = paid[np.arange(len(choice)), choice].mean()
    assert policy.calibration["mean_cost"] == pytest.approx(expected)


@pytest.fixture(scope="module")
def _worse_at_the_top(tmp_path_factory):
    """A world in which the most expensive option is much worse than the one before it."""
    world = make_world(3000)
    frame = world.log.frame
    top = frame["scale"] == "576"
    frame.loc[top, "score"] *= np.random.default_rng(0).random(int(top.sum())) < 0.5
    log = OracleLog(frame, options=world.log.options, cost_unit=world.log.cost_unit)
    run = write_run(tmp_path_factory.mktemp("top") / "run", log, world.features)
    train_stage(run, ablations=False)
    return run.root


@pytest.fixture
def worse_at_the_top(_worse_at_the_top, tmp_path):
    return shutil.copytree(_worse_at_the_top, tmp_path / "top")


@pytest.mark.parametrize(
    "knobs", [["--max-loss-observed", 0], ["--max-loss", "2%"], ["--max-regret", 0.05]]
)
def test_losses_are_against_the_best_option_not_the_most_expensive(invoke, worse_at_the_top, knobs):
    result = invoke("calibrate", worse_at_the_top, *knobs)
    assert result.exit_code == 0, result.output
    said = " ".join(result.stdout.split())
    part = calibrate_part(worse_at_the_top)
    accuracy = part.scores.mean(axis=0)
    assert accuracy.argmax() == 3 and accuracy[3] - accuracy[4] > 0.1
    assert (
        f"Reference option: 144, the best of the calibration split; {100 * accuracy[3]:.1f}" in said
    )
    assert (
        f"The most expensive option, 576, is not the best on the calibration split: it has "
        f"{100 * accuracy[4]:.1f} % right and 144 {100 * accuracy[3]:.1f} %" in said
    )
    assert "at 25 % of its cost; 144 is the reference" in said and "--reference NAME" in said
    policy = Policy.read(worse_at_the_top / "policies/default.json")
    assert policy.reference == "144"
    choice = policy.choose(part.p, part.costs)
    routed = part.scores[np.arange(len(choice)), choice].mean()
    allowed = {"--max-loss-observed": 0.0, "--max-loss": 0.02, "--max-regret": 0.05}[knobs[0]]
    assert routed >= accuracy[3] - allowed - 1e-12
    assert policy.calibration["mean_cost"] <= 144
    if knobs[0] == "--max-regret":
        assert not (choice == 4).any()


def test_the_warning_is_in_the_evaluation_its_document_and_the_report(invoke, worse_at_the_top):
    assert invoke("calibrate", worse_at_the_top, "--max-regret", 0.05).exit_code == 0
    result = invoke("evaluate", worse_at_the_top, "--draws", 20)
    assert result.exit_code == 0, result.output
    document = json.loads((worse_at_the_top / "evaluation/evaluation.json").read_text())
    assert document["reference"]["option"] == "144"
    (warning,) = [one for one in document["warnings"] if "is not the best" in one]
    assert warning in result.stdout and document["reference"]["text"] in result.stdout
    assert invoke("report", worse_at_the_top).exit_code == 0
    page = (worse_at_the_top / "report/report.html").read_text(encoding="utf-8")
    page = re.sub(r"<span class=\"unbroken\">(.*?)</span>", r"\1", page)
    assert warning in page and document["reference"]["text"] in page
    rows = {row["name"]: row for row in document["rows"] if row["kind"] == "fixed"}
    assert rows["576"]["minus_reference"]["value"] == pytest.approx(
        rows["576"]["accuracy"]["value"] - rows["144"]["accuracy"]["value"]
    )
    (routed,) = [row for row in document["rows"] if row["name"] == "default"]
    assert routed["policy"]["reference"] == "144"
    assert routed["regret"]["value"] < 0.06
    assert document["lost"]["default"]["reference"] == "144"
    assert {one["reference"] for one in document["lost"]["default"]["examples"]} == {"144"}
    named = invoke("evaluate", worse_at_the_top, "--draws", 20, "--reference", "576")
    assert named.exit_code == 0 and "Reference option: 576, as asked" in named.stdout
    wrong = invoke("evaluate", worse_at_the_top, "--reference", "57")
    assert wrong.exit_code == 2 and "Did you mean '576'?" in wrong.stderr


def test_another_reference_can_be_named(invoke, worse_at_the_top):
    result = invoke("calibrate", worse_at_the_top, "--max-regret", 0.05, "--reference", "576")
    assert result.exit_code == 0, result.output
    policy = Policy.read(worse_at_the_top / "policies/default.json")
    assert policy.reference == policy.guarantee["reference"] == "576"
    assert "right at the reference option, 576, and" in policy.guarantee["sentence"]
    result = invoke("calibrate", worse_at_the_top, "--budget", 50, "--reference", "575")
    assert result.exit_code == 2
    assert "Unknown reference option '575'. Did you mean '576'? Known: 1, 144, 36, 576, 9." in (
        " ".join(result.stderr.split())
    )


@pytest.mark.parametrize("text", ["0.02", "2%", "2 %"])
def test_a_net_loss_is_certified_in_points(invoke, trained, text):
    result = invoke("calibrate", trained, "--max-loss", text)
    assert result.exit_code == 0, result.output
    policy = Policy.read(trained / "policies/default.json")
    assert policy.guarantee["max_loss"] == pytest.approx(0.02)
    assert (
        "is at most 2 points below that of the reference option, 576"
        in (policy.guarantee["sentence"])
    )
    assert policy.guarantee["sentence"] in result.stdout
    points = 100 * policy.guarantee["loss"]
    what = "loss" if points >= 0 else "gain"
    assert f"Observed there: a {what} of {abs(points):.2g} point" in result.stdout
    assert "Nothing is certified" not in result.stdout


@pytest.mark.parametrize(
    ("knobs", "code", "said"),
    [
        (["--max-loss", 0], 2, "must be above 0, such as 0.5%; it is 0"),
        (["--max-loss", 0], 2, "--max-loss-observed takes 0 and less"),
        (["--max-loss", "-1%"], 2, "is below 0"),
        (["--max-loss", "one"], 2, "is not a fraction; write it as 1% or 0.01"),
        (["--max-loss", "nan"], 2, "is not a fraction"),
        (["--max-loss-observed", "1 point"], 2, "is not a fraction"),
        (["--max-loss", 1], 2, "for per cent write 1% or 0.01, and 100% for all"),
        (["--max-regret", 2], 2, "for per cent write 2% or 0.02"),
        (["--confidence", 95], 2, "for per cent write 95% or 0.95"),
        (
            ["--max-loss", "1%", "--max-regret", 0.1],
            2,
            "exactly one of --max-regret and --max-loss",
        ),
        (["--max-loss", "1%", "--budget", 9], 2, "exactly one of a budget"),
        (["--max-loss", "100%"], 2, "between 0 % and 100 %"),
    ],
)
def test_what_no_loss_can_be(invoke, small, knobs, code, said):
    result = invoke("calibrate", small, *knobs)
    assert result.exit_code == code
    assert said in " ".join(result.stderr.replace("│", " ").split())


def test_a_loss_as_observed_says_that_nothing_is_certified(invoke, trained):
    result = invoke("calibrate", trained, "--max-loss-observed", "1%", "--cap", 144)
    assert result.exit_code == 0, result.output
    policy = Policy.read(trained / "policies/default.json")
    assert policy.knob == {"max_loss_points": 1.0, "cap": 144.0}
    assert policy.guarantee == {}
    said = " ".join(result.stdout.split())
    assert "Nothing is certified" in said
    assert "within the cap of 144; " in said and "% right, " in said  # with its interval


@pytest.mark.parametrize("knobs", [["--max-loss", 0.05], ["--max-regret", "5%"]])
def test_where_the_reference_is_the_cheapest_nothing_can_cost_less(invoke, trained, knobs):
    result = invoke("calibrate", trained, *knobs, "--reference", "1")
    assert result.exit_code == 0, result.output
    policy = Policy.read(trained / "policies/default.json")
    assert (policy.kind, policy.fallback, policy.reference) == ("fixed", True, "1")
    said = " ".join(result.stdout.split())
    assert "every example goes to the reference option, 1. That option is the cheapest" in said

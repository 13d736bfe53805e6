"""A run folder of before the reference was named: its last option was the reference of everything.

`old_run/` was written by the code of then: four policies (schema 2), a cascade (1) and an
evaluation (3), over a world of 240 questions. `old_hub/` is what was published of that run before
modules were moved: its router, policies of every knob, cascades, a card; `expected.json` holds what
they chose then.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from m3router.router.cascade.rule import Cascade, cascade_path
from m3router.router.evaluation.documents import upgraded
from m3router.router.evaluation.evaluate import SCHEMA
from m3router.router.hub import load_policy, load_router
from m3router.router.policies.guarantee_text import told_by
from m3router.router.policies.policy import Policy
from m3router.router.reports.tables import certified, headline
from m3router.router.runs.calibration_data import CalibrationData
from m3router.router.runs.run import Run
from m3router.router.stages.checks import check_run
from m3router.router.stages.escalating import escalate_stage
from m3router.router.stages.evaluating import evaluate_stage, read_document
from m3router.router.stages.learning import calibrate_stage
from m3router.router.stages.reporting import report_stage

OLD = Path(__file__).parent / "old_run"
OLD_HUB = Path(__file__).parent / "old_hub"
KNOBS = {
    "budget": {"budget": 100},
    "price": {"price": 1e-3},
    "observed": {"max_loss_observed": 0.01},
    "cap": {"cap": 144.0},
    "regret": {"max_regret": 0.2},
    "loss": {"max_loss": 0.2},
    "vain": {"max_regret": 0.2, "most": 1, "cap": 1.0},
}
CASCADES = {
    "again": {"budget": 150},
    "near": {"max_loss_observed": 0.05},
    "sure": {"max_regret": 0.2},
    "net": {"max_loss": 0.2},
}
SENTENCE = (
    "With 95 % confidence, at most 20 % of questions are right at the reference option, 576, and "
    "wrong as routed: among questions of images drawn like the 24 of the calibration split, each "
    "image counting with at most 2 questions."
)


@pytest.fixture
def run(tmp_path):
    return Run(Path(shutil.copytree(OLD, tmp_path / "run")))


def test_an_old_run_still_checks(run):
    assert [str(one) for one in check_run(run) if not one.ok] == []


@pytest.mark.parametrize("name", ["vain", "regret", "capped", "again"])
def test_old_policies_are_against_the_last_option(run, name):
    written = json.loads(run.policy_file(name).read_text())
    assert written["schema"] == 2 and "reference" not in written["policy"]
    policy = Policy.read(run.policy_file(name))
    assert policy.reference == "576"
    assert policy.kind == {"finest": "fixed"}.get(written["policy"]["kind"], policy.kind)
    # written again it has the present schema and reads as the same policy
    policy.write(run.policy_file(name))
    assert json.loads(run.policy_file(name).read_text())["schema"] == 3
    assert Policy.read(run.policy_file(name)) == policy


def test_old_policies_decide_as_they_did(run):
    part = CalibrationData.read(run).calibrate
    rows = np.arange(len(part.p))
    for name in ("vain", "regret", "capped"):
        policy = Policy.read(run.policy_file(name))
        choice = policy.choose(part.p, part.costs)
        assert part.costs[rows, choice].mean() == pytest.approx(policy.calibration["mean_cost"])
        if policy.guarantee:
            lost = np.maximum(0, part.scores[rows, policy.reference_choice(part.costs)])
            lost = np.maximum(0, lost - part.scores[rows, choice])
            assert lost.mean() == pytest.approx(policy.guarantee["regret"])
    assert set(Policy.read(run.policy_file("vain")).choose(part.p, part.costs)) == {4}
    assert told_by(Policy.read(run.policy_file("vain"))) == ""
    assert told_by(Policy.read(run.policy_file("regret"))) == SENTENCE
    capped = told_by(Policy.read(run.policy_file("capped")))
    assert "right at the reference option, 576 (or what stands for it within the cap of 144) and"
    assert "within the cap of 144" in capped


def test_an_old_cascade_is_against_the_last_option(run):
    path = cascade_path(run.root, "again")
    assert json.loads(path.read_text())["schema"] == 1
    cascade = Cascade.read(path)
    assert (cascade.reference, cascade.reference_index) == ("576", 4)
    assert told_by(cascade) == SENTENCE
    cascade.write(path)
    assert Cascade.read(path) == cascade
    assert Cascade.read(path) != replace(cascade, reference="144")


def test_an_old_evaluation_is_reported_with_its_reference(run):
    document = read_document(run)
    written = json.loads((run.evaluation_folder / "evaluation.json").read_text())
    assert written["schema"] == 3 < SCHEMA
    assert document["reference"]["option"] == "576"
    for row, old in zip(headline(document), written["rows"], strict=True):
        assert row.estimates["minus_reference"] == old["minus_finest"]
    assert upgraded(document) == document  # twice does nothing more
    assert "_finest" not in json.dumps(document)
    assert {
        one["kind"] for one in (row["policy"] for row in document["rows"] if "policy" in row)
    } == {
        "price",
        "regret",
        "fixed",
    }
    assert ("router, regret", SENTENCE) in certified(document)
    page = report_stage(run).read_text(encoding="utf-8")
    assert document["reference"]["text"] in page
    assert SENTENCE in page
    assert "Δ vs. finest" in page


def test_evaluated_again_it_is_against_the_best_of_the_calibration_split(run):
    document = evaluate_stage(run, draws=20, budgets=[100], reuse=True)
    assert document["schema"] == SCHEMA
    part = CalibrationData.read(run).calibrate
    best = int(np.argmax(part.scores.mean(axis=0)))
    assert document["reference"]["option"] == str((1, 9, 36, 144, 576)[best])
    named = evaluate_stage(run, draws=20, budgets=[100], reuse=True, reference="9")
    assert named["reference"]["option"] == "9"
    fixed = {row["name"]: row for row in named["rows"] if row["kind"] == "fixed"}
    assert fixed["9"]["minus_reference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    for row in named["rows"]:
        if row["kind"] == "fixed":
            less = row["accuracy"]["value"] - fixed["9"]["accuracy"]["value"]
            assert row["minus_reference"]["value"] == pytest.approx(less)


def content(path: Path) -> dict:
    """What a sealed file holds, without the hash of its last digits."""
    found = json.loads(path.read_text())
    del found["sha256"]
    return found


def alike(found, wanted):
    """Equal, numbers up to what another processor rounds differently."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for key, value in wanted.items():
            alike(found[key], value)
    elif isinstance(wanted, list):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            alike(one, other)
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, rel=1e-6, abs=1e-9)
    elif isinstance(wanted, str):  # sentences say "image" now
        wanted = wanted.replace("picture", "image").replace("most 0.2 is", "most 20 % is")
        assert found == wanted.replace("at confidence 0.95", "with 95 % confidence")
    else:
        assert found == wanted


def test_an_old_hub_folder_decides_as_it_did(run):
    expected = json.loads((OLD_HUB / "expected.json").read_text())
    router, log = load_router(OLD_HUB), run.log()
    assert router.fingerprint == run.router().fingerprint
    p = router.predict(run.features(log).align(log.ids))
    np.testing.assert_allclose(p.mean(axis=0), expected["p_mean"])
    assert set(expected["choices"]) == {*KNOBS, *CASCADES}
    for name, choices in expected["choices"].items():
        chosen = load_policy(OLD_HUB, name=name).choose(p, log.costs)
        assert "".join(map(str, chosen)) == choices
    signals = [np.asarray(log.laid_out(name), float) for name in ("confidence", "logprob")]
    assert set(expected["first"]) == set(CASCADES)
    for name, first in expected["first"].items():
        cascade = Run(OLD_HUB).cascade(name, router)
        beliefs = cascade.rule.believe(p, *signals)
        asked = cascade.rule.ask(p, log.costs, log.costs, beliefs, cascade.price)
        assert "".join(map(str, asked.first)) == first
        assert "".join(map(str, asked.final)) == expected["final"][name]


def test_policies_calibrated_again_are_the_same(run):
    shutil.rmtree(run.policies_folder)
    for name, knobs in KNOBS.items():
        calibrate_stage(run, name=name, **knobs)
        path = run.policy_file(name)
        alike(content(path), content(OLD_HUB / "policies" / path.name))


@pytest.mark.parametrize(
    "names", [("near", "sure"), pytest.param(("again", "net"), marks=pytest.mark.slow)]
)
def test_cascades_calibrated_again_are_the_same(run, names):
    """Without a guarantee and with one; others of each kind are learned alike."""
    shutil.rmtree(run.policies_folder)
    for name in names:
        escalate_stage(run, name=name, **CASCADES[name])
        for path in (run.policy_file(name), cascade_path(run.root, name)):
            alike(content(path), content(OLD_HUB / path.parent.name / path.name))

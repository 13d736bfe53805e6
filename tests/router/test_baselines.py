from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3router.data.errors import DataError, NotLearnableError
from m3router.data.log.parts import part_rows
from m3router.data.splits.split import SPLITS
from m3router.router.estimators.base import log_loss
from m3router.router.evaluation.baselines import BASELINES, fit_baselines
from m3router.router.evaluation.baselines.answer_loss import answer_loss
from m3router.router.evaluation.baselines.calibrated_cascade import chains, fit, read
from m3router.router.evaluation.baselines.expected_resolution import (
    rounded_up,
    sufficient_resolution,
)
from m3router.router.evaluation.baselines.lookup import PRIOR, by_question_type
from m3router.router.evaluation.baselines.question_type import question_type, question_types
from m3router.router.evaluation.baselines.staged import Staged, by_confidence
from m3router.router.evaluation.escalation import escalating
from m3router.router.evaluation.evaluate import Settings, evaluate
from m3router.router.evaluation.inputs import part_of
from m3router.router.evaluation.methods import Known, apply_method
from m3router.router.policies.policy import Binding
from tests.router.answered import answered_world, with_scores

FAST = Settings(draws=100)
ALWAYS = {
    "best fixed, chosen before",
    "best fixed per dataset",
    "dataset lookup",
    "question-type lookup",
}


def known_of(world, **extra):
    rows = {part: part_rows(world.log, world.split, part, gaps="error") for part in SPLITS}
    return Known.of(world.log, rows, **extra)


def with_features(world):
    matrix = world.features.matrix()
    return {"features": lambda rows: matrix[rows], "blocks": dict(world.features.widths)}


@pytest.fixture(scope="module")
def world():
    return answered_world()


@pytest.fixture(scope="module")
def known(world):
    return known_of(world, **with_features(world))


def measure(world, log=None):
    log = world.log if log is None else log
    return evaluate(log, world.p, split=world.split, features=world.features, settings=FAST)


@pytest.fixture(scope="module")
def result(world):
    return measure(world)


def arms_of(result):
    return {
        **result["ablations"],
        **result["baselines"],
        "escalation": result["escalation"],
        "router": {"rows": [row for row in result["rows"] if row["kind"] == "router"]},
    }


def test_all_are_in_the_table(result):
    assert set(result["baselines"]) == set(BASELINES)
    for arm in arms_of(result).values():
        assert "undefined" in arm or arm["rows"]


def test_poisoned_test_labels_change_no_choice(world, result):
    """Every score of the test split inverted: who asks what, and what it costs, stays as it was."""
    scores = world.log.scores.copy()
    scores[world.split.test] = 1 - scores[world.split.test]
    other = arms_of(measure(world, with_scores(world.log, scores)))
    looked_at = 0
    for name, arm in arms_of(result).items():
        assert arm.get("undefined") == other[name].get("undefined")
        for before, after in zip(arm.get("rows", []), other[name].get("rows", []), strict=True):
            assert before["shares"] == after["shares"]
            assert before["cost"] == after["cost"]
            assert before.get("policy") == after.get("policy")
            assert before["accuracy"] != after["accuracy"]
            looked_at += 1
    assert looked_at > 15
    assert result["escalation"]["cascade"] == other["escalation"]["cascade"]


def test_what_baselines_know_holds_no_score_of_the_test_part(world, known):
    assert np.isnan(known.scores[world.split.test]).all()
    assert np.isfinite(known.scores[known.learnt]).all()


def test_what_is_missing_is_told(world):
    log = answered_world(confidence=np.nan, logprob=np.nan).log
    result = evaluate(log, world.p, split=world.split, settings=FAST)
    told = {name: arm.get("undefined") for name, arm in result["baselines"].items()}
    assert {name for name, reason in told.items() if reason is None} == ALWAYS
    assert told["confidence cascade"] == "the log has no confidences"
    assert told["log-probability cascade"] == "the log has no log-probabilities"
    assert told["expected resolution (CARES)"] == "no features were given"
    assert result["escalation"]["undefined"] == "the log has no confidences"


def test_confidences_of_references_are_nobodys(world):
    rows = {part: part_rows(world.log, world.split, part, gaps="error") for part in SPLITS}
    frame, metadata = world.log.frame, {**world.log.metadata, "asked": "references"}
    log = type(world.log)(
        frame, options=world.log.options, cost_unit="visual tokens", metadata=metadata
    )
    with pytest.raises(NotLearnableError, match="reference answers"):
        by_confidence(Known.of(log, rows))


def test_fixed_baselines_are_chosen_on_fit_and_tune(world, known):
    fitted, _ = fit_baselines(known)
    learnt = world.log.select(known.learnt)
    best = int(np.argmax(learnt.scores.mean(axis=0)))
    assert set(fitted["best fixed, chosen before"].choice) == {best}
    choice = fitted["best fixed per dataset"].choice
    for dataset in np.unique(world.log.datasets):
        inside = learnt.datasets == dataset
        expected = int(np.argmax(learnt.scores[inside].mean(axis=0)))
        assert set(choice[world.log.datasets == dataset]) == {expected}


def test_lookup_is_the_shrunken_mean_of_the_class(world, known):
    table = pd.DataFrame(world.log.scores).assign(kind=question_types(known.questions))
    learnt = table.loc[known.learnt]
    overall = learnt.drop(columns="kind").mean()
    sums, sizes = learnt.groupby("kind").sum(), learnt["kind"].value_counts()
    p = by_question_type(known).p
    means = (sums.to_numpy() + PRIOR * overall.to_numpy()) / (sizes[sums.index].to_numpy() + PRIOR)[
        :, None
    ]
    place = {kind: row for row, kind in enumerate(sums.index)}
    raw = means[[place[kind] for kind in table["kind"]]]
    # Calibrated as the router is: each option by an increasing function of the mean alone.
    for k in range(raw.shape[1]):
        for value in np.unique(raw[:, k]):
            assert np.ptp(p[raw[:, k] == value, k]) == 0
        order = np.argsort(raw[:, k], kind="stable")
        assert (np.diff(p[order, k]) >= -1e-12).all()
    test = known.rows["test"]
    truth = world.log.scores[test]
    assert log_loss(truth, p[test]) < log_loss(truth, raw[test]) + 0.02


@given(st.integers(0, 2**32 - 1))
def test_a_cascade_asks_in_order_until_it_is_sure(seed):
    generator = np.random.default_rng(seed)
    signal = generator.random((7, int(generator.integers(1, 6))))
    threshold = float(generator.choice([0.0, 0.5, 0.9, 2.0]))
    asked = Staged(about="", signal=signal, costs=np.ones_like(signal)).asks(
        np.arange(7), threshold
    )
    for i, line in enumerate(signal):
        seen = []
        for k, sure in enumerate(line):
            seen.append(k)
            if sure >= threshold:
                break
        assert asked.final[i] == seen[-1]
        assert np.flatnonzero(asked.options[i]).tolist() == seen
        assert asked.first[i] == 0


def test_thresholds_go_from_the_dearest_to_the_cheapest(known):
    staged, rows = by_confidence(known), known.rows["test"]
    settings = staged.settings(rows, points=20)
    depth = [staged.asks(rows, one).options.sum() for one in settings]
    assert depth == sorted(depth, reverse=True)
    assert depth[0] == 5 * len(rows)
    assert depth[-1] == len(rows)
    assert len(settings) <= 22


def test_a_cascade_pays_for_all_and_keeps_its_budget_where_it_was_set(result):
    for row in result["baselines"]["confidence cascade"]["rows"]:
        assert row["policy"]["calibration"]["mean_cost"] <= row["policy"]["knob"]["budget"]
        single = sum(
            share * cost
            for share, cost in zip(
                row["shares"].values(), (1.0, 9.0, 36.0, 144.0, 576.0), strict=True
            )
        )
        assert row["cost"]["value"] >= single
        assert row["cost"]["value"] >= 1.0


def test_answer_loss_of_right_and_wrong_answers():
    scores, logprob = np.array([[1.0, 0.0, 1.0, 0.0]]), np.log([[0.9, 0.9, 0.2, 0.2]])
    loss = answer_loss(scores, logprob, references=False)
    np.testing.assert_allclose(loss, -np.log([[0.9, 0.1, 0.2, 0.8]]))
    assert np.argmin(loss) == 0
    soft = answer_loss(np.array([[0.25, 0.0]]), np.zeros((1, 2)), references=True)
    assert soft[0, 0] == pytest.approx(-np.log(0.25))
    assert np.isfinite(
        answer_loss(np.eye(2), np.array([[0.0, -1e4], [-1e4, 0.0]]), references=False)
    ).all()


@given(st.integers(0, 2**32 - 1))
def test_sufficient_resolution_is_the_first_good_enough(seed):
    generator = np.random.default_rng(seed)
    scores = np.round(generator.random((5, 4)) ** 0.3, 2) * (generator.random((5, 1)) < 0.8)
    for line, label in zip(scores, sufficient_resolution(scores), strict=True):
        expected = 3
        for k in range(4):
            if (
                max(line) > 0
                and line[k] >= 0.85 * max(line)
                and max(line[k:]) - line[k] <= 0.1 + 1e-9
            ):
                expected = k
                break
        assert label == expected


def test_the_expectation_is_rounded_up_not_to_the_nearest():
    sides = np.array([1.0, 3.0, 6.0])
    assert rounded_up(np.array([[0.99, 0.01, 0.0], [0.0, 0.9, 0.1]]), sides).tolist() == [1, 2]
    assert rounded_up(np.eye(3), sides).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("How many shapes are there?", "count"),
        ("What does the sign say?", "read"),
        ("Is there a dog?", "yes or no"),
        ("What colour is the bar?", "colour"),
        ("Which bar is longest?", "compare"),
        ("Where is the cup?", "where"),
        ("WHO is this?", "who"),
        ("Why is he laughing?", "why or how"),
        ("", "other"),
    ],
)
def test_question_types(question, kind):
    assert question_type(question) == kind


def test_a_budget_below_the_cheapest_is_refused(world):
    with pytest.raises(DataError, match="at least 1 visual tokens"):
        evaluate(world.log, world.p, split=world.split, settings=Settings(budgets=(0.5,)))


# --- the calibrated cascade ----------------------------------------------------------------------


def test_the_calibrated_cascade_is_better_than_one_raw_threshold(known, result):
    """Confidence that follows being right: calibrated, with the best chain, it needs less."""
    area = {
        name: result["baselines"][name]["metrics"]["aiq"]["value"]
        for name in ("calibrated cascade", "confidence cascade", "log-probability cascade")
    }
    assert area["calibrated cascade"] == max(area.values())
    cascade = fit(known)
    chances, rows = cascade.chances, known.rows["calibrate"]
    truth = known.scores[rows]
    assert abs(chances[rows].mean() - truth.mean()) < 0.05
    assert log_loss(truth, chances[rows]) < log_loss(truth, np.full(truth.shape, truth.mean()))


@pytest.mark.parametrize("price", [0.0, 1e-4, 1e-3, 1e-2, 10.0])
def test_the_calibrated_cascade_asks_its_chain_in_order(known, price):
    cascade, rows = fit(known), known.rows["test"]
    plan, asked = cascade.plan(price), cascade.asks(known.rows["test"], price)
    assert list(plan.chain) == sorted(set(plan.chain))
    assert set(np.flatnonzero(asked.options.any(axis=0))) <= set(plan.chain)
    for row, options, final in zip(rows, asked.options, asked.final, strict=True):
        seen = []
        for place, option in enumerate(plan.chain):
            seen.append(option)
            last = place == len(plan.chain) - 1
            chance = cascade.chances[row, option : option + 1]
            if last or chance[0] >= (read(chance) @ plan.onwards[place])[0]:
                break
        assert np.flatnonzero(options).tolist() == seen
        assert final == seen[-1]
    if price == 10.0:
        assert plan.chain == (0,)


def test_no_single_stop_is_better_on_the_examples_it_learned_from(known):
    """The plan's value is at least that of every option alone, and of never stopping early."""
    cascade, price = fit(known), 5e-4
    learnt = cascade.learnt
    asked = cascade.asks(learnt, price)
    scores, costs = known.scores[learnt], known.costs[learnt]
    value = scores[np.arange(len(learnt)), asked.final] - price * (asked.options * costs).sum(1)
    assert value.mean() >= (scores - price * costs).mean(axis=0).max() - 1e-12


def test_chains_are_all_of_them_and_shorter_where_there_are_many_options():
    assert len(chains(5)) == 2**5 - 1
    assert max(map(len, chains(9))) == 3
    found = set()
    for chain in chains(6):
        assert len(chain) == 1 or chain[1:] in found  # what it ends in was there before
        found.add(chain)


def test_budgets_with_escalation_are_met_within_a_hundredth_on_the_calibrate_part():
    world = answered_world(12_000, seed=1)
    known = known_of(world)
    method = escalating(known, world.p, reads=())
    part = part_of(world.log, known.rows["calibrate"], "calibrate", gflops=None)
    binding = Binding(options=world.log.options, cost_unit="t", router="", split="")
    budgets = (3.0, 12.0, 24.0, 31.5, 72.0, 144.0)
    arm = apply_method(method, part, part, budgets=budgets, binding=binding)
    for budget, setting in zip(budgets, arm.settings, strict=True):
        assert 0.99 * budget <= setting.policy["calibration"]["mean_cost"] <= budget

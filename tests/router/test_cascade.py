from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from data.errors import DataError, MismatchError, NotLearnableError
from data.splits import SPLITS
from router.analysis.evaluation import Settings, evaluate
from router.baselines.base import Known
from router.baselines.escalation import escalating, tune_answers
from router.cascade import STEPS, Cascade, Stopping
from router.outcomes import outcome_of
from router.parts import part_rows
from router.policy import Binding
from router.stopping import area, learn_stopping
from tests.router.answered import TOKENS, answered_world

OPTIONS = ("1", "9", "36", "144", "576")
BINDING = Binding(options=OPTIONS, cost_unit="visual tokens", router="r", split="s")


def known_of(world):
    rows = {part: part_rows(world.log, world.split, part, gaps="error") for part in SPLITS}
    return Known.of(world.log, rows)


def learned(world):
    tune = tune_answers(known_of(world), world.p, reads=())
    stopping = learn_stopping(tune)
    return tune, stopping, stopping.beliefs(tune.p, tune.confidence, tune.logprob)


@pytest.fixture(scope="module")
def world():
    return answered_world(2400)


@pytest.fixture(scope="module")
def fitted(world):
    return learned(world)


@pytest.fixture(scope="module")
def cascade(fitted):
    return Cascade(binding=BINDING, stopping=fitted[1], price=5e-4)


@pytest.mark.parametrize(("seed", "news"), [(0, 0.0), (1, 0.0), (2, 0.3), (3, 1.0)])
def test_on_the_tune_part_it_is_never_below_the_router(seed, news):
    tune, stopping, beliefs = learned(answered_world(500, seed=seed, news=news))
    plain = replace(stopping, eager=1.0, margin=None)
    assert area(stopping, tune, beliefs) >= area(plain, tune, beliefs)


def test_without_escalating_it_is_the_router(world, fitted):
    tune, stopping, beliefs = fitted
    never = replace(stopping, margin=None, eager=1.0)
    costs = tune.costs
    asked = never.ask(tune.p, costs.routed, costs.alone, beliefs, 5e-4)
    expected = np.argmax(tune.p - 5e-4 * costs.alone, axis=1)
    np.testing.assert_array_equal(asked.final, expected)
    np.testing.assert_array_equal(asked.options.sum(axis=1), 1)


@pytest.mark.parametrize("price", [0.0, 1e-4, 1e-3, 1.0])
def test_it_asks_finer_and_finer_and_pays_for_all(fitted, price):
    tune, stopping, beliefs = fitted
    costs = tune.costs
    asked = replace(stopping, margin=0.0, eager=8.0).ask(
        tune.p, costs.routed, costs.alone, beliefs, price
    )
    assert np.all(asked.final >= asked.first)
    assert np.all(asked.options.sum(axis=1) <= 1 + STEPS)
    assert not np.any(asked.options & (np.arange(5) < asked.first[:, None]))
    assert not np.any(asked.options & (np.arange(5) > asked.final[:, None]))
    found = outcome_of(asked, scores=tune.scores, costs=costs, gflops=None)
    first = costs.alone[np.arange(len(asked.first)), asked.first]
    assert np.all(found.cost >= first)
    again = asked.options.sum(axis=1) > 1
    assert np.all(found.cost[again] > first[again])


def test_news_is_used_where_there_is_some(fitted):
    """A confidence that follows being right makes q follow it too; noise is not believed."""
    tune, stopping, beliefs = fitted
    right = beliefs.right[tune.scores == 1].mean() - beliefs.right[tune.scores == 0].mean()
    assert stopping.margin is not None
    noise, _, blind = learned(answered_world(1200, news=0.0))
    deaf = blind.right[noise.scores == 1].mean() - blind.right[noise.scores == 0].mean()
    assert right > 1.5 * deaf
    assert np.all((beliefs.later >= 0) & (beliefs.later <= 1))


def test_beliefs_come_true_on_other_examples(world, fitted):
    """q and r, learned on tune, against what happens on the calibrate part."""
    _, stopping, _ = fitted
    rows, known = world.split.calibrate, known_of(world)
    found = stopping.beliefs(world.p[rows], known.confidence[rows], known.logprob[rows])
    scores = known.scores[rows]
    assert abs(found.right.mean() - scores.mean()) < 0.05
    wrong = scores[:, 0] == 0  # where the coarsest is wrong, the others are worse than usual
    assert abs(found.later[wrong][:, 0, 3].mean() - scores[wrong][:, 3].mean()) < 0.12
    assert found.later[wrong][:, 0, 3].mean() < found.later[~wrong][:, 0, 3].mean()


def test_one_example_is_decided_as_all_are(world, fitted, cascade):
    tune, stopping, beliefs = fitted
    costs = tune.costs
    asked = stopping.ask(tune.p, costs.routed, costs.alone, beliefs, cascade.price)
    for i in range(0, 200):
        seen, scale = [int(asked.first[i])], int(asked.first[i])
        for step in range(10):
            following = cascade.decide_after(
                tune.p[i],
                costs.alone[i],
                scale,
                confidence=tune.confidence[i, scale],
                logprob=tune.logprob[i, scale],
                step=step,
            )
            if following is None:
                break
            scale = following
            seen.append(scale)
        assert seen == np.flatnonzero(asked.options[i]).tolist()
    assert asked.options.sum() > len(asked.first)


def test_contender_beats_the_router_where_answers_bring_news(world):
    result = evaluate(
        world.log, world.p, split=world.split, settings=Settings(draws=200, points=32)
    )
    arm = result["escalation"]
    assert arm["metrics"]["aiq_minus_router"]["low"] > 0
    assert arm["cascade"]["margin"] is not None
    json.dumps(arm, allow_nan=False)


def test_probabilities_of_the_tune_part_are_needed(world):
    p = world.p.copy()
    p[world.split.tune] = np.nan
    with pytest.raises(NotLearnableError, match="tune part were not given"):
        escalating(known_of(world), p, reads=())


def test_too_few_pictures_are_refused(fitted):
    few = fitted[0].take(np.arange(8))
    with pytest.raises(NotLearnableError, match="pictures, too few"):
        learn_stopping(few)


def test_written_and_read_again(cascade, tmp_path):
    path = tmp_path / "default.json"
    cascade.write(path)
    assert Cascade.read(path) == cascade
    never = replace(cascade, stopping=replace(cascade.stopping, margin=None))
    never.write(path)
    assert Cascade.read(path).stopping.margin is None
    one = np.full(5, 0.5)
    assert never.decide_after(one, TOKENS, 0, confidence=0.01, logprob=-9.0) is None


def test_damaged_or_foreign_files_are_refused(cascade, tmp_path):
    path = tmp_path / "default.json"
    cascade.write(path)
    content = path.read_bytes()
    for place in range(0, len(content), 211):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(DataError, match="cut short or edited"):
            Cascade.read(path)
    path.write_bytes(content[:-20])
    with pytest.raises(DataError, match="cut short or edited"):
        Cascade.read(path)
    with pytest.raises(MismatchError, match=r"\['1', '9', '36', '144', '576'\].*\['a'\]"):
        cascade.check_fits(options=["a"])
    with pytest.raises(MismatchError, match="router other"):
        cascade.check_fits(options=OPTIONS, router="other")
    cascade.check_fits(options=OPTIONS, router="r")


def test_numbers_that_cannot_be_are_refused(cascade):
    good = cascade.stopping
    for change in (
        {"price": -1.0},
        {"stopping": replace(good, eager=0.5)},
        {"stopping": replace(good, right=good.right[:-1])},
        {"stopping": replace(good, later=(*good.later[:-1], float("nan")))},
        {"stopping": Stopping(right=(), later=())},
    ):
        with pytest.raises(DataError):
            replace(cascade, **change)
    with pytest.raises(MismatchError, match="5 options"):
        cascade.decide_after(np.ones(3), TOKENS[:3], 0, confidence=0.5, logprob=-1.0)
    with pytest.raises(DataError, match="finite"):
        cascade.decide_after(np.full(5, np.nan), TOKENS, 0, confidence=0.5, logprob=-1.0)

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from m3router.data.errors import DataError, MismatchError, NotLearnableError
from m3router.data.log.parts import part_rows
from m3router.data.splits.split import SPLITS
from m3router.router.cascade.learning import PRICES, area, learn_cascade, plain, spread_prices
from m3router.router.cascade.rule import STEPS, Cascade, Rule
from m3router.router.evaluation.escalation import escalating, tune_answers
from m3router.router.evaluation.evaluate import Settings, evaluate
from m3router.router.evaluation.methods import Known
from m3router.router.policies.outcomes import outcome_of
from m3router.router.policies.policy import Binding
from tests.router.answered import TOKENS, answered_world

OPTIONS = ("1", "9", "36", "144", "576")
BINDING = Binding(options=OPTIONS, cost_unit="visual tokens", router="r", split="s")


def known_of(world):
    rows = {part: part_rows(world.log, world.split, part, gaps="error") for part in SPLITS}
    return Known.of(world.log, rows)


def learned(world):
    tune = tune_answers(known_of(world), world.p, reads=())
    return tune, learn_cascade(tune)


@pytest.fixture(scope="module")
def world():
    return answered_world(2400)


@pytest.fixture(scope="module")
def fitted(world):
    return learned(world)


@pytest.fixture(scope="module")
def cascade(fitted):
    return Cascade(binding=BINDING, rule=fitted[1].rule(5e-4), price=5e-4)


def on_tune(tune, found):
    """What the rules of all prices ask on the examples that they were learned from."""
    return lambda price: found.rule(price).ask(
        tune.p, tune.costs.routed, tune.costs.alone, found.held, price
    )


@pytest.mark.parametrize(("news", "seed"), [(0.0, 0), (0.0, 1), (0.3, 2), (1.0, 3)])
def test_on_the_tune_part_it_is_never_below_the_router(news, seed):
    tune, found = learned(answered_world(500, seed=seed, news=news))
    areas = [
        area(tune, asked, spread_prices(tune.costs, asked, points=PRICES))
        for asked in (on_tune(tune, found), plain(tune))
    ]
    assert areas[0] >= areas[1] - 1e-9


def test_where_it_does_not_help_it_is_the_router(fitted):
    tune, found = fitted
    never = replace(found, helps=False).rule(5e-4)
    assert never == found.plain
    costs = tune.costs
    asked = never.ask(tune.p, costs.routed, costs.alone, found.held, 5e-4)
    expected = np.argmax(tune.p - 5e-4 * costs.alone, axis=1)
    np.testing.assert_array_equal(asked.final, expected)
    np.testing.assert_array_equal(asked.options.sum(axis=1), 1)


@pytest.mark.parametrize("price", [0.0, 1e-4, 1e-3, 1.0])
def test_it_asks_finer_and_finer_and_pays_for_all(fitted, price):
    tune, found = fitted
    costs = tune.costs
    asked = found.rule(price).ask(tune.p, costs.routed, costs.alone, found.held, price)
    assert np.all(asked.final >= asked.first)
    assert np.all(asked.options.sum(axis=1) <= 1 + STEPS)
    assert not np.any(asked.options & (np.arange(5) < asked.first[:, None]))
    assert not np.any(asked.options & (np.arange(5) > asked.final[:, None]))
    outcome = outcome_of(asked, scores=tune.scores, costs=costs, gflops=None)
    first = costs.alone[np.arange(len(asked.first)), asked.first]
    assert np.all(outcome.cost >= first)
    again = asked.options.sum(axis=1) > 1
    assert np.all(outcome.cost[again] > first[again])


def test_news_is_used_where_there_is_some(fitted):
    """A confidence that follows being right is believed; noise is not."""
    tune, found = fitted
    assert found.helps
    deaf_tune, deaf = learned(answered_world(2400, news=0.0))

    def told_apart(tune, found):
        right = np.einsum("nkk->nk", found.held)
        return right[tune.scores == 1].mean() - right[tune.scores == 0].mean()

    assert told_apart(tune, found) > 1.5 * told_apart(deaf_tune, deaf)
    assert np.all((found.held >= 0) & (found.held <= 1))


def test_what_starting_is_worth_comes_true_on_other_examples(world, fitted):
    """V, learned on tune, against scores less the price of later answers on calibrate."""
    _, found = fitted
    price, rows, known = 5e-4, world.split.calibrate, known_of(world)
    rule, p, costs = found.rule(price), world.p[rows], known.costs[rows]
    beliefs = rule.believe(p, known.confidence[rows], known.logprob[rows])
    weights = np.asarray(rule.start)
    worth = np.hstack([np.log(p / (1 - p)), p]) @ weights[:-1] + weights[-1]
    for k in range(5):
        asked = rule.onwards(np.full(len(rows), k), costs, beliefs, price)
        later = np.where(asked.options, costs, 0).sum(axis=1) - costs[:, k]
        gained = known.scores[rows, asked.final] - price * later
        assert abs(worth[:, k].mean() - gained.mean()) < 0.04
        if k < 4:
            assert np.corrcoef(worth[:, k], gained)[0, 1] > 0.15


def test_beliefs_come_true_on_other_examples(world, fitted):
    """q and r, learned on tune, against what happens on the calibration split."""
    rows, known = world.split.calibrate, known_of(world)
    found = fitted[1].plain.believe(world.p[rows], known.confidence[rows], known.logprob[rows])
    scores = known.scores[rows]
    assert abs(np.einsum("nkk->nk", found).mean() - scores.mean()) < 0.05
    assert np.all(found[:, np.tri(5, k=-1, dtype=bool)] == 0)
    wrong = scores[:, 0] == 0  # where the coarsest is wrong, the others are worse than usual
    assert abs(found[wrong][:, 0, 3].mean() - scores[wrong][:, 3].mean()) < 0.12
    assert found[wrong][:, 0, 3].mean() < found[~wrong][:, 0, 3].mean()


def test_one_example_is_decided_as_all_are(world, fitted, cascade):
    tune, rule = fitted[0], cascade.rule
    costs = tune.costs
    beliefs = rule.believe(tune.p, tune.confidence, tune.logprob)
    asked = rule.ask(tune.p, costs.routed, costs.alone, beliefs, cascade.price)
    for i in range(60):
        scale = cascade.decide(tune.p[i], costs.routed[i])
        seen = [scale]
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
    result = evaluate(world.log, world.p, split=world.split, settings=Settings(draws=100))
    arm = result["escalation"]
    assert arm["metrics"]["aiq_minus_router"]["low"] > 0
    assert arm["cascade"]["asks_again"]
    json.dumps(arm, allow_nan=False)


def test_probabilities_of_the_tune_part_are_needed(world):
    p = world.p.copy()
    p[world.split.tune] = np.nan
    with pytest.raises(NotLearnableError, match="tune split were not given"):
        escalating(known_of(world), p, reads=())


def test_too_few_images_are_refused(fitted):
    few = fitted[0].take(np.arange(8))
    with pytest.raises(NotLearnableError, match="images, too few"):
        learn_cascade(few)


def test_written_and_read_again(cascade, tmp_path):
    path = tmp_path / "default.json"
    cascade.write(path)
    assert Cascade.read(path) == cascade
    never = replace(cascade, rule=replace(cascade.rule, start=()))
    never.write(path)
    assert Cascade.read(path).rule.start == ()
    one = np.full(5, 0.5)
    assert never.decide_after(one, TOKENS, 0, confidence=0.01, logprob=-9.0) is None


def test_damaged_or_foreign_files_are_refused(cascade, tmp_path):
    path = tmp_path / "default.json"
    cascade.write(path)
    content = path.read_bytes()
    for place in range(0, len(content), 1009):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(DataError, match="cut short or edited"):
            Cascade.read(path)
    path.write_bytes(content[:-20])
    with pytest.raises(DataError, match="cut short or edited"):
        Cascade.read(path)
    with pytest.raises(MismatchError, match="1, 9, 36, 144, 576,.* with a. C"):
        cascade.check_fits(options=["a"])
    with pytest.raises(MismatchError, match="another router.*other"):
        cascade.check_fits(options=OPTIONS, router="other")
    cascade.check_fits(options=OPTIONS, router="r")


def test_numbers_that_cannot_be_are_refused(cascade):
    good = cascade.rule
    for change in (
        {"price": -1.0},
        {"rule": replace(good, beliefs=good.beliefs[:-1])},
        {"rule": replace(good, start=good.start[:-1])},
        {"rule": replace(good, start=(*good.start[:-1], (float("nan"),) * 5))},
        {"rule": Rule(beliefs=())},
    ):
        with pytest.raises(DataError):
            replace(cascade, **change)
    with pytest.raises(MismatchError, match="5 options"):
        cascade.decide_after(np.ones(3), TOKENS[:3], 0, confidence=0.5, logprob=-1.0)
    with pytest.raises(DataError, match="finite"):
        cascade.decide(np.full(5, np.nan), TOKENS)
    with pytest.raises(DataError, match="finite"):
        cascade.decide_after(np.full(5, 0.5), TOKENS, 0, confidence=float("nan"), logprob=-1.0)
    with pytest.raises(DataError, match="finite"):
        cascade.decide_after(np.full(5, np.nan), TOKENS, 0, confidence=0.5, logprob=-1.0)

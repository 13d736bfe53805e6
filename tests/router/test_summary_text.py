"""What is concluded, before any number: never praise for savings over answers that are wrong."""

from __future__ import annotations

import numpy as np
import pytest

from m3router.data.splits.split import split_by_group
from m3router.router.evaluation.evaluate import Settings, evaluate
from m3router.router.evaluation.summary_text import (
    CANNOT,
    DOES_NOT_PAY,
    HEADROOM,
    LOOKUP,
    NO_HEADROOM,
    PAYS,
    TOO_FEW,
    log_verdict,
    sentences,
)
from tests.router.conftest import log_of, make_world

FAST = Settings(draws=200)


def of_log(scores, *, costs=None, chance=0.0, groups=None):
    scores = np.asarray(scores, dtype=float)
    n, k = scores.shape
    return log_verdict(
        scores,
        np.tile([1.0, 9.0, 36.0, 144.0, 576.0][:k], (n, 1)) if costs is None else costs,
        np.arange(n) if groups is None else groups,
        options=[str(place) for place in range(k)],
        chance=np.full(n, chance),
    )


def evaluated(log, p):
    return evaluate(log, p, split=split_by_group(log.groups), settings=FAST)


def test_nothing_right_anywhere_is_no_saving_of_99_percent():
    log = log_of(np.zeros((600, 5)))
    result = evaluated(log, np.full((600, 5), 0.5))
    assert result["verdict"]["kind"] == CANNOT
    assert "0.0 % right at best" in result["verdict"]["text"]
    for goal in ("saved_at_99", "saved_at_100"):
        found = result["metrics"][goal]["calibrated"]
        assert found["value"] is None
        assert "guess" in found["reason"]
    assert sentences(result)[0] == result["verdict"]["text"]
    assert not any("saved" in sentence for sentence in sentences(result))


def test_as_good_as_guesses_is_not_an_answer():
    generator = np.random.default_rng(0)
    guesses = generator.random((1500, 3)) < 0.25
    assert of_log(guesses, chance=0.25).kind == CANNOT
    assert of_log(guesses, chance=0.0).kind == HEADROOM
    assert of_log(guesses[:12], chance=0.25).kind == TOO_FEW


def test_no_headroom():
    generator = np.random.default_rng(1)
    alike = np.repeat(generator.random((800, 1)) < 0.7, 3, axis=1)
    assert of_log(alike).kind == NO_HEADROOM
    assert of_log(alike[:, :1]).kind == NO_HEADROOM  # one option
    equal = of_log(generator.random((800, 3)) < 0.7, costs=np.full((800, 3), 5.0))
    assert equal.kind == NO_HEADROOM
    assert "cost the same" in equal.text


def test_too_few_to_tell():
    assert of_log([[1, 1]]).kind == TOO_FEW
    assert of_log(np.zeros((0, 2))).kind == TOO_FEW
    world = make_world(60)
    p = np.full(world.log.scores.shape, 0.5)
    small = evaluate(world.log, p, split=world.split, settings=FAST)
    assert small["verdict"]["kind"] == TOO_FEW
    assert "Only" in small["warnings"][0]


def test_routing_that_does_not_pay():
    world = make_world(3000)
    noise = np.random.default_rng(2).random(world.log.scores.shape)
    assert evaluated(world.log, noise)["verdict"]["kind"] == DOES_NOT_PAY


def test_routing_that_pays_and_a_lookup_that_does_as_well():
    """The dataset tells all that there is to know, so that no router can do better."""
    generator = np.random.default_rng(3)
    n = 2400
    hard = generator.random(n) < 0.5
    need = np.where(hard, 2, 0)[:, None]
    scores = (np.arange(3) >= need) & (generator.random((n, 1)) < 0.95)
    log = log_of(scores.astype(float))
    frame = log.frame.copy()
    frame["dataset"] = np.where(np.repeat(hard, 3), "hard", "easy")
    named = type(log)(frame, options=log.options, cost_unit=log.cost_unit, metadata=log.metadata)
    p = np.where(np.arange(3) >= need, 0.95, 0.01)
    assert evaluated(named, p)["verdict"]["kind"] == LOOKUP
    assert evaluated(log, p)["verdict"]["kind"] == PAYS


def test_what_costs_more_saves_nothing():
    """The router takes a more expensive option that is no better: no "-300 % saved"."""
    generator = np.random.default_rng(4)
    scores = (generator.random((900, 3)) < [0.3, 0.9, 0.3]).astype(float)
    scores[:, 2] = scores[:, 1]
    found = evaluated(log_of(scores), np.tile([0.5, 0.1, 0.9], (900, 1)))["metrics"]["saved_at_99"]
    assert not found["policy"]["fallback"]
    assert found["calibrated"]["value"] is None
    assert "it costs 300 % more than the best fixed option" in found["calibrated"]["reason"]


def test_where_no_price_keeps_the_accuracy_it_falls_back_to_the_best_fixed_option():
    generator = np.random.default_rng(4)
    scores = (generator.random((900, 3)) < [0.3, 0.9, 0.3]).astype(float)
    result = evaluated(log_of(scores), np.tile([0.5, 0.1, 0.9], (900, 1)))
    for found in (result["metrics"]["saved_at_99"], result["metrics"]["saved_at_100"]):
        assert (found["policy"]["fallback"], found["policy"]["reference"]) == (True, "9")
        assert found["row"]["minus_best_fixed"]["value"] == 0
        assert found["calibrated"]["value"] == 0
    result["verdict"] = {"kind": PAYS, "text": ""}
    assert any("falls back to one option, 9." in text for text in sentences(result))


def test_that_nothing_is_saved_is_told_once():
    generator = np.random.default_rng(4)
    log = log_of((generator.random((900, 3)) < [0.9, 0.3, 0.3]).astype(float))
    result = evaluated(log, np.tile([0.2, 0.3, 0.9], (900, 1)))
    result["verdict"] = {"kind": PAYS, "text": ""}
    reason = "nothing is saved: it costs 570 % more than the best fixed option"
    result["metrics"]["saved_at_99"]["calibrated"] = {"value": None, "reason": reason}
    result["metrics"]["saved_at_99"]["policy"]["fallback"] = ""
    told = " ".join(sentences(result))
    assert f"; {reason}." in told and told.count("nothing is saved") == 1


@pytest.mark.parametrize("n", [1, 2, 6])
def test_two_right_answers_are_not_a_hundred_percent(n):
    found = of_log(np.ones((n, 2)))
    assert found.kind in (TOO_FEW, NO_HEADROOM)
    assert "100.0 to 100.0" not in found.text
    assert "nothing" not in found.text

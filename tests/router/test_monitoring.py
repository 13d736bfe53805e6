from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from m3router.data.errors import DataError
from m3router.router.monitoring.drift import Sample
from m3router.router.monitoring.regret import (
    HOLDS,
    NO_TARGET,
    UNDECIDED,
    VIOLATED,
    by_policy,
    judged,
    monitor,
)
from m3router.router.policies.guarantee import Labelled, Target, described, regrets
from m3router.router.policies.policy import Binding, Policy

BINDING = Binding(options=("1", "576"), cost_unit="visual tokens", router="r" * 64, split="s" * 64)


def traffic(images, regret, generator, *, questions=2):
    """The finest option is always right, the cheap one, which is taken, wrong at a rate."""
    n = images * questions
    scores = np.ones((n, 2))
    scores[:, 0] = generator.random(n) >= regret
    return Labelled(
        p=np.full((n, 2), 0.9),
        costs=np.tile([1.0, 576.0], (n, 1)),
        scores=scores,
        groups=np.repeat(np.arange(images), questions),
        most=questions,
    )


def promised(max_regret=0.1):
    """A policy that always takes the cheap option and promises a regret."""
    policy = Policy(binding=BINDING, kind="regret", lam=1.0, cost_scale=1.0)
    part = traffic(200, 0.05, np.random.default_rng(0))
    kept = described(regrets(policy, part), Target(max_regret=max_regret), "betting")
    return replace(policy, guarantee=kept)


def served(policy, part):
    """The policy's guarantee, and what it made of the part."""
    return policy.guarantee, by_policy(policy, part)


def features(images, generator, *, shift=0.0):
    return Sample(
        blocks={"image": shift + generator.standard_normal((images, 4))},
        groups=np.arange(images),
    )


@pytest.mark.parametrize(
    ("regret", "images", "verdict"),
    [(0.02, 300, HOLDS), (0.1, 300, UNDECIDED), (0.3, 300, VIOLATED), (0.0, 5, UNDECIDED)],
)
def test_verdicts(regret, images, verdict):
    part = traffic(images, regret, np.random.default_rng(1))
    found = judged(*served(promised(), part), level=0.005, bound="betting")
    assert found["verdict"] == verdict
    assert found["lower_limit"] <= found["regret"] <= found["upper_limit"]
    assert (found["upper_limit"] <= 0.1) == (verdict == HOLDS)
    assert (found["lower_limit"] > 0.1) == (verdict == VIOLATED)


def test_too_little_traffic_says_how_much_would_do():
    found = judged(
        *served(promised(), traffic(20, 0.0, np.random.default_rng(0))),
        level=0.005,
        bound="betting",
    )
    needed = found["pictures_needed"]
    assert needed > 20
    enough = traffic(needed, 0.0, np.random.default_rng(0))
    assert judged(*served(promised(), enough), level=0.005, bound="betting")["verdict"] == HOLDS


def test_a_policy_without_a_guarantee_is_described_but_not_judged():
    policy = replace(promised(), guarantee={})
    part = traffic(100, 0.5, np.random.default_rng(0))
    found = judged(*served(policy, part), level=0.01, bound="betting")
    assert found["verdict"] == NO_TARGET
    assert found["regret"] == pytest.approx(0.5, abs=0.1)


def test_the_whole_answer():
    generator = np.random.default_rng(2)
    found = monitor(
        promised().guarantee,
        calibrate=by_policy(promised(), traffic(200, 0.05, generator)),
        fresh=by_policy(promised(), traffic(300, 0.02, generator)),
        trained_on=features(100, generator),
        features=features(80, generator),
    )
    assert not found["alarm"]
    assert found["cost"] == {"calibrate": 1.0, "fresh": 1.0}
    assert found["accuracy"]["fresh"] == pytest.approx(0.98, abs=0.02)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_drift_raises_the_alarm_even_while_the_promise_holds():
    generator = np.random.default_rng(2)
    found = monitor(
        promised().guarantee,
        calibrate=by_policy(promised(), traffic(200, 0.05, generator)),
        fresh=by_policy(promised(), traffic(300, 0.02, generator)),
        trained_on=features(100, generator),
        features=features(80, generator, shift=1.0),
    )
    assert found["regret"]["verdict"] == HOLDS
    assert found["drift"]["image"]["drifted"]
    assert found["alarm"]


def test_false_alarms_of_both_kinds_together_are_as_rare_as_stated():
    # the hardest case: the regret is exactly what was promised
    rate, draws, alarms = 0.2, 200, 0
    for seed in range(draws):
        generator = np.random.default_rng(seed)
        found = monitor(
            promised().guarantee,
            calibrate=by_policy(promised(), traffic(20, 0.05, generator)),
            fresh=by_policy(promised(), traffic(60, 0.1, generator)),
            trained_on=features(30, generator),
            features=features(20, generator),
            false_alarm=rate,
            seed=seed,
        )
        alarms += found["alarm"]
    assert binomtest(alarms, draws, rate, alternative="greater").pvalue > 0.01
    assert alarms > 0


@pytest.mark.parametrize("rate", [0.0, 1.0, float("nan")])
def test_an_impossible_rate_is_refused(rate):
    generator = np.random.default_rng(0)
    part, sample = traffic(20, 0.0, generator), features(20, generator)
    with pytest.raises(DataError, match="false_alarm must lie between 0 and 1"):
        monitor(
            promised().guarantee,
            calibrate=by_policy(promised(), part),
            fresh=by_policy(promised(), part),
            trained_on=sample,
            features=sample,
            false_alarm=rate,
        )


def test_traffic_counts_as_the_guarantee_counts():
    # one image of the traffic has three hundred questions, all lost; the guarantee counts with one
    policy = promised()
    assert policy.guarantee["most"] == 2
    sizes = np.append(np.full(299, 2), 300)
    groups = np.repeat([f"new {i}" for i in range(300)], sizes)
    scores = np.ones((len(groups), 2))
    scores[groups == "new 299", 0] = 0.0
    part = Labelled(
        p=np.full(scores.shape, 0.9),
        costs=np.tile([1.0, 576.0], (len(groups), 1)),
        scores=scores,
        groups=groups,
        most=300,
        ids=np.array([f"q{i}" for i in range(len(groups))]),
    )
    found = judged(*served(policy, part), level=0.005, bound="betting")
    assert (found["most"], found["questions"], found["images"]) == (2, 600, 300)
    assert found["regret"] == pytest.approx(2 / 600)
    assert found["verdict"] == HOLDS
    # with another seed other questions of an image are drawn
    one = replace(policy, guarantee={**policy.guarantee, "most": 1})
    draws = {
        by_policy(replace(one, guarantee={**one.guarantee, "seed": seed}), mixed()).losses.risk
        for seed in range(5)
    }
    assert len(draws) > 1


def mixed():
    """Images of which one question is lost and one is not, or with luck two are."""
    generator = np.random.default_rng(0)
    return traffic(100, 0.5, generator)


@pytest.mark.parametrize(
    ("lost", "gained", "verdict"),
    [(0.02, 0.02, HOLDS), (0.3, 0.3, HOLDS), (0.12, 0.02, UNDECIDED), (0.4, 0.1, VIOLATED)],
)
def test_a_net_loss_is_judged_by_what_is_lost_less_what_is_gained(lost, gained, verdict):
    policy = replace(promised(), guarantee={"max_loss": 0.1, "confidence": 0.95, "most": 2})
    part = traffic(800, 0.0, np.random.default_rng(0))
    luck = np.random.default_rng(1).random(len(part.p))
    part.scores[luck < lost, 0] = 0.0
    part.scores[luck > 1 - gained, 1] = 0.0
    found = judged(*served(policy, part), level=0.005, bound="betting")
    assert found["regret"] == pytest.approx(np.mean(part.scores[:, 1] - part.scores[:, 0]))
    assert found["max_loss"] == 0.1 and found["max_regret"] is None
    assert found["verdict"] == verdict
    assert found["lower_limit"] <= found["regret"] <= found["upper_limit"]


def test_what_nobody_judged_may_be_a_gain_or_a_loss():
    policy = replace(promised(), guarantee={"max_loss": 0.1, "confidence": 0.95, "most": 2})
    part = traffic(50, 0.0, np.random.default_rng(0))
    part.scores[:10] = np.nan
    answers = np.array([["a", "a"]] * len(part.p), dtype=object)
    answers[:6, 1] = "b"
    made = by_policy(policy, part, answers)
    assert made.unjudged == 6
    assert (made.sure.risk, made.losses.risk) == (pytest.approx(-0.06), pytest.approx(0.06))

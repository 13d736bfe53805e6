"""The study of guarantees: its methods are the bounds, and its truths are true."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.guarantees import methods, run, whole
from experiments.guarantees.worlds import EVEN, STEEP, draw, ladder
from m3router.router.policies import risk_bounds as risk

TARGET, QUESTIONS, TIMES, IMAGES = 0.03, 4, 6, 300


@pytest.mark.parametrize("net", [False, True])
@pytest.mark.parametrize("world", [EVEN, STEEP])
def test_every_method_is_the_bound_of_that_name(world, net):
    listed, low = ladder(world, TARGET, net=net), -1.0 if net else 0.0
    generator = np.random.default_rng(0)
    part, tune = (
        draw(
            generator,
            world,
            listed,
            times=TIMES,
            images=number,
            questions=QUESTIONS,
            together=0.5,
        )
        for number in (IMAGES, IMAGES // 2)
    )
    rungs = len(listed.shares)
    sums = part.sums(rungs, gains=-low)
    every = methods.losses(sums, most=QUESTIONS, low=low)
    known = methods.losses(tune.sums(rungs, gains=-low), most=QUESTIONS, low=low)
    single = methods.losses(part.sums(rungs, gains=0.0, questions=1), most=1, low=0.0)
    ours = {
        "betting": methods.by_fixed_bets(
            sums, target=TARGET, most=QUESTIONS, weights=methods.WEIGHTS["fixed bets"]
        ),
        "wsr": methods.by_agrapa(sums, target=TARGET, most=QUESTIONS, low=low),
        "deadline": methods.by_deadline(sums, known, target=TARGET, most=QUESTIONS),
        "binomial": methods.by_one_question(
            part.sums(rungs, gains=0.0, questions=1), target=TARGET
        ),
    }
    for bound, certified in ours.items():
        listed_losses = single if bound == "binomial" else every
        for time in range(TIMES):
            plans = [risk.Plan(delta=0.05, expected=one) for one in known[time]]
            p = risk.p_values(bound, listed_losses[time], [TARGET] * rungs, plans)
            np.testing.assert_array_equal(certified[time], p <= 0.05)


@pytest.mark.parametrize("net", [False, True])
@pytest.mark.parametrize("world", [EVEN, STEEP])
def test_true_losses_are_those_of_many_images(world, net):
    listed = ladder(world, TARGET, net=net)
    made = draw(
        np.random.default_rng(1),
        world,
        listed,
        times=1,
        images=40_000,
        questions=2,
        together=0.4,
    )
    seen = made.sums(len(listed.shares), gains=1.0 if net else 0.0).mean(axis=(0, 1)) / 2
    np.testing.assert_allclose(seen, listed.risk, atol=0.006)
    assert (listed.risk > TARGET).any() and listed.risk[listed.risk > TARGET].min() < 1.03 * TARGET


def test_a_setting_tells_failures_and_tokens():
    found = run.tested(EVEN, False, 0.05, 200, 0.3, times=20, seed=1)
    assert set(found["methods"]) > {run.OURS, "WSR aGRAPA", "one question an image, binomial"}
    assert 0.8 < found["ratio"] < 1.2
    assert found["methods"][run.OURS]["fails"] <= 0.2


def test_one_image_in_two_thousand_decides_no_more():
    found = whole.rare(images=400, small=0.0, times=200, seed=1)
    assert found["before, fails"] > 0.3
    assert found["after, fails"] == 0 and found["after, certifies"] == 1
    hard = whole.rare(images=400, small=0.0505, times=200, seed=1)
    assert hard["after, fails"] < 0.1

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mapie.risk_control.methods import compute_hoeffding_bentkus_p_value
from scipy.stats import beta, binom, binomtest

from m3router.data.errors import DataError
from m3router.router.policies.risk_bounds import (
    BOUNDS,
    ORDERED,
    Losses,
    bentkus_p_value,
    betting_p_value,
    binomial_p_value,
    bound_named,
    by_image,
    default_bound,
    fixed_sequence,
    images_needed,
    lower_limit,
    upper_limit,
)

UNORDERED = [name for name in BOUNDS if name not in ORDERED]
"""Bounds that see how many images are like which; the others are in test_betting.py."""


def single(wrong, n):
    """n images with one question each, `wrong` of them lost."""
    return by_image((np.arange(n) < wrong).astype(float), np.arange(n))


@st.composite
def samples(draw):
    """Losses of up to 40 questions about up to 12 images."""
    groups = draw(st.lists(st.integers(0, 11), min_size=1, max_size=40))
    losses = [draw(st.sampled_from([0.0, 0.0, 0.3, 1.0])) for _ in groups]
    return np.array(losses), np.array(groups)


alphas = st.sampled_from([0.01, 0.05, 0.2, 0.5, 0.9])


@pytest.mark.parametrize("name", UNORDERED)
@pytest.mark.parametrize(("n", "alpha"), [(1, 0.3), (7, 0.5), (40, 0.05), (200, 0.02), (30, 0.95)])
def test_p_values_are_super_uniform_by_enumeration(name, n, alpha):
    # at a risk of exactly alpha, P(p <= u) <= u for every u that occurs
    p_values = np.array([BOUNDS[name](single(k, n), alpha) for k in range(n + 1)])
    mass = binom.pmf(np.arange(n + 1), n, alpha)
    for level in p_values:
        assert mass[p_values <= level].sum() <= level + 1e-12


@pytest.mark.parametrize("name", ["bentkus", "betting"])
@pytest.mark.parametrize("alpha", [0.05, 0.3])
def test_p_values_are_super_uniform_for_images_of_several_sizes(name, alpha):
    # two sorts of images: one question, never lost, or three that are lost together; enumerated
    # over how many of the second sort come and how many of those are lost
    n, share = 12, 0.5
    lost = alpha * (1 - share + 3 * share) / (3 * share)  # so that E[S] = alpha E[m]
    p_values, mass = [], []
    for triples in range(n + 1):
        for k in range(triples + 1):
            losses = Losses(
                sums=np.array([0.0, 0.0, 3.0]),
                sizes=np.array([1.0, 3.0, 3.0]),
                counts=np.array([n - triples, triples - k, k], dtype=float),
                most=3,
            )
            p_values.append(BOUNDS[name](losses, alpha))
            mass.append(binom.pmf(triples, n, share) * binom.pmf(k, triples, lost))
    p, weight = np.array(p_values), np.array(mass)
    assert weight.sum() == pytest.approx(1)
    for level in np.unique(p):
        assert weight[p <= level].sum() <= level + 1e-12


def test_the_gambler_neither_gains_nor_loses_on_average_at_alpha():
    # a martingale: without the ceiling at p = 1, the mean wealth 1 / p is exactly 1
    n, alpha = 60, 0.05
    wealth = 0.0
    for k in range(n + 1):
        p = betting_p_value(single(k, n), alpha)
        wealth += binom.pmf(k, n, alpha) / p
    assert wealth >= 1  # p = min(1, 1 / wealth) counts wealth below 1 as 1
    assert wealth <= 2


@settings(max_examples=40)
@given(samples(), alphas)
def test_a_further_loss_never_makes_a_smaller_p_value(sample, alpha):
    losses, groups = sample
    worse = losses.copy()
    worse[np.argmin(worse)] = 1.0
    most = int(np.bincount(groups).max())
    for name in ("bentkus", "betting"):
        p_value = BOUNDS[name]
        before = p_value(by_image(losses, groups, most=most), alpha)
        assert 0 <= before <= 1
        assert p_value(by_image(worse, groups, most=most), alpha) >= before - 1e-12


@settings(max_examples=40)
@given(samples(), st.floats(0.01, 0.98), st.floats(0.001, 0.01))
def test_a_larger_target_never_makes_a_larger_p_value(sample, alpha, more):
    losses = by_image(*sample)
    for name in ("bentkus", "betting"):
        assert BOUNDS[name](losses, alpha + more) <= BOUNDS[name](losses, alpha) + 1e-12


@given(st.integers(1, 300), st.floats(0, 1), st.floats(0.01, 0.99))
def test_hoeffding_bentkus_equals_mapie(n, share, alpha):
    wrong = int(share * n)
    ours = bentkus_p_value(single(wrong, n), alpha)
    mean = max(0.0, wrong - 1e-7) / n  # else its n * (wrong / n) may round up to wrong + 1
    reference = compute_hoeffding_bentkus_p_value(np.array([mean]), n, alpha)[0, 0]
    assert ours == pytest.approx(min(1.0, float(reference)), rel=1e-5, abs=1e-12)


@given(st.integers(1, 300), st.floats(0, 1), st.floats(0.01, 0.99))
def test_binomial_is_the_tail_and_the_least(n, share, alpha):
    wrong = int(share * n)
    p = binomial_p_value(single(wrong, n), alpha)
    terms = [
        math.lgamma(n + 1)
        - math.lgamma(k + 1)
        - math.lgamma(n - k + 1)
        + k * math.log(alpha)
        + (n - k) * math.log1p(-alpha)
        for k in range(wrong + 1)
    ]
    assert p == pytest.approx(math.fsum(map(math.exp, terms)), rel=1e-6)
    assert p <= bentkus_p_value(single(wrong, n), alpha) + 1e-12


@pytest.mark.parametrize("other_side", [False, True], ids=["above", "below"])
def test_looking_again_and_again_is_covered_by_the_betting_bound_and_not_by_the_binomial(
    other_side,
):
    # at a risk of exactly alpha, thirty looks at a growing sample
    alpha, delta, draws = 0.1, 0.05, 100
    alarms = {"betting": 0, "binomial": 0}
    for seed in range(draws):
        lost = np.random.default_rng(seed).random(600) < alpha
        looks = [single(int(lost[:n].sum()), n) for n in range(20, 601, 20)]
        for name in alarms:
            p_values = [
                BOUNDS[name](one.flipped(), 1 - alpha) if other_side else BOUNDS[name](one, alpha)
                for one in looks
            ]
            alarms[name] += min(p_values) <= delta
    assert binomtest(alarms["betting"], draws, delta, alternative="greater").pvalue > 0.01
    assert binomtest(alarms["binomial"], draws, delta, alternative="greater").pvalue < 0.01


def test_betting_by_hand():
    # ten images without a loss at alpha = 1/2: a bet b multiplies the wealth by 1 + b / 2
    p = betting_p_value(single(0, 10), 0.5)
    everything = 2.0**-10  # the boldest bet alone, b = 2
    assert everything < p < everything / 0.6 + 1e-5  # six tenths of the money lie there


@pytest.mark.parametrize(("wrong", "n"), [(0, 50), (5, 1000), (30, 100)])
def test_limits_of_the_binomial_are_those_of_clopper_and_pearson(wrong, n):
    losses = single(wrong, n)
    high = upper_limit(losses, delta=0.05, bound="binomial")
    low = lower_limit(losses, delta=0.05, bound="binomial")
    assert high == pytest.approx(beta.ppf(0.95, wrong + 1, n - wrong), abs=2e-6)
    expected = beta.ppf(0.05, wrong, n - wrong + 1) if wrong else 0.0
    assert low == pytest.approx(expected, abs=2e-6)


@settings(max_examples=40)
@given(samples(), st.sampled_from(["bentkus", "betting"]))
def test_limits_enclose_the_observed_risk(sample, bound):
    losses = by_image(*sample)
    low = lower_limit(losses, delta=0.1, bound=bound)
    high = upper_limit(losses, delta=0.1, bound=bound)
    assert 0 <= low <= losses.risk + 1e-6
    assert losses.risk - 1e-6 <= high <= 1


def test_fixed_sequence_stops_at_the_first_failure():
    seen = []

    def p_values():
        for p in (0.001, 0.05, 0.051, 0.001):
            seen.append(p)
            yield p

    assert fixed_sequence(p_values(), delta=0.05) == 2
    assert seen == [0.001, 0.05, 0.051]
    assert fixed_sequence([], delta=0.05) == 0


@given(samples())
def test_images_are_counted_whole(sample):
    losses, groups = sample
    found = by_image(losses, groups)
    assert found.questions == len(losses)
    assert found.images == len(set(groups.tolist()))
    assert found.risk == pytest.approx(losses.mean())
    assert found.flipped().risk == pytest.approx(1 - losses.mean())
    assert found.without().risk == 0


def test_questions_about_one_image_are_not_independent_evidence():
    losses = np.zeros(300)
    apart = betting_p_value(by_image(losses, np.arange(300)), 0.02)
    together = betting_p_value(by_image(losses, np.arange(300) // 10), 0.02)
    assert apart < 0.05 < together


@pytest.mark.parametrize("delta", [0.05, 0.01])
@pytest.mark.parametrize("alpha", [0.01, 0.05])
def test_least_number_of_images_without_any_loss(alpha, delta):
    needed = images_needed(single(0, 10), alpha, delta=delta, bound="binomial")
    assert needed == math.ceil(math.log(delta) / math.log(1 - alpha))
    assert binomial_p_value(single(0, needed), alpha) <= delta
    assert binomial_p_value(single(0, needed - 1), alpha) > delta


@pytest.mark.parametrize("bound", BOUNDS)
def test_the_advised_number_of_images_has_about_the_advised_power(bound):
    alpha, observed = 0.05, single(4, 200)
    needed = images_needed(observed, alpha, delta=0.05, bound=bound, power=0.8)
    draws = np.random.default_rng(0).binomial(needed, observed.risk, size=400)
    certified = {k: BOUNDS[bound](single(k, needed), alpha) <= 0.05 for k in set(draws.tolist())}
    power = np.mean([certified[k] for k in draws.tolist()])
    # bets that adapt may also arrive on the way, which the advice does not count on
    assert 0.7 <= power <= (1.0 if bound == "wsr" else 0.92)


def test_no_number_of_images_certifies_a_risk_above_the_target():
    assert images_needed(single(5, 100), 0.05, delta=0.05, bound="betting") is None


def test_the_default_bound_follows_from_the_form_of_the_data():
    assert default_bound(np.array([[0.0, 1.0]]), 1) == "binomial"
    assert default_bound(np.array([[0.0, 1.0]]), 2) == "deadline"
    assert default_bound(np.array([[0.3, 1.0]]), 1) == "deadline"
    assert default_bound(np.array([[0.3, 1.0]]), 2) == "deadline"
    assert default_bound(np.array([[0.0, 1.0]]), 1, low=-1.0) == "deadline"


@pytest.mark.parametrize("losses", [[1.0, 1.5], [0.0, -0.1], [0.0, math.nan], []])
def test_losses_outside_of_their_range_are_refused(losses):
    with pytest.raises(DataError, match="A bound"):
        by_image(np.array(losses), np.arange(len(losses)))


def test_more_questions_than_announced_are_refused():
    with pytest.raises(DataError, match="3 questions.*at most 2"):
        by_image(np.zeros(4), ["a", "a", "a", "b"], most=2)


@pytest.mark.parametrize(
    "losses", [by_image(np.zeros(4), [0, 0, 1, 1]), by_image(np.array([0.5, 0.0]), [0, 1])]
)
def test_the_binomial_needs_single_questions_right_or_wrong(losses):
    with pytest.raises(DataError, match="one question for each image"):
        binomial_p_value(losses, 0.1)


def test_an_unknown_bound_is_refused():
    with pytest.raises(DataError, match="betting"):
        bound_named("beting")

"""Bets in an order: against plain loops, exact enumerations, and what exact tests can do."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, poisson

from m3router.data.errors import DataError
from m3router.router.policies.betting import TRUNCATED, Shape, agrapa, deadline
from m3router.router.policies.risk_bounds import (
    ORDERED,
    Plan,
    bound_named,
    by_image,
    of_sums,
    p_values,
    shape_of,
    upper_limit,
)


def images(sums, *, most=1, low=0.0, sizes=None):
    sums = np.asarray(sums, dtype=float)
    return of_sums(
        sums, np.full(len(sums), float(most)) if sizes is None else sizes, most=most, low=low
    )


def agrapa_by_hand(x, m):
    """Waudby-Smith and Ramdas's aGRAPA, one value at a time."""
    wealth, best, seen, squares = 1.0, 1.0, 0.0, 0.0
    mean, spread = 0.5, 0.25
    for t, value in enumerate(x, start=1):
        bet = (m - mean) / (spread + (m - mean) ** 2)
        bet = min(max(bet, 0.0), TRUNCATED / (1 - m))
        wealth *= 1 + bet * (m - value)
        best = max(best, wealth)
        seen += value
        mean = (0.5 + seen) / (t + 1)
        squares += (value - mean) ** 2
        spread = (0.25 + squares) / (t + 1)
    return best


@given(
    st.lists(st.sampled_from([0.0, 0.2, 0.5, 1.0]), min_size=1, max_size=60),
    st.sampled_from([0.02, 0.1, 0.5, 0.9]),
)
def test_agrapa_is_the_loop_of_the_paper(x, m):
    excess = (np.array(x) - m) / (1 - m)
    assert agrapa(excess[:, None], np.array([m]))[0] == pytest.approx(agrapa_by_hand(x, m))
    p = bound_named("wsr")(images(x), m)
    assert p == pytest.approx(min(1.0, 1 / agrapa_by_hand(x, m)))


def deadline_by_hand(excess, spread, jump, growth, delta):
    """One image at a time, the Poisson law solved afresh by bisection instead of a table."""
    wealth, rate = delta, spread / jump**2
    for place, e in enumerate(excess):
        if not 0 < wealth < 1:
            break
        left = len(excess) - place
        events = left * rate
        if wealth <= poisson.pmf(0, events):
            share = 1.0
        else:
            from scipy.special import gammaincc

            low, high = 0.0, events + 60
            for _ in range(80):
                middle = (low + high) / 2
                low, high = (
                    (middle, high) if gammaincc(middle + 1, events) < wealth else (low, middle)
                )
            share = 1 - gammaincc(max(low, 1e-12), events) / wealth
        stake = wealth * share / jump
        stake = max(stake, (np.exp(-(left - 1) * growth) - wealth) / np.expm1(growth))
        wealth -= min(stake, wealth) * e
    return wealth


@pytest.mark.parametrize(("most", "alpha"), [(1, 0.05), (4, 0.05), (7, 0.02)])
def test_the_deadline_is_its_description(most, alpha):
    generator = np.random.default_rng(0)
    for _ in range(20):
        losses = images(generator.binomial(most, alpha / 2, size=120), most=most)
        spread, jump, growth = shape_of(losses, alpha, losses)
        shape = Shape(*np.array([[spread], [jump], [growth]]))
        found = deadline(losses.excess(alpha)[:, None], shape, delta=0.05)[0]
        expected = deadline_by_hand(losses.excess(alpha), spread, jump, growth, 0.05)
        # the table rounds the events expected to 2 %, which may tip a close case
        assert found == pytest.approx(expected, abs=0.05) or min(found, expected) > 0.9


@pytest.mark.parametrize("bound", ORDERED)
@pytest.mark.parametrize("delta", [0.05, 0.3])
@pytest.mark.parametrize("alpha", [0.1, 0.3, 0.6])
def test_p_values_are_super_uniform_over_every_order(bound, delta, alpha):
    # all 2^10 sequences of ten images at a risk of exactly alpha
    n, plan = 10, Plan(delta=delta, expected=images([0, 0, 1, 0]))
    sequences = np.array(list(product([0.0, 1.0], repeat=n)))
    mass = alpha ** sequences.sum(axis=1) * (1 - alpha) ** (n - sequences.sum(axis=1))
    p = p_values(bound, [images(one) for one in sequences], [alpha] * 2**n, [plan] * 2**n)
    for level in np.unique(p):
        assert mass[p <= level].sum() <= level + 1e-9


@pytest.mark.parametrize("bound", ORDERED)
@pytest.mark.parametrize("low", [0.0, -0.5, -1.0])
def test_p_values_are_super_uniform_for_gains_and_images_of_several_sizes(bound, low):
    # four sorts of images of up to two questions, six of them, at a risk of exactly alpha
    alpha, most = 0.2, 2
    sums, sizes = np.array([0.0, 2.0, low, 1.0]), np.array([1.0, 2.0, 1.0, 2.0])
    rest = np.array([0.5, 0.0, 0.15, 0.1])
    # share of the second sort, so that E[S] = alpha E[m]
    excess = sums - alpha * sizes
    share = -(rest @ excess) / excess[1]
    chance = (rest + np.array([0.0, share, 0.0, 0.0])) / (rest.sum() + share)
    assert share > 0 and chance @ excess == pytest.approx(0)
    every = np.array(list(product(range(4), repeat=6)))
    mass = chance[every].prod(axis=1)
    losses = [images(sums[one], most=most, low=low, sizes=sizes[one]) for one in every]
    plan = Plan(delta=0.1, expected=losses[7])
    p = p_values(bound, losses, [alpha] * len(losses), [plan] * len(losses))
    for level in np.unique(p):
        assert mass[p <= level].sum() <= level + 1e-9


@pytest.mark.parametrize(("alpha", "n"), [(0.01, 400), (0.02, 700), (0.05, 300)])
def test_on_single_losses_a_deadline_certifies_what_the_binomial_does(alpha, n):
    """As many losses as the exact test allows, wherever they come, or at least one fewer."""
    allowed = int(binom.ppf(0.05, n, alpha))
    allowed -= int(binom.cdf(allowed, n, alpha) > 0.05)
    generator = np.random.default_rng(1)
    for k, wanted in ((allowed - 1, 0.95), (allowed + 2, None)):
        if k < 0:
            continue
        losses = [images(generator.permutation(np.arange(n) < k)) for _ in range(40)]
        plan = Plan(delta=0.05, expected=losses[0])
        p = p_values("deadline", losses, [alpha] * 40, [plan] * 40)
        share = float((p <= 0.05).mean())
        assert share >= wanted if wanted is not None else share <= 0.35


@pytest.mark.parametrize("together", [0.0, 0.5, 1.0])
def test_a_deadline_certifies_more_than_the_others_where_images_have_several_questions(together):
    alpha, n, most, sims = 0.02, 700, 5, 150
    generator = np.random.default_rng(4)

    def draw(number):
        every = most * (generator.random(number) < alpha / 2)
        each = generator.binomial(most, alpha / 2, number)
        return np.where(generator.random(number) < together, every, each)

    losses = [images(draw(n), most=most) for _ in range(sims)]
    plan = Plan(delta=0.05, expected=images(draw(n // 2), most=most))
    power = {
        bound: np.mean(p_values(bound, losses, [alpha] * sims, [plan] * sims) <= 0.05)
        for bound in ("deadline", "betting", "wsr", "bentkus")
    }
    single = [images(generator.random(n) < one.sums / most) for one in losses]
    power["binomial"] = np.mean(p_values("binomial", single, [alpha] * sims, [plan] * sims) <= 0.05)
    assert power["deadline"] >= max(power.values()) - 0.06, power
    assert power["deadline"] > power["betting"] + 0.02 or power["betting"] > 0.97


def test_what_is_expected_shapes_bets_and_never_validity():
    # wildly wrong expectations, at a risk of exactly alpha
    alpha, n, sims = 0.05, 200, 600
    generator = np.random.default_rng(0)
    losses = [images(generator.random(n) < alpha) for _ in range(sims)]
    for expected in (images(np.ones(50)), images(np.zeros(3)), images(np.full(40, 0.02)), None):
        plan = Plan(delta=0.05, expected=expected)
        p = p_values("deadline", losses, [alpha] * sims, [plan] * sims)
        assert binomtest(int((p <= 0.05).sum()), sims, 0.05, alternative="greater").pvalue > 0.01


@pytest.mark.parametrize("bound", ORDERED)
def test_an_order_is_needed_and_comes_from_names_alone(bound):
    losses, groups = np.array([0.0, 1.0, 0.0, 0.3]), np.array(["d", "a", "c", "b"])
    mixed = np.array([2, 0, 3, 1])
    one, other = by_image(losses, groups), by_image(losses[mixed], groups[mixed])
    np.testing.assert_array_equal(one.sums, other.sums)
    assert sorted(one.sums.tolist()) != one.sums.tolist()  # not by what was lost
    counted = by_image(losses, groups).__class__(
        sums=np.array([0.0, 1.0]), sizes=np.ones(2), counts=np.array([3.0, 1.0]), most=1
    )
    with pytest.raises(DataError, match="without an order"):
        bound_named(bound)(counted, 0.1)


@pytest.mark.parametrize("bound", ["betting", "bentkus", *ORDERED])
def test_net_losses_are_bounded_too(bound):
    # gains make up for losses: 5 % lost, 6 % gained, certified to lose at most 4 points
    generator = np.random.default_rng(2)
    drawn = generator.choice([1.0, -1.0, 0.0], p=[0.05, 0.06, 0.89], size=3000)
    losses = images(drawn, low=-1.0)
    plan = Plan(delta=0.05, expected=images(drawn[:500], low=-1.0))
    p = {alpha: bound_named(bound)(losses, alpha, plan) for alpha in (-0.02, 0.04)}
    assert p[-0.02] > 0.05
    assert p[0.04] <= 0.05 or bound == "bentkus"  # which does not see how small the variance is
    limit = upper_limit(losses, delta=0.05, bound=bound, expected=plan.expected)
    assert losses.risk < limit <= 1
    flipped = losses.flipped()
    assert flipped.risk == pytest.approx(-losses.risk)
    assert losses.mirrored(0.04) == pytest.approx(-0.04)


@pytest.mark.parametrize("bound", ORDERED)
def test_an_upper_limit_is_certified_and_holds(bound):
    alpha, held, sims = 0.1, 0, 120
    generator = np.random.default_rng(5)
    for _ in range(sims):
        losses = images(generator.binomial(3, alpha, size=150), most=3)
        limit = upper_limit(losses, delta=0.1, bound=bound)
        plan = Plan(delta=0.1)
        assert bound_named(bound)(losses, limit, plan) <= 0.1 or limit == 1.0
        held += limit >= alpha
    assert binomtest(held, sims, 0.9, alternative="less").pvalue > 0.01


def test_bets_are_shaped_by_how_losses_fall():
    alone = images([0, 0, 1, 0, 0, 1, 0, 0, 0, 0] * 20, most=4)
    together = images([0, 0, 4, 0, 0, 4, 0, 0, 0, 0] * 20, most=4)
    jumps = [shape_of(one, 0.1, one)[1] for one in (alone, together)]
    assert jumps[0] == pytest.approx(0.25 / 0.9, rel=0.1)  # a question of four
    assert jumps[1] == pytest.approx(1.0, rel=0.1)
    unknown = shape_of(alone, 0.1, None)
    assert unknown[1] == pytest.approx(0.5 / 0.9)
    lossless = images(np.zeros(50), most=4)
    assert 0 < shape_of(lossless, 0.1, lossless)[1] <= 1

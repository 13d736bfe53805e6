"""Guarantees against truths that are known: the whole calibration, hundreds of times."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from mapie.risk_control import FWERFixedSequenceTesting, control_fwer
from scipy.stats import binom, binomtest, norm

from experiments.guarantees.whole import tied
from m3router.data.errors import DataError
from m3router.router.policies.guarantee import (
    STEPS,
    Exam,
    Labelled,
    Strategies,
    Target,
    UncertifiedError,
    certify,
    for_max_regret,
    for_target,
    regrets,
    safe_to_cheap,
)
from m3router.router.policies.policy import Binding, Policy
from m3router.router.policies.price_sweep import worths
from m3router.router.policies.risk_bounds import binomial_p_value, by_image

COSTS = np.array([1.0, 24.0, 576.0])


def binding(k=3):
    options = tuple(f"s{i}" for i in range(k))
    return Binding(options=options, cost_unit="visual tokens", router="r" * 64, split="s" * 64)


def options_of(k):
    names = tuple(f"option {i}" for i in range(k))
    return Binding(options=names, cost_unit="tokens", router="", split="")


@dataclass(frozen=True)
class World:
    """Questions of 40 sorts; the router sees the sort, and its estimates may be wrong.

    Questions about one image are of one sort, and whether they are answered rightly is
    correlated through a normal of the image (a one-factor copula with correlation `together`).
    Neither changes a single question's own probabilities, so the true regret of every policy is
    a sum over sorts.
    """

    per_image: int = 1
    together: float = 0.0
    bias: float = 0.0  # of the router's estimates, on the scale of logits
    sorts: int = 40

    @property
    def truth(self):
        """P(right) of each sort at each option, (sorts, 3), falling with its difficulty."""
        difficulty = np.linspace(-6, 3, self.sorts)[:, None]
        return 1 / (1 + np.exp(difficulty - np.array([0.0, 2.5, 5.0])))

    @property
    def estimates(self):
        logit = np.log(self.truth / (1 - self.truth)) + self.bias * np.array([1.0, 1.0, 0.0])
        return 1 / (1 + np.exp(-logit))

    def draw(self, images, generator):
        n = images * self.per_image
        groups = np.repeat(np.arange(images), self.per_image)
        sort = generator.integers(0, self.sorts, images)[groups]
        shared = generator.standard_normal((images, 3))[groups]
        own = generator.standard_normal((n, 3))
        latent = np.sqrt(self.together) * shared + np.sqrt(1 - self.together) * own
        scores = (norm.cdf(latent) < self.truth[sort]).astype(float)
        return Labelled(
            p=self.estimates[sort],
            costs=np.tile(COSTS, (n, 1)),
            scores=scores,
            groups=groups,
            most=self.per_image,
        )

    def prices(self, steps=8):
        """A ladder from the router's estimates alone, as the tune split would give it."""
        all_prices = safe_to_cheap(self.estimates, np.tile(COSTS, (self.sorts, 1)))
        return all_prices[np.linspace(0, len(all_prices) - 1, steps).round().astype(int)]

    def true_regret(self, policy):
        """Options fail independently of each other: P(right at the finest) P(wrong at k)."""
        choice = policy.choose(self.estimates, np.tile(COSTS, (self.sorts, 1)))
        wrong = 1 - np.take_along_axis(self.truth, choice[:, None], axis=1)[:, 0]
        regret = self.truth[:, -1] * wrong
        return float(np.where(choice == 2, 0.0, regret).mean())

    def true_loss(self, policy):
        """How far accuracy is below that of the policy's reference."""
        choice = policy.choose(self.estimates, np.tile(COSTS, (self.sorts, 1)))
        right = np.take_along_axis(self.truth, choice[:, None], axis=1)[:, 0]
        return float((self.truth[:, policy.reference_index] - right).mean())

    def true_cost(self, policy):
        choice = policy.choose(self.estimates, np.tile(COSTS, (self.sorts, 1)))
        return float(COSTS[choice].mean())


def ladder_of(prices):
    return [Policy(binding=binding(), kind="regret", lam=w, cost_scale=1.0) for w in prices]


def count_failures(world, images, *, draws, apart=False):
    """How often calibrations keep a policy of too much regret, and how often they keep any.

    The target lies just below the true regret of a price of the ladder: the hardest case.
    """
    prices = world.prices()
    true = {policy.lam: world.true_regret(policy) for policy in ladder_of(prices)}
    target = Target(max_regret=0.99 * min(risk for risk in true.values() if risk > 0.05))
    generator = np.random.default_rng(7)
    failures, certified = 0, 0
    for _ in range(draws):
        part = world.draw(images, generator)
        if apart:
            part = replace(part, groups=np.arange(len(part.p)), most=1)
        policy = for_max_regret(part, prices=prices, target=target, binding=binding())
        certified += not policy.fallback
        failures += not policy.fallback and world.true_regret(policy) > target.max_regret
    return failures, certified


@pytest.mark.parametrize(
    ("world", "images", "draws"),
    [
        (World(), 200, 500),
        (World(bias=1.5), 200, 500),
        (World(per_image=4, together=0.7), 100, 150),
    ],
    ids=["independent", "optimistic router", "clustered"],
)
def test_fails_at_most_as_often_as_it_says(world, images, draws):
    # two thousand calibrations of each kind are in experiments/guarantees
    failures, certified = count_failures(world, images, draws=draws)
    assert certified > draws / 2  # it does not hold by falling back
    # no more failures than chance makes of a rate of 5 %
    assert binomtest(failures, draws, 0.05, alternative="greater").pvalue > 0.01


@pytest.mark.parametrize(
    ("world", "net"),  # a net loss of independent questions is in the next test
    [
        (World(sorts=9), False),
        (World(sorts=9, per_image=3, together=0.5), False),
        (World(sorts=9, per_image=3, together=0.5), True),
    ],
)
def test_what_the_tune_part_teaches_does_not_make_it_fail_more_often(world, net):
    # which ladder, how gains count and how bets are shaped are all learned from labels
    true = [(world.true_regret(one), world.true_loss(one)) for one in ladder_of(world.prices())]
    alpha = 0.99 * min(one[int(net)] for one in true if one[int(net)] > 0.05)
    target = Target(max_loss=alpha) if net else Target(max_regret=alpha)
    generator, draws, failures, certified = np.random.default_rng(11), 100, 0, 0
    for _ in range(draws):
        part, tune = world.draw(150, generator), world.draw(75, generator)
        policy = for_target(part, tune=tune, target=target, binding=binding())
        certified += not policy.fallback
        lost = world.true_loss(policy) if net else world.true_regret(policy)
        failures += lost > alpha
    assert certified > 0.9 * draws
    assert binomtest(failures, draws, 0.05, alternative="greater").pvalue > 0.01


def test_choosing_the_reference_on_the_calibrate_part_does_not_make_it_fail_more_often():
    # options that are equally good, so that luck decides which looks best
    world, draws, failures, seen = tied(4), 60, 0, set()
    alpha = world.just_below(0.02, net=True, reference=3)
    generator = np.random.default_rng(3)
    for _ in range(draws):
        part, tune = world.part(200, generator), world.part(100, generator)
        target = Target(max_loss=alpha)
        try:
            policy = for_target(part, tune=tune, target=target, binding=options_of(4))
        except UncertifiedError:
            continue
        seen.add(policy.reference)
        failures += world.loss(policy, net=True) > alpha
    assert len(seen) == 3
    assert binomtest(failures, draws, 0.05, alternative="greater").pvalue > 0.01


_ARRAYS = ("p", "costs", "scores", "groups", "ids")


def test_an_image_counts_with_at_most_so_many_questions():
    # one image of four hundred has three hundred questions, all of them lost by the cheap option
    sizes = np.append(np.ones(399, dtype=int), 300)
    groups = np.repeat([f"image {i}" for i in range(400)], sizes)
    scores = np.ones((len(groups), 2))
    scores[groups == "image 399", 0] = 0.0
    part = Labelled(
        p=np.full(scores.shape, 0.9),
        costs=np.tile([1.0, 9.0], (len(groups), 1)),
        scores=scores,
        groups=groups,
        most=300,
        ids=np.array([f"q{i}" for i in range(len(groups))]),
    )
    target = Target(max_regret=0.02, reference="s1", most=1)
    kept = for_target(part, tune=part, target=target, binding=binding(2)).guarantee
    assert (kept["most"], kept["questions"], kept["images"]) == (1, 400, 400)
    assert kept["regret"] == pytest.approx(1 / 400)
    # and where all of its questions count, no number of losses is few enough
    with pytest.raises(UncertifiedError, match="699 questions about 400 images.*deadline"):
        for_target(part, tune=part, target=replace(target, most=300), binding=binding(2))
    shuffled = np.random.default_rng(0).permutation(len(groups))
    mixed = replace(
        part,
        **{name: getattr(part, name)[shuffled] for name in _ARRAYS},
    )
    again = for_target(mixed, tune=part, target=replace(target, most=2), binding=binding(2))
    same = for_target(part, tune=part, target=replace(target, most=2), binding=binding(2))
    assert again.guarantee == same.guarantee


def test_a_net_loss_is_certified_where_the_regret_is_too_large():
    # the cheap option is right as often as the other, but of other questions
    generator = np.random.default_rng(6)

    def draw(n):
        scores = np.ones((n, 2))
        scores[generator.random(n) < 0.04, 0] = 0.0
        scores[generator.random(n) < 0.045, 1] = 0.0
        p = np.tile([0.96, 0.955], (n, 1)) + generator.normal(0, 0.003, (n, 2))
        return Labelled(
            p=p, costs=np.tile([1.0, 9.0], (n, 1)), scores=scores, groups=np.arange(n), most=1
        )

    part, tune = draw(3000), draw(1500)
    net = Target(max_loss=0.02, reference="s1")
    policy = for_target(part, tune=tune, target=net, binding=binding(2))
    assert policy.calibration["mean_cost"] < 2
    kept = policy.guarantee
    assert kept["max_loss"] == 0.02 and "max_regret" not in kept and kept["gains"] == 1.0
    assert kept["loss"] == pytest.approx((part.scores[:, 1] - part.given(policy)).mean())
    assert kept["loss"] < kept["upper_limit"] <= 0.02
    assert policy.knob == {"max_loss": 0.02, "confidence": 0.95}
    regret = Target(max_regret=0.02, reference="s1")
    other = for_target(part, tune=tune, target=regret, binding=binding(2))
    assert other.calibration["mean_cost"] > 5


def test_partial_scores_may_be_lost_and_gained():
    generator = np.random.default_rng(0)
    n = 2000
    scores = np.clip(generator.normal(0.8, 0.1, (n, 1)) + generator.normal(0, 0.05, (n, 2)), 0, 1)
    part = Labelled(
        p=np.clip(scores + generator.normal(0, 0.1, (n, 2)), 0, 1),
        costs=np.tile([1.0, 9.0], (n, 1)),
        scores=scores,
        groups=np.arange(n) // 2,
        most=2,
    )
    policy = for_target(part, tune=part, target=Target(max_loss=0.02), binding=binding(2))
    assert not policy.fallback
    assert policy.guarantee["bound"] == "deadline"
    lost = scores[:, policy.reference_index] - part.given(policy)
    assert policy.guarantee["loss"] == pytest.approx(lost.mean())


def test_taking_questions_about_a_image_for_independent_fails_too_often():
    # so the test above can fail: in its clustered world, images matter
    failures, _ = count_failures(World(per_image=4, together=0.7), 100, draws=150, apart=True)
    assert binomtest(failures, 150, 0.05, alternative="greater").pvalue < 0.01


@pytest.mark.parametrize("alpha", [0.01, 0.05])
def test_saves_at_least_half_of_what_the_oracle_threshold_saves(alpha):
    world, generator = World(), np.random.default_rng(3)
    prices = world.prices(40)
    ladder = ladder_of(prices)
    oracle = min(world.true_cost(one) for one in ladder if world.true_regret(one) <= alpha)
    saved = []
    for _ in range(16):
        part = world.draw(5000, generator)
        policy = for_max_regret(
            part, prices=prices, target=Target(max_regret=alpha), binding=binding()
        )
        saved.append(COSTS[-1] - world.true_cost(policy))
    assert np.quantile(saved, 0.1) >= (COSTS[-1] - oracle) / 2


def test_the_sequence_is_the_one_of_mapie():
    world = World()
    part, prices = world.draw(800, np.random.default_rng(0)), world.prices(20)
    target = Target(max_regret=0.05)
    ladder = ladder_of(prices)
    p_values = np.array([binomial_p_value(regrets(one, part), 0.05) for one in ladder])
    valid = control_fwer(p_values, target.delta, FWERFixedSequenceTesting())
    policy = for_max_regret(part, prices=prices, target=target, binding=binding())
    assert 0 < len(valid) < len(prices)
    assert policy.price == pytest.approx(prices[max(valid)])
    assert policy.guarantee["p_value"] == pytest.approx(p_values[max(valid)])


def test_a_strategy_of_any_kind_is_certified():
    """A coin sends a share of questions to the cheapest option: neither policy nor cascade."""
    world, shares = World(), np.linspace(0.0, 1.0, 21)
    lost = world.truth[:, -1] * (1 - world.truth[:, 0])
    alpha, generator = 0.5 * float(lost.mean()), np.random.default_rng(5)
    failures, certified, draws = 0, 0, 100
    for _ in range(draws):
        coins = [generator.random(600), generator.random(300)]
        part, tune = (world.draw(len(coin), generator) for coin in coins)

        def scores(on, coin, share):
            return np.where(coin < share, on.scores[:, 0], on.scores[:, -1])

        exam = Exam.of(part, Target(max_regret=alpha, reference="s2"), binding().options, tune=tune)
        found = certify(
            exam,
            [
                Strategies(
                    costs=(1 - shares) * COSTS[-1] + shares * COSTS[0],
                    tuned=[scores(tune, coins[1], share) for share in shares],
                    given=lambda rung, part=part, coin=coins[0]: scores(part, coin, shares[rung]),
                    free=False,
                )
            ],
        )
        assert found.rungs.start == 0
        if not found.rungs:
            continue
        last = found.rungs[-1]
        kept = found.guarantee(scores(part, coins[0], shares[last]), last)
        assert kept["p_value"] <= 0.05 and kept["max_regret"] == alpha
        certified += last > 0
        failures += shares[last] * lost.mean() > alpha
    assert certified > 0.75 * draws
    assert failures <= binom.ppf(0.999, draws, 0.05)


def test_what_is_recorded_can_be_recomputed():
    world = World()
    part = world.draw(2000, np.random.default_rng(1))
    policy = for_max_regret(
        part, prices=world.prices(), target=Target(max_regret=0.02), binding=binding()
    )
    rows = np.arange(2000)
    choice = policy.choose(part.p, part.costs)
    lost = (part.scores[:, -1] == 1) & (part.scores[rows, choice] == 0)
    kept = policy.guarantee
    assert kept["bound"] == "binomial"
    assert kept["regret"] == pytest.approx(lost.mean())
    assert kept["p_value"] == pytest.approx(binom.cdf(lost.sum(), 2000, 0.02))
    assert kept["p_value"] <= 0.05
    assert kept["upper_limit"] <= 0.02
    assert (kept["pictures"], kept["questions"], kept["most"]) == (2000, 2000, 1)
    assert policy.calibration["mean_cost"] == pytest.approx(part.costs[rows, choice].mean())
    assert policy.knob == {"max_regret": 0.02, "confidence": 0.95}


def test_survives_its_file(tmp_path):
    world = World()
    part = world.draw(2000, np.random.default_rng(1))
    target = Target(max_regret=0.02, cap=24.0)
    policy = for_max_regret(part, prices=world.prices(), target=target, binding=binding())
    policy.write(tmp_path / "policy.json")
    assert Policy.read(tmp_path / "policy.json") == policy


def test_under_a_cap_regret_is_against_the_finest_that_is_allowed():
    world = World()
    part = world.draw(3000, np.random.default_rng(2))
    target = Target(max_regret=0.05, cap=100.0)
    prices = safe_to_cheap(part.p, part.costs, cap=100.0)
    policy = for_max_regret(part, prices=prices, target=target, binding=binding())
    choice = policy.choose(part.p, part.costs)
    assert not policy.fallback
    assert set(choice.tolist()) == {0, 1}
    lost = (part.scores[:, 1] == 1) & (part.scores[np.arange(3000), choice] == 0)
    assert policy.guarantee["regret"] == pytest.approx(lost.mean())
    assert policy.knob["cap"] == 100.0


def test_nothing_qualifies_says_how_many_images_would():
    # the router's estimates order nothing: any saving loses 3 % at once
    generator = np.random.default_rng(0)
    scores = np.ones((400, 2))
    scores[:, 0] = generator.random(400) > 0.03
    part = Labelled(
        p=np.full((400, 2), 0.9),
        costs=np.tile([1.0, 9.0], (400, 1)),
        scores=scores,
        groups=np.arange(400),
        most=1,
    )
    prices = safe_to_cheap(part.p, part.costs)
    assert len(prices) == 1
    policy = for_max_regret(part, prices=prices, target=Target(max_regret=0.04), binding=binding(2))
    assert policy.fallback
    assert policy.kind == "fixed"
    assert policy.decide(part.p[0], part.costs[0]) == 1
    assert "400 questions about 400 images" in policy.reason
    assert "such images would certify it with probability 0.8" in policy.reason
    assert policy.guarantee["regret"] == 0
    hopeless = for_max_regret(
        part, prices=prices, target=Target(max_regret=0.01), binding=binding(2)
    )
    assert "no number of images certifies that" in hopeless.reason


@pytest.mark.parametrize(
    ("p", "costs", "said"),
    [
        ([0.9], [1.0], "That option is the only one: no policy could cost less"),
        ([0.9, 0.9], [1.0, 1.0], "That option is the cheapest: no policy could cost less"),
        ([0.9, 0.0], [1.0, 9.0], "No price changes a choice"),
    ],
)
def test_a_price_that_changes_nothing_says_so(p, costs, said):
    scores = np.ones((100, len(p)))
    scores[50:, :-1] = 0  # the last option is the reference
    part = Labelled(
        p=np.tile(p, (100, 1)),
        costs=np.tile(costs, (100, 1)),
        scores=scores,
        groups=np.arange(100),
        most=1,
    )
    prices, target = safe_to_cheap(part.p, part.costs), Target(max_regret=0.1)
    policy = for_max_regret(part, prices=prices, target=target, binding=binding(len(p)))
    assert policy.fallback
    assert said in policy.reason


def test_too_small_for_any_certificate_is_an_error_that_names_the_number():
    part = World().draw(298, np.random.default_rng(0))
    prices = World().prices()
    with pytest.raises(DataError, match="298 questions about 298 images.*at least 299 such"):
        for_max_regret(part, prices=prices, target=Target(max_regret=0.01), binding=binding())
    enough = World().draw(299, np.random.default_rng(0))
    for_max_regret(enough, prices=prices, target=Target(max_regret=0.01), binding=binding())


def test_the_ladder_goes_from_dear_to_cheap_without_labels():
    world = World(sorts=2000)
    costs = np.tile(COSTS, (2000, 1))
    prices = safe_to_cheap(world.estimates, costs)
    assert len(prices) <= STEPS
    assert np.all(np.diff(prices) > 0)
    cost = [
        world.true_cost(Policy(binding=binding(), kind="regret", lam=w, cost_scale=1.0))
        for w in prices
    ]
    assert np.all(np.diff(cost) < 0)
    assert cost[0] > 500
    assert cost[-1] == 1.0


def test_estimated_regret_of_independent_options():
    p = np.array([[0.5, 0.8, 0.9], [0.0, 1.0, 0.6]])
    worth = worths(p, np.tile(COSTS, (2, 1)), regret=True)
    np.testing.assert_allclose(1 - worth, [[0.45, 0.18, 0.0], [0.6, 0.0, 0.0]])
    capped = worths(p, np.tile(COSTS, (2, 1)), regret=True, cap=24.0)
    np.testing.assert_allclose(1 - capped, [[0.4, 0.0, np.inf], [1.0, 0.0, np.inf]])


def test_partial_scores_count_what_is_lost_of_them():
    part = Labelled(
        p=np.array([[0.9, 0.9]] * 2),
        costs=np.array([[1.0, 9.0]] * 2),
        scores=np.array([[0.3, 0.9], [1.0, 0.6]]),
        groups=np.arange(2),
        most=1,
    )
    cheapest = Policy(binding=binding(2), kind="price", lam=1.0, cost_scale=1.0)
    losses = regrets(cheapest, part)
    assert losses.risk == pytest.approx(by_image([0.6, 0.0], [0, 1]).risk)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_regret": 0.0}, "max_regret must lie between 0 and 1"),
        ({"max_regret": 1.0}, "max_regret must lie between 0 and 1"),
        ({"max_regret": 0.1, "confidence": 95}, "confidence must lie between 0 and 1"),
        ({"max_regret": 0.1, "bound": "hoefding"}, "bound"),
        ({"max_loss": 1.0}, "max_loss must lie between 0 and 1"),
        ({"max_loss": 0.1, "max_regret": 0.1}, "either a max_regret or a max_loss"),
        ({}, "either a max_regret or a max_loss"),
        ({"max_loss": 0.1, "most": 0}, "at least 1 question; most is 0"),
    ],
)
def test_impossible_targets_are_refused(change, message):
    with pytest.raises(DataError, match=message):
        Target(**change)


def test_scores_with_gaps_are_refused():
    part = World().draw(400, np.random.default_rng(0))
    part.scores[3, 1] = np.nan
    with pytest.raises(DataError, match="gaps drop"):
        for_max_regret(
            part, prices=World().prices(), target=Target(max_regret=0.05), binding=binding()
        )

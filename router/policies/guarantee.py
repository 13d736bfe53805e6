"""Policies with a guarantee: the cheapest whose loss is small with a stated confidence.

Notation for shapes: N questions of one part, K options.

What is guaranteed is one of two losses against the reference, the option that is best on the
calibration split or one that is named (`references` says what stands for it under a cap):

- the regret, P(right at the reference and wrong as routed), for scores between 0 and 1 the mean of
  max(0, s_reference - s_routed);
- the net loss, the mean of s_reference - s_routed: by how much accuracy falls.

The rule `argmin_k r_k(x) + price * cost_k(x)`, where r_k is the estimated regret of option k,
takes nearly always the reference at price 0 and gets cheaper as the price rises. Prices are
listed on the tune split, without labels, and tested on the calibration split in that order until
one is not certified (`ladders`). For a net loss the rule `argmax_k p_k(x) - price * cost_k(x)`
takes its place where the labels of the tune split promise that it will be cheaper. Whatever the
estimates are worth, the guarantee holds for images drawn like those of the calibration split, an
image counting with at most M questions (`m3router.router.policies.thinning`); good estimates make
it cheap. See docs/guarantees.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from m3router.data.errors import DataError
from m3router.router.estimators.base import Floats
from m3router.router.policies import risk_bounds as risk
from m3router.router.policies.fitting import always_reference, check_scores, measured
from m3router.router.policies.knobs import Knobs
from m3router.router.policies.ladders import GAINS, Counted, Ladder, climbed, promising
from m3router.router.policies.policy import Binding, Policy
from m3router.router.policies.price_sweep import (
    LAST,
    Kind,
    allowed,
    check_inputs,
    reference_allowed,
    sweep,
)
from m3router.router.policies.references import chosen as reference_of
from m3router.router.policies.thinning import SEED, Thinned, default_most, thin
from m3router.router.text.numbers import number, plain

STEPS = 250
"""Most prices that are tested."""
POWER = 0.8
"""Probability of success at the sample sizes that are advised."""
CONFIDENCE = 0.95
"""Of guarantees that declare no other."""
LOSSES = (0.01, 0.02, 0.05)
"""Losses that are worth a certificate, strictest first, for those who name none."""
ROOM = 2
"""How many times the least images there should be, so that a few losses are allowed for."""


def least_images(loss: float, *, confidence: float = CONFIDENCE) -> int:
    """Images of the calibration split that certify a loss if nothing at all is lost on them.

    The least G with (1 - loss)^G <= 1 - confidence, an image counting with one question.

    >>> least_images(0.01), least_images(0.05)
    (299, 59)
    """
    return math.ceil(math.log1p(-confidence) / math.log1p(-loss))


def certifiable_loss(images: int, *, confidence: float = CONFIDENCE) -> float | None:
    """The strictest of `LOSSES` that so many images may certify; None where they are too few.

    Goes by the number of images alone: a target that is chosen by looking at the calibration
    split's labels would not be covered by its guarantee.

    >>> certifiable_loss(700), certifiable_loss(70), certifiable_loss(40)
    (0.01, 0.05, None)
    """
    for loss in LOSSES:
        room = 1 if loss == LOSSES[-1] else ROOM
        if images >= room * least_images(loss, confidence=confidence):
            return loss
    return None


@dataclass(frozen=True, kw_only=True, eq=False)
class Labelled:
    """Labelled questions, to judge a policy on.

    Attributes:
        p: the router's probabilities (N, K).
        costs: (N, K).
        scores: (N, K) in [0, 1].
        groups: image of each question (N,).
        most: M, the most questions that an image counts with; others are thinned away.
        paid: (N, K) what is paid, where choices go by other costs, see
            `m3router.router.policies.expected_costs`; None where they go by these.
        ids: name of each question (N,), which the thinning goes by; None for their places.
        seed: of the thinning.
    """

    p: Floats
    costs: Floats
    scores: Floats
    groups: npt.NDArray
    most: int
    paid: Floats | None = None
    ids: npt.NDArray | None = None
    seed: int = SEED

    @property
    def spent(self) -> Floats:
        """What is paid (N, K), whatever choices go by."""
        return self.costs if self.paid is None else self.paid

    def thinned(self) -> Thinned:
        """Which questions count."""
        ids = np.arange(len(self.p)) if self.ids is None else self.ids
        return thin(ids, self.groups, most=self.most, seed=self.seed)

    def counted(self, against: npt.NDArray[np.intp]) -> Counted:
        """The part, with the options (N,) that losses are against."""
        return Counted(thinned=self.thinned(), against=self.scores[np.arange(len(self.p)), against])

    def given(self, policy: Policy) -> Floats:
        """Scores (N,) of the answers that a policy gives."""
        return self.scores[np.arange(len(self.p)), policy.choose(self.p, self.costs)]


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is to be guaranteed, from the knobs of these names (`policies.knobs.Knobs`).

    In the papers' letters, max_regret or max_loss is alpha, confidence 1 - delta, and most M; a
    bound is a name in `m3router.router.policies.risk_bounds.BOUNDS`. What is None is found by
    `Exam.of` and `most_for`.
    """

    max_regret: float | None = None
    max_loss: float | None = None
    confidence: float = CONFIDENCE
    bound: str | None = None
    most: int | None = None
    cap: float | None = None
    reference: str | None = None

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            DataError: unless there is exactly one loss; when a number is not between 0 and 1, the
                bound unknown, or an image is to count with no question.
        """
        if (self.max_regret is None) == (self.max_loss is None):
            raise DataError("A target is either a max_regret or a max_loss; give one of the two.")
        for name, value in ((self.name, self.alpha), ("confidence", self.confidence)):
            if not 0 < value < 1:
                raise DataError(
                    f"{name} must lie between 0 and 1, such as 0.01 or 0.95; it is {value}."
                )
        if self.most is not None and self.most < 1:
            raise DataError(f"An image must count with at least 1 question; most is {self.most}.")
        if self.bound is not None:
            risk.bound_named(self.bound)

    @classmethod
    def of(cls, knobs: Knobs) -> Target | None:
        """What knobs ask to be guaranteed; None where they ask for no guarantee.

        Raises:
            DataError: for two losses at once, details of a guarantee without a loss, or numbers
                that are out of range.
        """
        if knobs.get("max_regret") is None and knobs.get("max_loss") is None:
            for name in ("bound", "most"):
                if knobs.get(name) is not None:
                    raise DataError(f"{name} is for a guarantee: give max_regret or max_loss.")
            return None
        confidence = knobs.get("confidence")
        return cls(
            max_regret=knobs.get("max_regret"),
            max_loss=knobs.get("max_loss"),
            confidence=cls.confidence if confidence is None else confidence,
            bound=knobs.get("bound"),
            most=knobs.get("most"),
            cap=knobs.get("cap"),
            reference=knobs.get("reference"),
        )

    @property
    def share(self) -> str:
        """The most that may be lost, in per cent."""
        return f"{100 * self.alpha:g} %"

    @property
    def percent(self) -> str:
        """The confidence, in per cent."""
        return f"{100 * self.confidence:g} %"

    @property
    def name(self) -> str:
        """Name of what is bounded: "max_regret" or "max_loss"."""
        return "max_loss" if self.max_regret is None else "max_regret"

    @property
    def loss(self) -> str:
        """Name of what is observed: "regret" or "loss"."""
        return self.name.removeprefix("max_")

    @property
    def alpha(self) -> float:
        """The most that the loss may be."""
        value = self.max_loss if self.max_regret is None else self.max_regret
        return float("nan") if value is None else value

    @property
    def gains(self) -> float:
        """How much of a gain the loss counts: none of it in a regret, all in a net loss."""
        return 1.0 if self.max_regret is None else 0.0

    @property
    def delta(self) -> float:
        """Probability at which the guarantee may fail."""
        return round(1 - self.confidence, 12)

    @property
    def knob(self) -> dict[str, float]:
        """What was asked for."""
        return {self.name: self.alpha, "confidence": self.confidence}

    def most_for(self, sizes: npt.NDArray, *, images: int) -> int:
        """M: the declared one, else the default.

        Args:
            sizes: questions of each image of parts that the guarantee is not calibrated on.
            images: how many images it will be calibrated on.
        """
        if self.most is not None:
            return self.most
        if self.bound == "binomial":
            return 1
        return default_most(
            sizes, images=images, alpha=self.alpha, delta=self.delta, gains=self.gains > 0
        )


def safe_to_cheap(
    p: Floats,
    costs: Floats,
    *,
    cap: float | None = None,
    reference: int = LAST,
    regret: bool = True,
) -> Floats:
    """At most `STEPS` prices of the rule, ascending: the order of the tests.

    Spread so that each lowers the mean cost by about the same factor.

    Args:
        p: probabilities (N, K) on the tune split; its labels are not looked at.
        costs: (N, K).
        cap: most cost of any single answer.
        reference: index of the option that losses are against, -1 for the last.
        regret: for the rule against regret, which takes the reference at price 0; else for the
            plain rule, whose price 0 is among them.

    Returns:
        Prices (M,) of one unit of cost; none when no price makes a difference.

    Raises:
        DataError: when the tune split is empty or not finite, or the cap below the cheapest
            option of an example.
    """
    steps = sweep(p, costs, regret=regret, cap=cap, reference=reference)
    begin = 1 if regret else 0
    prices, cost = steps.prices[begin:], np.log(np.maximum(steps.cost[begin:], 1e-12))
    if len(prices) <= STEPS:
        return prices
    wanted = np.linspace(cost[0], cost[-1], STEPS)
    nearest = np.searchsorted(-cost, -wanted).clip(0, len(cost) - 1)
    return prices[np.unique(nearest)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Strategies:
    """Strategies from safe to cheap, whatever they are; they are tested in that order.

    A strategy gives an answer to every question, by one option or by several: a policy, a cascade.

    Attributes:
        costs: (L,) mean cost of each on the tune split.
        tuned: (n,) scores of the answers that each gives on the tune split.
        given: from the place of one to the scores (N,) of its answers on the calibration split.
        free: whether those at the safe end may be left out.
    """

    costs: npt.NDArray[np.float64]
    tuned: Sequence[Floats]
    given: Callable[[int], Floats]
    free: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Exam:
    """What strategies are certified on, and for what.

    Attributes:
        part: the calibration split; an image counts with as many questions as its `most` says.
        tune: the tune split, thinned likewise; None where nothing is known of it.
        target: what is to be guaranteed, against a reference that it names.
        reference: place of that among the options.
        bound: a name in `m3router.router.policies.risk_bounds.BOUNDS`.
    """

    part: Labelled
    tune: Labelled | None
    target: Target
    reference: int
    bound: str

    @classmethod
    def of(
        cls, part: Labelled, target: Target, options: Sequence[str], *, tune: Labelled | None = None
    ) -> Exam:
        """Check the calibration split, and find what the target leaves open.

        Args:
            part: its `most` holds where the target declares none.
            target: what is to be guaranteed.
            options: names of the options, cheapest first.
            tune: the tune split.

        Raises:
            DataError: for a part that is empty, misshapen or not finite, an unknown reference, or
                a cap below the cheapest option of an example.
        """
        p, costs = check_inputs(part.p, part.costs)
        scores = check_scores(part.scores, p.shape)
        named = reference_of(target.reference, options, scores=scores, costs=costs, cap=target.cap)
        most = part.most if target.most is None else target.most
        return cls(
            part=replace(part, p=p, costs=costs, scores=scores, most=most),
            tune=None if tune is None else replace(tune, most=most, seed=part.seed),
            target=replace(target, reference=named, most=most),
            reference=list(options).index(named),
            bound=target.bound or risk.default_bound(scores, most, low=-target.gains),
        )

    def against(self, part: Labelled) -> npt.NDArray[np.intp]:
        """Options (N,) that losses on a part are against: the reference, as the cap allows it."""
        inside = allowed(part.costs, self.target.cap)
        return reference_allowed(inside, part.costs, self.reference)

    @cached_property
    def counted(self) -> Counted:
        """Losses on the calibration split."""
        return self.part.counted(self.against(self.part))

    @cached_property
    def tuned(self) -> Counted | None:
        """Losses on the tune split."""
        return None if self.tune is None else self.tune.counted(self.against(self.tune))


@dataclass(frozen=True, kw_only=True, eq=False)
class Certified:
    """What an exam has certified.

    Attributes:
        exam: which one.
        place: of the list of strategies that was tested.
        rungs: places in that list of what is certified, from safe to cheap; may be empty.
        ladder: how that list was tested.
    """

    exam: Exam
    place: int
    rungs: range
    ladder: Ladder

    def guarantee(self, given: Floats, rung: int | None) -> dict[str, Any]:
        """What is guaranteed and on what evidence; see `described`.

        Args:
            given: scores (N,) of the answers that are guaranteed on the calibration split.
            rung: which of `rungs` gives them; None for the reference.
        """
        exam, target = self.exam, self.exam.target
        gains = 0.0 if rung is None else self.ladder.gains
        if rung is not None:
            expected = self.ladder.expected[rung]
        else:
            expected = None if exam.tuned is None else exam.tuned.losses(exam.tuned.against)
        kept = described(
            exam.counted.losses(given, gains=gains),
            target,
            exam.bound,
            expected=expected,
            observed=exam.counted.losses(given, gains=target.gains).risk,
        )
        return {**kept, "seed": exam.part.seed}


def certify(exam: Exam, lists: Sequence[Strategies]) -> Certified:
    """Test strategies from safe to cheap until one is not certified.

    The one way to a guarantee, for whatever gives the answers. Which list is tested, from where
    on, and how much of a gain counts, is chosen on the tune split, whose images are others; without
    one, there is one list and it is tested from its beginning.

    Raises:
        UncertifiedError: when the part is too small to certify the target even without any loss.
    """
    target, tuned = exam.target, exam.tuned
    if exam.tune is None or tuned is None:
        (only,) = lists
        unknown = [None] * len(only.costs)
        place, ladder = 0, Ladder(cost=only.costs, expected=unknown, gains=target.gains)
    else:
        tested = [
            (place, gains)
            for place in range(len(lists))
            for gains in ((0.0,) if target.max_loss is None else GAINS)
        ]
        ladders = [
            Ladder(
                cost=lists[place].costs,
                expected=[tuned.losses(one, gains=gains) for one in lists[place].tuned],
                gains=gains,
                free=lists[place].free,
            )
            for place, gains in tested
        ]
        rows = np.arange(len(exam.tune.p))
        best, ladder = promising(
            ladders,
            alpha=target.alpha,
            delta=target.delta,
            images=len(exam.counted.thinned.sizes),
            fallback=float(exam.tune.spent[rows, exam.against(exam.tune)].mean()),
        )
        place = tested[best][0]
    certified = climbed(
        lists[place].given,
        ladder,
        exam.counted,
        alpha=target.alpha,
        delta=target.delta,
        bound=exam.bound,
    )
    if not certified:
        refuse_too_small(exam.counted.losses(exam.counted.against), target, exam.bound)
    rungs = range(ladder.first, ladder.first + certified)
    return Certified(exam=exam, place=place, rungs=rungs, ladder=ladder)


def for_target(part: Labelled, *, tune: Labelled, target: Target, binding: Binding) -> Policy:
    """The cheapest policy whose loss is at most the target's with the target's confidence.

    Which ladder of policies is tested, and how bets on them are placed, is learned on the tune
    split. When nothing is certified, the policy is the reference option; `reason` then says how
    many images would be needed.

    Args:
        part: the calibration split; images drawn like those that the policy will meet. Its `most`
            holds where the target declares none; it must not depend on labels of this part.
        tune: the tune split.
        target: what is to be guaranteed.
        binding: what the policy will belong to.

    Returns:
        A policy whose `guarantee` says what was certified, see `described`.

    Raises:
        DataError: when the part is too small to certify the target even without any loss, is
            empty, misshapen, or not finite; for a bound that is not valid for these scores; or
            for a cap below the cheapest option of an example.
    """
    exam = Exam.of(part, target, binding.options, tune=tune)
    kinds: tuple[Kind, ...] = ("regret",) if target.max_loss is None else ("regret", "price")
    rungs = [
        _at_prices(
            exam,
            kind,
            safe_to_cheap(
                tune.p,
                tune.costs,
                cap=target.cap,
                reference=exam.reference,
                regret=kind == "regret",
            ),
            binding,
        )
        for kind in kinds
    ]
    return _cheapest(exam, rungs, binding)


def for_max_regret(part: Labelled, *, prices: Floats, target: Target, binding: Binding) -> Policy:
    """As `for_target`, for prices of the rule against regret that are given, without a tune split.

    Args:
        part: see `for_target`.
        prices: see `safe_to_cheap`; must not depend on labels of the calibration split.
        target: what is to be guaranteed.
        binding: what the policy will belong to.

    Raises:
        DataError: see `for_target`.
    """
    exam = Exam.of(part, target, binding.options)
    return _cheapest(exam, [_at_prices(exam, "regret", prices, binding)], binding)


def _at_prices(exam: Exam, kind: Kind, prices: Floats, binding: Binding) -> list[Policy]:
    """Policies at these prices."""
    fixed = _fixed(exam, binding)
    return [replace(fixed, kind=kind, lam=float(price) * fixed.cost_scale) for price in prices]


def _fixed(exam: Exam, binding: Binding) -> Policy:
    """The policy that always takes the reference."""
    target = exam.target
    named = binding.options[exam.reference]
    return always_reference(
        exam.part.costs, binding, reference=named, cap=target.cap, knob=target.knob
    )


def _cheapest(exam: Exam, lists: Sequence[Sequence[Policy]], binding: Binding) -> Policy:
    """The cheapest certified policy of one of these lists; the reference where there is none."""
    part, tune, target = exam.part, exam.tune, exam.target
    certified = certify(exam, [_strategies(part, tune, policies) for policies in lists])
    policies, rungs = lists[certified.place], certified.rungs
    fixed = _measured(_fixed(exam, binding), part)
    chosen, rung = fixed, None
    if rungs:
        measured_at = {rung: _measured(policies[rung], part) for rung in _ends(rungs, part)}
        rung = min(measured_at, key=lambda rung: measured_at[rung].calibration["mean_cost"])
        chosen = measured_at[rung]
    if not chosen.calibration["mean_cost"] < fixed.calibration["mean_cost"]:
        cause = (
            f"{_WHAT[target.loss]} of at most {target.share} is certified with "
            f"{target.percent} confidence for no cheaper policy on {len(part.p)} questions about "
            f"{len(exam.counted.thinned.sizes)} images"
        )
        chosen, rung = fixed.fall_back(cause, advice=_what_it_takes(exam, policies)), None
    return replace(chosen, guarantee=certified.guarantee(part.given(chosen), rung))


def _ends(rungs: range, part: Labelled) -> range:
    """Rungs of which one is the cheapest: the last, where choices go by what is paid."""
    return rungs[:-2:-1] if part.paid is None else rungs[::-1]


def _strategies(part: Labelled, tune: Labelled | None, policies: Sequence[Policy]) -> Strategies:
    """A list of policies. The rule against regret begins with the reference, which is safe."""
    costs, tuned = np.zeros(len(policies)), []
    if tune is not None:
        rows = np.arange(len(tune.p))
        choices = [policy.choose(tune.p, tune.costs) for policy in policies]
        costs = np.array([tune.spent[rows, choice].mean() for choice in choices])
        tuned = [tune.scores[rows, choice] for choice in choices]
    return Strategies(
        costs=costs,
        tuned=tuned,
        given=lambda rung: part.given(policies[rung]),
        free=bool(policies) and policies[0].kind == "price",
    )


def _what_it_takes(exam: Exam, policies: Sequence[Policy]) -> str:
    """How many images would certify the cheapest policy with some room below the target."""
    part, target = exam.part, exam.target
    spent = part.spent[np.arange(len(part.p)), exam.against(part)]
    if np.all(spent <= part.spent.min(axis=1)):
        what = "the only one" if part.costs.shape[1] == 1 else "the cheapest"
        return f"That option is {what}: no policy could cost less"
    if not policies:
        return "No price changes a choice"
    seen = [
        (policy, exam.counted.losses(part.given(policy), gains=target.gains)) for policy in policies
    ]
    useful = [one for one in seen if 0 < one[1].risk <= target.alpha / 2] or [
        min(seen, key=lambda one: one[1].risk)
    ]
    policy, losses = useful[-1]
    cost = _measured(policy, part).calibration["mean_cost"]
    what = _WHAT[target.loss]
    risky = number(losses.risk, digits=2)
    found = f"The policy of mean cost {number(cost, digits=4)} had a {what} of {risky} there: "
    needed = risk.images_needed(
        losses, target.alpha, delta=target.delta, bound=exam.bound, power=POWER
    )
    if needed is None:
        return f"{found}no number of images certifies that"
    return f"{found}about {needed} such images would certify it with probability {plain(POWER)}"


def _measured(policy: Policy, part: Labelled) -> Policy:
    """The policy with what it reaches on a part."""
    return measured(policy, part.p, part.costs, part.scores, paid=part.paid)


_WHAT = {"regret": "regret", "loss": "net loss"}


def regrets(policy: Policy, part: Labelled) -> risk.Losses:
    """Regret of each question, summed by image.

    Raises:
        DataError: when the part is empty, misshapen or not finite, or for a cap below the
            cheapest option of an example.
    """
    return part.counted(policy.reference_choice(part.costs)).losses(part.given(policy))


def described(
    losses: risk.Losses,
    target: Target,
    bound: str,
    *,
    expected: risk.Losses | None = None,
    observed: float | None = None,
) -> dict[str, Any]:
    """What is guaranteed and on what evidence, JSON-able.

    Args:
        losses: of the policy on the calibration split, gains counted as they were tested.
        target: what is guaranteed.
        bound: how.
        expected: losses on the tune split, which shaped the bets.
        observed: the loss there, where it is not the mean of `losses`.

    Returns:
        "max_regret" or "max_loss", "reference", "confidence", "bound", "gains" (how much of a gain
        was counted), "p_value", the observed "regret" or "loss", "upper_limit" (of it, by this
        policy's losses alone, at this confidence), "images" (also as "pictures"), "questions" that
        counted and "most" questions of an image.
    """
    plan = risk.Plan(delta=target.delta, expected=expected)
    p = risk.bound_named(bound)(losses, target.alpha, plan)
    return {
        target.name: target.alpha,
        "reference": target.reference,
        "confidence": target.confidence,
        "bound": bound,
        "gains": -losses.low,
        "p_value": p,
        target.loss: losses.risk if observed is None else observed,
        "upper_limit": risk.upper_limit(
            losses,
            delta=target.delta,
            bound=bound,
            expected=expected,
            start=target.alpha if p <= target.delta else None,
        ),
        "images": losses.images,
        "pictures": losses.images,
        "questions": losses.questions,
        "most": losses.most,
    }


class UncertifiedError(DataError):
    """A part is too small for a target; the message says so in words and numbers alone."""


class TooFewError(UncertifiedError):
    """No losses at all would not be evidence enough.

    Args:
        text: What is said.
        least: Images of the part that it takes.
        images: Images that it has.
    """

    def __init__(self, text: str, *, least: int, images: int) -> None:
        super().__init__(text)
        self.least, self.images = least, images


def refuse_too_small(losses: risk.Losses, target: Target, bound: str) -> None:
    """Refuse a part on which no losses at all would not be evidence enough.

    Raises:
        TooFewError: naming the images that it has and that are needed.
    """
    least = risk.images_needed(losses.without(), target.alpha, delta=target.delta, bound=bound)
    if least is None or least > losses.images:
        least = least or least_images(target.alpha, confidence=target.confidence)
        raise TooFewError(
            f"The calibration split is too small for a {_WHAT[target.loss]} of at most "
            f"{target.share} with {target.percent} confidence: it has "
            f"{losses.questions} questions about {losses.images} images, and even without a "
            f"single loss at least {least} such images are needed (bound {bound!r}). Label more "
            "images, or ask for less.",
            least=least,
            images=losses.images,
        )

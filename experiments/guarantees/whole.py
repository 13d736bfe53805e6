"""Whole calibrations in worlds whose truth is known, through the product's own code.

Notation for shapes: N questions, K options, S sorts of questions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.special import expit, ndtr

from m3router.router.estimators.base import Floats
from m3router.router.policies import risk_bounds as risk
from m3router.router.policies.guarantee import (
    Labelled,
    Target,
    UncertifiedError,
    for_target,
    safe_to_cheap,
)
from m3router.router.policies.policy import Binding, Policy
from m3router.router.policies.thinning import thin

DELTA = 0.05
RARE, MANY = 1 / 2000, 300


@dataclass(frozen=True)
class World:
    """Questions of some sorts, which the router sees, and options that answer them by chance.

    Questions about one image are of one sort, and a normal of the image has the share `together`
    in whether each option answers them rightly. So the truth of a policy is a sum over sorts.

    Attributes:
        truth: (S, K) P(right) of each sort at each option.
        p: (S, K) what the router says of it.
        costs: (K,).
        questions: of an image.
        together: correlation inside of an image.
    """

    truth: Floats
    p: Floats
    costs: Floats
    questions: int
    together: float

    def part(self, images: int, generator: np.random.Generator) -> Labelled:
        """Draw images."""
        groups = np.repeat(np.arange(images), self.questions)
        n, k = len(groups), self.truth.shape[1]
        sort = generator.integers(0, len(self.truth), images)[groups]
        shared, own = generator.standard_normal((images, k))[groups], generator.normal(size=(n, k))
        latent = np.sqrt(self.together) * shared + np.sqrt(1 - self.together) * own
        return Labelled(
            p=self.p[sort],
            costs=np.tile(self.costs, (n, 1)),
            scores=(ndtr(latent) < self.truth[sort]).astype(np.float64),
            groups=groups,
            most=self.questions,
        )

    def loss(self, policy: Policy, *, net: bool) -> float:
        """The true net loss or regret of a policy against its own reference."""
        choice = policy.choose(self.p, np.tile(self.costs, (len(self.p), 1)))
        right = np.take_along_axis(self.truth, choice[:, None], axis=1)[:, 0]
        against = self.truth[:, policy.reference_index]
        lost = against - right if net else against * (1 - right)
        return float(np.where(choice == policy.reference_index, 0.0, lost).mean())

    def just_below(self, least: float, *, net: bool, reference: int) -> float:
        """A target just below the true loss of a policy of the ladder: the hardest case."""
        binding = _binding(len(self.costs))
        prices = safe_to_cheap(self.p, np.tile(self.costs, (len(self.p), 1)), reference=reference)
        losses = [
            self.loss(
                Policy(
                    binding=binding,
                    kind="regret",
                    lam=float(price),
                    cost_scale=1.0,
                    reference=binding.options[reference],
                ),
                net=net,
            )
            for price in prices
        ]
        return 0.99 * min(one for one in losses if one > least)


def spread(*, questions: int, together: float, bias: float = 0.0) -> World:
    """Three options, the router right about them, or overrating the cheap ones."""
    odds = np.array([0.0, 2.5, 5.0]) - np.linspace(-6, 3, 8)[:, None]
    return World(
        truth=expit(odds),
        p=expit(odds + bias * np.array([1.0, 1.0, 0.0])),
        costs=np.array([1.0, 24.0, 576.0]),
        questions=questions,
        together=together,
    )


def tied(options: int) -> World:
    """One cheap option, and others that are all equally good, so that any may look best."""
    odds = 2.5 - np.linspace(-3, 2, 8)[:, None]
    truth = expit(np.hstack([odds - 1.5, np.tile(odds, (1, options - 1))]))
    return World(
        truth=truth,
        p=truth,
        costs=np.linspace(10.0, 100.0, options),
        questions=2,
        together=0.3,
    )


def calibrations(
    world: World, *, net: bool, least: float, images: int, times: int, seed: int
) -> dict[str, Any]:
    """How often a calibrated policy's true loss is above the target, and how often there is one."""
    k = len(world.costs)
    alpha = world.just_below(least, net=net, reference=k - 1)
    target = Target(max_loss=alpha) if net else Target(max_regret=alpha)
    generator = np.random.default_rng([seed, k, images, int(net)])
    fails, certified, references = 0, 0, set()
    for _ in range(times):
        part, tune = (world.part(size, generator) for size in (images, images // 2))
        try:
            policy = for_target(part, tune=tune, target=target, binding=_binding(k))
        except UncertifiedError:
            continue
        references.add(policy.reference)
        certified += not policy.fallback
        fails += world.loss(policy, net=net) > alpha
    return {
        "target": alpha,
        "fails": fails / times,
        "certifies": certified / times,
        "references": len(references),
    }


def rare(*, images: int, small: float, times: int, seed: int) -> dict[str, Any]:
    """One image in 2000 has 300 questions, all lost; the others one, lost with chance `small`.

    Before: M is the most questions that any image of the log has, of five times as many images as
    are calibrated on. After: M is taken from the fit and the tune split, and images are thinned.
    """
    alpha, generator = 0.05, np.random.default_rng([seed, images, int(1e4 * small)])
    target = Target(max_regret=alpha)
    of_images = (1 - RARE) * small + RARE
    of_questions = ((1 - RARE) * small + RARE * MANY) / (1 - RARE + RARE * MANY)
    counts: dict[str, list[bool]] = {"before": [], "after": []}
    for _ in range(times):
        sizes = np.where(generator.random(5 * images) < RARE, MANY, 1)
        lost = np.where(sizes > 1, MANY, generator.random(5 * images) < small).astype(np.float64)
        part = slice(3 * images, 4 * images)
        most = int(sizes.max())
        every = risk.of_sums(lost[part], sizes[part].astype(np.float64), most=most)
        bound = "binomial" if most == 1 else "betting"
        counts["before"].append(risk.bound_named(bound)(every, alpha) <= DELTA)
        kept = target.most_for(sizes[: 3 * images], images=images)
        groups = np.repeat(np.arange(images), sizes[part])
        thinned = thin(np.arange(len(groups)), groups, most=kept)
        share = (lost[part] / sizes[part])[groups]
        losses = risk.of_sums(thinned.sums(share), thinned.sizes, most=kept)
        bound = risk.default_bound(np.array([[0.0, 1.0]]), kept)
        p = risk.bound_named(bound)(losses, alpha, risk.Plan(delta=DELTA))
        assert kept == 1  # so that the truth is that of images
        counts["after"].append(p <= DELTA)
    return {
        "risk of questions": of_questions,
        "risk of images' questions, one each": of_images,
        "before, certifies": float(np.mean(counts["before"])),
        "before, fails": float(np.mean(counts["before"])) * (of_questions > alpha),
        "after, certifies": float(np.mean(counts["after"])),
        "after, fails": float(np.mean(counts["after"])) * (of_images > alpha),
    }


def sizes(*, images: int, declared: int, times: int, seed: int) -> dict[str, Any]:
    """Images of 1 to 13 questions, of which larger ones lose more; the target is just missed."""
    listed = np.arange(1, 14)
    chance = 0.01 + 0.008 * listed
    counted = np.minimum(listed, declared)
    truth = float((counted * chance).sum() / counted.sum())
    alpha, generator = 0.99 * truth, np.random.default_rng([seed, images, declared])
    certified = 0
    for _ in range(times):
        parts = []
        for number in (images, images // 2):
            drawn = generator.integers(1, 14, number)
            groups = np.repeat(np.arange(number), drawn)
            luck = ndtr(
                np.sqrt(0.4) * generator.normal(size=number)[groups]
                + np.sqrt(0.6) * generator.normal(size=len(groups))
            )
            lost = (luck < chance[drawn[groups] - 1]).astype(np.float64)
            thinned = thin(np.arange(len(groups)), groups, most=declared)
            parts.append(risk.of_sums(thinned.sums(lost), thinned.sizes, most=declared))
        bound = risk.default_bound(np.array([[0.0, 1.0]]), declared)
        plan = risk.Plan(delta=DELTA, expected=parts[1])
        certified += risk.bound_named(bound)(parts[0], alpha, plan) <= DELTA
    return {"risk": truth, "target": alpha, "fails": certified / times}


def studies(*, times: int, seed: int) -> dict[str, Callable[[], Any]]:
    """Name -> what to run."""
    told: dict[str, Callable[[], Any]] = {}
    for small in (0.0, 0.02, 0.0505):
        for images in (400, 800):
            told[f"300 questions in one of 2000 images, {images} images, {small:g} elsewhere"] = (
                partial(rare, images=images, small=small, times=times, seed=seed)
            )
    for declared in (1, 4, 7, 13):
        told[f"1 to 13 questions an image, at most {declared} counted"] = partial(
            sizes, images=400, declared=declared, times=times, seed=seed
        )
    worlds = {
        "single questions": spread(questions=1, together=0.0),
        "single questions, cheap options overrated": spread(questions=1, together=0.0, bias=1.5),
        "four questions an image, correlated": spread(questions=4, together=0.7),
    }
    worlds |= {f"{k} options, {k - 1} of them tied": tied(k) for k in (3, 4, 5, 6)}
    for name, world in worlds.items():
        for net in (False, True):
            told[f"{name}, {'net loss' if net else 'regret'}"] = partial(
                calibrations, world, net=net, least=0.05, images=100, times=times, seed=seed
            )
    return told


def _binding(options: int) -> Binding:
    names = tuple(f"option {k}" for k in range(options))
    return Binding(options=names, cost_unit="tokens", router="", split="")

"""How often the intervals of an evaluation hold the truth, in a world whose truth is known.

    python -m experiments.intervals.run

Images with several questions each; a question is as hard as its image and itself make it, and an
option answers rightly with a probability that falls with that and rises with the option. A router
sees part of the difficulty and knows the right probability given what it sees; another one sees
less. The truth is what both reach on `POPULATION` images. Then small test splits are drawn, each
with four times as many other images, as in a usual split, and the evaluation's own code is asked
for its intervals.

A number that has no interval with so few images counts neither way; how often there is one is
recorded beside. About 20 minutes on one core; results are written after every size.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from experiments.recording import provenance
from m3router.data.manifest import atomic_write_text
from m3router.router.estimators.base import Floats
from m3router.router.evaluation.comparison import Comparison
from m3router.router.evaluation.methods import GOALS, AppliedMethod, Part, Setting
from m3router.router.evaluation.metric_table import measure
from m3router.router.evaluation.price_curves import curve_prices, curve_rows
from m3router.router.metrics.curves import curves
from m3router.router.metrics.paired_bootstrap import Columns
from m3router.router.policies.outcomes import Asked
from m3router.router.policies.price_sweep import choose_at, sweep

HERE = Path(__file__).parent
COSTS = np.array([1.0, 9.0, 36.0, 144.0, 576.0])
EASE = np.array([-0.6, 0.9, 2.0, 3.0, 3.4])
"""Log-odds that an option is right on a question of middling difficulty."""
HARD = 2.0
"""Spread of the difficulty, in log-odds."""
WITHIN = 0.4
"""Share of the difficulty's variance that belongs to the image."""
SAME_LUCK = 0.6
"""Chance that an option's luck is that of the whole question."""
SEES = {"router": 0.7, "weaker router": 0.5}
"""Correlation of what a router sees with the difficulty."""
POPULATION = 60_000
BUDGETS = {"often": 144.0, "seldom": 330.0}
"""Mean costs of two policies; at the second, few questions differ from the finest option."""
OTHERS = 4
"""Images that are not for testing, for each one that is."""
SIZES = (5, 10, 20, 40, 200, 800)
QUESTIONS = {"one question an image": 1, "1 to 13 questions an image": 7}


@dataclass(frozen=True)
class World:
    """Questions with what every option scored and what two routers think.

    Attributes:
        groups: (n,) image of each question.
        scores: (n, K), 0 or 1.
        p: router -> probabilities (n, K).
    """

    groups: np.ndarray
    scores: Floats
    p: Mapping[str, Floats]

    @property
    def costs(self) -> Floats:
        """Costs (n, K), the same for every question."""
        return np.tile(COSTS, (len(self.scores), 1))

    def part(self) -> Part:
        """As the evaluation sees it."""
        return Part(
            rows=np.arange(len(self.scores)),
            scores=self.scores,
            costs=self.costs,
            gflops=None,
            groups=self.groups,
            chance=np.zeros(len(self.scores)),
        )


def draw(images: int, generator: np.random.Generator, *, questions: int) -> World:
    """Draw images with 1 to 2 * questions - 1 questions each."""
    groups = np.repeat(np.arange(images), generator.integers(1, 2 * questions, size=images))
    n = len(groups)

    def noise() -> Floats:
        own, shared = generator.normal(size=n), generator.normal(size=images)[groups]
        return np.sqrt(WITHIN) * shared + np.sqrt(1 - WITHIN) * own

    # What a better router sees holds what a weaker one sees.
    seen: dict[str, Floats] = {}
    known, before = np.zeros(n), 0.0
    for name, share in sorted(SEES.items(), key=lambda one: one[1]):
        known = known + np.sqrt(share**2 - before**2) * noise()
        seen[name], before = known, share
    hard = HARD * (known + np.sqrt(1 - before**2) * noise())
    luck = generator.random((n, 1))
    own = generator.random((n, len(COSTS)))
    luck = np.where(generator.random((n, len(COSTS))) < SAME_LUCK, luck, own)
    scores = (luck < expit(EASE - hard[:, None])).astype(np.float64)
    nodes, weights = np.polynomial.hermite_e.hermegauss(31)
    p = {}
    for name, sight in seen.items():
        rest = HARD * np.sqrt(1 - SEES[name] ** 2) * nodes
        odds = EASE[None, :, None] - HARD * sight[:, None, None] - rest
        p[name] = expit(odds) @ (weights / weights.sum())
    return World(groups, scores, p)


def truths(world: World) -> tuple[dict[str, float], dict[str, float]]:
    """The true numbers, and the prices of the policies."""
    steps = sweep(world.p["router"], world.costs)
    prices = {
        name: float(steps.prices[np.argmax(steps.cost <= budget)])
        for name, budget in BUDGETS.items()
    }
    rows = np.arange(len(world.scores))
    found = {f"fixed {k}": float(accuracy) for k, accuracy in enumerate(world.scores.mean(axis=0))}
    area: dict[str, float] = {}
    for name, p in {**world.p, "oracle": world.scores}.items():
        cost, accuracy = curve_rows(p, world.scores, world.costs, curve_prices(p, world.costs))
        curve = curves(cost.mean(axis=0), accuracy.mean(axis=0))
        area[name] = float(curve.area(COSTS[0], COSTS[-1]))
    mixing = curves(COSTS, world.scores.mean(axis=0))
    area["mixing"] = float(mixing.area(COSTS[0], COSTS[-1]))
    for name, price in prices.items():
        choice = choose_at(world.p["router"], world.costs, price)
        accuracy, cost = world.scores[rows, choice].mean(), COSTS[choice].mean()
        found |= {
            f"accuracy, {name}": float(accuracy),
            f"tokens, {name}": float(cost),
            f"less mixing, {name}": float(accuracy - mixing.at(np.asarray(cost))),
        }
    found |= {
        "AIQ": area["router"],
        "AIQ over mixing": area["router"] - area["mixing"],
        "AIQ, weaker router less the router": area["weaker router"] - area["router"],
        "gap closed": (area["router"] - area["mixing"]) / (area["oracle"] - area["mixing"]),
    }
    return found, prices


def against(truth: Mapping[str, float], best: int) -> dict[str, float]:
    """The truth where the best fixed option, chosen on other images, is this one."""
    found = dict(truth)
    for name in BUDGETS:
        accuracy, cost = truth[f"accuracy, {name}"], truth[f"tokens, {name}"]
        found[f"less the best fixed option, {name}"] = accuracy - truth[f"fixed {best}"]
        found[f"saved, {name}"] = 1 - cost / COSTS[best]
    return {name: value for name, value in found.items() if not name.startswith("fixed ")}


def measured(
    test: World, before: World, prices: Mapping[str, float], *, seed: int
) -> tuple[dict[str, dict[str, Any]], int]:
    """The evaluation's estimates of these numbers, and which fixed option it took for the best."""
    part = test.part()
    columns = Columns(part.groups, seed=seed)
    table = Comparison(
        part,
        before.part(),
        columns,
        options=tuple(f"{c:g}" for c in COSTS),
        reference=len(COSTS) - 1,
    )
    for name, p in test.p.items():
        ask = partial(_asked, p, test.costs)
        values = curve_prices(p, test.costs)
        table.add(
            name,
            AppliedMethod(
                about=name,
                reads=(),
                settings=[Setting(name=one, asked=ask(price)) for one, price in prices.items()],
                knob="price",
                values=values,
                curve=[ask(price) for price in values],
                goals={
                    goal: Setting(name=goal, asked=ask(price))
                    for goal, price in zip(GOALS, prices.values(), strict=True)
                },
            ),
        )
    found: dict[str, dict[str, Any]] = {}
    for row in table.method_rows("router", kind="router"):
        name = row["name"]
        found |= {
            f"accuracy, {name}": row["accuracy"],
            f"tokens, {name}": row["cost"],
            f"less the best fixed option, {name}": row["minus_best_fixed"],
            f"less mixing, {name}": row["minus_mixing"],
        }
    own, other = measure(table, "router"), measure(table, "weaker router")
    saved = {
        f"saved, {name}": own[goal]["calibrated"] for goal, name in zip(GOALS, prices, strict=True)
    }
    found |= saved | {
        "AIQ": own["aiq"],
        "AIQ over mixing": own["aiq_minus_fixed"],
        "AIQ, weaker router less the router": other["aiq_minus_router"],
        "gap closed": own["gap_closed"],
    }
    return found, table.best


def coverage(
    images: int,
    repeats: int,
    truth: Mapping[str, float],
    *,
    draw_world: Callable[..., World],
    prices: Mapping[str, float],
    seed: int,
) -> dict[str, dict[str, Any]]:
    """For every number: how often there was an interval, and how often it held the truth."""
    generator = np.random.default_rng([seed, images])
    held: dict[str, list[bool]] = defaultdict(list)
    errors: dict[str, list[float]] = defaultdict(list)
    widths: dict[str, list[float]] = defaultdict(list)
    for repeat in range(repeats):
        test, before = (draw_world(times * images, generator) for times in (1, OTHERS))
        found, best = measured(test, before, prices, seed=repeat)
        for name, true in against(truth, best).items():
            one = found[name]
            if one["low"] is not None and one["high"] is not None:
                held[name].append(one["low"] <= true <= one["high"])
                widths[name].append(one["high"] - one["low"])
                errors[name].append(one["value"] - true)
    return {
        name: {
            "given": len(held[name]) / repeats,
            "covered": float(np.mean(held[name])) if held[name] else None,
            "median_width": float(np.median(widths[name])) if held[name] else None,
            "bias": float(np.mean(errors[name])) if held[name] else None,
        }
        for name in against(truth, 0)
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate all sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--images", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "coverage.json")
    told = parser.parse_args(arguments)
    results: dict[str, Any] = {
        **provenance("python -m experiments.intervals.run", seed=told.seed),
        "repeats": told.repeats,
        "worlds": {},
    }
    for world, questions in QUESTIONS.items():
        draw_world = partial(draw, questions=questions)
        population = draw_world(POPULATION, np.random.default_rng([told.seed, questions]))
        truth, prices = truths(population)
        sizes: dict[str, Any] = {}
        results["worlds"][world] = {"truth": truth, "images": sizes}
        for images in told.images:
            sizes[str(images)] = coverage(
                images, told.repeats, truth, draw_world=draw_world, prices=prices, seed=told.seed
            )
            atomic_write_text(told.out, json.dumps(results, indent=1) + "\n")
            for name, one in sizes[str(images)].items():
                print(f"{world}, {images} images, {name}: {one}", flush=True)


def _asked(p: Floats, costs: Floats, price: float) -> Asked:
    return Asked.once(choose_at(p, costs, price), options=len(COSTS))


if __name__ == "__main__":
    main()

"""How often guarantees fail, and what they cost, in worlds whose truth is known.

    python -m experiments.guarantees.run

Whether each certificate fails in at most 5 % of calibrations over a grid of targets, numbers of
images and correlations within images, and how many tokens its policies cost beside those of other
methods; what one image in two thousand with three hundred questions does; what images of many sizes
do; whether it matters that the reference is chosen on the calibration split itself; and whether
the whole calibration, from router to policy, keeps what its tests promise. The tune split has half
as many images as are calibrated on, as in a usual split.

What is done is not done again: results are written after every setting. About half an hour on one
core.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from experiments.guarantees import methods, whole
from experiments.guarantees.worlds import EVEN, EXPENSIVE, STEEP, World, draw, ladder
from experiments.recording import provenance
from m3router.data.manifest import atomic_write_text
from m3router.router.policies.guarantee import Target

HERE = Path(__file__).parent
TARGETS = (0.01, 0.02, 0.05)
IMAGES = (400, 800, 1600)
FEW = (320, 400, 714)
TOGETHER = (0.0, 0.3, 0.7, 1.0)
QUESTIONS = 4
AT_ONCE = 100
OURS = "deadline"


def tested(
    world: World, net: bool, target: float, images: int, together: float, *, times: int, seed: int
) -> dict[str, Any]:
    """Failures and mean tokens of every method in one setting."""
    listed = ladder(world, target, net=net)
    generator = np.random.default_rng(
        [seed, int(net), int(1e4 * target), images, int(10 * together)]
    )
    found: dict[str, list[np.ndarray]] = {}
    for begin in range(0, times, AT_ONCE):
        count = min(AT_ONCE, times - begin)
        part, tune = (
            draw(
                generator,
                world,
                listed,
                times=count,
                images=size,
                questions=QUESTIONS,
                together=together,
            )
            for size in (images, images // 2)
        )
        for name, certified in _each(part, tune, listed, net=net, target=target).items():
            found.setdefault(name, []).append(methods.passed(certified))
    rows = {name: np.concatenate(counts) for name, counts in found.items()}
    cost = np.append(EXPENSIVE, listed.cost)
    risk = np.append(0.0, listed.risk)
    told: dict[str, Any] = {
        name: {
            "fails": float((risk[rung] > target).mean()),
            "tokens": float(cost[rung].mean()),
            "certifies": float((rung > 0).mean()),
        }
        for name, rung in rows.items()
    }
    best = min(one["tokens"] for name, one in told.items() if name != OURS)
    possible = float(cost[risk <= target].min())
    return {
        "methods": told,
        "ratio": told[OURS]["tokens"] / best,
        "tokens possible": possible,
    }


def _each(part: Any, tune: Any, listed: Any, *, net: bool, target: float) -> dict[str, Any]:
    """Every method on the same calibrations: (T, L) whether each rung is certified."""
    rungs, low = len(listed.shares), -1.0 if net else 0.0
    sums = part.sums(rungs, gains=-low)
    single = part.sums(rungs, gains=0.0, questions=1)
    found = {
        name: methods.by_fixed_bets(sums, target=target, most=QUESTIONS, weights=weights)
        for name, weights in methods.WEIGHTS.items()
    }
    found["one question an image, binomial"] = methods.by_one_question(single, target=target)
    found["WSR aGRAPA"] = methods.by_agrapa(sums, target=target, most=QUESTIONS, low=low)
    found[OURS] = _ours(part, tune, listed, net=net, target=target)
    return found


def _ours(part: Any, tune: Any, listed: Any, *, net: bool, target: float) -> methods.Passed:
    """As the product does it by default: M, how much of a gain counts, and the bound."""
    rungs, images = len(listed.shares), part.rung.shape[1]
    wanted = Target(max_loss=target) if net else Target(max_regret=target)
    most = wanted.most_for(np.full(images, QUESTIONS), images=images)
    assert most in (1, QUESTIONS)  # so that the first questions are as good as any
    if most == 1 and not net:
        sums = part.sums(rungs, gains=0.0, questions=1)
        return methods.by_one_question(sums, target=target)
    known = {
        gains: methods.losses(
            tune.sums(rungs, gains=gains, questions=most), most=most, low=0.0 - gains
        )
        for gains in (methods.GAINS if net else (0.0,))
    }
    counted = [0.0] * len(part.rung)
    if net:
        counted = methods.gains_of(
            known, listed.cost, target=target, images=images, fallback=EXPENSIVE
        )
    by_gains = {gains: part.sums(rungs, gains=gains, questions=most) for gains in set(counted)}
    chosen = np.stack([by_gains[gains][time] for time, gains in enumerate(counted)])
    expected = [known[gains][time] for time, gains in enumerate(counted)]
    return methods.by_deadline(chosen, expected, target=target, most=most)


def main(arguments: Sequence[str] | None = None) -> None:
    """Everything that is not done yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    told = parser.parse_args(arguments)
    settings = product(("regret", "net loss"), TARGETS, IMAGES, TOGETHER)
    grid: dict[str, Callable[[], Any]] = {
        f"{loss}, {target:g}, {images} images, {together:g}": partial(
            tested,
            EVEN,
            loss == "net loss",
            target,
            images,
            together,
            times=told.times,
            seed=told.seed,
        )
        for loss, target, images, together in settings
    }
    _record(told, "grid", grid)
    steep: dict[str, Callable[[], Any]] = {
        f"{loss}, {target:g}, {images} images, {together:g}": partial(
            tested,
            STEEP,
            loss == "net loss",
            target,
            images,
            together,
            times=told.times,
            seed=told.seed,
        )
        for loss, target, images, together in product(
            ("regret", "net loss"), TARGETS[:1], FEW, TOGETHER
        )
    }
    _record(told, "steep", steep)
    _record(told, "worlds", whole.studies(times=told.times, seed=told.seed))


def _record(told: argparse.Namespace, name: str, studies: dict[str, Callable[[], Any]]) -> None:
    path = told.out / f"{name}.json"
    before: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    results: dict[str, Any] = {
        **provenance("python -m experiments.guarantees.run", seed=told.seed),
        "times": told.times,
        "settings": {},
    }
    if before.get("times") == told.times and before.get("seed") == told.seed:
        results["settings"] = before["settings"]
    for setting, study in studies.items():
        if setting in results["settings"]:
            continue
        results["settings"][setting] = study()
        atomic_write_text(path, json.dumps(results, indent=1) + "\n")
        print(setting, results["settings"][setting], flush=True)


if __name__ == "__main__":
    main()

"""How far above the truth AIQ is when it takes the hull of the very points that are measured.

    python -m experiments.intervals.hull

RouterBench's area (arXiv 2403.12031) over every breakpoint of the router, on test splits of several
sizes in the world of `experiments.intervals.run`, beside the area of
`m3router.router.metrics.curves`. About a minute on one core.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from experiments.intervals.run import COSTS, POPULATION, World, draw, truths
from experiments.recording import provenance
from m3router.data.manifest import atomic_write_text
from m3router.router.evaluation.price_curves import curve_prices, curve_rows
from m3router.router.metrics.curves import curves
from m3router.router.metrics.hull import aiq
from m3router.router.policies.price_sweep import sweep

OUT = Path(__file__).parent / "results" / "hull.json"
SIZES = (40, 200, 800)
REPEATS = 100
QUESTIONS = 7
LOW, HIGH = float(COSTS[0]), float(COSTS[-1])


def areas(world: World) -> tuple[float, float]:
    """AIQ on the hull of all breakpoints, and along the curve."""
    p, costs = world.p["router"], world.costs
    steps = sweep(p, costs, scores=world.scores)
    cost, accuracy = curve_rows(p, world.scores, costs, curve_prices(p, costs))
    curve = curves(cost.mean(axis=0), accuracy.mean(axis=0))
    return aiq(steps.cost, steps.accuracy, low=LOW, high=HIGH), float(curve.area(LOW, HIGH))


def main() -> None:
    """Simulate and record."""
    population = draw(POPULATION, np.random.default_rng([0, QUESTIONS]), questions=QUESTIONS)
    truth = truths(population)[0]["AIQ"]
    results: dict[str, Any] = {
        **provenance("python -m experiments.intervals.hull", seed=0),
        "repeats": REPEATS,
        "truth": truth,
        "images": {},
    }
    for images in SIZES:
        generator = np.random.default_rng([1, images])
        errors = 100 * (
            np.array([areas(draw(images, generator, questions=QUESTIONS)) for _ in range(REPEATS)])
            - truth
        )
        difference = errors[:, 0] - errors[:, 1]
        results["images"][images] = {
            "hull, points above the truth": float(errors[:, 0].mean()),
            "curve, points above the truth": float(errors[:, 1].mean()),
            "standard error of both means": float(errors[:, 1].std(ddof=1) / np.sqrt(REPEATS)),
            "hull less curve, points": float(difference.mean()),
            "its standard error": float(difference.std(ddof=1) / np.sqrt(REPEATS)),
        }
        print(images, results["images"][images], flush=True)
    atomic_write_text(OUT, json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""A study: how many labels are enough? The router again, from growing shares of its images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from m3router.data.errors import DataError, NotLearnableError
from m3router.router.evaluation.evaluate import Settings, evaluate
from m3router.router.evaluation.studies.cells import Cells
from m3router.router.evaluation.studies.retraining import Recipe, Rows
from m3router.router.evaluation.studies.summary import by_share, enough_labels
from m3router.router.runs.calibration_data import known_costs, predictions
from m3router.router.runs.run import Run
from m3router.router.training.scale_router import ScaleRouter

STAGE = "learning-curve"
DOCUMENT = "study.json"
SHARES = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)

Progress = Callable[[int, int, str], None]


def learning_curve(
    run: Run,
    *,
    shares: Sequence[float] = SHARES,
    seeds: int = 3,
    draws: int = 200,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train on growing shares of the fit split's images, and measure each on the test split.

    Shares are nested: with one seed, a larger share holds the images of the smaller ones. The
    tune split stays whole. The whole fit split is the run's own router and is not trained again.

    Args:
        run: must hold a trained router; receives the cells in `learning-curve/`.
        shares: of the fit split's images, in (0, 1]; 1 is added.
        seeds: how many orders of the images are drawn.
        draws: bootstrap draws for the intervals.
        progress: called with (cells done, cells in all, what is next).

    Returns:
        "cells", "skipped" (those from whose images nothing can be learned, and why), "shares"
        (means over seeds), "enough" (labels for 50, 80, 90, 95 % of the gain), "fixed" (AIQ of
        mixing fixed options), "n", "cost_unit" and how it was made.

    Raises:
        DataError: when a share is outside (0, 1], every option costs the same, or a part of the
            run is missing or damaged.
        MismatchError: when parts of the run do not belong together.
    """
    wrong = [share for share in shares if not 0 < share <= 1]
    if wrong or seeds < 1:
        raise DataError(
            f"A learning curve needs shares in (0, 1] and at least one seed; got {wrong or seeds}."
        )
    run = run.opened()
    recipe = Recipe.read(run)
    recipe.require_costs()
    cells = Cells(folder=run.root / STAGE / "cells", bound={**recipe.bound, "draws": draws})
    wanted = [(share, seed) for share in sorted({*shares} - {1.0}) for seed in range(seeds)]
    wanted.append((1.0, 0))
    found = []
    for done, (share, seed) in enumerate(wanted):
        if progress:
            progress(done, len(wanted), f"{share:.3g} of the images, seed {seed}")
        key = {"share": share, "seed": seed}
        make = partial(_cell, recipe, share=share, seed=seed, draws=draws)
        found.append({**key, **cells.get(key, make)})
    if progress:
        progress(len(wanted), len(wanted), "")
    measured = [one for one in found if "skipped" not in one]
    return {
        "kind": STAGE,
        "estimator": recipe.router.estimator_name,
        "cost_unit": recipe.log.cost_unit,
        "n": {part: len(recipe.rows(part)) for part in ("fit", "tune", "calibrate", "test")},
        "seeds": seeds,
        "draws": draws,
        "cells": measured,
        "skipped": [one for one in found if "skipped" in one],
        "shares": by_share(measured),
        "enough": enough_labels(by_share(measured)),
        "fixed": found[-1]["fixed"],
    }


def nested_rows(groups: np.ndarray, rows: Rows, *, share: float, seed: int) -> Rows:
    """The rows of a share of the images, at least one; larger shares hold the smaller ones'.

    Args:
        groups: image of every example of the log.
        rows: of the fit split.
        share: in (0, 1].
        seed: of the images' order.
    """
    names = np.unique(groups[rows].astype(str))
    order = np.random.default_rng(seed).permutation(len(names))
    kept = names[order[: max(1, round(share * len(names)))]]
    return rows[np.isin(groups[rows].astype(str), kept)]


def _cell(recipe: Recipe, *, share: float, seed: int, draws: int) -> dict[str, Any]:
    fit = nested_rows(recipe.log.groups, recipe.rows("fit"), share=share, seed=seed)
    size = {"n": len(fit), "pictures": len(np.unique(recipe.log.groups[fit].astype(str)))}
    try:
        router = recipe.router if share == 1 else recipe.train(fit, recipe.rows("tune"))
    except NotLearnableError as error:
        return {**size, "skipped": str(error)}
    metrics = _measured(recipe, router, draws=draws)
    return {
        **size,
        "aiq": metrics["aiq"],
        "gain": metrics["aiq_minus_fixed"],
        "saved": metrics["saved_at_99"]["calibrated"],
        "fixed": metrics["aiq_fixed"],
    }


def _measured(recipe: Recipe, router: ScaleRouter, *, draws: int) -> dict[str, Any]:
    rows = np.concatenate([recipe.rows("calibrate"), recipe.rows("test")])
    p = predictions(router, recipe.features, recipe.log, rows)
    document = evaluate(
        recipe.log,
        p,
        split=recipe.split,
        reads={"router": tuple(router.blocks)},
        known_costs=known_costs(router, recipe.features, recipe.log),
        settings=Settings(draws=draws, gaps=recipe.params["gaps"]),
    )
    result: dict[str, Any] = document["metrics"]
    return result

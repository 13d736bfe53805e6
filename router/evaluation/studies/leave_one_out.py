"""A study: a router on a dataset that it has never seen."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from m3router.data.errors import DataError, NotLearnableError
from m3router.data.registry import unknown_name
from m3router.router.estimators.base import Floats
from m3router.router.evaluation.evaluate import Settings, evaluate
from m3router.router.evaluation.studies.cells import Cells
from m3router.router.evaluation.studies.retraining import Recipe, Rows
from m3router.router.evaluation.studies.summary import macro
from m3router.router.metrics import choices
from m3router.router.runs.calibration_data import known_costs
from m3router.router.runs.run import Run

STAGE = "leave-one-out"
MOST_VALUES = 50

Progress = Callable[[int, int, str], None]
Texts = npt.NDArray[np.str_]


def leave_one_out(
    run: Run, *, by: str = "dataset", draws: int = 200, progress: Progress | None = None
) -> dict[str, Any]:
    """Train without one dataset, test on it; each dataset in turn.

    What is left out is missing from fit, tune and calibrate; test examples are those of the left
    out dataset in the test split. Beside it stand the run's own router, which knows the dataset;
    the option that is best on all others; and a lookup of the dataset's own mean scores.

    Args:
        run: must hold a trained router; receives the cells in `leave-one-out/`.
        by: column of the log with one value per example.
        draws: bootstrap draws for the intervals.
        progress: called with (cells done, cells in all, what is next).

    Returns:
        "by", "cells" (one per value), "macro" (their means), "cost_unit" and how it was made.

    Raises:
        DataError: when the column is missing, differs within an example, or has fewer than 2 or
            more than 50 values; every option costs the same; or a part of the run is missing or
            damaged.
        MismatchError: when parts of the run do not belong together.
    """
    run = run.opened()
    recipe = Recipe.read(run)
    recipe.require_costs()
    values = _values(recipe, by)
    names = sorted(set(values.tolist()))
    cells = Cells(folder=run.root / STAGE / "cells", bound={**recipe.bound, "draws": draws})
    found = []
    for done, name in enumerate(names):
        if progress:
            progress(done, len(names), f"without {name}")
        key = {"by": by, "without": name}
        made = cells.get(key, partial(_cell, recipe, values, name, draws=draws))
        found.append({"without": name, **made})
    if progress:
        progress(len(names), len(names), "")
    return {
        "kind": STAGE,
        "by": by,
        "estimator": recipe.router.estimator_name,
        "cost_unit": recipe.log.cost_unit,
        "draws": draws,
        "cells": found,
        "macro": macro(found),
    }


def _values(recipe: Recipe, by: str) -> Texts:
    """The column's value of every example (N,)."""
    columns = recipe.log.frame.columns
    if by not in columns:
        raise DataError(unknown_name("column of the log", by, columns))
    wide = recipe.log.laid_out(by)
    same = np.array([len({str(cell) for cell in row}) == 1 for row in wide])
    if not same.all():
        raise DataError(
            f"What is left out must be one value per example, but {by!r} differs between the "
            f"options of {int((~same).sum())} of {len(same)} examples. Take a column such as "
            "'dataset'."
        )
    values = wide[:, 0].astype(str)
    count = len(set(values.tolist()))
    if not 2 <= count <= MOST_VALUES:
        raise DataError(
            f"Leaving one out needs 2 to {MOST_VALUES} values, but {by!r} has {count}. "
            "Name another column of the log."
        )
    return values


def _cell(recipe: Recipe, values: Texts, name: str, *, draws: int) -> dict[str, Any]:
    out = values == name
    rows = {part: recipe.rows(part) for part in ("fit", "tune", "calibrate", "test")}
    inside = {part: index[~out[index]] for part, index in rows.items()}
    test = rows["test"][out[rows["test"]]]
    seen = rows["fit"][out[rows["fit"]]]
    if not len(test) or not len(seen) or not len(inside["calibrate"]):
        return {"skipped": "It is missing from the fit, calibrate or test split.", "n": len(test)}
    means = recipe.log.costs[test].mean(axis=0)
    if not means.min() < means.max():
        return {"skipped": "Every option costs the same there: no curve.", "n": len(test)}
    try:
        router = recipe.train(inside["fit"], inside["tune"])
    except NotLearnableError as error:
        return {"skipped": f"From the others nothing can be learned: {error}", "n": len(test)}
    log, split = recipe.only(
        np.concatenate([inside["fit"], inside["tune"], inside["calibrate"], test])
    )
    document = evaluate(
        log,
        recipe.predict(router, log),
        split=split,
        ablations={
            "in-domain": recipe.predict(recipe.router, log),
            "lookup": _lookup(recipe, values, rows["fit"], log.ids),
        },
        reads=dict.fromkeys(("router", "in-domain"), tuple(router.blocks)),
        known_costs=known_costs(router, recipe.features, log),
        settings=Settings(draws=draws),
    )
    calibrate = inside["calibrate"]
    best = choices.best_fixed(recipe.log.scores[calibrate], recipe.log.costs[calibrate])
    return {
        "n": len(test),
        "pictures": document["n"]["test_groups"],
        "n_seen": len(seen),
        **_numbers(document, recipe.log.options[best]),
    }


def _numbers(document: dict[str, Any], best: str) -> dict[str, Any]:
    """Of the evaluation of one left out dataset; `best` is the option best on the others."""
    own, others = document["metrics"], document["ablations"]
    fixed = next(row for row in document["rows"] if row["name"] == best)

    def told(metrics: dict[str, Any]) -> dict[str, Any]:
        row = metrics["saved_at_99"]["row"]
        return {"accuracy": row["accuracy"], "cost": row["cost"]}

    return {
        "aiq": own["aiq"],
        "aiq_fixed": own["aiq_fixed"],
        "gain": own["aiq_minus_fixed"],
        "in_domain": others["in-domain"]["metrics"]["aiq_minus_router"],
        "lookup": others["lookup"]["metrics"]["aiq_minus_router"],
        "told_99": told(own),
        "in_domain_told_99": told(others["in-domain"]["metrics"]),
        "best_fixed": {"option": best, "accuracy": fixed["accuracy"], "cost": fixed["cost"]},
    }


def _lookup(recipe: Recipe, values: Texts, fit: Rows, ids: tuple[str, ...]) -> Floats:
    """Mean scores in the fit split of each example's own value: (N, K) for `ids`."""
    place = {name: row for row, name in enumerate(recipe.log.ids)}
    table = {
        str(name): recipe.log.scores[fit[values[fit] == name]].mean(axis=0)
        for name in set(values[fit].tolist())
    }
    overall = recipe.log.scores[fit].mean(axis=0)
    return np.stack([table.get(str(values[place[one]]), overall) for one in ids])

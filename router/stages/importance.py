"""A stage that asks which features a router uses; measured on the calibration split."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt

from m3router.data.errors import DataError
from m3router.data.json_files import read_json_object
from m3router.data.log.parts import part_rows
from m3router.data.manifest import atomic_write_text
from m3router.router.evaluation.evaluate import SCHEMA
from m3router.router.evaluation.permutation_importance import (
    REPEATS,
    Examples,
    importance,
    strongest,
)
from m3router.router.runs.calibration_data import labelled
from m3router.router.runs.run import AnyRun, as_run
from m3router.router.training.scale_router import ScaleRouter

STAGE = "importance"
DOCUMENT = "importance.json"
PART = "calibrate"
SINGLE = 8


def importance_stage(
    run: AnyRun, *, repeats: int = REPEATS, draws: int = 200, seed: int = 0, reuse: bool = False
) -> dict[str, Any]:
    """Measure what each feature block, and the strongest single features, are worth.

    The calibration split was neither fitted nor tuned on, and the test split stays untouched.

    Args:
        run: must hold a trained router; receives `importance/`.
        repeats: permutations per block or feature.
        draws: bootstrap draws.
        seed: of both.
        reuse: keep what was measured on the same inputs with the same options.

    Returns:
        "part", "n", "n_groups", "repeats", "draws", "aiq", "blocks" and "features" (name ->
        "drop", "by_picture", "columns"), "weighed_by": how the features were picked, None where
        the estimator has no weights and so none were.

    Raises:
        DataError: when a part of the run is missing or damaged.
        MismatchError: when parts of the run do not belong together.
    """
    run = as_run(run).opened()
    folder = run.root / STAGE
    inputs = run.inputs("log", "features", "split", "router")
    params = {"repeats": repeats, "draws": draws, "seed": seed, "schema": SCHEMA}
    if reuse and run.is_current(folder, STAGE, inputs=inputs, params=params):
        return read_json_object(folder / DOCUMENT, redo="Remove that folder and report again.")
    router, log = run.router(), run.log()
    rows = part_rows(log, run.split(log), PART, gaps=router.metadata["gaps"])
    if not len(rows):
        raise DataError(f"The {PART} split has no complete example. Label more questions.")
    features = run.features(log)
    table = features.align([log.ids[row] for row in rows])
    part = labelled(router, features, log, rows)
    examples = Examples(
        X=table.matrix(list(router.blocks)),
        scores=log.scores[rows],
        costs=log.costs[rows],
        behind=part.costs,
        groups=log.groups[rows].astype(str),
        paid=part.paid,
    )
    blocks = _columns(router)
    weighed = router.estimator.feature_importance(examples.X)
    single = {} if weighed is None else _single(router, strongest(weighed.values, count=SINGLE))
    found = importance(
        lambda X: router.calibration.apply(router.estimator.predict(X)),
        examples,
        {**blocks, **single},
        repeats=repeats,
        draws=draws,
        seed=seed,
    )
    document = {
        "part": PART,
        "n": len(rows),
        "n_groups": len(np.unique(examples.groups)),
        **params,
        "aiq": found["aiq"],
        "blocks": {name: found["parts"][name] for name in blocks},
        "features": {name: found["parts"][name] for name in single},
        "weighed_by": None if weighed is None else weighed.measure,
    }
    path = folder / DOCUMENT
    atomic_write_text(path, json.dumps(document, indent=1, allow_nan=False) + "\n")
    run.record(folder, STAGE, inputs=inputs, params=params, files=[path])
    return document


def _columns(router: ScaleRouter) -> dict[str, npt.NDArray[np.intp]]:
    """Block -> its columns."""
    ends = np.cumsum(list(router.blocks.values()))
    return {
        name: np.arange(end - width, end)
        for (name, width), end in zip(router.blocks.items(), ends, strict=True)
    }


def _single(router: ScaleRouter, columns: npt.NDArray[np.intp]) -> dict[str, npt.NDArray[np.intp]]:
    """Names such as "image[17]" -> one column each."""
    blocks = _columns(router)
    return {
        f"{name}[{column - inside[0]}]": np.array([column])
        for column in columns
        for name, inside in blocks.items()
        if inside[0] <= column <= inside[-1]
    }

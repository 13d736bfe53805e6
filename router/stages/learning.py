"""Stages that learn: train and calibrate."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from data.errors import DataError
from data.manifest import MANIFEST
from data.oracle_log import OracleLog
from data.splits import Split
from router.estimators.base import Floats
from router.features.table import FeatureTable
from router.parts import Gaps, part_rows
from router.policy import Binding, Policy, for_budget, for_max_loss
from router.router import FILE as ROUTER_FILE
from router.router import ScaleRouter
from router.rules import DEFAULT, apply_rule
from router.run import ARMS, Run
from router.splitting import Splitting
from router.training import train_router
from router.tuning.setting import Tuned


def train_stage(
    run: Run,
    *,
    estimator: str = "logistic",
    seed: int = 0,
    gaps: Gaps = "error",
    rule: str = DEFAULT,
    threads: int = 1,
    ablations: bool = True,
    reuse: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
    splitting: Splitting | None = None,
    tuned: Tuned | None = None,
) -> ScaleRouter:
    """Split the log by picture, then learn which option suffices.

    Args:
        run: must hold `log/` and `features/`; receives `split.json` and `router/`.
        estimator: a name in `router.estimators.ESTIMATORS`.
        seed: of the split and of the estimator.
        gaps: "error" refuses a log with gaps, "drop" leaves those examples out.
        rule: a name in `router.rules.RULES`.
        threads: of the fit, where the estimator can use several.
        ablations: whether to train an image-only and a question-only router as well.
        reuse: keep what was trained on the same inputs with the same options.
        progress: called with (router, routers done, routers in all).
        splitting: how to split; None for the usual shares by seed.
        tuned: the setting to train with, in place of estimator, seed, gaps, rule and splitting;
            the ablations take it with their own blocks.

    Raises:
        NotLearnableError: when everything is right, wrong, or independent of the option.
        DataError: for gaps with "error", or an unknown estimator or rule.
        MismatchError: when features and log do not belong together.
    """
    log = run.read_log()
    features = run.read_features(log)
    if tuned:
        estimator, seed, gaps, rule = tuned.estimator, tuned.seed, tuned.gaps, tuned.rule
    targets = apply_rule(log, rule)
    split = tuned.split if tuned else (splitting or Splitting()).apply(log, seed=seed)
    known = [
        name for name, (_, blocks) in ARMS.items() if set(blocks or ()) <= set(features.blocks)
    ]
    wanted = known if ablations and len(features.blocks) > 1 else ["router"]
    for name in set(ARMS) - set(wanted):
        shutil.rmtree(run.arm(name), ignore_errors=True)
    for done, name in enumerate(wanted):
        if progress:
            progress(name, done, len(wanted))
        blocks = list(ARMS[name][1] or (tuned.blocks if tuned else features.blocks))
        params = _train_params(estimator, blocks, seed=seed, gaps=gaps, rule=rule)
        if tuned:
            params["tuning"] = tuned.record
        inputs = run.inputs("log", "features", "split")
        folder = run.arm(name)
        if reuse and run.is_current(folder, "train", inputs=inputs, params=params):
            continue
        router = train_router(
            targets,
            features,
            split,
            estimator=estimator,
            blocks=blocks,
            seed=seed,
            gaps=gaps,
            hyperparameters=tuned.hyperparameters if tuned else None,
            threads=threads,
        )
        if tuned:
            router = replace(router, metadata={**router.metadata, "tuning": tuned.record})
        (folder / MANIFEST).unlink(missing_ok=True)
        split.write(run.split)  # only now: a training that fails leaves the old router usable
        router.write(folder)
        run.record(folder, "train", inputs=inputs, params=params, files=[folder / ROUTER_FILE])
    if progress:
        progress("done", len(wanted), len(wanted))
    return run.read_router()


def calibrate_stage(
    run: Run,
    *,
    name: str = "default",
    budget: float | None = None,
    max_loss_points: float | None = None,
) -> Policy:
    """Choose the price of a policy on the calibrate part.

    Args:
        run: must hold a trained router; receives `policies/<name>.json`.
        name: of the policy.
        budget: most mean cost per answer, in the log's cost unit.
        max_loss_points: or: at most so many points of accuracy below the finest option.

    Raises:
        DataError: unless exactly one knob is given, or the budget is below the cheapest option.
        MismatchError: when router, log, features and split do not belong together.
    """
    if (budget is None) == (max_loss_points is None):
        raise DataError("Give either a budget or a maximal loss, not both and not neither.")
    path = run.policy(name)
    router = run.read_router()
    log = run.read_log()
    split = run.read_split(log)
    rows = part_rows(log, split, "calibrate", gaps=router.metadata["gaps"])
    if not len(rows):
        raise DataError("The calibrate part has no complete example. Label more pictures.")
    p = predictions(router, run.read_features(log), log, rows)[rows]
    binding = Binding(
        options=router.options,
        cost_unit=router.cost_unit,
        router=router.fingerprint,
        split=split.fingerprint,
    )
    costs = log.costs[rows]
    if budget is not None:
        policy = for_budget(p, costs, budget=budget, binding=binding)
    else:
        policy = for_max_loss(
            p,
            costs,
            scores=log.scores[rows],
            max_loss_points=float(max_loss_points or 0),
            binding=binding,
        )
    policy.write(path)
    files = sorted(one for one in run.policies.glob("*.json") if one.name != MANIFEST)
    run.record(
        run.policies,
        "calibrate",
        inputs=run.inputs("log", "features", "split", "router"),
        params={one.stem: dict(Policy.read(one).knob) for one in files},
        files=files,
    )
    return policy


def predictions(
    router: ScaleRouter, features: FeatureTable, log: OracleLog, rows: np.ndarray
) -> Floats:
    """Probabilities (N, K) for all rows of a log; NaN outside of `rows`."""
    p = np.full(log.scores.shape, np.nan)
    p[rows] = router.predict(features.align([log.ids[row] for row in rows]))
    return p


def part_sizes(log: OracleLog, split: Split) -> dict[str, dict[str, int]]:
    """Examples and pictures of every part of the split."""
    return {
        part: {"examples": len(rows), "pictures": len(set(log.groups[rows].tolist()))}
        for part in ("fit", "tune", "calibrate", "test")
        for rows in [split.part(part)]
    }


def _train_params(
    estimator: str, blocks: list[str], *, seed: int, gaps: str, rule: str
) -> dict[str, Any]:
    return {"estimator": estimator, "blocks": blocks, "seed": seed, "gaps": gaps, "rule": rule}

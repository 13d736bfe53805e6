"""Evaluation: what a router and its policies reach on the test part, beside what they must beat.

Policies are calibrated on the calibrate part only; every number is measured on the test part
only. All intervals come from one cluster bootstrap by image group, so differences are paired.

Notation for shapes: N examples of the log, n of one part, K options.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.errors import DataError, MismatchError
from data.oracle_log import OracleLog
from data.splits import Split
from router.analysis import metrics
from router.analysis.columns import Columns
from router.analysis.comparison import KEPT, Comparison, Part
from router.estimators.base import Floats
from router.knobs import for_budget, for_max_loss
from router.parts import Gaps, part_rows
from router.policy import Binding, Policy

SCHEMA = 1
FRACTIONS = (1 / 16, 1 / 4, 1 / 2)
ORACLE_RULE = (
    "first_correct: the cheapest option with the best score of the example; "
    "never correct counts as the cheapest"
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to evaluate.

    Attributes:
        budgets: mean costs per answer for the router's rows, in the log's cost unit; None
            takes 1/16, 1/4 and 1/2 of the finest option's mean cost (`default_budgets`).
        draws: bootstrap draws.
        level: of the intervals.
        seed: of the bootstrap.
        points: most points of a curve.
        gaps: "error" refuses a log with gaps, "drop" leaves those examples out.
    """

    budgets: tuple[float, ...] | None = None
    draws: int = 1000
    level: float = 0.95
    seed: int = 0
    points: int = 48
    gaps: Gaps = "error"


def evaluate(
    log: OracleLog,
    p: Floats,
    *,
    split: Split,
    policies: Mapping[str, Policy] | None = None,
    gflops: Floats | None = None,
    ablations: Mapping[str, Floats] | None = None,
    settings: Settings | None = None,
) -> dict[str, Any]:
    """Everything that a report says about one router, as a JSON-able mapping.

    Args:
        log: what every option answered.
        p: the router's probabilities (N, K), rows as in `log`; not read outside of the
            calibrate and test parts.
        split: made from the log's groups.
        policies: name -> policy calibrated before, for rows of their own. With policies and
            no `settings.budgets`, no further policies are calibrated for the rows.
        gflops: (N, K) GFLOPs per answer, None when unknown.
        ablations: name -> probabilities (N, K) of other routers, such as "image-only".
        settings: budgets, bootstrap and curves.

    Returns:
        "rows" (fixed options, router, best fixed, oracles), "curve", "fixed_curve", "metrics",
        "ablations", "best_fixed", "sufficient", "n", "bootstrap" and what they are about. A
        number with an interval is {"value", "low", "high"}, None where undefined.

    Raises:
        DataError: for gaps, an empty part, bad probabilities, a budget below the cheapest.
        MismatchError: when a policy belongs to other options or another split, or an array to
            another log.
    """
    settings = settings or Settings()
    calibrate = _part(log, split, "calibrate", gflops=gflops, gaps=settings.gaps)
    test = _part(log, split, "test", gflops=gflops, gaps=settings.gaps)
    binding = Binding(
        options=tuple(log.options), cost_unit=log.cost_unit, router="", split=split.fingerprint
    )
    arms = {"router": p, **(ablations or {})}
    if len(arms) != 1 + len(ablations or {}):
        raise DataError("An ablation cannot be called 'router', the name of the router itself.")
    for name, values in arms.items():
        _check_shape(f"the probabilities of {name!r}", values, log)
    for policy in (policies or {}).values():
        policy.check_fits(options=log.options, split=split.fingerprint)
    wanted = _budget_policies(calibrate, arms, binding, settings, given=policies)
    columns = Columns(test.groups, draws=settings.draws, seed=settings.seed, level=settings.level)
    table = Comparison(test, columns, options=tuple(log.options), points=settings.points)
    for name, values in arms.items():
        rows = {**(policies or {}), **wanted[name]} if name == "router" else wanted[name]
        goal = _saving_policy(calibrate, values, binding)
        table.add_router(name, np.asarray(values)[test.rows], rows, goal)
    return {
        "schema": SCHEMA,
        "options": list(log.options),
        "cost_unit": log.cost_unit,
        "split": split.fingerprint,
        "oracle_rule": ORACLE_RULE,
        "n": {
            "calibrate": len(calibrate.rows),
            "test": len(test.rows),
            "test_groups": len(np.unique(test.groups)),
        },
        "bootstrap": {"draws": settings.draws, "level": settings.level, "seed": settings.seed},
        **table.report(),
    }


def default_budgets(costs: Floats) -> tuple[float, ...]:
    """1/16, 1/4 and 1/2 of the finest option's mean cost, from costs (n, K).

    A fraction f that the cheapest option already exceeds becomes cheapest + f (finest -
    cheapest), so that three different budgets remain on grids with a dear cheapest option.
    """
    least, finest = float(costs.min(axis=1).mean()), float(costs[:, -1].mean())
    return tuple(
        f * finest if f * finest > least else least + f * max(finest - least, 0.0)
        for f in FRACTIONS
    )


def _part(log: OracleLog, split: Split, name: str, *, gflops: Floats | None, gaps: Gaps) -> Part:
    rows = part_rows(log, split, name, gaps=gaps)
    if not len(rows):
        raise DataError(
            f"The {name!r} part of the split has no complete example out of {len(log.ids)} in "
            "the log; nothing can be evaluated. Label more images, or split them again."
        )
    if gflops is not None:
        _check_shape("gflops", gflops, log)
        if not np.all(np.isfinite(np.asarray(gflops)[rows])):
            raise DataError(f"GFLOPs must be finite for all complete examples of {name!r}.")
    return Part(
        rows=rows,
        scores=log.scores[rows],
        costs=log.costs[rows],
        gflops=None if gflops is None else np.asarray(gflops, dtype=np.float64)[rows],
        groups=log.groups[rows],
        chance=log.chance[rows],
    )


def _check_shape(what: str, values: Floats, log: OracleLog) -> None:
    if np.shape(values) != log.scores.shape:
        raise MismatchError(
            f"The oracle log has {log.scores.shape[0]} examples and {log.scores.shape[1]} "
            f"options, but {what} have shape {np.shape(values)}. Compute them for this log."
        )


def _budget_policies(
    calibrate: Part,
    arms: Mapping[str, Floats],
    binding: Binding,
    settings: Settings,
    *,
    given: Mapping[str, Policy] | None,
) -> dict[str, dict[str, Policy]]:
    """Policies of every arm at the budgets of the rows; none where policies were given."""
    budgets = settings.budgets
    if budgets is None:
        budgets = () if given else default_budgets(calibrate.costs)
    return {
        arm: {
            f"budget {budget:.6g}": for_budget(
                np.asarray(p)[calibrate.rows], calibrate.costs, budget=budget, binding=binding
            )
            for budget in budgets
        }
        for arm, p in arms.items()
    }


def _saving_policy(calibrate: Part, p: Floats, binding: Binding) -> Policy:
    """The cheapest policy with 99 % of the best fixed accuracy, on the calibrate part."""
    best = calibrate.scores[:, metrics.best_fixed(calibrate.scores, calibrate.costs)].mean()
    loss = calibrate.scores[:, -1].mean() - KEPT * best
    return for_max_loss(
        np.asarray(p)[calibrate.rows],
        calibrate.costs,
        scores=calibrate.scores,
        max_loss_points=100 * float(loss),
        binding=binding,
    )

"""Counts, oracles and disagreements of a part of an oracle log, with intervals by picture.

Notation for shapes: N examples of the log, n of the part, K options, B draws.

Every share is a ratio of two column means, such as scores over answers: gaps drop out of both, and
one bootstrap by picture serves all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from data.log.oracle_log import OracleLog
from router.analysis import metrics
from router.analysis.columns import SHARE, Columns
from router.analysis.inspected import Oracle, Pair, Part, ScaleCounts, Step
from router.analysis.metrics import Array, Floats
from router.analysis.oracles import (
    NEVER,
    RIGHT,
    Codes,
    corrected_rows,
    oracle_rows,
    smallest_sufficient,
)


def answer_codes(answers: np.ndarray) -> Codes:
    """Equal codes for answers (N, K) that are equal when trimmed and in one case; -1 for None.

    As in the rule `matches_full` (`router.rules`).
    """
    number: dict[str, int] = {}
    codes = [
        -1 if said is None else number.setdefault(said.strip().casefold(), len(number))
        for said in answers.ravel()
    ]
    return np.array(codes, dtype=np.int64).reshape(answers.shape)


class Cells:
    """The log as arrays, computed once for all parts.

    Attributes:
        log: The log.
        scored: (N, K), whether there is a score.
        failed: (N, K), whether the generation failed.
        said: (N, K), see `answer_codes`.
    """

    def __init__(self, log: OracleLog) -> None:
        self.log = log
        self.scored = np.isfinite(log.scores)
        self.failed = np.asarray(pd.notna(log.laid_out("error")))
        self.said = answer_codes(log.laid_out("answer"))


def count_part(
    cells: Cells, name: str, rows: np.ndarray, rules: Sequence[str], columns: Columns
) -> Part:
    """Count one dataset.

    Args:
        cells: The log.
        name: What the part is called.
        rows: (N,) mask of its examples.
        rules: Rules of the oracles; one that cannot be applied is left out.
        columns: Of the part's examples; receives columns.
    """
    log, whole = cells.log, cells.log.complete & rows
    inside = whole[rows]
    scores, costs, said = log.scores[whole], log.costs[whole], cells.said[whole]
    _add_scales(columns, cells, rows, whole)
    usable = [
        rule
        for rule in (rules if inside.any() else [])
        if rule != "matches_full" or not (said < 0).any()
    ]
    for rule in usable:
        _add_oracle(columns, rule, cells, whole=whole, inside=inside)
    return Part(
        dataset=name,
        examples=int(rows.sum()),
        complete=int(inside.sum()),
        pictures=len(np.unique(log.groups[rows].astype(str))),
        scales=tuple(_counts(cells, rows, k, columns) for k in range(len(log.options))),
        oracles=tuple(
            _oracle(rule, columns, scores=scores, costs=costs, said=said) for rule in usable
        ),
    )


def count_pair(cells: Cells, coarse: int, fine: int) -> Pair:
    """How often the answers of two options differ, over all examples."""
    said = cells.said[:, [coarse, fine]]
    answered = (said >= 0).all(axis=1)
    return Pair(
        coarse=cells.log.options[coarse],
        fine=cells.log.options[fine],
        answers=int(answered.sum()),
        differ=int((answered & (said[:, 0] != said[:, 1])).sum()),
    )


def add_step(cells: Cells, columns: Columns, coarse: int, fine: int) -> None:
    """Add what `count_step` reads to the columns of all examples.

    All columns are added before anything is read, so that they are drawn together, and once.
    """
    scores = cells.log.scores[:, [coarse, fine]]
    both = np.isfinite(scores).all(axis=1)
    right = scores >= RIGHT
    columns.add(f"both/{coarse}/{fine}", both)
    columns.add(f"lost/{coarse}/{fine}", right[:, 0] & ~right[:, 1] & both)
    columns.add(f"won/{coarse}/{fine}", ~right[:, 0] & right[:, 1] & both)


def count_step(cells: Cells, columns: Columns, coarse: int, fine: int) -> Step:
    """What going from one option to a finer one changes, over all examples."""
    n, end = len(cells.log), f"/{coarse}/{fine}"
    return Step(
        coarse=cells.log.options[coarse],
        fine=cells.log.options[fine],
        scored=round(n * float(columns.mean("both" + end))),
        right_to_wrong=round(n * float(columns.mean("lost" + end))),
        wrong_to_right=round(n * float(columns.mean("won" + end))),
        lost=columns.statistic(_ratio, "lost" + end, "both" + end, bounds=SHARE),
        won=columns.statistic(_ratio, "won" + end, "both" + end, bounds=SHARE),
    )


def _add_scales(columns: Columns, cells: Cells, rows: np.ndarray, whole: np.ndarray) -> None:
    log, inside = cells.log, whole[rows]
    columns.add("complete", inside)
    for k in range(len(log.options)):
        columns.add(f"scored/{k}", cells.scored[rows, k])
        columns.add(f"score/{k}", np.nan_to_num(log.scores[rows, k]))
        columns.add(f"fixed/{k}", _spread(log.scores[whole, k], inside))
        columns.add(f"fixed-cost/{k}", _spread(log.costs[whole, k], inside))
    columns.add("least", _spread(log.costs[whole].min(axis=1), inside))
    columns.add("most", _spread(log.costs[whole].max(axis=1), inside))


def _add_oracle(
    columns: Columns, rule: str, cells: Cells, *, whole: np.ndarray, inside: np.ndarray
) -> None:
    log = cells.log
    scores, costs = log.scores[whole], log.costs[whole]
    accuracy, cost = oracle_rows(rule, scores, costs, cells.said[whole])
    columns.add(f"accuracy/{rule}", _spread(accuracy, inside))
    columns.add(f"cost/{rule}", _spread(cost, inside))
    corrected = corrected_rows(rule, scores, costs, log.chance[whole])
    if corrected is not None:
        columns.add(f"corrected/{rule}", _spread(corrected[0], inside))
        columns.add(f"corrected-cost/{rule}", _spread(corrected[1], inside))


def _counts(cells: Cells, rows: np.ndarray, k: int, columns: Columns) -> ScaleCounts:
    log, scored, failed = cells.log, cells.scored[rows, k], cells.failed[rows, k]
    flops = log.flops[rows, k][scored]
    known = len(flops) > 0 and bool(np.isfinite(flops).all())
    return ScaleCounts(
        scale=log.options[k],
        answered=int(scored.sum()),
        errors=int(failed.sum()),
        missing=int((~scored & ~failed).sum()),
        accuracy=columns.statistic(_ratio, f"score/{k}", f"scored/{k}", bounds=SHARE),
        cost=float(log.costs[rows, k][scored].mean()) if scored.any() else None,
        gflops=float(flops.mean() / 1e9) if known else None,
        fixed=columns.statistic(_ratio, f"fixed/{k}", "complete", bounds=SHARE),
        fixed_cost=columns.statistic(_ratio, f"fixed-cost/{k}", "complete"),
    )


def _oracle(rule: str, columns: Columns, *, scores: Floats, costs: Floats, said: Codes) -> Oracle:
    accuracy = cost = None
    n_options = scores.shape[1]
    if f"corrected/{rule}" in columns:
        # An oracle may always take any option; one that asks for `stable` at least the finest.
        stable = rule == "stable"
        floor = n_options - 1 if stable else metrics.best_fixed(scores, costs)
        names = ("complete", f"corrected/{rule}", f"fixed/{floor}")
        ends = (f"corrected-cost/{rule}", "least", "most", f"fixed-cost/{floor}")
        # Where the correction is not above that option, it says nothing.
        if columns.mean(names[1]) > columns.mean(names[2]):
            accuracy = columns.statistic(
                lambda n, a, b: _ratio(np.maximum(a, b), n), *names, bounds=SHARE
            )
            cost = columns.statistic(_spent_stable if stable else _spent, *names, *ends)
    smallest = smallest_sufficient(rule, scores, costs, said)
    places = np.where(smallest == NEVER, n_options, smallest)
    spread = (float(costs.min()), float(costs.max())) if len(costs) else None
    return Oracle(
        rule=rule,
        accuracy=columns.statistic(_ratio, f"accuracy/{rule}", "complete", bounds=SHARE),
        cost=columns.statistic(_ratio, f"cost/{rule}", "complete", bounds=spread),
        corrected_accuracy=accuracy,
        corrected_cost=cost,
        smallest=tuple(np.bincount(places, minlength=n_options + 1).tolist()),
    )


def _spent(*of: Array) -> Array:
    """The fixed option's cost where its accuracy is taken, as in `router.analysis.comparison`."""
    complete, corrected, fixed, cost, least, most, own = of
    return _ratio(np.where(corrected < fixed, own, np.clip(cost, least, most)), complete)


def _spent_stable(*of: Array) -> Array:
    """The estimate within what is possible: it holds where the accuracy is the finest's, too."""
    complete, _, _, cost, least, most, _ = of
    return _ratio(np.clip(cost, least, most), complete)


def _ratio(part: Array, whole: Array) -> Array:
    """One mean over another, NaN over nothing."""
    with np.errstate(invalid="ignore"):
        return np.true_divide(part, whole)


def _spread(values: Floats, inside: np.ndarray) -> Array:
    """Values of the complete examples laid out over all n; 0 for the others."""
    laid = np.zeros(len(inside))
    laid[inside] = values
    return laid

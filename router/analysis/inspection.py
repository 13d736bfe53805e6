"""Look at an oracle log: per dataset and scale, oracles, disagreements, errors, expensive examples.

Notation for shapes: N examples, K options, cheapest first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from data.errors import DataError
from data.log.oracle_log import OracleLog
from data.registry import unknown_name
from data.scoring.mme import mme_sums, subtask_of
from router.analysis.causes import group_causes
from router.analysis.columns import Columns
from router.analysis.counting import Cells, add_step, count_pair, count_part, count_step
from router.analysis.inspected import ALL, Expensive, Inspection, MmeScore
from router.analysis.oracles import RULES, check_rule
from router.analysis.words import words_of


def inspect_log(
    log: OracleLog,
    *,
    rules: Sequence[str] = RULES,
    top: int = 10,
    draws: int = 1000,
    seed: int = 0,
) -> Inspection:
    """Count and compare what a log holds; gaps are allowed anywhere.

    Args:
        log: At least one example.
        rules: Names in `router.analysis.oracles.RULES`.
        top: Most examples and causes listed.
        draws: Bootstrap draws.
        seed: Of the bootstrap.

    Raises:
        DataError: The log is empty, or a rule is unknown.
    """
    if not len(log):
        raise DataError("The oracle log is empty: there is nothing to look at.")
    rules = tuple(dict.fromkeys(check_rule(rule) for rule in rules))
    cells, names = Cells(log), log.datasets.astype(str)
    groups = log.groups.astype(str)
    datasets, counts = np.unique(names, return_counts=True)
    ordered = [str(name) for _, name in sorted(zip(-counts, datasets, strict=True))]
    columns = Columns(groups, draws=draws, seed=seed)
    last = len(log.options) - 1
    steps = [(k, k + 1) for k in range(last)] + ([(0, last)] if last > 1 else [])
    for step in steps:
        add_step(cells, columns, *step)
    single = len(ordered) == 1
    everything = np.ones(len(log), dtype=bool)
    parts = [count_part(cells, ordered[0] if single else ALL, everything, rules, columns)]
    for name in [] if single else ordered:
        rows = names == name
        own = Columns(groups[rows], draws=draws, seed=seed)
        parts.append(count_part(cells, name, rows, rules, own))
    return Inspection(
        options=log.options,
        cost_unit=log.cost_unit,
        rules=rules,
        draws=draws,
        parts=tuple(parts),
        pairs=tuple(count_pair(cells, i, j) for j in range(last + 1) for i in range(j)),
        steps=tuple(count_step(cells, columns, *step) for step in steps),
        causes=tuple(group_causes(log.errors())[:top]),
        expensive=tuple(_expensive(log, top)),
        mme=tuple(_mme(log)),
        words=words_of(log),
    )


def only_dataset(log: OracleLog, name: str) -> OracleLog:
    """The examples of one dataset.

    Raises:
        DataError: The log has no such dataset.
    """
    rows = log.datasets.astype(str) == name
    if not rows.any():
        raise DataError(unknown_name("dataset", name, set(log.datasets.tolist())))
    return log.select(rows)


def total(values: np.ndarray) -> np.ndarray:
    """Sum (N,) of what is known of (N, K); NaN where nothing is."""
    known = np.isfinite(values)
    return np.where(known.any(axis=1), np.where(known, values, 0.0).sum(axis=1), np.nan)


def _expensive(log: OracleLog, top: int) -> list[Expensive]:
    """The most expensive examples, by GFLOPs where any are known, else by cost; ties as logged.

    What was not asked because a cheaper option was right cost nothing.
    """
    cost, flops = total(np.where(log.unknown, np.nan, log.costs)), total(log.flops)
    key = flops if np.isfinite(flops).any() else cost
    known = np.flatnonzero(np.isfinite(key) & np.isfinite(cost))
    words = {name: total(log.laid_out(name)) for name in ("text_tokens", "answer_tokens")}
    return [
        Expensive(
            id=log.ids[row],
            dataset=str(log.datasets[row]),
            question=str(log.questions[row]),
            cost=float(cost[row]),
            gflops=_known(flops[row] / 1e9),
            text_tokens=_known(words["text_tokens"][row]),
            answer_tokens=_known(words["answer_tokens"][row]),
            references=log.references[row],
            metric=log.metrics[row],
        )
        for row in known[np.argsort(-key[known], kind="stable")][:top]
    ]


def _mme(log: OracleLog) -> Iterator[MmeScore]:
    """MME's published scores of every option, where the log holds its questions."""
    groups = [str(group) for group in log.groups]
    subtasks = [
        subtask_of(str(one), group) for one, group in zip(log.datasets, groups, strict=True)
    ]
    for place, option in enumerate(log.options):
        sums = mme_sums(subtasks, groups, log.scores[:, place].tolist())
        if sums is not None:
            yield MmeScore(scale=option, sums=sums)


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None

"""A summary of an oracle log: counts, oracles, disagreements, errors, expensive examples.

Notation for shapes: N examples of the log, n of a part (a dataset), K options, cheapest first, B
draws.

Every share is a ratio of two column means, such as scores over answers: missing results drop out
of both, and one bootstrap by image serves all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from m3router.data.errors import DataError
from m3router.data.log.checks import TOKEN_SOURCES
from m3router.data.log.oracle_log import OracleLog
from m3router.data.registry import unknown_name
from m3router.data.scoring.mme import mme_sums, subtask_of
from m3router.router.metrics import choices
from m3router.router.metrics.choices import Array, Floats
from m3router.router.metrics.oracles import (
    NEVER,
    RIGHT,
    RULES,
    Codes,
    answer_codes,
    check_rule,
    corrected_rows,
    oracle_rows,
    smallest_sufficient,
)
from m3router.router.metrics.paired_bootstrap import SHARE, Columns
from m3router.router.reports.error_groups import group_errors
from m3router.router.reports.log_summary_types import (
    ALL,
    Expensive,
    Inspection,
    MmeScore,
    OptionUsage,
    Oracle,
    Pair,
    Part,
    ScaleCounts,
    Step,
    Tie,
)
from m3router.router.text.words import words_of


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
        images=len(np.unique(log.groups[rows].astype(str))),
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


def count_tie(cells: Cells, coarse: int, fine: int) -> Tie:
    """How often two options cost the same, and then say the same, over all examples."""
    log, said = cells.log, cells.said[:, [coarse, fine]]
    costs = log.costs[:, [coarse, fine]]
    both = np.isfinite(costs).all(axis=1)
    tied = both & (costs[:, 0] == costs[:, 1])
    answered = tied & (said >= 0).all(axis=1)
    return Tie(
        coarse=log.options[coarse],
        fine=log.options[fine],
        both=int(both.sum()),
        tied=int(tied.sum()),
        answers=int(answered.sum()),
        same=int((answered & (said[:, 0] == said[:, 1])).sum()),
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
        floor = n_options - 1 if stable else choices.best_fixed(scores, costs)
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
    """The fixed option's cost where its accuracy is taken, as in `evaluation.comparison`."""
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
        rules: Names in `m3router.router.metrics.oracles.RULES`.
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
        causes=tuple(group_errors(log.errors())[:top]),
        expensive=tuple(_expensive(log, top)),
        mme=tuple(_mme(log)),
        words=words_of(log),
        usage=tuple(_usage(cells)),
        ties=tuple(count_tie(cells, k, k + 1) for k in range(last)),
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


def _usage(cells: Cells) -> Iterator[OptionUsage]:
    """What the answers of every option used, where it is known of all of them."""
    log = cells.log
    names = ("image_tokens", "text_tokens", "cached_tokens", "seconds", "attempts", "price")
    wide = {name: np.asarray(log.laid_out(name), np.float64) for name in names}
    wide |= {"cost": log.costs, "gflops": log.flops / 1e9, "tower": log.vision_flops / 1e9}
    origin = log.laid_out("image_tokens_from")
    for k, option in enumerate(log.options):
        rows = cells.scored[:, k]
        count = int(rows.sum())
        # Not known of one answer is not known of the mean.
        mean = {n: _known(v[rows, k].mean()) if count else None for n, v in wide.items()}
        text, image, cached = (mean[n] for n in ("text_tokens", "image_tokens", "cached_tokens"))
        prompt = None if text is None or image is None else text + image
        shares = {n: float((origin[rows, k] == n).mean()) if count else 0.0 for n in TOKEN_SOURCES}
        yield OptionUsage(
            scale=option,
            answered=count,
            cost=mean["cost"],
            image_tokens=image,
            counted=shares["counted"],
            reported=shares["reported"],
            derived=shares["derived"],
            cached=cached / prompt if cached is not None and prompt else None,
            seconds=mean["seconds"],
            attempts=mean["attempts"],
            price=mean["price"],
            gflops=mean["gflops"],
            tower_gflops=mean["tower"],
        )


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

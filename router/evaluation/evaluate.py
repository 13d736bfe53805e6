"""Evaluation: what a router and its policies reach on the test split, beside what they must beat.

Policies are calibrated on the calibration split only; the best fixed option and the options that
are worth mixing are chosen on all parts but the test split; every number is measured on the test
split. Every way of choosing is looked at in the same places (`m3router.router.metrics.curves`).
Intervals are by image (`m3router.router.metrics.intervals`), differences are paired.

Notation for shapes: N examples of the log, n of one part, K options.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from m3router.data.errors import DataError, NotLearnableError
from m3router.data.log.oracle_log import OracleLog
from m3router.data.log.parts import Gaps, part_rows
from m3router.data.progress import Advance
from m3router.data.splits.split import SPLITS, Split
from m3router.router.cascade.rule import Cascade
from m3router.router.estimators.base import Floats
from m3router.router.evaluation.baselines import fit_baselines
from m3router.router.evaluation.comparison import Comparison
from m3router.router.evaluation.escalation import Escalating, escalating
from m3router.router.evaluation.inputs import check_shape, features_of, part_of
from m3router.router.evaluation.methods import (
    Known,
    Method,
    Priced,
    apply_method,
    budget_name,
    cascade_settings,
)
from m3router.router.evaluation.metric_table import measure
from m3router.router.evaluation.reference_summary import (
    not_the_best,
    reference_sentence,
    reference_summary,
)
from m3router.router.evaluation.summary_text import evaluation_verdict, few_images
from m3router.router.evaluation.usage import LogUsage
from m3router.router.evaluation_document import Evaluation
from m3router.router.features.table import FeatureTable
from m3router.router.metrics.choices import taken
from m3router.router.metrics.oracles import first_correct, stable
from m3router.router.metrics.paired_bootstrap import Columns
from m3router.router.policies.costs import routed_costs
from m3router.router.policies.policy import Binding, Policy
from m3router.router.text.words import words_of

SCHEMA = 7
"""Of the document and of how its numbers are made: what was made otherwise is made again."""
ESCALATION = "router + escalation"
INTERVALS = (
    "Accuracies, costs and AIQ: after Korn and Graubard, exact over images where nothing varies; "
    "paired differences likewise, of gains and losses apart where few images differ; all else: "
    "bootstrap percentiles over images, stretched by the jackknife and Student's t."
)
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
        gaps: "error" refuses a log with gaps, "drop" leaves those examples out.
    """

    budgets: tuple[float, ...] | None = None
    draws: int = 1000
    level: float = 0.95
    seed: int = 0
    gaps: Gaps = "error"


def evaluate(
    log: OracleLog,
    p: Floats,
    *,
    split: Split,
    policies: Mapping[str, Policy] | None = None,
    gflops: Floats | None = None,
    usage: LogUsage | None = None,
    ablations: Mapping[str, Floats] | None = None,
    features: FeatureTable | None = None,
    reads: Mapping[str, Sequence[str]] | None = None,
    cascades: Mapping[str, Cascade] | None = None,
    known_costs: Floats | None = None,
    reference: str | None = None,
    settings: Settings | None = None,
    progress: Advance | None = None,
) -> Evaluation:
    """Everything that a report says about one router, as a JSON-able mapping.

    Args:
        log: what every option answered.
        p: the router's probabilities (N, K), rows as in `log`; read in the calibrate and test
            splits, and in the tune split to learn when to escalate, where they are finite.
        split: made from the log's groups.
        policies: name -> policy calibrated before, for rows of their own. With policies and
            no `settings.budgets`, no further policies are calibrated for the rows.
        gflops: (N, K) GFLOPs per answer in the language model, None when unknown.
        usage: what else answers used; None for nothing of it.
        ablations: name -> probabilities (N, K) of other routers, such as "image-only".
        features: what the router reads, for the baselines that read the same; without them
            those are undefined.
        reads: name of the router ("router") or of an ablation -> feature blocks that it reads,
            which says what it pays for a peek (`m3router.router.policies.costs`); nothing is paid
            without.
        cascades: name -> cascade calibrated before, for rows of their own under "escalation".
        known_costs: (N, K) that all choices go by, where costs are not known before an answer
            (`m3router.router.policies.expected_costs`); every number is about what was paid.
        reference: name of the option that "minus_reference" is about; None for the best of the
            calibration split.
        settings: budgets, bootstrap and curves.
        progress: called with (methods measured, methods in all, the next one).

    Returns:
        "verdict" ({"kind", "text"}, see `m3router.router.evaluation.summary_text`) and "warnings",
        "reference" (see `reference_summary`, with a sentence in "text"), then
        "rows" (fixed options, router, best fixed, oracles), "curve", "fixed_curve",
        "oracle_curve" (of the chance-corrected oracle), "metrics",
        "ablations", "baselines", "escalation", "oracles", "best_fixed", "mixed" (the options
        that mixing mixes), "sufficient", "n", "bootstrap", "intervals" (how they are made, a
        sentence), "finest" (the last option), "tower" (see `usage.LogUsage.described`) and what
        they are about. A number with an interval is {"value", "low", "high"},
        all None where it is undefined, the ends alone where no interval is known to hold; where
        the reason is not plain, "reason" says it.

        A *row*: "name", "kind" ("fixed", "router", "best_fixed", "oracle", "oracle_corrected"; the
        last is left out where the correction says nothing), "accuracy", "cost", "gflops" (of
        the language model), "tower_gflops", "total_gflops" (both, and the router's own image
        encoder), "image_tokens", "seconds" and "price" (of all that was asked; None where not
        known), for each of them and the cost "saved_NAME" (the share of the last option's that is
        saved), "per_second" (answers, the inverse of seconds), "regret" (against the reference of
        the row's own policy or cascade, as its cap allows it; else of the table),
        "minus_best_fixed", "minus_reference", "minus_mixing" (accuracy less that of mixing fixed
        options at random at the row's own mean cost), "mixing" (that mixture: "accuracy", "cost",
        "gflops"), "shares". Rows with a policy have "policy" and "gap_closed": "own_cost" (the
        definition, against the chance-corrected oracle and the
        mixture, both at the row's own mean cost), "own_cost_upper" (against the other end of that
        correction, where an answer that a cheaper option gave is not a new guess), "own_cost_raw"
        (against the raw oracle at that cost), "corrected" and "raw" (against the best fixed
        option, whatever the costs); a sentence in "reason" where a share would say nothing. Rows
        of methods other than the router have "minus_router": less the router's curve at the same
        mean cost; "minus_calibrated_cascade" is the same against that baseline.

        A *method*: "about" (one sentence), "rows", "curve" and "metrics". "ablations" and
        "baselines" map names to methods, "escalation" is one ("router + escalation", with
        "cascade", what was learned). Where a method is not available it is {"about", "undefined":
        reason}. A method without a knob has one row, and None for "curve" and "metrics".

        A *curve*: "cost", "accuracy", "low", "high", "gflops" (None where unknown), and "price"
        or "threshold", its knob.

        The *metrics* of a curve: "range", "aiq", "aiq_fixed", "aiq_minus_fixed",
        "aiq_minus_router" (not the router's own), "headroom" (the router's only: AIQ of the raw
        oracle less that of mixtures), "gap_closed" (of areas: (AIQ -
        AIQ of mixtures) / (AIQ of the chance-corrected oracle's curve - AIQ of mixtures)),
        "gap_closed_upper" (by the other end of the correction),
        "ece" (expected calibration error over all options, see
        `m3router.router.metrics.calibration_error`; None for methods without probabilities),
        "saved_at_99" and "saved_at_100" ("hindsight", "hindsight_gflops", "calibrated",
        "calibrated_gflops", "calibrated_total_gflops", "row", "policy"; shares of the best fixed
        option's cost, undefined
        where nothing is saved or nothing is answered), "apgr",
        "cpt_50", "cpt_80" (see `metrics.apgr`; with "reason" where undefined) and "ends"
        ({"weak", "strong", "calls", "accuracy"}, the curve over the share of calls to the strong
        option).

        "oracles": rule -> {"raw": row, "corrected": row or None}.

    Raises:
        DataError: for gaps, an empty part, bad probabilities, a budget below the cheapest, an
            unknown reference.
        MismatchError: when a policy belongs to other options or another split, or an array to
            another log.
    """
    settings, reads = settings or Settings(), reads or {}
    rows = {name: part_rows(log, split, name, gaps=settings.gaps) for name in SPLITS}
    calibrate = part_of(log, rows["calibrate"], "calibrate", gflops=gflops)
    test = part_of(log, rows["test"], "test", gflops=gflops, usage=usage)
    binding = Binding(
        options=tuple(log.options), cost_unit=log.cost_unit, router="", split=split.fingerprint
    )
    routers = {"router": p, **(ablations or {})}
    if len(routers) != 1 + len(ablations or {}):
        raise DataError("An ablation cannot be called 'router', the name of the router itself.")
    for name, values in routers.items():
        check_shape(f"the probabilities of {name!r}", values, log)
    for policy in (policies or {}).values():
        policy.check_fits(options=log.options, split=split.fingerprint)
    against = reference_summary(
        calibrate.scores,
        routed_costs(calibrate.costs, reads.get("router", ())),
        calibrate.groups,
        options=log.options,
        named=reference,
    )
    if known_costs is not None:
        check_shape("known costs", known_costs, log)
    known = Known.of(
        log, rows, costs=known_costs, **features_of(log, features, reads.get("router"))
    )
    methods: dict[str, Method] = {
        name: Priced(
            about="The router." if name == "router" else f"The router, {name}.",
            p=np.asarray(values, dtype=np.float64),
            costs=known.costs,
            reads=tuple(reads.get(name, ())),
        )
        for name, values in routers.items()
    }
    baselines, undefined = fit_baselines(known)
    methods |= baselines
    escalation: Escalating | None = None
    try:
        escalation = escalating(known, p, reads=tuple(reads.get("router", ())))
        methods[ESCALATION] = escalation
    except NotLearnableError as error:
        undefined[ESCALATION] = str(error)
    budgets = settings.budgets
    if budgets is None:
        going_by = None if known_costs is None else np.asarray(known_costs)[calibrate.rows]
        budgets = () if policies else default_budgets(calibrate.costs, going_by)
    budgets = different_budgets(budgets)
    columns = Columns(test.groups, draws=settings.draws, seed=settings.seed, level=settings.level)
    known_rows = np.concatenate([rows[part] for part in ("fit", "tune", "calibrate")])
    before = part_of(log, known_rows, "fit, tune and calibrate", gflops=None)
    place = log.options.index(against["option"])
    table = Comparison(test, before, columns, options=tuple(log.options), reference=place)
    for done, (name, method) in enumerate(methods.items()):
        if progress:
            progress(done, len(methods), name)
        own = name == "router"
        applied = apply_method(
            method,
            calibrate,
            test,
            budgets=budgets,
            binding=binding,
            policies=policies if own else None,
            reference=against["option"],
        )
        if name == ESCALATION:
            of_run = cascade_settings(cascades or {}, known, p, test, reads=method.reads)
            applied = replace(applied, settings=[*applied.settings, *of_run])
        table.add(name, applied)
    if progress:
        progress(len(methods), len(methods), "")
    report = _report(table, list(ablations or {}), undefined, escalation)
    sizes = {
        "calibrate": len(calibrate.rows),
        "test": len(test.rows),
        "test_groups": len(np.unique(test.groups)),
    }
    words = words_of(log)
    about = {"n": sizes, "options": list(log.options), "words": words.to_dict()}
    verdict = evaluation_verdict({**report, **about}, chance=float(test.chance.mean()))
    document = {
        "schema": SCHEMA,
        "verdict": verdict.to_dict(),
        "warnings": [*few_images(sizes["test_groups"], words), *not_the_best(against)],
        "reference": {**against, "text": reference_sentence(against, words)},
        "words": words.to_dict(),
        "options": list(log.options),
        "finest": log.options[-1],
        "cost_unit": log.cost_unit,
        "tower": None
        if test.usage is None
        else test.usage.described(log.options, images=words.images),
        "split": split.fingerprint,
        "oracle_rule": ORACLE_RULE,
        "n": sizes,
        "bootstrap": {"draws": settings.draws, "level": settings.level, "seed": settings.seed},
        "intervals": words.of(INTERVALS),
        **report,
    }
    return Evaluation(document)


def _report(
    table: Comparison,
    ablations: list[str],
    undefined: Mapping[str, str],
    escalation: Escalating | None,
) -> dict[str, Any]:
    """All numbers, JSON-able."""
    test, router = table.test, _method(table, "router")
    not_had = {
        name: {"about": name, "undefined": reason}
        for name, reason in undefined.items()
        if name != ESCALATION
    }
    if escalation is None:
        escalated: dict[str, Any] = {"about": ESCALATION, "undefined": undefined[ESCALATION]}
    else:
        escalated = {**_method(table, ESCALATION), "cascade": escalation.describe()}
    others = [n for n in table.methods if n not in ("router", ESCALATION, *ablations)]
    return {
        "rows": [*table.fixed_rows(), *router["rows"], *table.last_rows()],
        "best_fixed": table.options[table.best],
        "mixed": [table.options[k] for k in table.mixed],
        "curve": router["curve"],
        "fixed_curve": table.curve("fixed"),
        "oracle_curve": table.curve("corrected"),
        "metrics": router["metrics"],
        "ablations": {name: _method(table, name) for name in ablations},
        "baselines": {name: _method(table, name, kind="baseline") for name in others} | not_had,
        "escalation": escalated,
        "oracles": table.oracles(),
        "sufficient": {
            "first_correct": _shares(first_correct(test.scores, test.costs), table.options),
            "stable": _shares(stable(test.scores, test.costs), table.options),
        },
    }


def _method(table: Comparison, name: str, *, kind: str = "router") -> dict[str, Any]:
    """All about one method, as `evaluate` describes it."""
    method = table.methods[name]
    return {
        "about": method.about,
        "rows": table.method_rows(name, kind=kind),
        "curve": None if method.knob is None else table.curve(name),
        "metrics": None if method.knob is None else measure(table, name),
    }


def _shares(choice: np.ndarray, options: Sequence[str]) -> dict[str, float]:
    counts = np.bincount(choice, minlength=len(options)) / len(choice)
    return dict(zip(options, counts.tolist(), strict=True))


def default_budgets(costs: Floats, known: Floats | None = None) -> tuple[float, ...]:
    """1/16, 1/4 and 1/2 of the finest option's mean cost, from what was paid: costs (n, K).

    A fraction f that the cheapest option already exceeds becomes cheapest + f (finest -
    cheapest), so that three different budgets remain on grids with an expensive cheapest option;
    all three become that where they would not rise otherwise. Where nothing costs more than the
    cheapest option there is one budget.

    The cheapest option is that of the costs (n, K) that are `known` before an answer, where these
    are others: nobody can choose by what is only known afterwards.
    """
    cheapest = np.argmin(costs if known is None else known, axis=1)
    least, finest = float(taken(costs, cheapest).mean()), float(costs[:, -1].mean())
    room = max(finest - least, 0.0)
    above = [least + f * room for f in FRACTIONS]
    budgets = [
        f * finest if f * finest > least else other
        for f, other in zip(FRACTIONS, above, strict=True)
    ]
    rising = all(one < other for one, other in itertools.pairwise(budgets))
    return different_budgets(budgets if rising else above)


def different_budgets(budgets: Sequence[float]) -> tuple[float, ...]:
    """The budgets in their order, each once: of those that are called alike, the first.

    >>> different_budgets([4.0, 4, 16])
    (4.0, 16)
    """
    return tuple({budget_name(budget): budget for budget in reversed(budgets)}.values())[::-1]

"""The stage that judges a policy on fresh labelled traffic: monitor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from m3router.data.errors import DataError, MismatchError
from m3router.data.example import Example
from m3router.data.log.checks import scored_by_agreement
from m3router.data.log.oracle_log import OracleLog
from m3router.data.log.parts import part_rows
from m3router.data.paths import StrPath, as_path_or_none
from m3router.data.scoring.metrics import AGREEMENT
from m3router.data.splits.split import Split
from m3router.router.estimators.base import Floats
from m3router.router.features.table import FeatureTable
from m3router.router.monitoring.drift import Sample
from m3router.router.monitoring.regret import News, Texts, by_cascade, by_policy, monitor
from m3router.router.policies.policy import Policy
from m3router.router.policies.thinning import default_most
from m3router.router.runs.calibration_data import image_sizes, known_costs, labelled
from m3router.router.runs.run import AnyRun, Run, as_run
from m3router.router.traffic.judgements import known_scores, read_judged
from m3router.router.training.scale_router import ScaleRouter

USED = ("fit", "tune", "calibrate")
"""Parts whose images are not fresh traffic."""


def monitor_stage(
    run: AnyRun,
    fresh: Run,
    *,
    name: str = "default",
    references: Sequence[Example] = (),
    feedback: StrPath | None = None,
    false_alarm: float = 0.01,
    bound: str = "betting",
    seed: int = 0,
) -> dict[str, Any]:
    """Recompute a policy's bound on fresh traffic and test its features for drift.

    Nothing is written.

    Args:
        run: must hold a trained router and the policy.
        fresh: must hold `log/` and `features/` of the traffic, made like those of `run`.
        name: of the policy; where a cascade goes with it, that is judged.
        references: right answers of traffic that was labelled without; of any part of it.
        feedback: folder of the recorded traffic, with what those who asked said of their answers;
            None to leave it out. Right answers go before it.
        false_alarm: most probability of an alarm although nothing changed.
        bound: a name in `m3router.router.policies.risk_bounds.BOUNDS`.
        seed: of the test for drift.

    Returns:
        See `m3router.router.monitoring.regret.monitor`.

    Raises:
        DataError: when a part is missing or damaged, there are too few images, or images of
            the traffic were used to make the policy.
        MismatchError: when run and traffic, or traffic and references, do not belong together.
    """
    run = as_run(run)
    feedback = as_path_or_none(feedback)
    run, fresh = run.opened(), fresh.opened()
    router = run.router()
    log = run.log()
    split = run.split(log)
    policy = _policy(run, name, router, split)
    gaps = router.metadata["gaps"]
    everything = fresh.log()
    _check_fits(router, everything, fresh)
    traffic = everything.require_complete(gaps)
    _refuse_known(log, split, traffic, fresh)
    features, seen = run.features(log), fresh.features(everything)
    fresh.verify(fresh.features_folder, "features")
    fit, calibrate = (part_rows(log, split, part, gaps=gaps) for part in ("fit", "calibrate"))
    every = np.arange(len(traffic))
    known = labelled(router, features, log, calibrate)
    # Traffic may use names that the log uses, too; nothing of it was fitted on.
    asked = labelled(replace(router, held_out=None), seen, traffic, every)
    known = replace(known, scores=_judged(log, (), run)[calibrate])
    scores = _judged(traffic, references, fresh)
    if feedback is not None:
        scores = _heard(scores, traffic, feedback, fresh)
    # Without a guarantee an image counts as on the parts that made the policy.
    most = default_most(image_sizes(log, split, gaps=gaps), images=len(np.unique(asked.groups)))
    known, asked = replace(known, most=most), replace(asked, most=most, scores=scores)
    said = (_answers(log, calibrate), _answers(traffic, every))
    cascade = run.cascade(name, router)
    if cascade is None:
        guarantee = policy.guarantee
        before, now = by_policy(policy, known, said[0]), by_policy(policy, asked, said[1])
    else:
        guarantee = cascade.guarantee
        before, now = (
            by_cascade(cascade, part, _news(of, rows, known_costs(router, table, of)), answers)
            for part, of, rows, table, answers in (
                (known, log, calibrate, features, said[0]),
                (asked, traffic, every, seen, said[1]),
            )
        )
    return monitor(
        guarantee,
        calibrate=before,
        fresh=now,
        trained_on=_sample(router, features, log, fit),
        features=_sample(router, seen, traffic, every),
        false_alarm=false_alarm,
        bound=bound,
        seed=seed,
    )


def _policy(run: Run, name: str, router: ScaleRouter, split: Split) -> Policy:
    run.need_policy(name)
    return run.policies(router, split)[name]


def _judged(log: OracleLog, references: Sequence[Example], of: Run) -> Floats:
    """Scores (N, K) by right answers; NaN for questions of which nobody has told any.

    Raises:
        DataError: when right answers are given for a log that was labelled with such.
        MismatchError: when they are for other questions.
    """
    told = [one for one in references if one.metric != AGREEMENT]
    if not scored_by_agreement(log.metadata):
        if references:
            raise DataError(
                f"{of.log_folder} was labelled with reference answers; others can be given only "
                f"for questions that have none (metric {AGREEMENT!r})."
            )
        return log.scores
    scores, answers = np.full(log.scores.shape, np.nan), log.laid_out("answer")
    row_of = {name: row for row, name in enumerate(log.ids)}
    for one in told:
        row = row_of.get(one.id)
        if row is not None:
            if log.questions[row] != one.question:
                raise MismatchError(
                    f"The right answer of {one.id!r} is for the question {one.question!r}; "
                    f"{of.log_folder} asked {log.questions[row]!r}."
                )
            scores[row] = [one.score(text) for text in answers[row]]
    if references and not np.isfinite(scores).any():
        raise MismatchError(
            f"None of the {len(references)} examples given has a right answer to a question in "
            f"{of.log_folder}. Give those of this traffic."
        )
    return scores


def _heard(scores: Floats, log: OracleLog, feedback: Path, of: Run) -> Floats:
    """Scores (N, K), those that nobody judged by the feedback on them.

    Raises:
        DataError: when the log was labelled with right answers.
        MismatchError: when the feedback is on other questions.
    """
    if not scored_by_agreement(log.metadata):
        raise DataError(
            f"{of.log_folder} was labelled with reference answers; feedback counts only for "
            f"questions that have none (metric {AGREEMENT!r})."
        )
    told = known_scores(log, read_judged(feedback), of=of.log_folder)
    return np.where(np.isnan(scores), told, scores)


def _answers(log: OracleLog, rows: np.ndarray) -> Texts | None:
    """What every option said (N, K); None for a log that does not know it all."""
    answers = log.laid_out("answer")[rows]
    return None if any(text is None for text in answers.flat) else answers


def _news(log: OracleLog, rows: np.ndarray, known: Floats | None) -> News:
    """What answers tell a cascade.

    Raises:
        DataError: when an answer has no confidence or log-probability.
    """
    told = {
        name: np.asarray(log.laid_out(name)[rows], dtype=np.float64)
        for name in ("confidence", "logprob")
    }
    for name, values in told.items():
        if not np.isfinite(values).all():
            raise DataError(
                f"A cascade goes by the {name} of answers; {int((~np.isfinite(values)).sum())} of "
                f"{values.size} in the log have none. Label the traffic with the model that was "
                "calibrated."
            )
    return News(costs=log.costs[rows], known=None if known is None else known[rows], **told)


def _sample(router: ScaleRouter, table: FeatureTable, log: OracleLog, rows: np.ndarray) -> Sample:
    """The blocks that the router reads, of some rows of the log."""
    aligned = table.align([log.ids[row] for row in rows])
    blocks = {name: aligned.blocks[name] for name in router.blocks}
    return Sample(blocks=blocks, groups=log.groups[rows])


def _check_fits(router: ScaleRouter, traffic: OracleLog, fresh: Run) -> None:
    router.check_options(traffic.options, of=f"the traffic in {fresh.root}")
    if traffic.cost_unit != router.cost_unit:
        raise MismatchError(
            f"The router's costs are in {router.cost_unit}, those of the traffic in {fresh.root} "
            f"in {traffic.cost_unit}. Label the traffic like the run."
        )


def _refuse_known(log: OracleLog, split: Split, traffic: OracleLog, fresh: Run) -> None:
    """Refuse traffic about images that the router or the policy was made with."""
    used = {str(log.groups[row]) for part in USED for row in split.part(part)}
    shared = sorted(used & set(traffic.groups.tolist()))
    if shared:
        raise DataError(
            f"The traffic in {fresh.root} shares {len(shared)} images (groups) with the parts "
            f"{', '.join(USED)} of the run, such as {shared[0]!r}: on those the policy says "
            "nothing new. Leave them out, or rename the groups if they are other images."
        )

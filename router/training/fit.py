"""Training: from an oracle log and features to a ScaleRouter.

Only the parts `fit` and `tune` are looked at. The default estimator divides them into folds itself
and is calibrated on its held-out estimates. The others are fitted on `fit` and calibrated on
`tune`; their hyper-parameters are those of least log-loss, held out by folds of both parts where
these are small, on `tune` where that is enough.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from m3router.data.errors import DataError, MismatchError, NotLearnableError
from m3router.data.log.checks import scored_by_agreement
from m3router.data.log.oracle_log import OracleLog
from m3router.data.log.parts import Gaps, part_rows
from m3router.data.log.warnings import same_options, same_sentence
from m3router.data.manifest import library_versions
from m3router.data.splits.folds import cross_fit
from m3router.data.splits.split import Split
from m3router.router.estimators import DEFAULT, estimator_class
from m3router.router.estimators.base import (
    Floats,
    GroupedEstimator,
    SufficiencyEstimator,
    Validation,
    log_loss,
)
from m3router.router.estimators.classifier import Classifier, ClassifierEstimator, check_classifier
from m3router.router.features.size import image_sizes
from m3router.router.features.table import FeatureTable
from m3router.router.monitoring.familiarity import familiarity_of
from m3router.router.policies.expected_costs import ExpectedCosts
from m3router.router.training.held_out import HeldOut
from m3router.router.training.probability_calibration import choose_calibration
from m3router.router.training.scale_router import DATASETS, RECOGNISED, TOLD, Datasets, ScaleRouter

logger = logging.getLogger(__name__)

Rows = npt.NDArray[np.intp]
Trials = list[dict[str, Any]]

MANY = 1000
"""Examples of the tune split that are enough to choose hyper-parameters on it alone."""
FOLDS = 5


def train_router(
    log: OracleLog,
    features: FeatureTable,
    split: Split,
    *,
    estimator: str | Classifier = DEFAULT,
    blocks: Sequence[str] | None = None,
    seed: int = 0,
    gaps: Gaps = "error",
    hyperparameters: Mapping[str, Any] | None = None,
    threads: int = 1,
    datasets: Datasets | None = None,
) -> ScaleRouter:
    """Learn P(correct at every option | features) from an oracle log.

    Args:
        log: what every option answered.
        features: rows for (at least) every complete example of the log.
        split: made from the log's groups; only `fit` and `tune` are read.
        estimator: a name in `m3router.router.estimators.ESTIMATORS`, or an object with `fit` and
            `predict_proba`, such as `RandomForestClassifier()`: the router then works in memory,
            but cannot be saved (`m3router.router.estimators.classifier`).
        blocks: feature blocks to read, all when None.
        seed: of the estimator, where it draws at random.
        gaps: "error" refuses a log with gaps, "drop" leaves those examples out.
        hyperparameters: of a named estimator's constructor: exactly this candidate is fitted, with
            defaults for what is not named. When None, the estimator's own candidates are tried.
        threads: of the fit, where the estimator takes them; not part of what is recorded, since
            they decide how fast a router is fitted and, up to rounding, not which.
        datasets: whether the router is told which dataset a question is from, where its estimator
            can be; None for `datasets_of`.

    Raises:
        NotLearnableError: when `fit` or `tune` is empty, or in `fit` everything is right,
            everything is wrong, or no score depends on the option.
        MismatchError: when examples of the log, or blocks, are not in the features.
        DataError: for gaps with "error", an unknown estimator or hyper-parameter, or an object
            that is not a classifier or cannot be fitted.
    """
    if isinstance(estimator, str):
        kind, name = estimator_class(estimator), estimator
    else:
        check_classifier(estimator)
        kind, name = ClassifierEstimator, type(estimator).__name__
        if hyperparameters is not None:
            raise DataError(
                f"`hyperparameters` are of a named estimator; set those of {name} where you make "
                "it."
            )
        hyperparameters = {"classifier": estimator}
    rows = {part: part_rows(log, split, part, gaps=gaps) for part in ("fit", "tune")}
    refuse_unlearnable(log, rows)
    names = list(features.blocks) if blocks is None else list(blocks)
    refuse_foreign(log, features)
    if not names or not set(names) <= set(features.blocks):
        raise MismatchError(
            f"The feature blocks {names} were asked for, but the table has {features.widths}."
        )
    widths = tuple(features.widths[name] for name in names)
    if hyperparameters is None:
        candidates = kind.candidates(seed=seed, widths=widths)
    else:
        candidates = [kind.configured(hyperparameters, seed=seed, widths=widths)]
    for candidate in candidates:
        if hasattr(candidate, "threads") and "threads" not in (hyperparameters or {}):
            candidate.threads = threads
    lesson = _Lesson(log=log, features=features, blocks=names, rows=rows)
    if isinstance(candidates[0], GroupedEstimator):
        mode = datasets or datasets_of(log)
        fitted, trials, held, judged = _fit_by_group(candidates, lesson, told=mode == TOLD)
    else:
        fitted, trials = _best(candidates, lesson, seed=seed)
        held, judged, mode = fitted.predict(lesson.matrix(rows["tune"])), rows["tune"], None
    calibration, calibrated = choose_calibration(
        held, log.scores[judged], groups=log.groups[judged]
    )
    held_out = None
    if isinstance(fitted, GroupedEstimator):
        ids = tuple(str(log.ids[row]) for row in judged)
        held_out = HeldOut(ids=ids, p=calibration.apply(held))
    return ScaleRouter(
        estimator=fitted,
        estimator_name=name,
        blocks={name: features.widths[name] for name in names},
        options=tuple(log.options),
        cost_unit=log.cost_unit,
        metadata={
            "log": dict(log.metadata),
            "features": dict(features.metadata),
            "split": split.fingerprint,
            "n": {part: len(index) for part, index in rows.items()},
            "seed": seed,
            "gaps": gaps,
            "hyperparameters": fitted.hyperparameters,
            "tuned": trials,
            **({"members": fitted.shares_} if isinstance(fitted, GroupedEstimator) else {}),
            **({DATASETS: mode} if mode else {}),
            "calibration": calibrated,
            "versions": library_versions(),
        },
        calibration=calibration,
        expected_costs=expected_costs(log, features, rows["fit"]),
        held_out=held_out,
        familiarity=familiarity_of(log, features, split, blocks=names, gaps=gaps, seed=seed),
    )


def expected_costs(log: OracleLog, features: FeatureTable, rows: Rows) -> ExpectedCosts | None:
    """What options are expected to cost before an answer, learned from some rows of a log.

    None where the model that answered made the features: its encoding says what a scale costs.
    """
    revision = str(log.metadata.get("revision", ""))[:16]
    source = str(features.metadata.get("source", ""))
    if revision and source.rpartition("@")[2] == revision:
        return None
    counted = False
    if "image_tokens_from" in log.frame:
        every = np.isfinite(log.costs).all(axis=1)  # policies go by them in all parts
        origin, tokens = (log.laid_out(f"image_tokens{end}")[every] for end in ("_from", ""))
        counted = bool(np.all(origin == "counted") and np.all(tokens == log.costs[every]))
    sizes = image_sizes(features)
    if sizes is not None:
        place = {name: row for row, name in enumerate(features.ids)}
        sizes = sizes[[place[log.ids[row]] for row in rows]]
    return ExpectedCosts.learn(log.costs[rows], sizes, counted=counted)


def datasets_of(log: OracleLog) -> Datasets:
    """How a router learns which dataset a question is from, unless something else is asked for.

    An imported log says it and will go on saying it; a log that was labelled here is for a
    pipeline, whose requests are images and questions alone.
    """
    return TOLD if "source" in log.metadata else RECOGNISED


@dataclass(frozen=True, kw_only=True)
class _Lesson:
    """A log, the blocks of its features that are read, and the rows of fit and tune."""

    log: OracleLog
    features: FeatureTable
    blocks: list[str]
    rows: dict[str, Rows]

    def matrix(self, rows: Rows) -> Floats:
        """Features (n, D) of some rows; in a file where they are many."""
        return self.features.matrix(self.blocks, ids=[self.log.ids[row] for row in rows])

    @property
    def both(self) -> Rows:
        """Rows of fit and tune together."""
        return np.concatenate([self.rows["fit"], self.rows["tune"]])


def _fit_by_group(
    candidates: list[Any], lesson: _Lesson, *, told: bool
) -> tuple[SufficiencyEstimator, Trials, Floats, Rows]:
    """The candidate of least held-out log-loss, its held-out probabilities, and of which rows."""
    rows = lesson.both
    X, log, best, trials = lesson.matrix(rows), lesson.log, None, []
    for candidate in candidates:
        held = candidate.fit_groups(
            X,
            log.scores[rows],
            groups=log.groups[rows],
            datasets=log.datasets[rows].astype(str),
            told=told,
        )
        loss = log_loss(log.scores[rows], held)
        trials.append(_trial(candidate, loss))
        if best is None or loss < best[0]:
            best = loss, candidate, held
    if best is None:
        raise NotLearnableError("The estimator offers no candidates to fit.")
    return best[1], trials, best[2], rows


def _best(
    candidates: list[Any], lesson: _Lesson, *, seed: int
) -> tuple[SufficiencyEstimator, Trials]:
    """The candidate of least log-loss, fitted on `fit`, stopped on `tune` where it stops early."""
    scores, rows = lesson.log.scores, lesson.rows
    X = {part: lesson.matrix(index) for part, index in rows.items()}
    held_back = Validation(X=X["tune"], Y=scores[rows["tune"]])

    def fit(candidate: Any) -> SufficiencyEstimator:
        fitted: SufficiencyEstimator = candidate.fit(
            X["fit"], scores[rows["fit"]], validation=held_back
        )
        return fitted

    if not candidates:
        raise NotLearnableError("The estimator offers no candidates to fit.")
    folded = len(candidates) > 1 and len(rows["tune"]) < MANY
    losses = _held_out_losses(candidates, lesson, seed=seed) if folded else None
    if losses is None:
        fitted = [fit(candidate) for candidate in candidates]
        losses = [log_loss(held_back.Y, one.predict(held_back.X)) for one in fitted]
    chosen = int(np.argmin(losses))
    trials = [_trial(one, loss) for one, loss in zip(candidates, losses, strict=True)]
    return fit(candidates[chosen]) if folded else fitted[chosen], trials


def _held_out_losses(candidates: list[Any], lesson: _Lesson, *, seed: int) -> list[float] | None:
    """Log-loss of each candidate on folds of fit and tune; None with too few groups for folds."""
    log, rows = lesson.log, lesson.both
    X = lesson.matrix(rows)
    place = {row: at for at, row in enumerate(rows.tolist())}
    groups = len(np.unique(log.groups[rows]))
    if groups < 2 * FOLDS:
        return None
    losses = np.zeros(len(candidates))
    for fold in cross_fit(log.groups, lesson.rows, folds=FOLDS, seed=seed):
        fit, stop, judge = (
            np.array([place[row] for row in part.tolist()], dtype=np.intp)
            for part in (fold.fit, fold.stop, fold.judge)
        )
        held_back = Validation(X=X[stop], Y=log.scores[rows[stop]])
        for number, candidate in enumerate(candidates):
            fitted = candidate.fit(X[fit], log.scores[rows[fit]], validation=held_back)
            judged = log_loss(log.scores[rows[judge]], fitted.predict(X[judge]))
            losses[number] += judged * len(judge) / len(rows)
    return losses.tolist()


def _trial(candidate: SufficiencyEstimator, loss: float) -> dict[str, Any]:
    settings = candidate.hyperparameters
    logger.info("tried %s: log-loss %.4f", settings, loss)
    return {"hyperparameters": settings, "log_loss": loss}


def refuse_foreign(log: OracleLog, features: FeatureTable) -> None:
    """Check that every complete example, of any part, has features.

    Raises:
        MismatchError: naming the first ones that have none.
    """
    known = set(features.ids)
    complete = [name for name, whole in zip(log.ids, log.complete, strict=True) if whole]
    missing = [name for name in complete if name not in known]
    if missing:
        raise MismatchError(
            f"The oracle log has {len(complete)} complete examples, of which {len(missing)} are "
            f"not in the feature table of {len(features)} (first missing: {missing[:3]}; the "
            f"table begins with {list(features.ids[:3])}). Compute features for the examples "
            "that were labelled."
        )


def refuse_unlearnable(log: OracleLog, rows: Mapping[str, Any]) -> None:
    """Check that `fit` and `tune` hold rows, and that `fit` holds a lesson.

    Args:
        log: with the targets in place of the scores.
        rows: part -> rows of the log.

    Raises:
        NotLearnableError: saying what is missing.
    """
    for part, index in rows.items():
        if not len(index):
            raise NotLearnableError(
                f"A router cannot be learned: none of the {int(np.sum(log.complete))} complete "
                f"examples of {len(log.ids)} in the log is in the {part!r} split. Label more "
                "questions, or split them again."
            )
    scores = log.scores[rows["fit"]]
    n, options = len(scores), ", ".join(log.options)
    if np.all(scores >= 1):
        raise NotLearnableError(
            f"A router cannot be learned: on all {n} examples of the fit split every option "
            f"({options}) is right. The cheapest one, {log.options[0]}, suffices; use it fixed, "
            "or label harder questions."
        )
    if np.all(scores <= 0):
        raise NotLearnableError(
            f"A router cannot be learned: on all {n} examples of the fit split every option "
            f"({options}) is wrong. Check the model, the answers and the metric of the log."
        )
    if np.all(scores == scores[:, :1]):
        raise NotLearnableError(
            f"A router cannot be learned: on each of the {n} examples of the fit split all options "
            f"({options}) have the same score, so that the choice never matters. Use the "
            f"cheapest one, {log.options[0]}, or label questions that need detail."
        )


def warn_of_constants(log: OracleLog, rows: Any) -> None:
    """Tell of options with one score everywhere, and of those that change nothing.

    Args:
        log: with the targets in place of the scores.
        rows: of the fit split.
    """
    for names in same_options(log):
        logger.warning("%s", same_sentence(names))
    scores = log.scores[rows]
    if scored_by_agreement(log.metadata):
        scores = scores[:, :-1]  # the finest option agrees with itself
    agreeing = log.options[: scores.shape[1]]
    for option, low, high in zip(agreeing, scores.min(0), scores.max(0), strict=True):
        if low == high:
            logger.warning(
                "Option %s scores %g on all %d examples of the fit split: the router takes that "
                "for its probability everywhere. Check its answers, or leave it out of the log.",
                option,
                low,
                len(scores),
            )

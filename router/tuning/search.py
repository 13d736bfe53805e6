"""One trial after another: draw a setting, look at it cheaply, prune it or judge it in full."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from lightgbm.basic import LightGBMError
from optuna.trial import FrozenTrial, Trial, TrialState

from m3router.data.errors import DataError, M3RouterError
from m3router.router.estimators.base import Floats
from m3router.router.sealed_files import content_hash
from m3router.router.tuning.objective import dominated, halves, overall
from m3router.router.tuning.spaces import draw
from m3router.router.tuning.stopping import Stop
from m3router.router.tuning.tuning_data import TuningData
from m3router.router.tuning.workers import WORKER, fail_dead, live, this_worker

HYPERPARAMETERS, RUNG, CURVE, LOG_LOSS, CAUSE, SEAL = (
    "hyperparameters",
    "rung",
    "curve",
    "log_loss",
    "cause",
    "sha256",
)
"""What a trial keeps in its user attributes, beside its values."""
INTERRUPTED = "interrupted"
WARM_UP = 8
"""Trials that must have reached the rung before one is pruned there."""
FAILURES = (
    M3RouterError,
    ValueError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    LightGBMError,
)
"""What bad hyper-parameters may raise; anything else is a bug and ends the search."""


@dataclass(frozen=True)
class Counts:
    """Trials of a study: completed, pruned, failed, and being run by a living process."""

    complete: int
    pruned: int
    failed: int
    running: int

    @property
    def finished(self) -> int:
        """Trials that need not be run again; interrupted ones are not among them."""
        return self.complete + self.pruned + self.failed


@dataclass(frozen=True)
class Objective:
    """Judges one trial.

    Pruning is ours: Optuna's pruners rest on `Trial.report`, which refuses studies with several
    objectives (`optuna/trial/_trial.py`), while `TrialPruned` itself is accepted there
    (`optuna/study/_tell.py`). The rule: every trial is first fitted on a quarter of the images
    of one fold; it is pruned when its curve there is at no budget above the median of the curves
    of earlier trials there, and at one below. It waits for `WARM_UP` earlier trials.

    Attributes:
        data: what may be read.
        estimators: names to choose from.
        stop: lets signals interrupt the fits.
    """

    data: TuningData
    estimators: tuple[str, ...]
    stop: Stop

    def __call__(self, trial: Trial) -> tuple[float, float]:
        """Fit and judge; the two values are `OBJECTIVES`.

        Raises:
            TrialPruned: at the rung.
            KeyboardInterrupt: a signal came.
        """
        trial.set_user_attr(WORKER, this_worker())
        try:
            return self._judge(trial)
        except KeyboardInterrupt:
            trial.set_user_attr(CAUSE, INTERRUPTED)
            trial.study.enqueue_trial(trial.params)  # the next one, whoever runs it
            raise
        except FAILURES as error:
            trial.set_user_attr(CAUSE, f"{type(error).__name__}: {error}")
            raise

    def _judge(self, trial: Trial) -> tuple[float, float]:
        blocks = list(self.data.blocks)
        name, chosen, settings = draw(trial, estimators=self.estimators, blocks=blocks)
        trial.set_user_attr(HYPERPARAMETERS, settings)
        look = self.data.look
        with self.stop.interruptible():
            p = self.data.predict(name, chosen, settings, look)
            reached, _ = self.data.judged(look.judge, p, chosen)
        trial.set_user_attr(RUNG, reached.tolist())
        earlier = _rungs(trial)
        if len(earlier) >= WARM_UP and dominated(reached, earlier):
            raise optuna.TrialPruned(f"dominated by the median of {len(earlier)} earlier trials")
        with self.stop.interruptible():
            folds = self.data.folds
            parts = [self.data.predict(name, chosen, settings, fold) for fold in folds]
            rows = np.concatenate([fold.judge for fold in folds])
            reached, loss = self.data.judged(rows, np.concatenate(parts), chosen)
        trial.set_user_attr(CURVE, reached.tolist())
        trial.set_user_attr(LOG_LOSS, loss)
        trial.set_user_attr(SEAL, seal_of(trial.params, trial.user_attrs))
        return halves(reached)


def seal_of(params: Mapping[str, Any], attributes: Mapping[str, Any]) -> str:
    """SHA-256 of what a completed trial tried and found; its values follow from its curve."""
    found = {name: attributes.get(name) for name in (HYPERPARAMETERS, CURVE, LOG_LOSS)}
    return content_hash({"params": dict(params), **found})


def check_untouched(trial: FrozenTrial) -> None:
    """Refuse a completed trial that is not as it was kept.

    Raises:
        DataError: when its settings or results were changed in the storage.
    """
    curve = trial.user_attrs.get(CURVE)
    same = curve is not None and list(halves(np.asarray(curve))) == list(trial.values)
    if not same or trial.user_attrs.get(SEAL) != seal_of(trial.params, trial.user_attrs):
        raise DataError(
            f"Trial {trial.number} of the tuning study is damaged or was changed: its settings or "
            "results are not those that were kept. Tune again under another --study name."
        )


def search(
    study: optuna.Study,
    objective: Objective,
    *,
    trials: int,
    timeout: float | None,
    progress: Callable[[Counts, float | None], None] | None = None,
) -> Counts:
    """Run trials until the study has enough of them, time is up, or a signal comes.

    Args:
        study: with the trials so far, of this and of other processes.
        objective: judges a trial; its `stop` ends the search.
        trials: finished trials that the study shall have, those of other processes included.
        timeout: seconds after which no trial is begun any more.
        progress: called before the first and after every trial with the counts and the best mean
            of both objectives so far.
    """
    began = time.monotonic()
    while True:
        fail_dead(study)
        known = study.get_trials(deepcopy=False)
        counts = count(known)
        if progress:
            values = [overall(t.values) for t in known if t.state == TrialState.COMPLETE]
            progress(counts, max(values, default=None))
        if objective.stop.asked or counts.finished + counts.running >= trials:
            return counts
        if timeout is not None and time.monotonic() - began >= timeout:
            return counts
        try:
            study.optimize(objective, n_trials=1, catch=FAILURES)
        except KeyboardInterrupt:
            objective.stop.asked = True


def count(trials: Sequence[FrozenTrial]) -> Counts:
    """Count trials by how they ended."""
    states = [trial.state for trial in trials]
    failed = [trial for trial in trials if trial.state == TrialState.FAIL]
    return Counts(
        complete=states.count(TrialState.COMPLETE),
        pruned=states.count(TrialState.PRUNED),
        failed=sum(trial.user_attrs.get(CAUSE, INTERRUPTED) != INTERRUPTED for trial in failed),
        running=sum(live(trial) for trial in trials if trial.state == TrialState.RUNNING),
    )


def _rungs(trial: Trial) -> list[Floats]:
    return [
        np.asarray(other.user_attrs[RUNG])
        for other in trial.study.get_trials(deepcopy=False)
        if other.number < trial.number and RUNG in other.user_attrs
    ]

"""The stage that searches for a router's setting, and what `train` takes from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m3router.data.errors import MismatchError
from m3router.data.json_files import values_of
from m3router.data.log.oracle_log import OracleLog
from m3router.data.log.parts import Gaps, require_choice
from m3router.data.plain_files import is_there
from m3router.data.progress import watched
from m3router.data.splits.split import Split
from m3router.router.features.table import FeatureTable
from m3router.router.runs.run import AnyRun, Run, as_run
from m3router.router.sealed_files import check_entries
from m3router.router.stages.splitting import Splitting, run_split
from m3router.router.tracking.tracker import Place
from m3router.router.tracking.trackers import open_trackers
from m3router.router.tracking.tuning import TrialLog, log_tuning
from m3router.router.training.targets import DEFAULT, apply_rule
from m3router.router.tuning.results import (
    FILE,
    document,
    finished,
    read_results,
    row_of,
    write_results,
)
from m3router.router.tuning.search import Counts, Objective, search
from m3router.router.tuning.setting import Tuned
from m3router.router.tuning.spaces import known_estimators, searchable
from m3router.router.tuning.stopping import stop_on_signals
from m3router.router.tuning.store import JOURNAL, open_study
from m3router.router.tuning.tuning_data import gather

SPLIT = "split.json"


@dataclass(frozen=True, kw_only=True)
class Search:
    """What is searched, where it is kept, and for how long.

    Attributes:
        trials: finished trials that the study shall have in the end.
        timeout: seconds after which this process begins no trial; None for no limit.
        storage: "journal" (a file in the run folder) or a database URL.
        study: name of the study.
        estimators: names in `m3router.router.estimators.ESTIMATORS`; None for all that have a
            `SPACE`.
        folds: of cross-fitting; 1 fits on `fit` and judges on `tune` alone.
    """

    trials: int = 100
    timeout: float | None = None
    storage: str = JOURNAL
    study: str = "default"
    estimators: Sequence[str] | None = None
    folds: int = 3


def tuning_folder(run: Run) -> Path:
    """Where a run keeps its tuning."""
    return run.root / "tuning"


def tune_stage(
    run: AnyRun,
    wanted: Search,
    *,
    seed: int = 0,
    gaps: Gaps = "error",
    rule: str = DEFAULT,
    splitting: Splitting | None = None,
    progress: Callable[[Counts, float | None], None] | bool | None = True,
    log_to: str | Sequence[str] | None = None,
    log_to_project: str | None = None,
) -> tuple[dict[str, Any], Counts, bool]:
    """Search for an estimator, its hyper-parameters and feature blocks, on `fit` and `tune`.

    Args:
        run: must hold `log/` and `features/`; receives `tuning/`.
        wanted: what to search.
        seed: of the split, the folds, the search and the estimators.
        gaps: "error" refuses a log with gaps, "drop" leaves those examples out.
        rule: a name in `m3router.router.training.targets.RULES`.
        splitting: how to split; None takes the run's own split, or makes the one of `train`.
        progress: True shows a bar on a terminal and in a notebook; False shows nothing; a function
            is called before the first and after every trial with the counts and the best mean of
            both objectives so far.
        log_to: experiment trackers that are told, names in `m3router.router.tracking.TRACKERS`.
        log_to_project: project of theirs; None for the tracker's own setting, or "m3router".

    Returns:
        The document in `tuning/study.json`, how many trials the study has, and whether a signal
        ended the search.

    Raises:
        KeyboardInterrupt: a signal came before any trial was completed.
        DataError: when nothing can be tuned, no trial was completed, or the storage fails.
        MismatchError: when the study was made from another log, features, split or options.
        NotLearnableError: when everything is right, wrong, or independent of the option.
    """
    run = as_run(run)
    named = searchable() if wanted.estimators is None else wanted.estimators
    estimators = known_estimators(named)
    run = run.opened()
    log, features, split = _read(run, rule=rule, seed=seed, splitting=splitting)
    found = gather(log, features, split, gaps=gaps, folds=wanted.folds, seed=seed)
    made_from = {
        **found.hashes,
        "estimators": list(estimators),
        "blocks": list(found.blocks),
        "rule": rule,
        "gaps": gaps,
        "folds": wanted.folds,
        "seed": seed,
    }
    study = open_study(
        wanted.storage,
        name=wanted.study,
        journal=tuning_folder(run) / "journal.log",
        made_from=made_from,
        seed=seed,
    )
    place = Place.of(run.root, "tune", log_to_project)
    with open_trackers(log_to, place) as trackers, stop_on_signals() as stop:
        trackers.settings({**made_from, "study": wanted.study, "trials": wanted.trials})
        objective = Objective(found, estimators, stop)
        with watched(progress, "tuning", _told(wanted.trials)) as show:
            counts = search(
                study,
                objective,
                trials=wanted.trials,
                timeout=wanted.timeout,
                progress=TrialLog(trackers, study, show),
            )
        if stop.asked and not counts.complete:  # there is nothing to write yet
            raise KeyboardInterrupt
        split.write(tuning_folder(run) / SPLIT)
        while True:
            results = document(study, made_from=made_from, unit=log.cost_unit, at=found.at.tolist())
            write_results(results, study, tuning_folder(run))
            # Of processes that end together, the last to write must have seen all trials.
            if len(finished(study)) == len(results["trials"]):
                break
        log_tuning(trackers, results)
    return results, counts, stop.asked


def _told(trials: int) -> Callable[[Counts, float | None], tuple[int, int, str]]:
    def told(counts: Counts, best: float | None) -> tuple[int, int, str]:
        return counts.finished, trials, tuning_note(counts, best)

    return told


def tuning_note(counts: Counts, best: float | None) -> str:
    """What a bar says beside the count of trials."""
    shown = "" if best is None else f"best {100 * best:.2f} %, "
    return f"{shown}{counts.pruned} pruned, {counts.failed} failed"


def tuned_setting(run: AnyRun, *, trial: int | None = None) -> Tuned:
    """What `tune_stage` found, after checking that it was found on this very run.

    Args:
        run: must hold `log/`, `features/` and `tuning/`.
        trial: number of a completed trial; None for the chosen one.

    Raises:
        DataError: when there is no such trial, or a part of the run is missing or damaged.
        MismatchError: when log, features or split are not those that tuning read.
    """
    run = as_run(run)
    path = tuning_folder(run) / FILE
    found = read_results(tuning_folder(run))
    with values_of(path, redo="Run `m3router tune` again."):
        made_from, row = found["made_from"], row_of(found, trial)
        setting = {
            "estimator": row["estimator"],
            "blocks": tuple(row["blocks"]),
            "hyperparameters": row["hyperparameters"],
            "seed": made_from["seed"],
            "gaps": made_from["gaps"],
            "rule": made_from["rule"],
            "record": {
                "study": found["study"],
                "sha256": found["sha256"],
                "trial": row["number"],
                "chosen": row["number"] == found["chosen"],
                "values": dict(zip(found["objectives"], row["values"], strict=True)),
                "trials": len(found["trials"]),
            },
        }
        check_entries(Tuned, setting)
        folds = int(made_from["folds"])
    run = run.opened()
    log = run.log()
    features = run.features(log)
    split = Split.read(tuning_folder(run) / SPLIT, log.groups)
    hashes = gather(
        apply_rule(log, made_from["rule"]),
        features,
        split,
        gaps=made_from["gaps"],
        folds=folds,
        seed=made_from["seed"],
    ).hashes
    other = [name for name, digest in hashes.items() if made_from.get(name) != digest]
    if other:
        sides = ", ".join(f"{n} then {made_from.get(n)!s:.12}, now {hashes[n][:12]}" for n in other)
        raise MismatchError(
            f"The study in {tuning_folder(run)} was made from another {' and '.join(other)} than "
            f"the run has now. Run `m3router tune` with another --study. (SHA-256: {sides})"
        )
    return Tuned(split=split, **setting)


def _read(
    run: Run, *, rule: str, seed: int, splitting: Splitting | None
) -> tuple[OracleLog, FeatureTable, Split]:
    log = run.log()
    require_choice(log)
    features = run.features(log)
    try:
        own = splitting is None and is_there(run.split_file)
        split = run.split(log) if own else run_split(run, log, splitting, seed=seed)
    except MismatchError:  # the log has more examples than it had then
        split = run_split(run, log, None, seed=seed)
    return apply_rule(log, rule), features, split

"""What a study found: the Pareto set, the chosen trial, and the files that say so."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from m3router.data.errors import DataError
from m3router.data.manifest import library_versions
from m3router.data.plain_files import is_there
from m3router.router.reports.tables import write_csv
from m3router.router.sealed_files import read_sealed, write_sealed
from m3router.router.tuning.objective import OBJECTIVES, overall
from m3router.router.tuning.search import (
    CAUSE,
    CURVE,
    HYPERPARAMETERS,
    INTERRUPTED,
    LOG_LOSS,
    check_untouched,
)

FILE, KIND, SCHEMA = "study.json", "tuning", 1
RULE = (
    "of the trials that no other one beats in one objective without losing in the other, the one "
    "with the largest mean of both; ties by the smaller log-loss, then the earlier trial"
)
FEWEST_FOR_IMPORTANCE = 20

Document = dict[str, Any]


def document(
    study: optuna.Study, *, made_from: Mapping[str, Any], unit: str, at: Sequence[float]
) -> Document:
    """Everything that a study found, JSON-able; equal searches give equal documents.

    Args:
        study: with the trials so far; those still running are left out.
        made_from: what it was made from.
        unit: of the budgets.
        at: budgets (B,) of the trials' curves.

    Raises:
        DataError: when no trial was completed, naming the last one's cause, or one was changed.
    """
    done = finished(study)
    complete = [trial for trial in done if trial.state == TrialState.COMPLETE]
    for trial in complete:
        check_untouched(trial)
    if not complete:
        causes = [_cause(trial) for trial in done if trial.state == TrialState.FAIL]
        last = f" The last one failed: {causes[-1]}" if causes else ""
        raise DataError(
            f"No trial of the study {study.study_name!r} was completed.{last} Give it more trials "
            "or time."
        )
    pareto = sorted(trial.number for trial in study.best_trials)
    chosen = min((t for t in complete if t.number in pareto), key=_order)
    return {
        "kind": KIND,
        "schema": SCHEMA,
        "study": study.study_name,
        "made_from": dict(made_from),
        "objectives": list(OBJECTIVES),
        "budgets": list(at),
        "cost_unit": unit,
        "trials": [_row(trial) for trial in done],
        "pareto": pareto,
        "chosen": chosen.number,
        "rule": RULE,
        "importance": _importance(complete, chosen),
        "versions": {**library_versions(), "optuna": optuna.__version__},
    }


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that ended, in whatever way."""
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]


def write_results(found: Document, study: optuna.Study, folder: Path) -> list[Path]:
    """Write study.json (sealed), tuning.csv and the figures; returns their paths."""
    from m3router.router.tuning.plots import write_figures  # matplotlib is slow to import

    files = write_csv({"tuning": _table(found, study)}, folder)
    files += write_figures(found, folder)
    write_sealed(folder / FILE, found)
    return [folder / FILE, *files]


def read_results(folder: Path) -> Document:
    """Read study.json; its seal stays in the result under "sha256".

    Raises:
        DataError: when it is missing, cut short or edited.
    """
    if not is_there(folder / FILE):
        raise DataError(
            f"Nothing was tuned yet: {folder / FILE} does not exist. Run `m3router tune` first."
        )
    return read_sealed(folder / FILE, kind=KIND, schema=SCHEMA)


def row_of(found: Document, number: int | None = None) -> dict[str, Any]:
    """The chosen trial, or the completed trial of that number.

    Raises:
        DataError: when there is no such trial, or it was not completed.
    """
    wanted = found["chosen"] if number is None else number
    for row in found["trials"]:
        if row["number"] == wanted and row["state"] == "complete":
            return dict(row)
    raise DataError(
        f"The study {found['study']!r} has no completed trial {wanted}. The ones that no other "
        f"beats are {', '.join(map(str, found['pareto']))}."
    )


def _order(trial: FrozenTrial) -> tuple[float, float, int]:
    return -overall(trial.values), trial.user_attrs[LOG_LOSS], trial.number


def _row(trial: FrozenTrial) -> dict[str, Any]:
    values = trial.values if trial.state == TrialState.COMPLETE else None
    blocks = trial.params.get("blocks")
    return {
        "number": trial.number,
        "state": {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned"}.get(
            trial.state, "failed"
        ),
        "estimator": trial.params.get("estimator"),
        "blocks": None if blocks is None else str(blocks).split("+"),
        "hyperparameters": trial.user_attrs.get(HYPERPARAMETERS),
        "values": values,
        "curve": trial.user_attrs.get(CURVE),
        "log_loss": trial.user_attrs.get(LOG_LOSS),
        "cause": _cause(trial) if trial.state == TrialState.FAIL else None,
    }


def _cause(trial: FrozenTrial) -> str:
    cause = str(trial.user_attrs.get(CAUSE, "its process ended"))
    return "it was interrupted" if cause == INTERRUPTED else cause


def _importance(
    complete: Sequence[FrozenTrial], chosen: FrozenTrial
) -> dict[str, dict[str, float]]:
    """Shares of the variation of the mean of both values (fANOVA), among trials alike in kind.

    Of estimator and blocks among all trials, and of hyper-parameters among those that have the
    chosen estimator and blocks. NOTE: not Optuna's default, PED-ANOVA: it asks what separates the
    best trials from the tried ones, and where the search has turned to one estimator, that seems
    not to matter at all.
    """
    kind = {name: chosen.params[name] for name in ("estimator", "blocks")}
    alike = [t for t in complete if {name: t.params[name] for name in kind} == kind]
    label = f"{kind['estimator']} on {kind['blocks']}"
    found = {}
    own = [name for name in chosen.params if name not in kind]
    for name, trials, params in (("all trials", complete, list(kind)), (label, alike, own)):
        if len(trials) >= FEWEST_FOR_IMPORTANCE:
            some = optuna.create_study(directions=["maximize"] * len(OBJECTIVES))
            some.add_trials(trials)
            shares = optuna.importance.get_param_importances(
                some,
                evaluator=optuna.importance.FanovaImportanceEvaluator(n_trees=32, seed=0),
                params=params,
                target=lambda trial: overall(trial.values),
            )
            found[name] = {key: float(share) for key, share in shares.items()}
    return found


def _table(found: Document, study: optuna.Study) -> tuple[Sequence[str], list[Sequence[Any]]]:
    seconds = {
        trial.number: trial.duration.total_seconds() if trial.duration else None
        for trial in study.get_trials(deepcopy=False)
    }
    header = ["trial", "state", "estimator", "blocks", *OBJECTIVES, "mean of both", "log_loss"]
    rows: list[Sequence[Any]] = []
    for row in found["trials"]:
        values = row["values"] or [None, None]
        rows.append(
            [
                row["number"],
                row["state"],
                row["estimator"],
                "+".join(row["blocks"] or []),
                *values,
                overall(values) if row["values"] else None,
                row["log_loss"],
                int(row["number"] in found["pareto"]),
                int(row["number"] == found["chosen"]),
                seconds.get(row["number"]),
                json.dumps(row["hyperparameters"], sort_keys=True),
                row["cause"],
            ]
        )
    return [*header, "pareto", "chosen", "seconds", "hyperparameters", "cause"], rows

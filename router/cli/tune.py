"""`m3router tune`."""

from __future__ import annotations

from typing import Annotated, Any

import optuna
import typer

from m3router.router.cli import next_steps
from m3router.router.cli.console import progress, say, show_table
from m3router.router.cli.exit_codes import STOPPED
from m3router.router.cli.options import (
    GapRule,
    LogTo,
    LogToProject,
    Rule,
    RunFolder,
    SplitColumn,
    SplitFile,
    SplitId,
    SplitShares,
    one_name,
    seed_option,
    splitting_of,
)
from m3router.router.cli.streams import out
from m3router.router.runs.run import Run
from m3router.router.stages.tuning import Search, tune_stage, tuning_note
from m3router.router.text.numbers import count, number
from m3router.router.training.targets import DEFAULT as DEFAULT_RULE


def tune(
    run: RunFolder,
    trials: Annotated[
        int, typer.Option(min=1, help="Trials that the study shall have, earlier ones included.")
    ] = 100,
    timeout: Annotated[
        float | None,
        typer.Option(
            help="Seconds after which no trial is begun any more.", show_default=False, min=0
        ),
    ] = None,
    storage: Annotated[
        str,
        typer.Option(
            help="journal, a file in the run folder; or a database URL, such as "
            "sqlite:///tuning.db or postgresql://host/name, that many machines may share.",
            envvar="M3ROUTER_TUNING_STORAGE",
        ),
    ] = "journal",
    study: Annotated[str, typer.Option(help="Name of the study.")] = "default",
    estimators: Annotated[
        list[str] | None,
        typer.Option(
            "--estimator",
            parser=one_name,
            metavar="NAME",
            help="Search for this one; may be repeated. [default: all]",
            show_default=False,
        ),
    ] = None,
    folds: Annotated[
        int,
        typer.Option(min=1, help="Folds of cross-fitting; 1 fits on fit and judges on tune alone."),
    ] = 3,
    seed: Annotated[int, seed_option("Seed of split, folds, search and estimators.")] = 0,
    gaps: Annotated[
        GapRule, typer.Option(help="What to do about examples with a failed answer.")
    ] = GapRule.ERROR,
    rule: Rule = DEFAULT_RULE,
    shares: SplitShares = None,
    split: SplitFile = None,
    split_column: SplitColumn = None,
    split_id: SplitId = None,
    log_to: LogTo = None,
    log_to_project: LogToProject = None,
) -> None:
    """Search for the estimator, its hyper-parameters and the features to read.

    Every trial is judged by the accuracy of its curve at low and at high budgets, on images of
    the fit and tune splits that it was not fitted on; calibrate and test are not read. Of the
    trials that no other beats, the one with the best mean is chosen: `m3router train run/ --tuned`
    trains with it, `--trial 17` with another one.

    The split is the run's own, where it has one. Ctrl-C and SIGTERM keep all finished trials, and
    the same command goes on. Several processes with the same command share the work.

    ```
    m3router tune run/ --trials 100 --timeout 3600
    m3router tune run/ --estimator logistic --estimator lightgbm --trials 40
    m3router tune run/ --storage postgresql://user@host/tuning --study scenes
    ```
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    wanted = Search(
        trials=trials,
        timeout=timeout,
        storage=storage,
        study=study,
        estimators=estimators or None,
        folds=folds,
    )
    with progress("tuning") as advance:
        found, counts, stopped = tune_stage(
            Run(run),
            wanted,
            seed=seed,
            gaps=gaps.value,
            rule=rule,
            splitting=splitting_of(shares, split, split_column, split_id),
            progress=lambda counts, best: advance(
                counts.finished, trials, tuning_note(counts, best)
            ),
            log_to=log_to,
            log_to_project=log_to_project,
        )
    _show(found)
    out.print(
        f"{count(counts.complete, 'trial')} judged in full, {counts.pruned} pruned, "
        f"{counts.failed} failed; all of them in {run / 'tuning' / 'tuning.csv'}"
    )
    if counts.finished < trials:
        say(f"{counts.finished} of {count(trials, 'trial')} are done: the same command goes on.")
    if stopped:
        raise typer.Exit(STOPPED)
    next_steps.show_next("train", run, "--tuned")


def _show(found: dict[str, Any]) -> None:
    rows = {row["number"]: row for row in found["trials"]}
    lines = [
        [
            f"{number}*" if number == found["chosen"] else str(number),
            *[f"{100 * value:.2f}" for value in rows[number]["values"]],
            rows[number]["estimator"],
            "+".join(rows[number]["blocks"]),
        ]
        for number in found["pareto"]
    ]
    show_table(["trial", "low budgets %", "high budgets %", "estimator", "reads"], lines)
    chosen = rows[found["chosen"]]
    settings = ", ".join(
        f"{name} {number(value)}" if isinstance(value, float) else f"{name} {value}"
        for name, value in chosen["hyperparameters"].items()
    )
    out.print(f"* chosen: {chosen['estimator']} with {settings}")

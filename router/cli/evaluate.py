"""`m3router evaluate`."""

from __future__ import annotations

from typing import Annotated

import typer

from m3router.router.cli import next_steps
from m3router.router.cli.console import (
    progress,
    show_ends,
    show_headline,
    show_methods,
    show_usage,
    show_verdict,
)
from m3router.router.cli.options import LogTo, LogToProject, RunFolder, seed_option
from m3router.router.cli.streams import out
from m3router.router.runs.run import Run
from m3router.router.stages.evaluating import evaluate_stage


def evaluate(
    run: RunFolder,
    budget: Annotated[
        list[float] | None,
        typer.Option(
            help="Mean cost per answer; may be repeated. [default: 1/16, 1/4 and 1/2 of the "
            "finest option's]",
            show_default=False,
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="Option that accuracies are compared with. [default: the best one of the "
            "calibration split]",
            show_default=False,
        ),
    ] = None,
    draws: Annotated[int, typer.Option(min=2, help="Bootstrap draws for the intervals.")] = 1000,
    seed: Annotated[int, seed_option("Seed of the bootstrap.")] = 0,
    log_to: LogTo = None,
    log_to_project: LogToProject = None,
) -> None:
    """Measure the router on the test split.

    Begins with a verdict: whether routing pays here, or why that cannot be said. Compares the
    router with every fixed option, the oracle and the baselines, at three budgets and with every
    policy of the run. Points are to the reference, the option that is best on the calibration
    split. Says what is saved of the last option's operations, in the language model alone and in
    everything, what share of the oracle's gap the router closes at its own cost, and for two
    options APGR and CPT.

    ```
    m3router evaluate run/ --budget 36 --budget 144
    ```
    """
    place = Run(run).opened()
    with progress("evaluating") as advance:
        document = evaluate_stage(
            place,
            budgets=budget,
            draws=draws,
            seed=seed,
            reference=reference,
            progress=advance,
            log_to=log_to,
            log_to_project=log_to_project,
        )
    show_verdict(document)
    show_headline(document)
    show_usage(document)
    show_methods(document)
    show_ends(document)
    out.print(f"written to {place.evaluation_folder}", style="dim")
    next_steps.show_next("report", run)

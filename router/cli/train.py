"""`m3router train`."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from m3router.data.log.parts import part_sizes
from m3router.data.log.warnings import lone_groups
from m3router.data.plain_files import real_path
from m3router.router.cli import next_steps
from m3router.router.cli.console import progress, say, show_table
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
    folder_to_write,
    one_name,
    seed_option,
    splitting_of,
)
from m3router.router.cli.streams import out as results
from m3router.router.estimators import DEFAULT, ESTIMATORS
from m3router.router.evaluation.few_images import few_to_learn
from m3router.router.runs.run import Run
from m3router.router.stages.learning import train_stage
from m3router.router.stages.tuning import tuned_setting
from m3router.router.text.agreement import agreement_sentence
from m3router.router.text.numbers import count
from m3router.router.text.words import words_of
from m3router.router.training.targets import DEFAULT as DEFAULT_RULE

NAMES = f"{', '.join(list(ESTIMATORS)[:-1])} or {list(ESTIMATORS)[-1]}"
OF_TUNING = {
    "estimator": "--estimator",
    "seed": "--seed",
    "gaps": "--gaps",
    "rule": "--rule",
    "feature_groups": "--feature-group",
    "shares": "--split-share",
    "split": "--split",
    "split_column": "--split-column",
    "split_id": "--split-id",
}
"""Parameter -> option, of those whose values --tuned brings along."""


ENOUGH = 20
"""Questions from which on a calibration error is shown."""
TELLS = (
    "The router is told which dataset a question is from, as the log records it. Where a request "
    "does not say, the router recognises the dataset; budgets and guarantees may then not hold. To "
    "train for requests that never say: --datasets recognised."
)


class KnownDatasets(StrEnum):
    """Whether datasets are told."""

    TOLD = "told"
    RECOGNISED = "recognised"


def train(
    ctx: typer.Context,
    run: RunFolder,
    estimator: Annotated[str, typer.Option(help=f"{NAMES}.")] = DEFAULT,
    seed: Annotated[int, seed_option("Seed of the split and of the estimator.")] = 0,
    gaps: Annotated[
        GapRule, typer.Option(help="What to do about examples with a failed answer.")
    ] = GapRule.ERROR,
    rule: Rule = DEFAULT_RULE,
    threads: Annotated[
        int, typer.Option(min=1, help="Threads of the fit, where the estimator can use several.")
    ] = 1,
    ablations: Annotated[
        bool, typer.Option(help="Also train from the image alone and the question alone.")
    ] = True,
    feature_groups: Annotated[
        list[str] | None,
        typer.Option(
            "--feature-group",
            parser=one_name,
            metavar="NAME",
            help="Let the router read this feature group, such as image; may be repeated. "
            "[default: all that there are but the peek]",
            show_default=False,
        ),
    ] = None,
    tuned: Annotated[
        bool, typer.Option("--tuned", help="Take the setting and the split of `m3router tune`.")
    ] = False,
    trial: Annotated[
        int | None,
        typer.Option(help="With --tuned: this trial, not the chosen one.", show_default=False),
    ] = None,
    datasets: Annotated[
        KnownDatasets | None,
        typer.Option(
            help="Whether the router is told which dataset a question is from, or has to "
            "recognise it. [default: told for imported logs, recognised for others]",
            show_default=False,
        ),
    ] = None,
    shares: SplitShares = None,
    split: SplitFile = None,
    split_column: SplitColumn = None,
    split_id: SplitId = None,
    log_to: LogTo = None,
    log_to_project: LogToProject = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Copy log and features here, and train there.", show_default=False),
    ] = None,
) -> None:
    r"""Learn which scale suffices.

    Splits the log by image into fit, tune, calibrate and test, fits P(right | option) on the
    first two, and says how far these probabilities are off. The default, blend, mixes ridge
    regressions, neighbours, a lookup and networks by what each is worth on held-out questions.

    ```
    m3router train run/ --estimator mlp
    m3router train run/ --feature-group image --feature-group question
    m3router train run/ --tuned
    m3router train run/ --split-share fit=15% --split-share tune=5% \
        --split-share calibrate=10% --split-share test=70%
    m3router train run/ --split official.csv
    ```
    """
    if tuned:
        for name, option in OF_TUNING.items():
            source = ctx.get_parameter_source(name)
            if source is not None and source.name == "COMMANDLINE":
                raise typer.BadParameter(f"{option} cannot go with --tuned, which brings its own")
    elif trial is not None:
        raise typer.BadParameter("--trial names a trial of `m3router tune`: add --tuned")
    if out is not None:
        folder_to_write(out)
    given = place = Run(run).opened()
    if out is not None and real_path(out) != real_path(run):
        place = given.copy_data(out).opened()
    with progress("training") as advance:
        router = train_stage(
            place,
            estimator=estimator,
            seed=seed,
            gaps=gaps.value,
            rule=rule,
            threads=threads,
            ablations=ablations,
            feature_groups=feature_groups,
            splitting=splitting_of(shares, split, split_column, split_id),
            tuned=tuned_setting(given, trial=trial) if tuned else None,
            datasets=datasets.value if datasets else None,
            progress=lambda name, done, total: advance(done, total, name),
            log_to=log_to,
            log_to_project=log_to_project,
        )
    log = place.log()
    if split is None and not tuned:
        for warning in lone_groups(log.groups, log.datasets):
            say(warning + ".")
    divided = place.split(log)
    if divided.grown:
        say("Images keep the part of the split that they had before examples were added.")
    if told := agreement_sentence(log.metadata, words_of(log)):
        say(told)
    sizes = part_sizes(log, divided)
    parts = ", ".join(f"{part} {size['examples']}" for part, size in sizes.items())
    results.print(f"{router.estimator_name} router in {place.arm()}; examples: {parts}")
    if few := few_to_learn(sizes["fit"]["pictures"], words_of(log)):
        say(few)
    calibrated = router.metadata["calibration"]
    if router.told and len(set(log.datasets.tolist())) > 1:
        results.print(TELLS, highlight=False)
    if router.metadata.get("members"):
        results.print(members_line(router.metadata["members"]), highlight=False)
    judged = calibrated["n"]
    if judged < ENOUGH:
        results.print(
            f"Probability calibration: {calibrated['method']}. "
            f"{count(judged, 'held-out question')} cannot say how far probabilities are off.",
            highlight=False,
        )
        next_steps.after_train(place, log)
        return
    results.print(
        f"Probability calibration: {calibrated['method']}. Expected calibration error on {judged} "
        "questions that were not fitted on, in points:",
        highlight=False,
    )
    show_table(["", "overall", *router.options], calibration_rows(calibrated["ece"]))
    next_steps.after_train(place, log)


def members_line(members: Mapping[str, Mapping[str, float]]) -> str:
    """What a blend is made of: what its members weigh in the differences between options."""
    shares = sorted(members["spread"].items(), key=lambda one: -one[1])
    told = ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares if share >= 0.005)
    return f"Differences between options are learned from: {told}."


def calibration_rows(errors: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Cells of the table of calibration errors: before and after, overall and by option."""
    return [
        [
            when,
            *[f"{100 * one:.1f}" for one in (errors[when]["overall"], *errors[when]["by_option"])],
        ]
        for when in ("before", "after")
    ]

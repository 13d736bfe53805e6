"""Labelling with a progress bar, and what came of it: used by `label` and `quickstart`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import typer
from rich.text import Text

from m3router.data.example import Example
from m3router.data.json_files import read_json_object, values_of
from m3router.data.log.checks import ASKED, LENGTH, scored_by_agreement
from m3router.data.log.oracle_log import OracleLog
from m3router.data.log.warnings import cost_warnings
from m3router.m3core.endpoint.model import EndpointModel
from m3router.m3core.labelling import LabelOptions, LabelProgress, Stopped
from m3router.m3core.labelling.ranks import Ranks
from m3router.m3core.labelling.run import STATS
from m3router.m3core.matryoshka.base import MultiScaleModel
from m3router.m3core.options import OptionModel
from m3router.router.cli.console import progress, say, show_table
from m3router.router.cli.exit_codes import STOPPED
from m3router.router.cli.streams import out
from m3router.router.evaluation.summary_text import verdict_of
from m3router.router.features.question import MODEL
from m3router.router.runs.run import Run
from m3router.router.stages.labelling import label_stage
from m3router.router.text.numbers import count
from m3router.router.text.words import words_of

CAUSES_SHOWN = 15


def label_with_progress(
    run: Run,
    examples: Sequence[Example],
    *,
    images: Path,
    model: MultiScaleModel | OptionModel,
    questions: str = MODEL,
    feature_groups: Sequence[str] | None = None,
    encoder: str | None = None,
    **options: Unpack[LabelOptions],
) -> OracleLog:
    """Run the stage, then print the accuracy at every option and what the run computed."""
    ranks = options.get("ranks") or Ranks()
    bar = progress("labelling") if ranks.is_first else nullcontext(_silent)
    with _meter_shown(model, ranks), bar as advance:

        def show(state: LabelProgress) -> None:
            used = f", {model.meter}" if isinstance(model, EndpointModel) else ""
            advance(state.done, state.total, (state.note + used).strip(" ,"))

        log = label_stage(
            run,
            examples,
            images=images,
            model=model,
            progress=show,
            questions=questions,
            feature_groups=feature_groups,
            encoder=encoder,
            **options,
        )
    if ranks.is_first:
        _show_result(run, log)
    return log


@contextmanager
def kept_when_stopped(*, terminated: int) -> Iterator[None]:
    """Say how far labelling came where a signal ends it in order, and how to go on.

    Args:
        terminated: The exit code after SIGTERM.

    Raises:
        Exit: It was ended.
    """
    try:
        yield
    except Stopped as stopped:
        told = str(stopped)[:1].upper() + str(stopped)[1:]
        say(f"{told}; all of it is kept: go on with the same command.")
        raise typer.Exit(STOPPED if stopped.interrupted else terminated) from None


@contextmanager
def _meter_shown(model: MultiScaleModel | OptionModel, ranks: Ranks) -> Iterator[None]:
    """Print what was asked of an endpoint, however the labelling ends."""
    try:
        yield
    finally:
        if ranks.is_first and isinstance(model, EndpointModel):
            out.print(f"asked, trying the options included: {model.meter}", style="dim")


def _silent(done: int, total: int, note: str = "") -> None:
    """What processes other than the first show."""


def _show_result(run: Run, log: OracleLog) -> None:
    if np.isfinite(log.scores).any():
        with np.errstate(invalid="ignore"):
            accuracy = np.nanmean(log.scores, axis=0)
        scales = ", ".join(f"{o}: {a:.3f}" for o, a in zip(log.options, accuracy, strict=True))
        alone = scored_by_agreement(log.metadata)
        option = "scale" if words_of(log).scales else "option"
        what = f"share that says what the finest {option} says" if alone else "mean score"
        if not alone and log.metadata.get(ASKED) != "references":
            _show_verdict(log)
        out.print(f"{count(len(log), 'example')} in {run.log_folder}; {what} by {option}: {scales}")
    cut = log.frame["finish"] == LENGTH
    if cut.any():
        out.print(
            f"{cut.mean():.1%} of the answers were cut at their longest length; where they should "
            "be whole, label into another folder with a larger --max-new-tokens."
        )
    for warning in cost_warnings(log):
        out.print(Text(warning), style="yellow")
    unknown = int(log.unknown.any(axis=1).sum())
    if unknown:
        out.print(
            f"{count(unknown, 'example was', 'examples were')} asked up to the first right answer; "
            "means are over what was asked. Train with --rule reached."
        )
    _show_stats(run.log_folder / STATS)


def _show_verdict(log: OracleLog) -> None:
    """What there is to gain by choosing a scale, from the examples answered at every scale."""
    out.print(Text(verdict_of(log).text), style="bold")


def _show_stats(path: Path) -> None:
    """What the last run spent its time on, and what it could not have avoided."""
    if not path.is_file():
        return
    redo = "Remove it; it only says what the last run spent its time on."
    stats = read_json_object(path, redo=redo)
    with values_of(path, redo=redo):
        out.print(_stats_line(stats), style="dim")


def _stats_line(stats: dict[str, Any]) -> str:
    stages = ", ".join(f"{name} {spent:.1f} s" for name, spent in stats["seconds_by_stage"].items())
    bound = stats.get("lower_bound_seconds")
    least = f"; arithmetic alone would take {bound:.1f} s" if bound else ""
    tokens = (
        f", {stats['tokens_per_second']:.0f} tokens/s, {stats['padding_share']:.1%} padding"
        if stats["tokens_per_second"]  # a function's are not known
        else ""
    )
    return (
        f"{count(stats['examples'], 'example')} at {stats['examples_per_second']:.1f}/s{tokens} "
        f"({stages}{least})"
    )


def show_flips(found: dict[str, Any]) -> None:
    """Print how often an answer was another one alone than in its batch."""
    rates = ", ".join(f"{name}: {rate:.2%}" for name, rate in found["flip_rate"].items())
    out.print(
        f"{count(found['examples'], 'example')} asked again one by one; other answers: {rates}"
    )
    for name, cause in list(found.get("unreadable", {}).items())[:CAUSES_SHOWN]:
        out.print(f"not asked again: {name}: {cause}", style="yellow", markup=False)


def show_errors(log: OracleLog) -> int:
    """Print how often each cause of a failed answer occurred; returns the failed examples."""
    errors = log.errors().drop_duplicates(["example_id", "error"])
    if errors.empty:
        return 0
    failed = int(errors["example_id"].nunique())
    have = "has an error record" if failed == 1 else "have error records"
    out.print(f"{failed} of {count(len(log), 'example')} {have}:", style="yellow")
    causes = errors.groupby("error", sort=False)["example_id"].agg(["count", "first"])
    ordered = causes.sort_values("count", ascending=False, kind="stable")
    rows = [[row["count"], row["first"], cause] for cause, row in ordered.iterrows()]
    show_table(["examples", "first", "cause"], rows[:CAUSES_SHOWN])
    if len(rows) > CAUSES_SHOWN:
        out.print(f"and {len(rows) - CAUSES_SHOWN} further causes")
    out.print("Train with --gaps drop to leave them out, or fix them and use --retry-errors.")
    return failed

"""Labelling with a progress bar, and what came of it: used by `label` and `quickstart`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.examples import Example
from data.oracle_log import OracleLog
from data.videos import FRAMES
from m3core.labelling import LabelProgress
from m3core.models.base import MultiScaleModel
from router.cli.console import out, progress, show_table
from router.features.question import MODEL
from router.run import Run
from router.stages.labelling import label_stage

CAUSES_SHOWN = 15


def label_with_progress(
    run: Run,
    examples: Sequence[Example],
    *,
    images: Path,
    model: MultiScaleModel,
    retry_errors: bool = False,
    questions: str = MODEL,
    frames: int = FRAMES,
) -> OracleLog:
    """Run the stage, then print the accuracy at every scale."""
    with progress("labelling") as advance:

        def show(state: LabelProgress) -> None:
            note = " ".join(f"{scale}:{share:.2f}" for scale, share in state.accuracy.items())
            failed = f" errors:{state.errors}" if state.errors else ""
            advance(state.done, state.total, note + failed)

        log = label_stage(
            run,
            examples,
            images=images,
            model=model,
            progress=show,
            retry_errors=retry_errors,
            questions=questions,
            frames=frames,
        )
    if log.complete.any():
        accuracy = np.nanmean(log.scores, axis=0)
        scales = ", ".join(f"{o}: {a:.3f}" for o, a in zip(log.options, accuracy, strict=True))
        out.print(f"{len(log)} examples in {run.log}; mean score by scale: {scales}")
    return log


def show_errors(log: OracleLog) -> int:
    """Print how often each cause of a failed answer occurred; returns the failed examples."""
    errors = log.errors().drop_duplicates(["example_id", "error"])
    if errors.empty:
        return 0
    failed = int(errors["example_id"].nunique())
    out.print(f"{failed} of {len(log)} examples have error records:", style="yellow")
    causes = errors.groupby("error", sort=False)["example_id"].agg(["count", "first"])
    ordered = causes.sort_values("count", ascending=False, kind="stable")
    rows = [[row["count"], row["first"], cause] for cause, row in ordered.iterrows()]
    show_table(["examples", "first", "cause"], rows[:CAUSES_SHOWN])
    if len(rows) > CAUSES_SHOWN:
        out.print(f"and {len(rows) - CAUSES_SHOWN} further causes")
    out.print("Train with --gaps drop to leave them out, or mend them and use --retry-errors.")
    return failed

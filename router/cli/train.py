"""`m3router train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from router.cli.options import GapRule, RunFolder, named_tiers


def train(
    run: RunFolder,
    estimator: Annotated[str, typer.Option(help="logistic or lightgbm.")] = "logistic",
    seed: Annotated[int, typer.Option(help="Of the split and of the estimator.")] = 0,
    gaps: Annotated[
        GapRule, typer.Option(help="What to do about examples with a failed answer.")
    ] = GapRule.ERROR,
    rule: Annotated[
        str, typer.Option(help="When a scale suffices: first_correct, stable, matches_full.")
    ] = "first_correct",
    ablations: Annotated[
        bool, typer.Option(help="Also train from the picture alone and the question alone.")
    ] = True,
    tiers: Annotated[
        str | None,
        typer.Option(
            help="Feature blocks that the router reads, separated by commas, such as "
            "image,question. [default: all that there are]",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Copy log and features here, and train there.", show_default=False),
    ] = None,
) -> None:
    """Learn which scale suffices.

    Splits the log by picture into fit, tune, calibrate and test, and fits P(right | scale) on the
    first two.

    ```
    m3router train run/ --estimator lightgbm
    m3router train run/ --tiers image,question,cheap
    ```
    """
    from router.cli.console import out as results
    from router.cli.console import progress
    from router.run import Run
    from router.stages.learning import part_sizes, train_stage

    place = Run(run)
    if out is not None and out.resolve() != run.resolve():
        place = place.copy_data(out)
    with progress("training") as advance:
        router = train_stage(
            place,
            estimator=estimator,
            seed=seed,
            gaps=gaps.value,
            rule=rule,
            ablations=ablations,
            tiers=named_tiers(tiers),
            progress=lambda name, done, total: advance(done, total, name),
        )
    log = place.read_log()
    sizes = part_sizes(log, place.read_split(log))
    parts = ", ".join(f"{part} {size['examples']}" for part, size in sizes.items())
    results.print(f"{router.estimator_name} router in {place.arm()}; examples: {parts}")

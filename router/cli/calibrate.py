"""`m3router calibrate`."""

from __future__ import annotations

from typing import Annotated

import typer

from router.cli.options import RunFolder


def calibrate(
    run: RunFolder,
    budget: Annotated[
        float | None,
        typer.Option(help="Most mean cost per answer, such as 64 tokens.", show_default=False),
    ] = None,
    max_loss: Annotated[
        float | None,
        typer.Option(
            help="Instead: most points of accuracy below the finest scale.", show_default=False
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the policy.")] = "default",
) -> None:
    """Set a budget or a tolerable loss.

    Reads the calibrate part only. When no policy meets the target, the policy uses the finest
    scale and says so.

    ```
    m3router calibrate run/ --budget 64
    m3router calibrate run/ --max-loss 1 --name careful
    ```
    """
    from router.analysis.tables import number, percent
    from router.cli.console import out
    from router.run import Run
    from router.stages.learning import calibrate_stage

    place = Run(run)
    policy = calibrate_stage(place, name=name, budget=budget, max_loss_points=max_loss)
    found = policy.calibration
    accuracy = found.get("accuracy")
    right = "" if accuracy is None else f", {percent(accuracy)} % right"
    out.print(
        f"policy {name!r} in {place.policy(name)}: mean cost {number(found['mean_cost'])} "
        f"{policy.binding.cost_unit}{right} on {found['n']:.0f} calibration examples"
    )
    if policy.fallback:
        out.print(f"Falls back to the finest scale: {policy.reason}.", style="yellow")

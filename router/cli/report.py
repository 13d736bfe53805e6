"""`m3router report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from m3router.data.progress import waiting
from m3router.router.cli import next_steps
from m3router.router.cli.options import RunFolder, images_folder
from m3router.router.cli.streams import out
from m3router.router.runs.run import Run
from m3router.router.stages.reporting import report_stage


def report(
    run: RunFolder,
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of the images, to show lost questions.", show_default=False),
    ] = None,
) -> None:
    """Write the HTML report with its figures and tables.

    The page loads nothing from anywhere: it can be sent as one file.

    ```
    m3router report run/ --images images/
    ```
    """
    images_folder(images)
    place = Run(run).opened()
    with waiting("drawing"):
        page = report_stage(place, images=images)
    out.print(f"{page}\n{place.report_folder / 'pareto.png'}\n{place.report_folder / 'tables'}")
    next_steps.after_report(place)

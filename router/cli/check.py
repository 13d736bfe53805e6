"""`m3router check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from m3router.data.errors import DataError
from m3router.data.manifest import MANIFEST
from m3router.data.plain_files import is_there
from m3router.data.progress import waiting
from m3router.m3core.checkpoints.places import EMBEDDED, FAKE, resolve
from m3router.router.cli.console import print_table
from m3router.router.cli.exit_codes import DEFECT
from m3router.router.cli.streams import out
from m3router.router.runs.run import Run
from m3router.router.text.numbers import count


def check(
    run: Annotated[Path | None, typer.Argument(help="A run folder.", show_default=False)] = None,
    model: Annotated[str, typer.Option(help="The model to try.")] = "embedded",
) -> None:
    """Verify the installation and, if given, a run folder.

    Looks at library versions, lets the model answer a drawn scene, and checks every manifest and
    hash of the run. The exit code is 1 when anything is wrong, and 2 when the folder is no run or
    the model is not there.

    ```
    m3router check run/
    ```
    """
    from m3router.router.stages.checks import check_environment, check_run

    if run is not None and not run.is_dir():
        raise DataError(f"{run} is not a folder. Give the folder of a run, or none.")
    place = None if run is None else Run(run)
    if place is not None and place.published and not is_there(place.arm()):
        place.need(place.log_folder / MANIFEST, "label")
    with waiting("checking"):
        if model not in (EMBEDDED, FAKE):
            resolve(model)  # there must be something to check
        checks = check_environment(model)
        if place is not None:
            checks += check_run(place)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "what", "found"):
        table.add_column(name)
    for one in checks:
        mark = Text("OK", style="green") if one.ok else Text("not OK", style="bold red")
        table.add_row(mark, Text(one.what), Text(one.detail))
    print_table(table)
    wrong = sum(not one.ok for one in checks)
    if wrong:
        out.print(f"{wrong} of {count(len(checks), 'check')} failed.", style="bold red")
        raise typer.Exit(DEFECT)
    out.print(f"All {count(len(checks), 'check')} passed.", style="green")

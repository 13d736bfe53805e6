"""`m3router import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def import_log(
    kind: Annotated[str, typer.Argument(help="blindtest or table.", show_default=False)],
    path: Annotated[Path, typer.Argument(help="The log to read.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Run folder to write.", show_default=False)],
    model: Annotated[
        str | None, typer.Option(help="Only this model's records.", show_default=False)
    ] = None,
) -> None:
    """Read an oracle log that another tool wrote.

    `table` takes a CSV or Parquet file with the columns id, question, option and correct, and
    optionally image, cost, group, dataset and answer. Continue with `featurize`.

    ```
    m3router import table answers.csv --out run/
    m3router featurize run/ --images pictures/ --encoder embedded
    ```
    """
    from router.cli.console import out as results
    from router.run import Run
    from router.stages.labelling import import_stage

    run = Run(out)
    log = import_stage(run, kind, path, model=model)
    gaps = f", {log.n_gaps} answers missing" if log.n_gaps else ""
    results.print(
        f"{len(log)} examples with the options {', '.join(log.options)} (cost in "
        f"{log.cost_unit}{gaps}) in {run.log}"
    )

"""`m3router export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from m3router.data.log.exporting import NO_LICENCE, export_log, push_to_hub
from m3router.data.log.oracle_log import OracleLog
from m3router.data.manifest import MANIFEST
from m3router.data.plain_files import is_there
from m3router.data.progress import waiting
from m3router.router.cli import next_steps
from m3router.router.cli.options import folder_to_write
from m3router.router.cli.streams import out as results
from m3router.router.runs.run import Run
from m3router.router.text.numbers import count


def export(
    log: Annotated[
        Path, typer.Argument(help="A run folder, or the folder of a log.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="New folder to write.", show_default=False)],
    licence: Annotated[
        str | None,
        typer.Option(
            "--license",
            help="Identifier such as cc-by-4.0, for the data card. [default: unknown]",
            show_default=False,
        ),
    ] = None,
    push: Annotated[
        str | None,
        typer.Option(
            "--push-to-hub",
            help="Upload it as this data set of the Hugging Face hub, OWNER/NAME.",
            show_default=False,
        ),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Make the uploaded data set private.")
    ] = False,
) -> None:
    """Write an oracle log as a data set with a data card.

    The folder is laid out as the Hugging Face hub wants it: `README.md` is the card (accuracy by
    option and data set, errors, how the log was made, columns), `data/` holds the rows as Parquet,
    and `manifest.json` their hash. `datasets.load_dataset` reads it, and `m3router import exported`
    makes it a log again. Images are not part of it. Look through the card before you upload.

    ```
    m3router export run/ --out published/ --license cc-by-4.0
    m3router export run/ --out published/ --license cc-by-4.0 --push-to-hub me/my-oracle-log
    m3router import exported published/ --out another-run/
    ```
    """
    if push and not licence:
        raise typer.BadParameter("say under which licence the data set is published: --license")
    if private and not push:
        raise typer.BadParameter("--private is for an upload: --push-to-hub OWNER/NAME")
    folder_to_write(out)
    run = Run(log)
    found = (
        run.log(as_labelled=True) if is_there(run.log_folder / MANIFEST) else OracleLog.read(log)
    )
    export_log(found, out, licence=licence or NO_LICENCE)
    results.print(
        f"{count(len(found), 'example')} at {count(len(found.options), 'option')} in {out}",
        markup=False,
    )
    if push:
        with waiting("uploading"):
            address = push_to_hub(out, push, private=private)
        results.print(f"uploaded: {address}", markup=False)
        return
    told = f"Look through {out / 'README.md'} before you publish it. Anybody reads it back so:"
    next_steps.show_next("import", "exported", out, "--out", f"{out}-run", where=told)

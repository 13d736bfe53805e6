"""`m3router push`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from m3router.data.progress import waiting
from m3router.router.cli import next_steps
from m3router.router.cli.console import say
from m3router.router.cli.options import RunFolder, folder_to_write
from m3router.router.cli.streams import out as results
from m3router.router.hub.card import Facts
from m3router.router.hub.licences import unknown_licence
from m3router.router.hub.publishing import push_run, run_files, write_published
from m3router.router.runs.run import Run


def push(
    run: RunFolder,
    name: Annotated[str, typer.Argument(help="The repository, OWNER/NAME.", show_default=False)],
    licence: Annotated[
        str,
        typer.Option(
            "--license", help="Identifier such as apache-2.0, for the card.", show_default=False
        ),
    ],
    base_model: Annotated[
        str | None,
        typer.Option(help="Hub id of the model that was labelled.", show_default=False),
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(help="Hub id of what was labelled; may be repeated.", show_default=False),
    ] = None,
    private: Annotated[
        bool | None,
        typer.Option(
            "--private/--public", help="Visibility of a new repository.", show_default=False
        ),
    ] = None,
    message: Annotated[str, typer.Option(help="Message of the commit.")] = "Router and policies",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write what would be uploaded into this new folder, and upload nothing.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Upload a run's router, policies and cascades to the Hugging Face hub, with a card.

    The card says what the router belongs to, how it was trained, what the run's evaluation found
    and what each policy promises; look at it first with `--out`. Log, features, questions and
    images stay here. The token is the one of `hf auth login` or of `HF_TOKEN`. Somebody else
    loads it with `m3router.router.hub.load_pipeline("me/my-router")`, or downloads the folder and
    uses it in the place of a run.

    ```
    m3router push run/ me/my-router --license apache-2.0 --out looked-at/
    m3router push run/ me/my-router --license apache-2.0 --private
    hf download me/my-router --local-dir theirs/
    m3router ask theirs/ image.png "what number is on the red tag?"
    ```
    """
    if name.count("/") != 1:
        raise typer.BadParameter(f"NAME must be OWNER/NAME, such as me/my-router, not {name!r}")
    if warning := unknown_licence(licence):
        say(warning)
    facts = Facts(name=name, licence=licence, base_model=base_model, datasets=tuple(dataset or ()))
    if out is not None:
        folder_to_write(out)
        write_published(out, run_files(Run(run), facts))
        results.print(f"written, not uploaded: {out}", markup=False)
        told = f"Look through {out / 'README.md'}; then upload it:"
        next_steps.show_next("push", run, name, "--license", licence, where=told)
        return
    with waiting("uploading"):
        address = push_run(Run(run), facts, private=private, message=message)
    results.print(f"uploaded: {address}", markup=False)
    say(f"next: {shlex.join(['hf', 'download', name, '--local-dir', name.split('/')[-1]])}")

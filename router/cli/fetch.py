"""`m3router fetch`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from m3router.data.errors import DataError
from m3router.data.hub_reach import no_hub
from m3router.data.progress import waiting
from m3router.data.sources.benchmarks.table import BENCHMARKS, benchmark
from m3router.data.sources.fetching import fetch_benchmark
from m3router.data.sources.hub import Origin
from m3router.router.cli import next_steps
from m3router.router.cli.console import progress, show_table
from m3router.router.cli.options import folder_to_write
from m3router.router.cli.streams import out as results
from m3router.router.text.numbers import count


def fetch(
    name: Annotated[
        str | None, typer.Argument(help="A benchmark; see --list.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write: examples.jsonl and images/.", show_default=False),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Another split than the one that is evaluated.", show_default=False),
    ] = None,
    skip: Annotated[int, typer.Option(min=0, help="Usable rows to pass over first.")] = 0,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Most examples.", show_default=False)
    ] = None,
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "--file",
            help="Read this downloaded file (Parquet, CSV, JSON), not the hub; may be repeated.",
            show_default=False,
        ),
    ] = None,
    image_files: Annotated[
        list[Path] | None,
        typer.Option(
            "--image-file",
            help="For gqa with --file: a Parquet file of its images; may be repeated.",
            show_default=False,
        ),
    ] = None,
    videos: Annotated[
        Path | None,
        typer.Option(help="For benchmarks about videos: your folder of them.", show_default=False),
    ] = None,
    show_list: Annotated[
        bool, typer.Option("--list", help="Show the benchmarks, and stop.")
    ] = False,
) -> None:
    """Write a published benchmark as examples with its official prompts and metric.

    Rows stream from the Hugging Face hub, and each image becomes a file as it comes by. An
    interrupted run leaves no `examples.jsonl`; the same command starts again and keeps the
    images that are there. docs/benchmarks.md says what each benchmark is and what differs.

    ```
    m3router fetch gqa --out data/gqa --limit 1000
    m3router label --examples data/gqa/examples.jsonl --images data/gqa/images --out run/
    ```
    """
    if show_list:
        if any((name, out, split, skip, limit, files, image_files, videos)):
            raise typer.BadParameter("--list shows all benchmarks; give nothing else with it")
        _show_list()
        return
    if name is None or out is None:
        raise typer.BadParameter("give a benchmark and --out, or --list")
    folder_to_write(out)
    origin = Origin(
        split=split,
        skip=skip,
        limit=limit,
        files=tuple(files or ()),
        image_files=tuple(image_files or ()),
        videos=videos,
    )
    entry = benchmark(name)
    if entry.homes and not files:
        with waiting("reaching the hub"):
            lost = no_hub()
        if lost:
            raise DataError(
                f"{entry.title} cannot be fetched. {lost} Or download the Parquet files of "
                f"huggingface.co/datasets/{entry.hub} elsewhere and pass them with --file."
            )
    with progress("fetching") as advance:
        fetched = fetch_benchmark(
            name, folder=out, origin=origin, progress=lambda done: advance(done, None, "examples")
        )
    results.print(f"{count(fetched.count, 'example')} in {fetched.examples}", markup=False)
    for reason, many in fetched.left_out.items():
        results.print(f"{count(many, 'row')} left out: {reason}", markup=False)
    next_steps.after_examples(fetched.examples, fetched.images, out / "run")


def _show_list() -> None:

    rows = [
        [name, entry.title, entry.hub or "a sheet, with --file", entry.split, entry.metric]
        + ["videos" if entry.video else ""]
        for name, entry in ((name, benchmark(name)) for name in BENCHMARKS)
    ]
    show_table(["name", "benchmark", "from", "split", "metric", ""], rows)

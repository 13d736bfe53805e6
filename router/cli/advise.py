"""`m3router advise`: from answers at several options to whether routing would pay."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from m3router.data.errors import DataError, M3RouterError
from m3router.data.importers.costs import UNIT
from m3router.data.importers.joined import UNMAPPED, import_note
from m3router.data.importers.recognition import (
    BLINDTEST,
    EXPORTED,
    KINDS,
    RUN,
    TABLE,
    Recognised,
    recognise,
)
from m3router.data.log.oracle_log import OracleLog
from m3router.router.cli.console import say
from m3router.router.cli.import_ import (
    Cost,
    CostUnit,
    Groups,
    Metric,
    Price,
    SkipBad,
    costs_of,
    metrics_of,
    prices_given,
    tables_of,
)
from m3router.router.cli.options import pairs, seed_option
from m3router.router.cli.streams import err, out
from m3router.router.runs.run import Run
from m3router.router.text.fractions import METAVAR, check_within, fraction
from m3router.router.text.words import words_of

WRONG_USE = 2
TAKES: dict[str, tuple[str, ...]] = {
    TABLE: ("columns", "costs", "prices", "cost_unit", "skip_bad"),
    BLINDTEST: (),
    EXPORTED: (),
    RUN: (),
}
"""Kind -> what its importer takes; all else takes everything but columns."""
FLAGS = {
    "columns": "--column",
    "costs": "--cost",
    "prices": "--price",
    "cost_unit": "--cost-unit",
    "metric": "--metric",
    "groups": "--groups",
    "images": "--image-names",
    "skip_bad": "--skip-bad",
}


def advise(
    log: Annotated[
        list[str],
        typer.Argument(
            metavar="LOG...",
            help="A table, a folder, or NAME=PATH for what each option answered. * in a path "
            "stands for anything.",
            show_default=False,
        ),
    ],
    out_folder: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Run folder that keeps everything. [default: beside the log]",
            show_default=False,
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            help=f"What kind of log it is: {', '.join(KINDS)}. [default: seen from the files]",
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            help="Folder that the image paths start from: the router reads their size, and lost "
            "questions are shown with their image.",
            show_default=False,
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="With --images: image encoder that the router reads; embedded, or folder or hub "
            "id of a CLIP or SigLIP model.",
            show_default=False,
        ),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OURS=THEIRS",
            help="What a table calls a column, such as id=sample_id; may be repeated.",
            show_default=False,
        ),
    ] = None,
    cost: Cost = None,
    price: Price = None,
    cost_unit: CostUnit = None,
    metric: Metric = None,
    groups: Groups = None,
    image_names: Annotated[
        str | None,
        typer.Option(
            help="File of an image that no sample names, such as {dataset}/{id}.png.",
            show_default=False,
        ),
    ] = None,
    skip_bad: SkipBad = False,
    max_loss: Annotated[
        float | None,
        typer.Option(
            parser=fraction,
            metavar=METAVAR,
            help="Certify that accuracy is at most this share of questions below the best "
            "option's. [default: 1%, 2% or 5%, the strictest that the images may be enough for]",
            show_default=False,
        ),
    ] = None,
    max_regret: Annotated[
        float | None,
        typer.Option(
            parser=fraction,
            metavar=METAVAR,
            help="Certify instead that at most this share of questions is right at the best option "
            "and wrong as routed.",
            show_default=False,
        ),
    ] = None,
    confidence: Annotated[
        float, typer.Option(parser=fraction, metavar=METAVAR, help="Of the certificate.")
    ] = 0.95,
    seed: Annotated[int, seed_option("Seed of the split and of the router.")] = 0,
) -> None:
    """Say whether routing would pay, from answers at several options.

    LOG is a table with a row for each question and option (CSV, TSV, JSON, JSONL, Parquet, XLSX), a
    folder of lmms-eval runs, VLMEvalKit's tables, BlindTest answers, an exported log, or a run that
    was labelled. What it is is seen from the files. Then everything is done: import, features,
    train, calibrate, evaluate, report. The answer is five sentences and a page. The same command
    again does only what is left to do.

    ```
    m3router advise answers.csv
    m3router advise answers.csv --column id=sample_id --cost small=1 --cost large=8
    m3router advise runs/
    m3router advise 7b=runs/7b/ 13b=runs/13b/ --cost 7b=7 --cost 13b=13
    m3router advise outputs/ --cost seconds
    m3router advise answers.csv --images images/ --encoder openai/clip-vit-base-patch32
    m3router advise run/ --max-regret 1%
    ```
    """
    if max_loss is not None and max_regret is not None:
        raise typer.BadParameter("--max-loss and --max-regret: give one of the two")
    check_within("--max-loss", max_loss, such="1%")
    check_within("--max-regret", max_regret, such="1%")
    check_within("--confidence", confidence, such="95%")
    if encoder is not None and images is None:
        raise typer.BadParameter("--encoder looks at images: give their folder with --images")
    if images is not None and not images.is_dir():
        raise typer.BadParameter(f"--images: the folder {images} does not exist")
    columns = pairs(column, "--column", "OURS=THEIRS")
    importing: dict[str, Any] = {
        "columns": columns,
        "costs": costs_of(cost),
        "prices": prices_given(price),
        "cost_unit": cost_unit,
        "metric": metrics_of(metric),
        "groups": tables_of(groups),
        "images": image_names,
        "skip_bad": skip_bad,
    }
    with _wrong_use():
        found = recognise(log, kind=kind, columns=columns)
        _check_taken(found, importing)

    from m3router.router.stages.advising import (  # loads torch
        Wishes,
        advise_stage,
        default_folder,
    )

    run = Run(out_folder or _shortest(default_folder(found)))
    wishes = Wishes(
        images=images,
        encoder=encoder,
        max_loss=max_loss,
        max_regret=max_regret,
        confidence=confidence,
        seed=seed,
        importing=importing,
    )
    with _wrong_use(), err.status("reading") as status:
        advice = advise_stage(
            run,
            found,
            wishes,
            step=lambda name: status.update(name),
            on_log=lambda read: _show_log(read, found),
        )
    out.print()
    for place, sentence in enumerate(advice.sentences, start=1):
        number = f"{place}. " if len(advice.sentences) > 1 else ""
        out.print(Text(f"{number}{sentence}"), style="bold" if place == 1 else "")
    for note in advice.notes:
        out.print(Text(f"Note: {note}"), style="yellow")
    if advice.page is not None:
        out.print(Text(f"\nThe page: {advice.page}"))
        out.print(Text(f"All numbers: m3router evaluate {run.root}"), style="dim")


def _show_log(log: OracleLog, found: Recognised) -> None:
    """What was read, one line, and what could not be."""
    groups = len(set(log.groups.tolist()))
    asked = words_of(log).asked(len(log), groups)
    unit = f"cost in {log.cost_unit}"
    if log.cost_unit == UNIT:
        unit = "cost without a unit (--cost-unit names it)"
    gaps = f", {log.n_gaps} answers missing" if log.n_gaps else ""
    out.print(
        Text(
            f"{found.kind}: {len(log):,} question{'' if len(log) == 1 else 's'}"
            f"{asked and ' '}{asked} at the options {', '.join(log.options)}; {unit}{gaps}"
        )
    )
    for sentence in log.metadata.get(UNMAPPED, ()):
        # --images is the importer's name for it, and here the images' folder.
        say(import_note(sentence.replace("--images", "--image-names")))


def _check_taken(found: Recognised, importing: dict[str, Any]) -> None:
    """Refuse what this kind of log has no use for.

    Raises:
        DataError: naming it.
    """
    takes = TAKES.get(found.kind, tuple(name for name in FLAGS if name != "columns"))
    useless = [FLAGS[name] for name, one in importing.items() if one and name not in takes]
    if useless:
        raise DataError(f"{', '.join(useless)}: of no use for a log of the kind {found.kind!r}.")


def _shortest(path: Path) -> Path:
    """A path as one would type it here."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) and path != here else path


@contextmanager
def _wrong_use() -> Iterator[None]:
    """What the user brought cannot be used: exit code 2, since a verdict is 0."""
    try:
        yield
    except M3RouterError as error:
        err.print(Text.assemble(("Error: ", "bold red"), (str(error), "red")))
        raise typer.Exit(WRONG_USE) from error

"""`m3router import`."""

from __future__ import annotations

from collections.abc import Iterable
from glob import glob
from pathlib import Path
from typing import Annotated, Any

import typer

PER_OPTION = ("lmms-eval", "vlmevalkit")
"""Kinds that read runs of each option."""

TAKES = {
    "blindtest": ("model",),
    "exported": (),
    "lmms-eval": ("costs", "cost_unit", "metric", "pictures", "skip_bad"),
    "table": ("columns", "cost_unit", "skip_bad"),
    "vlmevalkit": ("costs", "cost_unit", "metric", "dataset", "pictures", "skip_bad"),
}
"""Kind -> what it takes beside its source, by the importers' own names."""

FLAGS = {
    "columns": "--columns",
    "cost_unit": "--cost-unit",
    "costs": "--cost",
    "dataset": "--dataset",
    "metric": "--metric",
    "model": "--model",
    "pictures": "--pictures",
    "skip_bad": "--skip-bad",
}


def import_log(
    kind: Annotated[
        str,
        typer.Argument(
            help="table, lmms-eval, vlmevalkit, exported or blindtest.", show_default=False
        ),
    ],
    sources: Annotated[
        list[str],
        typer.Argument(
            help="The file or folder to read; for lmms-eval and vlmevalkit OPTION=PATH for each "
            "option, repeated where it has several files. * in a path stands for anything.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Run folder to write.", show_default=False)],
    columns: Annotated[
        list[str] | None,
        typer.Option(
            help="table: what it calls a column, such as id=sample_id,correct=acc.",
            show_default=False,
        ),
    ] = None,
    cost: Annotated[
        list[str] | None,
        typer.Option(
            help="lmms-eval, vlmevalkit: what an answer costs, OPTION=NUMBER, for every option. "
            "[default: the option's name, if it is a number]",
            show_default=False,
        ),
    ] = None,
    cost_unit: Annotated[
        str | None,
        typer.Option(
            help="What the costs count, such as 'visual tokens' or USD. [default: cost]",
            show_default=False,
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="lmms-eval, vlmevalkit: field or column that holds the score of a sample; for "
            "one task TASK=FIELD, repeatable. [default: known tasks' own]",
            show_default=False,
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="vlmevalkit: name of the only data set. [default: read from the files' names]",
            show_default=False,
        ),
    ] = None,
    pictures: Annotated[
        str | None,
        typer.Option(
            help="lmms-eval, vlmevalkit: file of a picture that no sample names, such as "
            "{dataset}/{id}.png; id is the doc_id or index.",
            show_default=False,
        ),
    ] = None,
    skip_bad: Annotated[
        bool,
        typer.Option(
            "--skip-bad",
            help="table, lmms-eval, vlmevalkit: leave rows out that do not fit, and tell them. "
            "[default: one such row refuses the log]",
            show_default=False,
        ),
    ] = False,
    model: Annotated[
        str | None, typer.Option(help="blindtest: only this model's records.", show_default=False)
    ] = None,
) -> None:
    """Read an oracle log that another tool wrote.

    `table` takes a table (CSV, TSV, Parquet, JSON, JSONL, XLSX) with the columns id, question,
    option and correct, and optionally image, cost, group, dataset, chance, answer, confidence and
    logprob; options may be anything: scales, model sizes, resolutions, providers. `lmms-eval` takes
    what it wrote with `--log_samples`, samples files or a run's folder for each option.
    `vlmevalkit` takes judged tables, of one or several data sets, or a model's folder for each
    option. `exported` takes what `m3router export` wrote. What cannot be
    mapped is said, and kept in the log's metadata: see docs/logs.md. Continue with `featurize`.

    ```
    m3router import table answers.csv --columns id=sample_id,correct=acc --cost-unit USD --out run/
    m3router import lmms-eval 576=runs/576/ 144=runs/144/ --cost-unit "visual tokens" --out run/
    m3router import lmms-eval 7b=7b/ 13b=13b/ --cost 7b=7 --cost 13b=13 --out run/
    m3router import vlmevalkit 7b=7b_MMStar_result.tsv 13b=13b_MMStar_result.tsv --out run/
    m3router import vlmevalkit "7b=out/7b/*_result.xlsx" "13b=out/13b/*_result.xlsx" --out run/
    m3router featurize run/ --images pictures/ --encoder embedded
    ```
    """
    from data.importers import importer
    from data.importers.joined import UNMAPPED
    from data.log.warnings import log_warnings
    from router.cli.console import out as results
    from router.cli.console import say
    from router.runs.run import Run
    from router.stages.labelling import import_stage

    importer(kind)
    options = {
        "columns": _pairs(columns and ",".join(columns).split(","), "--columns", "NAME=COLUMN"),
        "costs": _numbers(_pairs(cost, "--cost", "OPTION=NUMBER")),
        "cost_unit": cost_unit,
        "metric": _pairs(
            [one if "=" in one else f"*={one}" for one in metric or ()], "--metric", "TASK=FIELD"
        ),
        "dataset": dataset,
        "model": model,
        "pictures": pictures,
        "skip_bad": skip_bad,
    }
    given: dict[str, Any] = {name: value for name, value in options.items() if value}
    strange = [FLAGS[name] for name in given if name not in TAKES[kind]]
    if strange:
        raise typer.BadParameter(f"{', '.join(strange)}: not for {kind}")
    run = Run(out)
    log = import_stage(run, kind, _source(kind, sources), **given)
    gaps = f", {log.n_gaps} answers missing" if log.n_gaps else ""
    results.print(
        f"{len(log)} examples with the options {', '.join(log.options)} (cost in "
        f"{log.cost_unit}{gaps}) in {run.log}",
        markup=False,
    )
    for sentence in log.metadata.get(UNMAPPED, ()):
        say(f"not mapped: {sentence}")
    for warning in log_warnings(log):
        say(warning)


def _source(kind: str, sources: list[str]) -> Path | dict[str, list[Path]]:
    """Read what to import: one path, or the paths of each option."""
    if kind in PER_OPTION:
        found: dict[str, list[Path]] = {}
        for source in sources:
            ((option, path),) = _pairs([source], "SOURCES", "OPTION=PATH").items()
            new = [one for one in _matching(path) if one not in found.get(option, [])]
            if not new:
                raise typer.BadParameter(f"SOURCES: {source!r} is given twice")
            found.setdefault(option, []).extend(new)
        return found
    if len(sources) != 1:
        raise typer.BadParameter(f"{kind} reads one file or folder, got {len(sources)}")
    return Path(sources[0])


def _matching(path: str) -> list[Path]:
    """Give a path, or those that it matches where it is a pattern."""
    found = [] if Path(path).exists() else sorted(map(Path, glob(path)))
    return found or [Path(path)]


def _pairs(texts: Iterable[str] | None, flag: str, form: str) -> dict[str, str]:
    """Read NAME=VALUE texts."""
    pairs: dict[str, str] = {}
    for text in texts or ():
        name, mark, value = (part.strip() for part in text.partition("="))
        if not (name and mark and value):
            raise typer.BadParameter(f"{flag}: expected {form}, got {text!r}")
        if name in pairs:
            raise typer.BadParameter(f"{flag}: {name!r} is given twice")
        pairs[name] = value
    return pairs


def _numbers(pairs: dict[str, str]) -> dict[str, float]:
    try:
        return {name: float(value) for name, value in pairs.items()}
    except ValueError as error:
        raise typer.BadParameter(f"--cost: {error}") from error

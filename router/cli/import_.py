"""Read an oracle log that another tool wrote.

Each subcommand reads one kind of files into a run folder. What cannot be mapped is said, and kept
in the log's metadata: see docs/logs.md. Continue with `featurize`.

```
m3router import table answers.csv --column id=sample_id --cost-unit USD --out run/
m3router import lmms-eval 576=runs/576/ 144=runs/144/ --out run/
m3router featurize run/ --images images/ --encoder embedded
```
"""

from __future__ import annotations

from collections.abc import Mapping
from glob import glob
from pathlib import Path
from typing import Annotated, Any

import typer

from m3router.data.importers.joined import UNMAPPED, import_note
from m3router.data.importers.usage import prices_of
from m3router.data.importers.vlmevalkit import by_model, tables_in
from m3router.data.log.warnings import log_warnings
from m3router.data.prices import Prices
from m3router.data.progress import waiting
from m3router.router.cli import next_steps
from m3router.router.cli.console import say
from m3router.router.cli.options import folder_to_write, pairs
from m3router.router.cli.streams import out as results
from m3router.router.runs.run import Run
from m3router.router.text.numbers import count

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode="markdown", help=__doc__
)

Source = Annotated[Path, typer.Argument(help="The file or folder to read.", show_default=False)]
Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="OPTION=PATH...",
        help="The files or the folder of each option; an option may come again with another path. "
        "* in a path stands for anything.",
        show_default=False,
    ),
]
Out = Annotated[Path, typer.Option(help="Run folder to write.", show_default=False)]
Cost = Annotated[
    list[str] | None,
    typer.Option(
        metavar="OPTION=NUMBER|WHAT",
        help="What an answer costs: a number, once for every option; or what is measured of every "
        "answer: tokens (prompt and answer), prompt_tokens, image_tokens, answer_tokens, seconds, "
        "price, flops, or a field or column of the files. [default: the option's name, if it is a "
        "number]",
        show_default=False,
    ),
]
Price = Annotated[
    list[str] | None,
    typer.Option(
        metavar="OPTION=INPUT,OUTPUT[,CACHED]",
        help="Prices of a million tokens of prompt and answer, and of those of the prompt that the "
        "server had read before; once for every option. The cost where --cost does not name "
        "another.",
        show_default=False,
    ),
]
CostUnit = Annotated[
    str | None,
    typer.Option(
        help="What the costs count, such as 'visual tokens' or USD. [default: cost]",
        show_default=False,
    ),
]
Metric = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[TASK=]FIELD",
        help="Field or column that holds the score of a sample; for one task TASK=FIELD; may be "
        "repeated. [default: known tasks' own]",
        show_default=False,
    ),
]
Images = Annotated[
    str | None,
    typer.Option(
        help="File of an image that no sample names, such as {dataset}/{id}.png; id is the doc_id "
        "or index.",
        show_default=False,
    ),
]
Groups = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[DATASET=]TABLE",
        help="Table that tells which questions share an image, such as VLMEvalKit's "
        "LMUData/POPE.tsv or one with the columns id and image_id; may be repeated.",
        show_default=False,
    ),
]
SkipBad = Annotated[
    bool,
    typer.Option(
        "--skip-bad",
        help="Leave rows out that do not fit, and tell them. [default: one such row refuses the "
        "log]",
        show_default=False,
    ),
]


@app.command("table")
def table(
    file: Source,
    out: Out,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OURS=THEIRS",
            help="What the table calls a column, such as id=sample_id; may be repeated.",
            show_default=False,
        ),
    ] = None,
    cost: Cost = None,
    price: Price = None,
    cost_unit: CostUnit = None,
    skip_bad: SkipBad = False,
) -> None:
    """Read a table with a row for each question and option.

    CSV, TSV, Parquet, JSON, JSONL or XLSX with the columns id, question, option and correct, and
    optionally image, cost, group, dataset, chance, answer, confidence, logprob and what the answer
    took (prompt_tokens, answer_tokens, seconds, ...). Options may be anything: scales, model sizes,
    resolutions, providers.

    ```
    m3router import table answers.csv --out run/
    m3router import table answers.csv --column id=sample_id --column correct=acc --out run/
    m3router import table calls.csv --price small=0.1,0.4 --price large=2.5,10 --out run/
    ```
    """
    _read(
        out,
        "table",
        file,
        columns=pairs(column, "--column", "OURS=THEIRS"),
        costs=costs_of(cost),
        prices=prices_given(price),
        cost_unit=cost_unit,
        skip_bad=skip_bad,
    )


@app.command("lmms-eval")
def lmms_eval(
    sources: Sources,
    out: Out,
    cost: Cost = None,
    price: Price = None,
    cost_unit: CostUnit = None,
    metric: Metric = None,
    images: Images = None,
    groups: Groups = None,
    skip_bad: SkipBad = False,
) -> None:
    """Read what lmms-eval wrote with `--log_samples`.

    Samples files, or the folder of a run, for each option.

    ```
    m3router import lmms-eval 576=runs/576/ 144=runs/144/ --cost-unit "visual tokens" --out run/
    m3router import lmms-eval 7b=7b/ 13b=13b/ --cost 7b=7 --cost 13b=13 --out run/
    ```
    """
    _read(
        out,
        "lmms-eval",
        _by_option(sources),
        costs=costs_of(cost),
        prices=prices_given(price),
        cost_unit=cost_unit,
        metric=metrics_of(metric),
        images=images,
        groups=tables_of(groups),
        skip_bad=skip_bad,
    )


@app.command("vlmevalkit")
def vlmevalkit(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="[OPTION=]PATH...",
            help="The files or the folder of each option; an option may come again with another "
            "path. Without OPTION= the model's name in each file's name is the option. * in a path "
            "stands for anything.",
            show_default=False,
        ),
    ],
    out: Out,
    cost: Cost = None,
    price: Price = None,
    cost_unit: CostUnit = None,
    metric: Metric = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Name of the only data set. [default: read from the files' names]",
            show_default=False,
        ),
    ] = None,
    images: Images = None,
    groups: Groups = None,
    skip_bad: SkipBad = False,
) -> None:
    """Read judged tables of VLMEvalKit.

    Tables of one or several data sets, or a model's folder, for each option.

    ```
    m3router import vlmevalkit "outputs/*_result.xlsx" --cost seconds --out run/
    m3router import vlmevalkit 7b=7b_MMStar_result.tsv 13b=13b_MMStar_result.tsv --out run/
    m3router import vlmevalkit "7b=out/7b/*_result.xlsx" "13b=out/13b/*_result.xlsx" --out run/
    ```
    """
    _read(
        out,
        "vlmevalkit",
        _by_option(_named_by_model(sources)),
        costs=costs_of(cost),
        prices=prices_given(price),
        cost_unit=cost_unit,
        metric=metrics_of(metric),
        dataset=dataset,
        images=images,
        groups=tables_of(groups),
        skip_bad=skip_bad,
    )


@app.command("exported")
def exported(folder: Source, out: Out) -> None:
    """Read what `m3router export` wrote.

    ```
    m3router import exported published/ --out another-run/
    ```
    """
    _read(out, "exported", folder)


@app.command("blindtest")
def blindtest(
    folder: Source,
    out: Out,
    model: Annotated[
        str | None, typer.Option(help="Only this model's records.", show_default=False)
    ] = None,
) -> None:
    """Read recorded answers of the blind test.

    ```
    m3router import blindtest records/ --model NAME --out run/
    ```
    """
    _read(out, "blindtest", folder, model=model)


def _read(out: Path, kind: str, source: Path | Mapping[str, list[Path]], **options: Any) -> None:
    from m3router.router.stages.labelling import import_stage  # loads torch

    run = Run(folder_to_write(out))
    with waiting("importing"):
        log = import_stage(run, kind, source, **{name: one for name, one in options.items() if one})
    gaps = f", {count(log.n_gaps, 'answer')} missing" if log.n_gaps else ""
    results.print(
        f"{count(len(log), 'example')} with the options {', '.join(log.options)} (cost in "
        f"{log.cost_unit}{gaps}) in {run.log_folder}",
        markup=False,
    )
    for sentence in log.metadata.get(UNMAPPED, ()):
        say(import_note(sentence))
    for warning in log_warnings(log):
        say(warning)
    next_steps.after_import(run, log)


def _named_by_model(sources: list[str]) -> list[str]:
    """The sources, those without an option under the name of their model."""
    bare = [source for source in sources if "=" not in source]
    tables = [table for path in bare for place in _matching(path) for table in tables_in(place)]
    return [
        *(source for source in sources if "=" in source),
        *(f"{model}={path}" for model, paths in by_model(tables).items() for path in paths),
    ]


def _by_option(sources: list[str]) -> dict[str, list[Path]]:
    """The paths of each option."""
    found: dict[str, list[Path]] = {}
    for source in sources:
        ((option, path),) = pairs([source], "SOURCES", "OPTION=PATH").items()
        new = [one for one in _matching(path) if one not in found.get(option, [])]
        if not new:
            raise typer.BadParameter(f"SOURCES: {source!r} is given twice")
        found.setdefault(option, []).extend(new)
    return found


def _matching(path: str) -> list[Path]:
    """A path, or those that it matches where it is a pattern."""
    found = [] if Path(path).exists() else sorted(map(Path, glob(path)))
    return found or [Path(path)]


def metrics_of(texts: list[str] | None) -> dict[str, str]:
    """The field of each task that `--metric` names; "*" for all tasks."""
    named = [one if "=" in one else f"*={one}" for one in texts or ()]
    return pairs(named, "--metric", "TASK=FIELD")


def tables_of(texts: list[str] | None) -> dict[str, Path]:
    """The table of each data set that `--groups` names; "*" for all of them."""
    named = [one if "=" in one else f"*={one}" for one in texts or ()]
    return {name: Path(path) for name, path in pairs(named, "--groups", "DATASET=TABLE").items()}


def costs_of(texts: list[str] | None) -> dict[str, float] | str:
    """Costs by option, or the name of what is measured."""
    named = [text for text in texts or () if "=" not in text]
    if named and len(texts or ()) > 1:
        raise typer.BadParameter(
            f"--cost: {named[0]!r} is what is measured of every answer; give it alone, or "
            "OPTION=NUMBER for every option"
        )
    if named:
        return named[0].strip()
    found = pairs(texts, "--cost", "OPTION=NUMBER")
    try:
        return {name: float(value) for name, value in found.items()}
    except ValueError:
        raise typer.BadParameter(
            f"--cost: OPTION=NUMBER is needed, such as {next(iter(found))}=7, got {texts!r}"
        ) from None


def prices_given(texts: list[str] | None) -> dict[str, Prices]:
    """The prices of each option that `--price` names."""
    return prices_of(pairs(texts, "--price", "OPTION=INPUT,OUTPUT"))

"""How many labels are enough? What happens on a dataset never seen?

Each subcommand trains a run's router again, and keeps every training as it finishes: the same
command goes on where it stopped. Figures and tables go into the run folder.

```
m3router study learning-curve run/ --seeds 5
m3router study leave-one-out run/
```
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from m3router.router.cli.console import progress, say, show_table
from m3router.router.cli.options import RunFolder
from m3router.router.cli.streams import out
from m3router.router.evaluation.studies.learning_curve import SHARES
from m3router.router.evaluation.studies.summary import answer
from m3router.router.runs.run import Run
from m3router.router.stages.studies import learning_curve_stage, leave_one_out_stage
from m3router.router.text.fractions import METAVAR, fraction
from m3router.router.text.numbers import number

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode="markdown", help=__doc__
)

Draws = Annotated[int, typer.Option(min=2, help="Bootstrap draws for the intervals.")]


@app.command("learning-curve")
def learning_curve(
    run: RunFolder,
    share: Annotated[
        list[float] | None,
        typer.Option(
            parser=fraction,
            metavar=METAVAR,
            help="Share of the labelled images to train on; may be repeated; the whole is always "
            "included. [default: 1/32, 1/16, 1/8, 1/4, 1/2]",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Choices of images per share.")] = 3,
    draws: Draws = 200,
) -> None:
    """Train from growing shares of the labels: with how many has the router most of its gain?

    ```
    m3router study learning-curve run/ --seeds 5
    m3router study learning-curve run/ --share 10% --share 50%
    ```
    """
    place = Run(run).opened()
    with progress("training") as advance:
        document = learning_curve_stage(
            place, shares=share or SHARES, seeds=seeds, draws=draws, progress=advance
        )
    _show_curve(document)
    out.print(f"written to {place.root / 'learning-curve'}", style="dim")


@app.command("leave-one-out")
def leave_one_out(
    run: RunFolder,
    by: Annotated[
        str, typer.Option(help="The log's column of which one value is left out.")
    ] = "dataset",
    draws: Draws = 200,
) -> None:
    """Train without one dataset and test on it, for each in turn.

    ```
    m3router study leave-one-out run/
    ```
    """
    place = Run(run).opened()
    with progress("training") as advance:
        document = leave_one_out_stage(place, by=by, draws=draws, progress=advance)
    _show_left_out(document)
    out.print(f"written to {place.root / 'leave-one-out'}", style="dim")


def _show_curve(document: Mapping[str, Any]) -> None:

    for one in document.get("skipped", ()):
        say(f"{number(one['share'])} of the labels, seed {one['seed']}: {one['skipped']}")
    rows = [
        [
            f"{row['n']:,.0f}",
            f"{row['pictures']:,.0f}",
            _percent(row["aiq"]),
            _points(row["gain"]),
            _percent(row["saved"]),
        ]
        for row in document["shares"]
    ]
    show_table(["questions", "images", "AIQ %", "over fixed", "saved %"], rows)
    out.print(answer(document))
    if any(row["saved"]["value"] is None for row in document["shares"]):
        out.print("Saved –: after one of these trainings nothing is saved.", style="dim")
    out.print(
        f"Means over {document['seeds']} choices of images, 95 % intervals of the test images. "
        "Over fixed: points of AIQ over mixing fixed options. "
        f"The {document['n']['tune']} questions of the tune split are used on top. Saved: cost "
        "of the policy told to keep 99 % of the best fixed accuracy.",
        style="dim",
    )


def _show_left_out(document: Mapping[str, Any]) -> None:

    rows = []
    for one in document["cells"]:
        if "skipped" in one:
            say(f"{one['without']}: {one['skipped']}")
            continue
        best, told = one["best_fixed"], one["told_99"]
        rows.append(
            [
                one["without"],
                one["n"],
                _points(one["gain"]),
                _points(one["in_domain"]),
                _points(one["lookup"]),
                f"{100 * told['accuracy']['value']:.1f} at {number(told['cost']['value'])}",
                f"{100 * best['accuracy']['value']:.1f} at {number(best['cost']['value'])}",
            ]
        )
    if not rows:
        out.print(f"Of the {len(document['cells'])}, none can be left out, for the reasons above.")
        return
    header = [f"without {document['by']}", "n", "over fixed", "had it learned", "lookup"]
    header += ["told 99 %", "best of others"]
    show_table(header, rows)
    means = document["macro"]
    if means["gain"] is not None and means["in_domain"] is not None:
        out.print(
            f"Mean over {len(rows)}: {100 * means['gain']:+z.2f} points over mixing fixed options; "
            f"a router that learned from it reaches {100 * means['in_domain']:+z.2f} more."
        )
    out.print(
        "Each line: trained and calibrated without it, tested on it alone. Over fixed: points of "
        "AIQ over mixing fixed options, with 95 % intervals by image. Had it learned, lookup: "
        "how much more the run's own router, and a lookup of the mean scores of what is left out, "
        "reach. Told 99 %: accuracy in % at mean cost, with the policy calibrated on the others; "
        "beside it the option that is best on the others.",
        style="dim",
    )


def _percent(estimate: Mapping[str, float | None]) -> str:
    if estimate["value"] is None:
        return "–"
    return f"{100 * estimate['value']:.1f} {_ends(estimate, '.1f')}"


def _points(estimate: Mapping[str, float | None]) -> str:
    if estimate["value"] is None:
        return "–"
    return f"{100 * estimate['value']:+z.2f} {_ends(estimate, '+z.2f')}"


def _ends(estimate: Mapping[str, float | None], form: str) -> str:
    low, high = estimate["low"], estimate["high"]
    return "" if low is None or high is None else f"({100 * low:{form}}, {100 * high:{form}})"

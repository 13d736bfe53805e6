"""`m3router compare`."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from m3router.data.progress import waiting
from m3router.router.cli.console import show_table
from m3router.router.cli.options import seed_option
from m3router.router.cli.streams import out
from m3router.router.evaluation.paired_comparison import AIQ, SAVED, Difference
from m3router.router.metrics.intervals import LEAST_FOR_CURVES
from m3router.router.runs.run import Run
from m3router.router.stages.comparing import PairedComparison, compare_runs
from m3router.router.text.numbers import MISSING, number, percent
from m3router.router.text.words import Words, words_of


def compare(
    run_a: Annotated[Path, typer.Argument(help="A run folder.", show_default=False)],
    run_b: Annotated[
        Path, typer.Argument(help="Another, of the same log and split.", show_default=False)
    ],
    budget: Annotated[
        list[float] | None,
        typer.Option(
            help="Mean cost at which accuracies are compared; may be repeated. [default: 1/16, "
            "1/4 and 1/2 of the finest scale's]",
            show_default=False,
        ),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="A policy that both runs have; may be repeated. [default: all that have the same "
            "target in both]",
            show_default=False,
        ),
    ] = None,
    draws: Annotated[
        int, typer.Option(min=2, help="Draws of the bootstrap and of the permutation test.")
    ] = 1000,
    seed: Annotated[int, seed_option("Seed of both.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Is router A better than router B?

    On the test questions of both, paired and by whole images: area under the curve, accuracy at
    equal cost, cost saved, and every policy that both have. Runs of other logs or splits are
    refused.

    ```
    m3router compare run/ run-lightgbm/ --budget 36
    ```
    """
    a, b = Run(run_a).opened(), Run(run_b).opened()
    with waiting("comparing"):
        versus = compare_runs(a, b, budgets=budget, policies=policy, draws=draws, seed=seed)
    if json:
        out.file.write(dumps(versus.to_dict(), indent=2, allow_nan=False) + "\n")
    else:
        _show(versus, words_of(a.log()))


def _show(versus: PairedComparison, words: Words) -> None:
    header = ["", "A", "B", "A − B", "95 % interval", "p"]
    show_table(header, [_line(one) for one in versus.differences])
    for note in _notes(versus):
        out.print(words.of(note), style="dim", markup=False)
    out.print(f"A: {versus.names[0]}", style="dim", markup=False)
    out.print(f"B: {versus.names[1]}", style="dim", markup=False)
    asked = words.asked(versus.n, versus.n_groups)
    told = words.of(
        "Shares in per cent, their differences in points. Two-sided p of a paired permutation test "
        "by image; the p-values are not corrected for their number."
    )
    out.print(f"{versus.n} test questions{asked and ' '}{asked}. {told}", style="dim")


def _notes(versus: PairedComparison) -> list[str]:
    """What 0 and the cells without a number mean."""
    found, notes = versus.differences, []
    saved = [value for one in found if one.name == SAVED for value in (one.a, one.b)]
    if any(one.name == AIQ and one.difference is None for one in found):
        notes.append("AIQ –: every option costs the same on the mean.")
    if None in saved:
        notes.append("Saved –: the best fixed option costs nothing.")
    elif 0.0 in saved:
        notes.append("Saved 0: that accuracy is reached at no lower cost than its own, or never.")
    if any(one.name.startswith("accuracy at") and None in (one.a, one.b) for one in found):
        notes.append("Accuracy –: the router never spends so little.")
    if any(one.difference is not None and one.low is None for one in found):
        notes.append(
            f"No interval: a reliable one needs {LEAST_FOR_CURVES} images, and there "
            f"{'is' if versus.n_groups == 1 else 'are'} {versus.n_groups}."
        )
    return notes


def _line(one: Difference) -> list[str]:

    share = one.unit == "share"
    values = [percent(value) if share else number(value) for value in (one.a, one.b)]
    ends = [one.difference, one.low, one.high]
    gap, low, high = (_points(end) if share else _signed(end) for end in ends)
    between = MISSING if one.low is None and one.high is None else f"{low} to {high}"
    p = MISSING if one.p_value is None else f"{one.p_value:.3f}"
    return [one.name, *values, gap, between, p]


def _points(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:+z.2f}"


def _signed(value: float | None) -> str:

    text = number(value)
    return f"+{text}" if value is not None and value > 0 else text

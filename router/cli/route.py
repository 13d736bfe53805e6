"""`m3router route`."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from m3router.data.errors import DataError
from m3router.data.manifest import atomic_write_text
from m3router.data.sources.examples import load_examples
from m3router.router.cli.argument_order import check_order
from m3router.router.cli.console import say, show_table
from m3router.router.cli.exit_codes import SOME_FAILED
from m3router.router.cli.options import Device, images_folder
from m3router.router.cli.streams import out as results
from m3router.router.runs.run import Run
from m3router.router.text.familiarity import image_note
from m3router.router.text.numbers import number, percent

if TYPE_CHECKING:
    from m3router.router.inference.decision import Decision
    from m3router.router.inference.router import Router

SHOWN = 5


def route(
    run: Annotated[
        str, typer.Argument(help="The run folder; it may also come last.", show_default=False)
    ],
    image: Annotated[
        str | None,
        typer.Argument(
            help="The image or video; left out for a run of questions without images.",
            show_default=False,
        ),
    ] = None,
    question: Annotated[
        str | None,
        typer.Argument(help="The question; none with --examples.", show_default=False),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(help="Name of the policy. [default: default]", show_default=False),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            help="Decide within this mean cost instead, as calibrated on the run.",
            show_default=False,
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="Folder or hub id of the image encoder that the router reads. [default: where it "
            "was when the features were made]",
            show_default=False,
        ),
    ] = None,
    examples: Annotated[
        Path | None,
        typer.Option(
            help="Questions to decide, in any table or dataset: id, image, question.",
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            help="With --examples: folder that the image paths start from.", show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="With --examples: JSON Lines file to write. [default: print them]",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    device: Device = "auto",
) -> None:
    """Decide which option to ask, without asking any model.

    Shows the chosen option, how likely each option was thought to be right, and what each is
    expected to cost. Works for every run, imported logs included, unless its router reads the
    model's own first look (the feature group peek). Only the image encoder that the router reads
    is loaded; where that is the answering model's own tower, that model.

    Says so where the image is unlike those that the router was trained on (fewer than 1 in 100
    of them look as unusual).

    With --examples every line in gives one line out: id, option, estimates, costs; or id and
    error, and the exit code is 3.

    ```
    m3router route run/ image.png "what number is on the red tag?"
    m3router route image.png "what number is on the red tag?" run/ --budget 64 --json
    m3router route run/ --examples questions.jsonl --images images/ --out routed.jsonl
    ```
    """
    given = [one for one in (run, image, question) if one is not None]
    place, seen, asked = _arguments(given, batch=examples is not None)
    if policy is not None and budget is not None:
        raise typer.BadParameter("--policy and --budget cannot go together")
    if examples is None and (images is not None or out is not None):
        raise typer.BadParameter("--images and --out go with --examples")
    from m3router.router.inference.route_lines import record_of
    from m3router.router.inference.router import Router  # loads torch

    if budget is None:  # else it is calibrated anew, and the run's own policies are not read
        Run(place).need_policy(policy or "default")
    router = Router.load(place, policy=policy or "default", encoder=encoder, device=device)
    if examples is not None:
        _route_examples(router, examples, images=images, out=out, budget=budget)
        return
    decision = router.decide(seen, asked, budget=budget)
    if as_json:
        typer.echo(json.dumps(record_of(decision), ensure_ascii=False))
    else:
        _show(decision)


def _arguments(given: list[str], *, batch: bool) -> tuple[Path, Path | None, str]:
    """Run, image and question, with the run first or last.

    Raises:
        BadParameter: When they are too few or too many, or none is a run folder.
        DataError: When they come in another order.
    """
    most = 1 if batch else 3
    if not (1 if batch else 2) <= len(given) <= most:
        wanted = "with --examples the run folder alone" if batch else "RUN [IMAGE] QUESTION"
        raise typer.BadParameter(f"expected {wanted}, got {len(given)} arguments")
    check_order("route", given, run_may_end=True)
    first, *others = given
    if others and not Path(first).is_dir() and Path(given[-1]).is_dir():
        first, others = given[-1], given[:-1]
    image = Path(others[0]) if len(others) == 2 else None
    return Path(first), image, others[-1] if others else ""


def _route_examples(
    router: Router, examples: Path, *, images: Path | None, out: Path | None, budget: float | None
) -> None:
    from m3router.router.inference.route_lines import route_lines

    images_folder(images)
    with TemporaryDirectory() as store:  # for images that are in the examples themselves
        lines, images = _lines_of(router, examples, images=images, store=Path(store))
        records = list(route_lines(router, lines, images=images, budget=budget))
    text = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records)
    if out is None:
        typer.echo(text, nl=False)
    else:
        atomic_write_text(out, text)
    failed = [one for one in records if "error" in one]
    say(f"{len(records) - len(failed)} questions decided{f', {len(failed)} not' if failed else ''}")
    if failed:
        for one in failed[:SHOWN]:
            say(f"{one['id']}: {one['error']}")
        raise typer.Exit(SOME_FAILED)


def _lines_of(
    router: Router, examples: Path, *, images: Path | None, store: Path
) -> tuple[list[bytes], Path | None]:
    """Questions as lines of JSON, as they are or made of a table or dataset; and their images."""
    try:
        content = b"" if examples.is_dir() else examples.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise DataError(
            f"Examples {examples} cannot be read: {error.strerror or error}."
        ) from error
    if content.lstrip().startswith(b"{"):
        return content.split(b"\n"), images
    found = load_examples(examples, images=images, store=store, looks=router.needs_image)
    names = ("id", "image", "question") if router.needs_image else ("id", "question")
    lines = [{name: getattr(one, name) for name in names} for one in found]
    return [json.dumps(line).encode() for line in lines], found.images


def _show(decision: Decision) -> None:
    """A small table, and why."""
    rows = [
        [
            f"{name} ◀" if name == decision.option else name,
            f"{percent(decision.estimates[name])} %",
            number(decision.costs[name]),
        ]
        for name in decision.estimates
    ]
    show_table(["option", "right", decision.cost_unit], rows)
    note = image_note(decision.familiarity, outside=decision.outside)
    for sentence in (note, decision.reason, decision.fallback, decision.guarantee):
        if sentence:
            results.print(sentence, markup=False)

"""`m3router calibrate`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from router.cli.options import RunFolder

if TYPE_CHECKING:
    from router.analysis.words import Words


def calibrate(
    run: RunFolder,
    budget: Annotated[
        float | None,
        typer.Option(help="Most mean cost per answer, such as 64 tokens.", show_default=False),
    ] = None,
    max_loss: Annotated[
        float | None,
        typer.Option(
            help="Instead: most points of accuracy below the finest scale.", show_default=False
        ),
    ] = None,
    price: Annotated[
        float | None,
        typer.Option(
            help="Instead: worth of one unit of cost, such as 0.0001 to give up one point of "
            "accuracy for 100 tokens.",
            show_default=False,
        ),
    ] = None,
    max_regret: Annotated[
        float | None,
        typer.Option(
            help="Instead: guarantee that at most this share of questions is right at the finest "
            "scale and wrong as routed, such as 0.01.",
            show_default=False,
        ),
    ] = None,
    confidence: Annotated[float, typer.Option(help="Of the guarantee.")] = 0.95,
    bound: Annotated[
        str | None,
        typer.Option(
            help="binomial, bentkus or betting. [default: betting; with one question per picture "
            "binomial, or bentkus for partial scores]",
            show_default=False,
        ),
    ] = None,
    cap: Annotated[
        float | None,
        typer.Option(
            help="Most cost of any single answer; with one of the others, or alone.",
            show_default=False,
        ),
    ] = None,
    escalate: Annotated[
        bool,
        typer.Option(
            "--escalate",
            help="With a budget, a maximal loss or regret: ask a finer scale again where the "
            "answer looks wrong; all answers count.",
        ),
    ] = False,
    name: Annotated[str, typer.Option(help="Name of the policy.")] = "default",
) -> None:
    """Set a budget, a tolerable loss, a price, or a guarantee.

    Reads the calibrate part; a guarantee also the tune part, without its labels. When no policy
    meets the target, the policy uses the finest scale and says so. docs/guarantees.md says what a
    guarantee is worth and how many pictures it needs.

    ```
    m3router calibrate run/ --budget 64
    m3router calibrate run/ --max-loss 1 --name careful
    m3router calibrate run/ --max-regret 0.01 --confidence 0.95 --cap 144 --name safe
    m3router calibrate run/ --budget 64 --escalate
    m3router calibrate run/ --max-regret 0.01 --escalate
    ```
    """
    from data.errors import DataError
    from router.analysis.tables import number, percent
    from router.analysis.words import words_of
    from router.cli.console import out
    from router.guarantee import Target
    from router.run import Run
    from router.stages.escalating import escalate_stage
    from router.stages.learning import calibrate_stage

    place = Run(run)
    target = None
    if bound is not None and max_regret is None:
        raise typer.BadParameter("--bound is for --max-regret")
    if max_regret is not None:
        target = Target(max_regret=max_regret, confidence=confidence, bound=bound)
    place.read_router()  # what is missing is told in the order of the stages: first a router
    words = words_of(place.read_log())
    if escalate:
        if price is not None or cap is not None:
            raise DataError(
                "--escalate goes with --budget, --max-loss or --max-regret, not with --price or "
                "--cap."
            )
        with _in_words(words):
            cascade = escalate_stage(
                place, name=name, budget=budget, max_loss_points=max_loss, target=target
            )
        kept_to = cascade.calibration
        out.print(
            f"policy and cascade {name!r} in {run}: mean cost {number(kept_to['mean_cost'])} "
            f"{cascade.binding.cost_unit} in full, {percent(kept_to['accuracy'])} % right, "
            f"{percent(kept_to['asked_again'])} % asked again on {kept_to['n']:.0f} calibration "
            "examples"
        )
        if cascade.guarantee:
            out.print(_guaranteed(cascade.guarantee, "the finest scale", words))
        return
    with _in_words(words):
        policy = calibrate_stage(
            place,
            name=name,
            budget=budget,
            max_loss_points=max_loss,
            price=price,
            target=target,
            cap=cap,
        )
    found, kept = policy.calibration, policy.guarantee
    accuracy = found.get("accuracy")
    right = "" if accuracy is None else f", {percent(accuracy)} % right"
    out.print(
        f"policy {name!r} in {place.policy(name)}: mean cost {number(found['mean_cost'])} "
        f"{policy.binding.cost_unit}{right} on {found['n']:.0f} calibration examples"
    )
    if policy.fallback:
        told = words.of(f"Falls back to the finest scale: {policy.reason}.")
        out.print(told, style="yellow", markup=False)
    elif kept:
        finest = "the finest scale" if cap is None else "the finest scale within the cap"
        out.print(_guaranteed(kept, finest, words))


@contextmanager
def _in_words(words: Words) -> Iterator[None]:
    """Say why a target cannot be met, or nothing be learned, in the words that fit the log."""
    from data.errors import NotLearnableError
    from router.guarantee import UncertifiedError

    try:
        yield
    except (UncertifiedError, NotLearnableError) as error:
        raise type(error)(words.of(str(error))) from error


def _guaranteed(kept: Mapping[str, Any], finest: str, words: Words) -> str:
    """What is guaranteed and on what evidence, in a sentence or two."""
    return words.of(
        f"Guaranteed with confidence {kept['confidence']:g}: at most "
        f"{100 * kept['max_regret']:.3g} % right at {finest} and wrong as routed. Observed: "
        f"{100 * kept['regret']:.2g} % of {kept['questions']} questions about "
        f"{kept['pictures']} pictures ({kept['bound']} bound, p = {kept['p_value']:.2g})."
    )

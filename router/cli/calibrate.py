"""`m3router calibrate`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from data.errors import DataError, NotLearnableError
from router.analysis.tables import number, percent
from router.analysis.words import Words, words_of
from router.cascade import Cascade
from router.cli.console import say, say_about_reference
from router.cli.fractions import METAVAR, fraction, signed_fraction
from router.cli.options import PolicyName, RunFolder
from router.cli.streams import out
from router.guarantee import Target, UncertifiedError
from router.guarantee_text import evidence, told_by
from router.policy import Policy
from router.run import Run
from router.stages.escalating import escalate_stage
from router.stages.learning import calibrate_stage
from router.stages.references import reference_stage

SURPRISING = 0.1
"""Loss from which on it is said in points: 0.5 was half a point before, and is 50 points."""


def calibrate(
    run: RunFolder,
    budget: Annotated[
        float | None,
        typer.Option(help="Most mean cost per answer, such as 64 tokens.", show_default=False),
    ] = None,
    max_loss: Annotated[
        float | None,
        typer.Option(
            parser=fraction,
            metavar=METAVAR,
            help="Instead: guarantee that accuracy is at most so much below the reference "
            "option's, such as 1%: one point.",
            show_default=False,
        ),
    ] = None,
    max_loss_observed: Annotated[
        float | None,
        typer.Option(
            parser=signed_fraction,
            metavar=METAVAR,
            help="Instead: most accuracy below the reference option's as observed on the "
            "calibration split, such as 1%; nothing is guaranteed.",
            show_default=False,
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
            parser=fraction,
            metavar=METAVAR,
            help="Instead: guarantee that at most this share of questions is right at the "
            "reference option and wrong as routed, such as 1%.",
            show_default=False,
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="Option that losses and regrets are against, and that is used where nothing meets "
            "the target. [default: the best one of the calibration split]",
            show_default=False,
        ),
    ] = None,
    confidence: Annotated[
        float, typer.Option(parser=fraction, metavar=METAVAR, help="Of the guarantee.")
    ] = 0.95,
    bound: Annotated[
        str | None,
        typer.Option(
            help="Test behind the guarantee: deadline, binomial, betting, wsr or bentkus. "
            "[default: deadline; binomial for a regret where an image counts with one question, "
            "right or wrong]",
            show_default=False,
        ),
    ] = None,
    most: Annotated[
        int | None,
        typer.Option(
            help="Most questions that an image counts with in the guarantee; of others as many are "
            "drawn. [default: from the images of the fit and the tune part]",
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
    policy: PolicyName = "default",
) -> None:
    """Set a budget, a tolerable loss, a price, or a guarantee.

    Reads the calibrate part; a guarantee also the tune part. Losses and regrets are against the
    reference, the option that is best on the calibration split. When no policy
    meets the target, the policy uses the reference and says so. docs/guarantees.md says what a
    guarantee is worth and how many images it needs.

    ```
    m3router calibrate run/ --budget 64
    m3router calibrate run/ --max-loss 1% --policy careful
    m3router calibrate run/ --max-regret 1% --confidence 95% --cap 144 --policy safe
    m3router calibrate run/ --max-loss-observed 1%
    m3router calibrate run/ --budget 64 --escalate
    m3router calibrate run/ --max-regret 1% --escalate
    ```
    """
    place = Run(run)
    # Rounded, because the policy's file says the points: 29% are 29, not 28.999999999999996.
    points = None if max_loss_observed is None else round(100 * max_loss_observed, 9)
    knobs: dict[str, Any] = {"budget": budget, "max_loss_points": points}
    certified = [one for one in (max_regret, max_loss) if one is not None]
    if bound is not None and not certified:
        raise typer.BadParameter("--bound is for --max-regret and --max-loss")
    if most is not None and not certified:
        raise typer.BadParameter("--most is for --max-regret and --max-loss")
    if len(certified) == 2:
        raise DataError("Give exactly one of --max-regret and --max-loss.")
    if max_loss is not None and not max_loss > 0:
        raise DataError(
            f"--max-loss must be above 0, such as 0.5%; it is {max_loss:g}. No number of "
            "images certifies a loss of nothing. --max-loss-observed takes 0 and less, as observed "
            "and without a guarantee."
        )
    if certified:
        wanted = {"max_regret": max_regret} if max_loss is None else {"max_loss": max_loss}
        knobs["target"] = Target(**wanted, confidence=confidence, bound=bound, most=most)
    for one in (max_loss, max_loss_observed):
        if one is not None and one >= SURPRISING:
            say(f"A loss of {100 * one:g} points of accuracy is allowed.")
    place.read_router()  # what is missing is told in the order of the stages: first a router
    words = words_of(place.read_log())
    if escalate and (price is not None or cap is not None):
        raise DataError(
            "--escalate goes with --budget, --max-loss, --max-loss-observed or --max-regret, not "
            "with --price or --cap."
        )
    summary = reference_stage(place, reference=reference, cap=cap)
    with _in_words(words):
        if escalate:
            cascade = escalate_stage(place, name=policy, reference=reference, **knobs)
        else:
            chosen = calibrate_stage(
                place, name=policy, price=price, cap=cap, reference=reference, **knobs
            )
    if escalate:
        _show_cascade(cascade, place, policy)
    else:
        _show_policy(chosen, place, policy)
    say_about_reference(summary, words, whole=bool(certified) or max_loss_observed is not None)
    _show_promise(cascade if escalate else chosen, words, observed=max_loss_observed is not None)


def _show_cascade(cascade: Cascade, place: Run, name: str) -> None:
    kept_to = cascade.calibration
    out.print(
        f"policy and cascade {name!r} in {place.root}: mean cost {number(kept_to['mean_cost'])} "
        f"{cascade.binding.cost_unit} in full, {percent(kept_to['accuracy'])} % right, "
        f"{percent(kept_to['asked_again'])} % asked again on {kept_to['n']:.0f} calibration "
        "examples"
    )


def _show_policy(policy: Policy, place: Run, name: str) -> None:
    found = policy.calibration
    accuracy = found.get("accuracy")
    right = "" if accuracy is None else f", {percent(accuracy)} % right"
    out.print(
        f"policy {name!r} in {place.policy(name)}: mean cost {number(found['mean_cost'])} "
        f"{policy.binding.cost_unit}{right} on {found['n']:.0f} calibration examples"
    )


def _show_promise(kept: Policy | Cascade, words: Words, *, observed: bool) -> None:
    """What is guaranteed and on what evidence, or that nothing is, and why it fell back."""
    if isinstance(kept, Policy) and kept.fallback:
        told = words.of(f"Falls back to the reference option: {kept.reason}.")
        out.print(told, style="yellow", markup=False)
    elif sentence := told_by(kept):
        out.print(f"{sentence} {evidence(kept.guarantee, words)}", markup=False)
    if observed:
        out.print(
            "Nothing is certified: the loss is as observed on the questions that the policy was "
            "chosen on, which flatters it. --max-loss certifies one.",
            markup=False,
        )


@contextmanager
def _in_words(words: Words) -> Iterator[None]:
    """Say why a target cannot be met, or nothing be learned, in the words that fit the log."""
    try:
        yield
    except (UncertifiedError, NotLearnableError) as error:
        raise type(error)(words.of(str(error))) from error

"""`m3router calibrate`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from m3router.data.errors import DataError, NotLearnableError
from m3router.data.log.oracle_log import OracleLog
from m3router.data.log.parts import part_sizes
from m3router.router.cascade.rule import Cascade
from m3router.router.cli import next_steps
from m3router.router.cli.console import say, say_about_reference
from m3router.router.cli.options import PolicyName, RunFolder
from m3router.router.cli.streams import out
from m3router.router.evaluation.few_images import few_to_calibrate
from m3router.router.policies.guarantee import Target, TooFewError, UncertifiedError
from m3router.router.policies.guarantee_text import evidence, told_by
from m3router.router.policies.knobs import Knobs, told
from m3router.router.policies.policy import Policy
from m3router.router.runs.run import Run
from m3router.router.stages.escalating import escalate_stage
from m3router.router.stages.learning import calibrate_stage
from m3router.router.stages.references import reference_stage
from m3router.router.text.agreement import agreement_sentence
from m3router.router.text.fractions import METAVAR, check_within, fraction, signed_fraction
from m3router.router.text.numbers import number, percent, plain, round_up
from m3router.router.text.words import Words, words_of

SURPRISING = 0.1
"""Loss from which on it is said in points: 0.5 was half a point before, and is 50 points."""


def knob(name: str, **more: Any) -> Any:
    """The option of a knob, in the words of `m3router.router.policies.knobs.Knobs`."""
    return typer.Option(help=told(name), show_default=False, **more)


def calibrate(
    run: RunFolder,
    budget: Annotated[float | None, knob("budget")] = None,
    max_loss: Annotated[float | None, knob("max_loss", parser=fraction, metavar=METAVAR)] = None,
    max_loss_observed: Annotated[
        float | None, knob("max_loss_observed", parser=signed_fraction, metavar=METAVAR)
    ] = None,
    price: Annotated[float | None, knob("price")] = None,
    max_regret: Annotated[
        float | None, knob("max_regret", parser=fraction, metavar=METAVAR)
    ] = None,
    reference: Annotated[str | None, knob("reference")] = None,
    confidence: Annotated[float, knob("confidence", parser=fraction, metavar=METAVAR)] = 0.95,
    bound: Annotated[str | None, knob("bound")] = None,
    most: Annotated[int | None, knob("most")] = None,
    cap: Annotated[float | None, knob("cap")] = None,
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
    """Set a budget, a tolerable loss, a price, or a guarantee; a cap beside one of them, or alone.

    Reads the calibration split; a guarantee also the tune split. Losses and regrets are against the
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
    place = Run(run).opened()
    certified = [one for one in (max_regret, max_loss) if one is not None]
    if bound is not None and not certified:
        raise typer.BadParameter("--bound is for --max-regret and --max-loss")
    if most is not None and not certified:
        raise typer.BadParameter("--most is for --max-regret and --max-loss")
    if len(certified) == 2:
        raise DataError("Give exactly one of --max-regret and --max-loss.")
    if max_loss is not None and not max_loss > 0:
        raise DataError(
            f"--max-loss must be above 0, such as 0.5%; it is {plain(max_loss)}. No number of "
            "images certifies a loss of nothing. --max-loss-observed takes 0 and less, as observed "
            "and without a guarantee."
        )
    check_within("--max-loss", max_loss, such="1%")
    check_within("--max-regret", max_regret, such="1%")
    check_within("--confidence", confidence, such="95%")
    for one in (max_loss, max_loss_observed):
        if one is not None and one >= SURPRISING:
            say(f"A loss of {plain(100 * one)} points of accuracy is allowed.")
    knobs = Knobs(
        budget=budget,
        max_loss=max_loss,
        max_regret=max_regret,
        max_loss_observed=max_loss_observed,
        price=price,
        cap=cap,
        reference=reference,
        confidence=confidence,
        bound=bound,
        most=most,
    )
    Target.of(knobs)  # numbers out of range are refused before anything is read
    place.router()  # what is missing is named in the order of the stages: first a router
    log = place.log()
    words = words_of(log)
    if told := agreement_sentence(log.metadata, words):
        say(told)
    if escalate and (price is not None or cap is not None):
        raise DataError(
            "--escalate goes with --budget, --max-loss, --max-loss-observed or --max-regret, not "
            "with --price or --cap."
        )
    summary = reference_stage(place, reference=reference, cap=cap)
    with _in_words(words, place, log):
        if escalate:
            cascade = escalate_stage(place, name=policy, **knobs)
        else:
            chosen = calibrate_stage(place, name=policy, **knobs)
    if escalate:
        _show_cascade(cascade, place, policy)
    else:
        _show_policy(chosen, place, policy)
    say_about_reference(summary, words, whole=bool(certified) or max_loss_observed is not None)
    _show_promise(cascade if escalate else chosen, words, observed=max_loss_observed is not None)
    log = place.log()
    if few := few_to_calibrate(part_sizes(log, place.split(log))["calibrate"]["pictures"], words):
        say(few)
    next_steps.show_next("evaluate", run)


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
        f"policy {name!r} in {place.policy_file(name)}: mean cost {number(found['mean_cost'])} "
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
            "Nothing is certified: the loss was observed on the same questions that the policy was "
            "chosen on, so the true loss is usually larger. --max-loss certifies a loss.",
            markup=False,
        )


@contextmanager
def _in_words(words: Words, run: Run, log: OracleLog) -> Iterator[None]:
    """Say why a target cannot be met, or nothing be learned, in the words that fit the log."""
    try:
        yield
    except TooFewError as error:
        sizes = part_sizes(log, run.split(log))
        whole = sum(one["pictures"] for one in sizes.values())
        in_all = round_up(error.least * whole / max(error.images, 1))
        budget = next_steps.a_budget(log)
        does = [
            next_steps.command("calibrate", run.root, *knob)
            for knob in (("--budget", budget), ("--max-loss-observed", "1%"))
        ]
        raise TooFewError(
            words.of(
                f"{error} It takes about {in_all:,} labelled images in all; there are {whole:,}."
            )
            + f"\nWithout a certificate: `{does[0]}` or `{does[1]}`.",
            least=error.least,
            images=error.images,
        ) from error
    except (UncertifiedError, NotLearnableError) as error:
        raise type(error)(words.of(str(error))) from error

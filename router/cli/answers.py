"""A routed answer with its reasons: used by `ask` and `quickstart`."""

from __future__ import annotations

from collections.abc import Mapping

from rich.text import Text

from m3router.router.cli.streams import out
from m3router.router.inference.option_pipeline import OptionAnswer
from m3router.router.inference.pipeline import RoutedAnswer
from m3router.router.text.familiarity import image_note
from m3router.router.text.numbers import duration, number
from m3router.router.text.usage import cost_text, usage_text

BAR = 24


def show_answer(answer: RoutedAnswer) -> None:
    """Print answer, scale, predicted sufficiency by scale, tokens and time by stage."""
    said = answer.answer
    _show_said(answer, said.confidence)
    chosen = "chosen by the router" if answer.sufficiency else "asked for"
    out.print(Text(f"scale   {answer.scale}, {chosen}"))
    if not answer.outside:
        _show_estimates(answer.estimates, answer.option)
    gflops = {stage: flops / 1e9 for stage, flops in answer.flops.items()}
    out.print(
        Text(
            f"tokens  {said.visual_tokens} visual + {said.text_tokens} text, "
            f"{said.answer_tokens} answered; {number(gflops['language'])} GFLOPs in the language "
            f"model, {number(gflops['vision'])} in the vision tower"
        )
    )
    if gflops["peek"]:
        out.print(
            Text(
                f"peek    {answer.peek_tokens} visual tokens read at the coarsest scale to decide: "
                f"{number(gflops['peek'])} GFLOPs more"
            )
        )
    _show_time(answer.milliseconds)


def show_option_answer(answer: OptionAnswer) -> None:
    """Print answer, option, estimates with what each option is expected to cost, usage and time."""
    said, decision = answer.answer, answer.decision
    _show_said(answer, said.confidence)
    out.print(Text(f"option  {answer.option}"))
    for option, earlier in answer.earlier:
        out.print(Text(f"before  {option} said {earlier.text!r}, which looked wrong"))
    if answer.failed is not None:
        option, failure = answer.failed
        out.print(Text(f"after   {option} was asked next and failed: {failure.message}"))
    costs = {name: cost_text(cost, decision.cost_unit) for name, cost in decision.costs.items()}
    if not answer.outside:
        _show_estimates(decision.estimates, answer.option, costs)
    out.print(Text(f"why     {decision.reason}"))
    for told in (decision.fallback, decision.guarantee):
        if told:
            out.print(Text(f"        {told}"))
    out.print(Text(f"usage   {usage_text(answer.usage, answer.cost_unit)}"))
    _show_time(answer.milliseconds)


def _show_said(answer: RoutedAnswer | OptionAnswer, confidence: float | None) -> None:
    """The answer, how sure the model is of it, and before both why they may not hold.

    What is said of an image that the model cannot read is no answer, however sure the model is.
    """
    if note := image_note(answer.familiarity, outside=answer.outside):
        out.print(Text(f"note    {note}", style="yellow"))
    if answer.outside:
        out.print(Text(f"said    {answer.text}"))
        return
    sure = "" if confidence is None else f"  ({confidence:.0%} sure)"
    out.print(Text.assemble("answer  ", (answer.text, "bold green"), sure))


def _show_estimates(
    estimates: Mapping[str, float], chosen: str, costs: Mapping[str, str] | None = None
) -> None:
    width = max(map(len, estimates), default=0)
    for option, likely in estimates.items():
        filled = round(likely * BAR)
        here = option == chosen
        told = f", {costs[option]}" if costs else ""
        out.print(
            Text(
                f"        {option:>{width}} {'█' * filled}{'░' * (BAR - filled)} {likely:5.1%} "
                f"likely to suffice{told}{' ◀' if here else ''}",
                style="cyan" if here else "dim",
            )
        )


def _show_time(milliseconds: Mapping[str, float]) -> None:
    spent = ", ".join(f"{stage} {number(ms, digits=2)}" for stage, ms in milliseconds.items())
    whole = duration(sum(milliseconds.values()) / 1000)
    out.print(Text(f"time    {whole} ({spent})"))

"""A routed answer with its reasons: used by `ask` and `quickstart`."""

from __future__ import annotations

from rich.text import Text

from m3router.router.cli.streams import out
from m3router.router.inference.pipeline import RoutedAnswer
from m3router.router.text.numbers import number

BAR = 24


def show_answer(answer: RoutedAnswer) -> None:
    """Print answer, scale, predicted sufficiency by scale, tokens and time by stage."""
    said = answer.answer
    out.print(
        Text.assemble("answer  ", (said.text, "bold green"), f"  ({said.confidence:.0%} sure)")
    )
    chosen = "chosen by the router" if answer.sufficiency else "asked for"
    out.print(Text(f"scale   {answer.scale}, {chosen}"))
    width = len(str(max(answer.sufficiency, default=0)))
    for scale, likely in answer.sufficiency.items():
        filled = round(likely * BAR)
        here = scale == answer.scale
        out.print(
            Text(
                f"        {scale:>{width}} {'█' * filled}{'░' * (BAR - filled)} {likely:5.1%} "
                f"likely to suffice{' ◀' if here else ''}",
                style="cyan" if here else "dim",
            )
        )
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
    spent = ", ".join(f"{stage} {ms:.2g}" for stage, ms in answer.milliseconds.items())
    out.print(Text(f"time    {sum(answer.milliseconds.values()):.1f} ms ({spent})"))

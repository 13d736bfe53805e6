"""`m3router ask`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from m3router.data.images import open_image
from m3router.data.videos import is_video
from m3router.router.cli.options import Device, PolicyName, RunFolder
from m3router.router.cli.streams import err


def ask(
    run: RunFolder,
    image: Annotated[Path, typer.Argument(help="The image or video.", show_default=False)],
    question: Annotated[str, typer.Argument(help="The question.", show_default=False)],
    model: Annotated[
        str | None,
        typer.Option(help="The model that was labelled. [default: the run's]", show_default=False),
    ] = None,
    policy: PolicyName = "default",
    scale: Annotated[
        int | None, typer.Option(help="Use this scale instead of routing.", show_default=False)
    ] = None,
    device: Device = "auto",
) -> None:
    """Answer one question at the scale that the router chooses.

    Shows the answer, the scale, how likely each scale was thought to suffice, the tokens, and
    where the time went. A video is shown as a collage of as many frames as in the run.

    ```
    m3router ask run/ image.png "what number is on the red tag?"
    ```
    """
    from m3router.router.cli.answers import show_answer
    from m3router.router.inference.pipeline import AutoScalePipeline

    opened = image if is_video(image) else open_image(image)  # the run knows how many frames
    with err.status("loading"):
        pipeline = AutoScalePipeline.load(run, model=model, policy=policy, device=device)
    (answer,) = pipeline.answer([opened], [question], scale=scale)
    show_answer(answer)

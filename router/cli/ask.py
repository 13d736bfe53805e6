"""`m3router ask`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from m3router.data.images import open_image
from m3router.data.progress import waiting
from m3router.data.videos import is_video
from m3router.router.cli.argument_order import check_order
from m3router.router.cli.endpoint_options import RunEndpoint, model_or_endpoint
from m3router.router.cli.options import Device, PolicyName, RunFolder
from m3router.router.cli.toys import say_if_toy
from m3router.router.runs.run import Run


def ask(
    run: RunFolder,
    image: Annotated[Path, typer.Argument(help="The image or video.", show_default=False)],
    question: Annotated[str, typer.Argument(help="The question.", show_default=False)],
    model: Annotated[
        str | None,
        typer.Option(
            help="The model that was labelled: its folder or hub id, or an endpoint's address. "
            "[default: the run's]",
            show_default=False,
        ),
    ] = None,
    endpoint: RunEndpoint = None,
    policy: PolicyName = "default",
    option: Annotated[
        str | None,
        typer.Option(
            "--option",
            "--scale",
            metavar="NAME",
            help="Use this option instead of routing.",
            show_default=False,
        ),
    ] = None,
    device: Device = "auto",
) -> None:
    """Answer one question at the option that the router chooses.

    Shows the answer, the option, how likely each one was thought to suffice, the tokens, and where
    the time went. A video is shown as a collage of as many frames as in the run. Works for every
    run whose model can be asked: a Matryoshka model, a vision-language model by budget, an endpoint
    (its key is read from where `label` read it), a function.

    ```
    m3router ask run/ image.png "what number is on the red tag?"
    m3router ask run/ image.png "what number is on the red tag?" --option 144
    ```
    """
    from m3router.router.cli.answers import show_answer, show_option_answer
    from m3router.router.inference.opening import open_pipeline
    from m3router.router.inference.option_pipeline import OptionAnswer

    check_order("ask", [str(run), str(image), question])
    opened = image if is_video(image) else open_image(image)  # the run knows how many frames
    if option is None:
        Run(run).need_policy(policy)
    model = model_or_endpoint(run, model, endpoint)
    with waiting("loading"):
        pipeline = open_pipeline(run, model=model, policy=policy, device=device)
    say_if_toy(pipeline.model.name)
    (told,) = pipeline.answer([opened], [question], option=option)
    if isinstance(told, OptionAnswer):
        show_option_answer(told)
    else:
        show_answer(told)

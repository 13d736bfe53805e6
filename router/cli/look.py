"""`m3router look`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated

import typer

from m3router.data.errors import DataError
from m3router.data.manifest import atomic_write_bytes
from m3router.data.progress import waiting
from m3router.data.videos import open_media
from m3router.router.cli.options import Device, Dtype, Frames, Grids, Pooling, UnlistedGrids
from m3router.router.cli.streams import out as console
from m3router.router.cli.toys import say_if_toy


def look(
    image: Annotated[Path, typer.Argument(help="The image or video.", show_default=False)],
    question: Annotated[str, typer.Option(help="The question.", show_default=False)],
    out: Annotated[Path, typer.Option(help="PNG file to write.")] = Path("look.png"),
    model: Annotated[
        str, typer.Option(help="embedded, fake, a folder, or a hub id of a LLaVA-type model.")
    ] = "embedded",
    scales: Annotated[
        list[int] | None,
        typer.Option(
            "--scale", help="A scale to show; may be repeated. [default: all]", show_default=False
        ),
    ] = None,
    tokens: Annotated[
        list[int] | None,
        typer.Option(
            "--tokens",
            help="For MQT: a visual token, from 0, whose heat map is shown too; may be repeated. "
            "Each scale shows the last of its tokens anyway.",
            show_default=False,
        ),
    ] = None,
    device: Device = "auto",
    dtype: Annotated[Dtype, typer.Option(help="Number format of the model.")] = Dtype.FLOAT32,
    pooling: Annotated[
        Pooling, typer.Option(help="How coarser scales are made of the finest.")
    ] = Pooling.AVERAGE,
    grids: Grids = None,
    unlisted_grids: UnlistedGrids = False,
    frames: Frames = 6,
) -> None:
    """Draw what a model sees and answers at each scale, side by side.

    Below the image stands what each scale keeps of it: a cell for each visual token, in the
    mean colour of what the token covers; what becomes no token is grey. Tokens carry features,
    not colours: the cells show how much detail is left, not what the model knows. For MQT, whose
    tokens have no place, heat maps show where tokens look (Grad-CAM). No router is needed.

    ```
    m3router look image.png --question "what number is on the red tag?" --out look.png
    ```
    """
    from m3router.m3core.checkpoints import load_model  # this and the next load torch
    from m3router.router.visualize.token_grid import look as draw

    if out.suffix.lower() != ".png":
        raise DataError(f"--out must end in .png, got {str(out)!r}.")
    opened = open_media(image, frames=frames)
    say_if_toy(model)
    with waiting("looking"):
        loaded = load_model(
            model,
            device=device,
            dtype=dtype.value,
            pooling=pooling.value,
            grids=grids,
            unlisted_grids=unlisted_grids,
        )
        drawing, answers = draw(loaded, opened, question, scales=scales or (), tokens=tokens or ())
    buffer = io.BytesIO()
    drawing.save(buffer, format="PNG", optimize=True)
    atomic_write_bytes(out, buffer.getvalue())
    for one in answers:
        unit = "visual token" if one.visual_tokens == 1 else "visual tokens"
        console.print(f"{one.visual_tokens:>5} {unit}: {one.text}", markup=False)
    console.print(f"written: {out}", markup=False)

"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

RunFolder = Annotated[Path, typer.Argument(help="The run folder.", show_default=False)]
Images = Annotated[
    Path, typer.Option(help="Folder that the image paths start from.", show_default=False)
]
Device = Annotated[str, typer.Option(help="Such as cpu or cuda; auto takes a GPU if there is one.")]

DeviceMap = Annotated[
    str | None,
    typer.Option(
        help="auto spreads a large model over all GPUs and memory; then --device is not used.",
        show_default=False,
    ),
]
Bits = Annotated[
    int | None,
    typer.Option(
        help="8 or 4: quantise the language model by bitsandbytes; needs a GPU.",
        show_default=False,
    ),
]
Grids = Annotated[
    list[str] | None,
    typer.Option(
        "--grid",
        help="For LLaVA-NeXT: cut pictures into so many rows x columns, such as 2x2; may be "
        "repeated. [default: the checkpoint's]",
        show_default=False,
    ),
]
UnlistedGrids = Annotated[
    bool,
    typer.Option("--unlisted-grids", help="Allow a --grid that the checkpoint does not list."),
]
Frames = Annotated[
    int, typer.Option("--frames", min=1, help="Frames that a video's collage is made of.")
]


class Dtype(StrEnum):
    """Number formats of a model."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class Pooling(StrEnum):
    """Ways to make coarser scales of the finest; the names of `m3core.pooling.POOLINGS`."""

    AVERAGE = "average"
    SPATIAL = "spatial"
    SEQUENTIAL = "sequential"


class GapRule(StrEnum):
    """What is done about examples with a failed answer."""

    ERROR = "error"
    DROP = "drop"


Questions = Annotated[
    str, typer.Option(help="What encodes questions: model, hashed, or sentence:FOLDER_OR_HUB_ID.")
]
Tiers = Annotated[
    str | None,
    typer.Option(
        help="Feature blocks, separated by commas: image, question, cheap, peek. "
        "[default: all that can be had]",
        show_default=False,
    ),
]


def named_tiers(text: str | None) -> list[str] | None:
    """The names in a list separated by commas.

    >>> named_tiers("image, peek")
    ['image', 'peek']
    """
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]

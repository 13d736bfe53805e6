"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from data.splitting import Splitting

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


Shares = Annotated[
    str | None,
    typer.Option(
        help="Of the groups: PART=SHARE, joined by commas without blanks. By default fit=0.5, "
        "tune=0.1, calibrate=0.2, test=0.2.",
        show_default=False,
    ),
]
SplitFile = Annotated[
    Path | None,
    typer.Option(
        "--split",
        help="A given split: a table or JSON, id or group -> fit, tune, calibrate, test, or "
        "train, which is divided into the first three.",
        show_default=False,
    ),
]
SplitColumn = Annotated[
    str | None,
    typer.Option(
        help="Column of the parts in --split. [default: split or part]", show_default=False
    ),
]
SplitId = Annotated[
    str | None,
    typer.Option(
        help="Column of the ids in --split. [default: the one that the log's ids were imported "
        "from, else id, example_id or group]",
        show_default=False,
    ),
]


def splitting_of(
    shares: str | None, split: Path | None, split_column: str | None, split_id: str | None
) -> Splitting | None:
    """What the options about the split ask for; None when none was given.

    Raises:
        DataError: when shares are none.
        BadParameter: for a column without a file.
    """
    from data.splits.assignment import parse_shares
    from data.splits.split import FRACTIONS
    from data.splitting import Splitting

    if split_column is not None and split is None:
        raise typer.BadParameter("--split-column names a column of the file in --split")
    if split_id is not None and split is None:
        raise typer.BadParameter("--split-id names a column of the file in --split")
    if shares is None and split is None:
        return None
    parsed = FRACTIONS if shares is None else parse_shares(shares)
    return Splitting(shares=parsed, file=split, column=split_column, key=split_id)


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
    str,
    typer.Option(
        help="What encodes questions: model, hashed, or sentence:NAME, a folder or hub id."
    ),
]
Tiers = Annotated[
    str | None,
    typer.Option(
        help="Feature blocks, separated by commas: image, question, cheap, peek. "
        "[default: image,question, or question without pictures]",
        show_default=False,
    ),
]


def named_tiers(text: str | None) -> list[str] | None:
    """The names in a list separated by commas.

    >>> named_tiers("image, peek")
    ['image', 'peek']
    """
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]

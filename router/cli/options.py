"""Options that several commands share."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from enum import StrEnum
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer
from typer.models import ParameterInfo

from m3router.data.errors import DataError
from m3router.data.splits.assignment import shares_in_order
from m3router.data.splits.split import FRACTIONS
from m3router.router.stages.splitting import Splitting
from m3router.router.text.fractions import METAVAR, fraction
from m3router.router.training.targets import RULES

Settings = TypeVar("Settings")

RunFolder = Annotated[Path, typer.Argument(help="The run folder.", show_default=False)]
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
ModelOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="NAME=JSON",
        help="An option of a vision-language model and its image processor's settings, or only "
        "NAME for a function; repeat it, coarsest first.",
        show_default="the model's own",
    ),
]
Grids = Annotated[
    list[str] | None,
    typer.Option(
        "--grid",
        help="For LLaVA-NeXT: cut images into so many rows x columns, such as 2x2; may be "
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


SEEDS = 2**32
"""Seeds are below it, as numpy and scikit-learn take them."""


def seed_option(about: str) -> Any:
    """The option --seed, which every library here has to take."""
    return typer.Option(min=0, max=SEEDS - 1, help=about)


def folder_to_write(out: Path, flag: str = "--out") -> Path:
    """A folder that can be written to, looked at before anything long is begun.

    Raises:
        DataError: It cannot be: a file is in its place or above it, or there is no permission.
    """
    above = next(one for one in (out, *out.absolute().parents) if os.path.lexists(one))
    if not above.is_dir():
        raise DataError(f"{flag} {out}: {above} is not a folder. Give another folder.")
    try:
        with tempfile.TemporaryFile(dir=above):
            pass
    except OSError as error:
        told = f"nothing can be written in {above} ({error.strerror or error})"
        raise DataError(f"{flag} {out}: {told}. Give another folder.") from error
    return out


def images_folder(images: Path | None) -> Path | None:
    """The folder of images, where one is given.

    Raises:
        DataError: It is no folder.
    """
    if images is not None and not images.is_dir():
        what = "is a file" if images.exists() else "does not exist"
        raise DataError(f"The images folder {images} {what}. Give the folder of the images.")
    return images


def one_name(text: str) -> str:
    """A name, which is not a list of names.

    Raises:
        BadParameter: If there are commas.
    """
    if "," in text:
        raise typer.BadParameter(f"{text!r} is a list; give the option once for each name")
    return text.strip()


def pairs(texts: Iterable[str] | None, flag: str, form: str) -> dict[str, str]:
    """What a repeated option with NAME=VALUE says.

    Raises:
        BadParameter: If a text has another form, or a name comes twice.
    """
    found: dict[str, str] = {}
    for text in texts or ():
        name, mark, value = (part.strip() for part in text.partition("="))
        if not (name and mark and value):
            raise typer.BadParameter(f"{flag}: expected {form}, got {text!r}; write both parts")
        if name in found:
            raise typer.BadParameter(f"{flag}: {name!r} is given twice")
        found[name] = value
    return found


LogTo = Annotated[
    list[str] | None,
    typer.Option(
        "--log-to",
        parser=one_name,
        metavar="TRACKER",
        help="Tell an experiment tracker what was found: wandb, mlflow, tensorboard or trackio; "
        "may be repeated.",
        show_default=False,
    ),
]
LogToProject = Annotated[
    str | None,
    typer.Option(
        help="Project or experiment of the trackers. [default: their own setting, or m3router]",
        show_default=False,
    ),
]
PolicyName = Annotated[str, typer.Option("--policy", help="Name of the policy.")]
Rule = Annotated[
    str,
    typer.Option(
        help=f"When a scale suffices: {', '.join(list(RULES)[:-1])} or {list(RULES)[-1]}."
    ),
]
SplitShares = Annotated[
    list[str] | None,
    typer.Option(
        "--split-share",
        metavar="PART=FRACTION",
        help="How much of the images a part gets, such as test=20%; repeated, once for each of "
        "the four parts. [default: fit=0.5, tune=0.1, calibrate=0.2, test=0.2]",
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
    shares: list[str] | None, split: Path | None, split_column: str | None, split_id: str | None
) -> Splitting | None:
    """What the options about the split ask for; None when none was given.

    Raises:
        DataError: when the shares are not those of all parts, or do not sum to 1.
        BadParameter: for a column without a file, or a share that is not a fraction.
    """
    if split_column is not None and split is None:
        raise typer.BadParameter("--split-column names a column of the file in --split")
    if split_id is not None and split is None:
        raise typer.BadParameter("--split-id names a column of the file in --split")
    if not shares and split is None:
        return None
    given = pairs(shares, "--split-share", f"PART={METAVAR}")
    found = {part: fraction(share) for part, share in given.items()}
    parsed = shares_in_order(found) if found else FRACTIONS
    return Splitting(shares=parsed, file=split, column=split_column, key=split_id)


class Dtype(StrEnum):
    """Number formats of a model."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class Pooling(StrEnum):
    """Ways to make coarser scales, as in `m3router.m3core.matryoshka.pooling.POOLINGS`."""

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
FeatureGroups = Annotated[
    list[str] | None,
    typer.Option(
        "--feature-group",
        parser=one_name,
        metavar="NAME",
        help="Compute this feature group: image, question, size, cheap or peek; may be "
        "repeated. [default: image and question, size too where another encoder than the model "
        "that answered looks at the images, or question without images]",
        show_default=False,
    ),
]


def takes_settings(
    kind: type[Settings],
) -> Callable[[Callable[[Settings], None]], Callable[..., None]]:
    """Make a command of a function of one settings object.

    Args:
        kind: A dataclass. Its fields that are annotated with typer's words become arguments and
            options; the others are for Python callers.
    """
    hints = get_type_hints(kind, include_extras=True)
    parameters = [
        field.replace(kind=Parameter.KEYWORD_ONLY, annotation=hints[name])
        for name, field in signature(kind).parameters.items()
        if any(isinstance(one, ParameterInfo) for one in getattr(hints[name], "__metadata__", ()))
    ]

    def decorated(command: Callable[[Settings], None]) -> Callable[..., None]:
        def called(**given: Any) -> None:
            command(kind(**given))

        called.__name__, called.__doc__ = command.__name__, command.__doc__
        called.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        return called

    return decorated

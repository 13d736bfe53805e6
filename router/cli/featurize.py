"""`m3router featurize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from m3router.m3core.checkpoints.places import EMBEDDED
from m3router.router.cli import next_steps
from m3router.router.cli.console import progress, say, show_table
from m3router.router.cli.exit_codes import SOME_FAILED
from m3router.router.cli.options import FeatureGroups, RunFolder, images_folder
from m3router.router.cli.streams import out
from m3router.router.runs.run import Run
from m3router.router.text.numbers import count

CAUSES_SHOWN = 10


def featurize(
    run: RunFolder,
    images: Annotated[
        Path | None,
        typer.Option(
            help="Folder that the image paths start from; leave it out to look at no images.",
            show_default=False,
        ),
    ] = None,
    encoder: Annotated[
        str, typer.Option(help="embedded, or folder or hub id of a CLIP, SigLIP or LLaVA model.")
    ] = "embedded",
    questions: Annotated[
        str | None,
        typer.Option(
            help="model (of the encoder), hashed (words), or sentence:FOLDER_OR_HUB_ID; default: "
            "model where the encoder has one.",
            show_default=False,
        ),
    ] = None,
    feature_groups: FeatureGroups = None,
) -> None:
    """Compute what the router sees of the log's images and questions.

    Works for any log, imported ones too; `label` does it in passing. Groups that are there and
    were made of the same examples, images and models are kept; docs/features.md says what each
    group is and costs. Without --images no image is looked at and no model is loaded, unless
    --questions asks for one.

    ```
    m3router featurize run/ --images images/ --feature-group image --feature-group cheap
    m3router featurize run/ --images images/ --feature-group peek
    m3router featurize text-run/ --feature-group question --questions sentence:all-MiniLM-L6-v2/
    ```
    """
    from m3router.router.stages.labelling import featurize_stage, needs_encoder  # load torch

    images_folder(images)
    if encoder != EMBEDDED and not needs_encoder(images, questions, feature_groups):
        raise typer.BadParameter(
            f"Nothing would be computed with the encoder {encoder!r}: it looks at images (--images "
            "and the feature group image or peek) or reads questions (--questions model). Give "
            "that, or leave --encoder out."
        )
    if images is not None and encoder == EMBEDDED:
        say(
            "Images are looked at by the embedded model, which was trained on drawn scenes only; "
            "for your own images give --encoder, the folder or hub id of a CLIP or SigLIP model."
        )
    with progress("features") as advance:
        table, causes = featurize_stage(
            Run(run),
            images=images,
            encoder=encoder,
            questions=questions,
            feature_groups=feature_groups,
            progress=advance,
        )
    widths = ", ".join(f"{name} ({width})" for name, width in table.widths.items())
    out.print(f"features of {count(len(table), 'example')}: {widths}")
    next_steps.after_features(Run(run))
    if causes:
        what = "images or examples" if images else "examples"
        out.print(f"{len(causes)} {what} cannot be used:", style="yellow")
        rows = [list(item) for item in causes.items()][:CAUSES_SHOWN]
        show_table(["image or example" if images else "example", "cause"], rows)
        raise typer.Exit(SOME_FAILED)

"""`m3router label`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from router.cli.options import (
    Bits,
    Device,
    DeviceMap,
    Dtype,
    Frames,
    Grids,
    Images,
    Pooling,
    Questions,
    UnlistedGrids,
)

FINISHED_WITH_ERRORS = 3


def label(
    examples: Annotated[
        Path, typer.Option(help="JSONL: id, image, question, answers.", show_default=False)
    ],
    images: Images,
    out: Annotated[Path, typer.Option(help="Run folder to write.", show_default=False)],
    model: Annotated[
        str, typer.Option(help="embedded, fake, a folder, or a hub id of a LLaVA-type model.")
    ] = "embedded",
    device: Device = "auto",
    dtype: Annotated[Dtype, typer.Option(help="Number format of the model.")] = Dtype.FLOAT32,
    device_map: DeviceMap = None,
    bits: Bits = None,
    pooling: Annotated[
        Pooling,
        typer.Option(
            help="How coarser scales are made: average as trained, or M3's two heuristics."
        ),
    ] = Pooling.AVERAGE,
    grids: Grids = None,
    unlisted_grids: UnlistedGrids = False,
    frames: Frames = 6,
    questions: Questions = "model",
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Ask again what failed in an earlier run.")
    ] = False,
) -> None:
    """Ask the model every question at every scale.

    Writes the oracle log and, from the same pass, the features. An interrupted run goes on where
    it stopped. Pictures and questions that cannot be used become error records; then the exit
    code is 3. A video is shown as a collage of frames, so its tokens are those of all frames.

    ```
    m3router label --examples my.jsonl --images pictures/ --model embedded --out run/
    ```
    """
    from data.sources.jsonl import load_jsonl
    from m3core.checkpoints import load_model
    from router.cli.labelling import label_with_progress, show_errors
    from router.run import Run

    items = load_jsonl(examples, images=images)
    loaded = load_model(
        model,
        device=device,
        dtype=dtype.value,
        device_map=device_map,
        bits=bits,
        pooling=pooling.value,
        grids=grids,
        unlisted_grids=unlisted_grids,
    )
    run = Run(out)
    log = label_with_progress(
        run,
        items,
        images=images,
        model=loaded,
        retry_errors=retry_errors,
        questions=questions,
        frames=frames,
    )
    if show_errors(log):
        raise typer.Exit(FINISHED_WITH_ERRORS)

"""`m3router featurize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from router.cli.options import Device, Images, RunFolder

CAUSES_SHOWN = 10


def featurize(
    run: RunFolder,
    images: Images,
    encoder: Annotated[
        str | None,
        typer.Option(help="embedded, or folder or hub id of a CLIP model.", show_default=False),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Instead: the model that labelled.", show_default=False),
    ] = None,
    examples: Annotated[
        Path | None, typer.Option(help="The labelled JSONL, for --model.", show_default=False)
    ] = None,
    device: Device = "auto",
) -> None:
    """Compute what the router sees of pictures and questions.

    Not needed after `label`, which does it in passing. With `--encoder` it works for any log and
    needs no language model; only with `--model` can `ask` use the router.

    ```
    m3router featurize run/ --images pictures/ --encoder embedded
    ```
    """
    from data.sources.jsonl import load_jsonl
    from m3core.checkpoints import load_model
    from router.cli.console import out, progress, show_table
    from router.run import Run
    from router.stages.labelling import featurize_stage

    if encoder is None and model is None:
        encoder = "embedded"
    with progress("features") as advance:
        table, causes = featurize_stage(
            Run(run),
            images=images,
            encoder=encoder,
            model=None if model is None else load_model(model, device=device),
            examples=None if examples is None else load_jsonl(examples, images=images),
            progress=lambda done, total: advance(done, total, "pictures"),
        )
    widths = ", ".join(f"{name} ({width})" for name, width in table.widths.items())
    out.print(f"features of {len(table)} examples: {widths}")
    if causes:
        out.print(f"{len(causes)} pictures cannot be read:", style="yellow")
        show_table(["picture", "cause"], [list(item) for item in causes.items()][:CAUSES_SHOWN])
        raise typer.Exit(3)

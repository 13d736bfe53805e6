"""`m3router convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from m3router.data.progress import waiting
from m3router.router.cli import next_steps
from m3router.router.cli.console import say
from m3router.router.cli.options import Dtype


def convert(
    source: Annotated[
        str, typer.Argument(help="Folder or hub id of a LLaVA checkpoint.", show_default=False)
    ],
    destination: Annotated[Path, typer.Argument(help="New folder to write.", show_default=False)],
    dtype: Annotated[
        Dtype | None,
        typer.Option(
            help="Number format of the weights. [default: that of the checkpoint]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write a checkpoint in the Hugging Face layout.

    Reads the original LLaVA layout (`tokenizer.model`, `.bin` or safetensors shards, the vision
    tower inside or in a folder of its own) and writes config, safetensors, fast tokenizer,
    image processor, processor and chat template. Models load from either layout alike and give
    the same logits; the new one needs no conversion at each start, and other tools can read it.
    Plain transformers gives the same token ids and, at the finest scale, the same answers.

    ```
    m3router convert mucai/llava-v1.5-7b-m3 models/llava-v1.5-7b-m3-hf
    ```
    """
    from m3router.m3core.checkpoints import convert as write  # loads torch

    with waiting("converting"):
        folder = write(source, destination, dtype=dtype.value if dtype else None)
    say(f"written: {folder}")
    next_steps.show_next("check", "--model", folder)

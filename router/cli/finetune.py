"""`m3router finetune`."""

from __future__ import annotations

import logging
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from m3router.data.errors import MismatchError
from m3router.data.sources.instructions import load_instructions
from m3router.m3core.matryoshka.scales import M3_SCALES, MQT_TRAINING_SCALES
from m3router.m3core.training.recipe import TrainingRecipe
from m3router.router.cli import next_steps
from m3router.router.cli.options import Dtype, LogTo, LogToProject, folder_to_write, seed_option
from m3router.router.cli.streams import out as console
from m3router.router.tracking.tracker import Place
from m3router.router.tracking.trackers import open_trackers


def finetune(
    source: Annotated[
        str,
        typer.Argument(
            help="embedded, or a folder or hub id of a LLaVA-1.5-type model or of MQT-LLaVA.",
            show_default=False,
        ),
    ],
    data: Annotated[
        Path,
        typer.Option(help="JSON file of conversations in LLaVA's format.", show_default=False),
    ],
    images: Annotated[Path, typer.Option(help="Folder of their images.", show_default=False)],
    out: Annotated[Path, typer.Option(help="New folder for the checkpoint.", show_default=False)],
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.", show_default=False)],
    work: Annotated[
        Path | None,
        typer.Option(
            help="Folder for state and log. [default: that of --out with .work behind it]",
            show_default=False,
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Conversations in each process's step.")] = 8,
    scales: Annotated[
        list[int] | None,
        typer.Option(
            "--scale",
            help="A scale to train, coarsest first; may be repeated. [default: M3's five]",
            show_default=False,
        ),
    ] = None,
    mqt_scales: Annotated[
        bool,
        typer.Option("--mqt-scales", help="Train MQT-LLaVA's scales 2, 4, ... 256 instead."),
    ] = False,
    choice: Annotated[
        str,
        typer.Option(help="periods: all scales take part in a step; random: one of them does."),
    ] = "periods",
    periods: Annotated[
        list[int] | None,
        typer.Option(
            "--period",
            help="A scale takes part in every so-many-th step; repeated, one for each scale. "
            "[default: in every step]",
            show_default=False,
        ),
    ] = None,
    learning_rate: Annotated[
        float, typer.Option(help="Peak rate of connector and language model.")
    ] = 2e-5,
    tower_learning_rate: Annotated[
        float, typer.Option(help="Peak rate of the vision tower; 0 freezes it.")
    ] = 0.0,
    lora_rank: Annotated[
        int,
        typer.Option(
            help="Train updates of this rank in place of the language model; 0 trains the model."
        ),
    ] = 0,
    lora_alpha: Annotated[int, typer.Option(help="Updates count alpha / rank times.")] = 16,
    lora_dropout: Annotated[float, typer.Option(help="Dropout before the updates.")] = 0.0,
    gradient_checkpointing: Annotated[
        bool,
        typer.Option(
            "--gradient-checkpointing", help="Compute activations twice instead of keeping them."
        ),
    ] = False,
    warmup: Annotated[int, typer.Option(help="Steps of linear warm-up.")] = 100,
    weight_decay: Annotated[float, typer.Option(help="Weight decay of AdamW.")] = 0.01,
    mixed_precision: Annotated[str, typer.Option(help="no or bf16.")] = "no",
    save_every: Annotated[int, typer.Option(help="Steps between two resumable states.")] = 200,
    seed: Annotated[int, seed_option("Seed of order, random scales and dropout.")] = 0,
    dtype: Annotated[
        Dtype | None,
        typer.Option(
            help="Number format of the written weights. [default: that of the source]",
            show_default=False,
        ),
    ] = None,
    log_to: LogTo = None,
    log_to_project: LogToProject = None,
) -> None:
    r"""Fine-tune a checkpoint at all its scales on instructions.

    Writes a checkpoint that `m3router label --model FOLDER` and everything else loads. A run that
    was interrupted goes on when the same command is started again. Several GPUs:
    `accelerate launch` or `torchrun`, see docs/training.md.

    ```
    m3router finetune embedded --data train.json --images images --out models/mine --steps 200
    m3router finetune mucai/llava-v1.5-7b-m3 --data train.json --images images --out models/mine \
        --steps 2000 --mixed-precision bf16 --gradient-checkpointing
    torchrun --nproc_per_node 8 -m m3router finetune liuhaotian/llava-v1.5-7b --data train.json \
        --images images --out models/mine --steps 2000 --lora-rank 128 --lora-alpha 256
    ```
    """
    from m3router.m3core.training.finetuning import finetune as write
    from m3router.m3core.training.loop import logger as losses

    if mqt_scales and scales:
        raise MismatchError("--scale and --mqt-scales both name scales; leave one of them out")
    folder_to_write(out)
    losses.setLevel(logging.INFO)  # they are shown at every saved state, without --verbose too
    recipe = TrainingRecipe(
        scales=MQT_TRAINING_SCALES if mqt_scales else tuple(scales or M3_SCALES),
        choice=choice,
        periods=tuple(periods) if periods else None,
        steps=steps,
        learning_rate=learning_rate,
        tower_learning_rate=tower_learning_rate,
        lora_rank=lora_rank,
        lora_alpha=lora_alpha,
        lora_dropout=lora_dropout,
        gradient_checkpointing=gradient_checkpointing,
        warmup=warmup,
        weight_decay=weight_decay,
        mixed_precision=mixed_precision,
        save_every=save_every,
        seed=seed,
    )
    first = os.environ.get("RANK", "0") == "0"  # of several processes it says what was done
    folder = work or out.with_name(out.name + ".work")
    place = Place(run=out.resolve().name, stage="finetune", folder=folder, project=log_to_project)
    with open_trackers(log_to if first else None, place) as trackers:
        trackers.settings({"source": source, "batch": batch, **asdict(recipe)})
        written = write(
            source,
            load_instructions(data),
            out,
            images=images,
            recipe=recipe,
            batch=batch,
            work=folder,
            dtype=dtype.value if dtype else None,
            on_log=lambda line: trackers.metrics(
                {name: value for name, value in line.items() if name != "step"},
                step=int(line["step"]),
            ),
        )
    if first:
        console.print(f"written: {written}", markup=False)
        next_steps.show_next("check", "--model", written)

"""From a published checkpoint and a file of instructions to a checkpoint of one's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState

from m3router.data.paths import StrPath, as_path
from m3router.data.progress import Advance, as_counted, watched
from m3router.data.sources.instructions import Conversation
from m3router.m3core.checkpoints.conversion import write_trained
from m3router.m3core.checkpoints.families.table import trainable_of
from m3router.m3core.checkpoints.loading import load_model
from m3router.m3core.checkpoints.writing import check_destination
from m3router.m3core.matryoshka.scales import ScaleGrid
from m3router.m3core.training.instructions import InstructionBatches
from m3router.m3core.training.loop import train
from m3router.m3core.training.recipe import TrainingRecipe


def finetune(
    source: str,
    conversations: Sequence[Conversation],
    destination: StrPath,
    *,
    images: StrPath,
    recipe: TrainingRecipe,
    batch: int,
    work: StrPath,
    dtype: str | None = None,
    progress: Advance | bool | None = True,
    on_log: Callable[[dict[str, float]], None] | None = None,
) -> Path:
    """Train a checkpoint on conversations and write the result; resumes from ``work``.

    Args:
        source: Folder or hub id of a LLaVA-1.5-type model or MQT-LLaVA, or ``embedded``.
        conversations: What to learn.
        destination: A new folder for the checkpoint.
        images: Folder of the images.
        recipe: How to train; for a LLaVA its finest scale is the whole grid.
        batch: Conversations in a batch of one process.
        work: Receives the state and the log.
        dtype: Number format of the written weights; by default that of ``source``.
        progress: True shows a bar on a terminal and in a notebook; False shows nothing; a function
            is called by the main process with (steps done, steps in all, the loss).
        on_log: Called by the main process with every line of the training log: the step, seconds
            and the mean loss at every scale since the line before.

    Returns:
        The destination.

    Raises:
        ModelError: If the source cannot be loaded, the destination is not empty, or peft is
            lacking.
        MismatchError: If model, recipe, template and state do not fit together.
        DataError: If conversations or images cannot be used.
    """
    destination = as_path(destination)
    images = as_path(images)
    work = as_path(work)
    check_destination(destination, dtype=dtype)
    model: Any = load_model(source, device="cpu", dtype="float32")
    trainable = trainable_of(model)
    ScaleGrid(scales=recipe.scales, side=model.grid.side)  # what the written model will have
    batches = InstructionBatches(
        model,
        conversations,
        images=images,
        batch=batch,
        finest=recipe.scales[-1],
        seed=recipe.seed,
    )
    shown = progress if callable(progress) or PartialState().is_main_process else False
    with watched(shown, "training", as_counted) as show:
        weights = train(
            trainable, batches, recipe=recipe, folder=work, progress=show, on_log=on_log
        )
    if PartialState().is_main_process:
        write_trained(source, weights, destination, scales=recipe.scales, dtype=dtype)
    PartialState().wait_for_everyone()
    return destination

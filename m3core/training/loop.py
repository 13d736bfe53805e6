"""Train with the Matryoshka objective: one model that answers from every scale."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, DistributedType

from m3router.data.errors import DataError, MismatchError
from m3router.data.json_files import read_json_object
from m3router.data.manifest import atomic_write_text
from m3router.data.progress import Advance
from m3router.m3core.matryoshka.trainable import Trainable
from m3router.m3core.training.lora import add_lora, merged
from m3router.m3core.training.objective import MatryoshkaBatch, MatryoshkaLoss
from m3router.m3core.training.optimizers import ScheduledOptimizers, new_optimizers
from m3router.m3core.training.recipe import TrainingRecipe

logger = logging.getLogger(__name__)

LOG = "training_log.jsonl"
PROGRESS = "progress.json"


def _optimizers(trainable: Trainable, recipe: TrainingRecipe) -> list[torch.optim.Optimizer]:
    tower = dict(trainable.tower.named_parameters())
    for parameter in tower.values():
        parameter.requires_grad_(recipe.tower_learning_rate > 0)
    known = {id(parameter) for parameter in tower.values()}
    rest = {
        name: one
        for name, one in trainable.module.named_parameters()
        if id(one) not in known and one.requires_grad
    }
    optimizers = new_optimizers(
        rest.items(),
        learning_rate=recipe.learning_rate,
        muon_learning_rate=recipe.muon_learning_rate,
        weight_decay=recipe.weight_decay,
    )
    if recipe.tower_learning_rate > 0:
        optimizers += new_optimizers(
            tower.items(),
            learning_rate=recipe.tower_learning_rate,
            muon_learning_rate=recipe.tower_muon_learning_rate,
            weight_decay=recipe.weight_decay,
        )
    return optimizers


def new_accelerator() -> Accelerator:
    """An accelerator for the GPUs where there are any, else for the CPU.

    Schedules step once for each of our steps, however many processes there are. The tower's last
    layer is not read, so that with a free tower some parameters get no gradient.
    """
    return Accelerator(
        cpu=not torch.cuda.is_available(),
        step_scheduler_with_optimizer=False,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )


def autocast(accelerator: Accelerator, mixed_precision: str) -> torch.autocast:
    """The context that a forward pass runs in.

    NOTE: not accelerate's own mixed precision, which is fixed once for a whole process.

    Args:
        accelerator: Tells the device.
        mixed_precision: ``no`` or ``bf16``.

    Raises:
        MismatchError: If it is neither.
    """
    if mixed_precision not in ("no", "bf16"):
        raise MismatchError(f"mixed_precision must be 'no' or 'bf16', got {mixed_precision!r}")
    device = accelerator.device.type
    return torch.autocast(device, torch.bfloat16, enabled=mixed_precision == "bf16")


def save_state(accelerator: Accelerator, folder: Path, step: int, recipe: object) -> None:
    """Keep everything that a resumed run needs; a kill at any moment leaves a usable state.

    Args:
        accelerator: Holds the prepared model, optimiser and schedule.
        folder: Receives ``state/``.
        step: Steps done.
        recipe: A dataclass; a run with another one will refuse the state.
    """
    fresh, current, past = folder / "state.new", folder / "state", folder / "state.old"
    if accelerator.is_main_process:
        shutil.rmtree(fresh, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(fresh))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        progress = {
            "step": step,
            "processes": accelerator.num_processes,
            "recipe": asdict(recipe),  # type: ignore[call-overload]
        }
        atomic_write_text(fresh / PROGRESS, json.dumps(progress))  # last: now the state is whole
        shutil.rmtree(past, ignore_errors=True)
        if current.exists():
            current.rename(past)
        fresh.rename(current)
        shutil.rmtree(past, ignore_errors=True)
    accelerator.wait_for_everyone()


def load_state(accelerator: Accelerator, folder: Path, recipe: object) -> int:
    """Go back to the state in ``folder``, if there is one.

    Settings that did not exist yet when the state was saved count as their defaults.

    Returns:
        Steps done; 0 where there is no state.

    Raises:
        DataError: If what it says of itself is damaged.
        MismatchError: If the state is of another recipe or another number of processes.
    """
    current, fresh = folder / "state", folder / "state.new"
    killed_in_swap = not current.exists() and (fresh / PROGRESS).exists()
    accelerator.wait_for_everyone()
    if killed_in_swap and accelerator.is_main_process:
        fresh.rename(current)  # else the next save would remove the only state there is
    accelerator.wait_for_everyone()
    if not (current / PROGRESS).exists():
        return 0
    redo = "Remove that folder and train again."
    progress = read_json_object(current / PROGRESS, redo=redo)
    if not isinstance(progress.get("recipe"), dict) or type(progress.get("step")) is not int:
        raise DataError(f"{current / PROGRESS} is damaged: it names no recipe and step. {redo}")
    wanted = asdict(recipe)  # type: ignore[call-overload]
    defaults = {
        one.name: one.default
        for one in fields(recipe)  # type: ignore[arg-type]
        if one.default is not MISSING
    }
    if _plain(defaults | progress["recipe"]) != _plain(wanted):
        raise MismatchError(
            f"{folder} holds a training of another recipe: it has {progress['recipe']}, "
            f"asked for {wanted}; choose another folder or the same recipe"
        )
    processes = progress.get("processes", 1)
    if processes != accelerator.num_processes:
        raise MismatchError(
            f"{folder} holds a training by {processes} processes, and this one has "
            f"{accelerator.num_processes}; resume it with as many, or choose another folder"
        )
    accelerator.load_state(str(current))
    return int(progress["step"])


def _plain(values: dict[str, object]) -> object:
    """Values as JSON keeps them."""
    return json.loads(json.dumps(values))


def append_line(file: Path, line: dict[str, float]) -> None:
    """Add a line to a training log, and tell the logger."""
    logger.info("%s", line)
    with file.open("a") as log:
        log.write(json.dumps(line) + "\n")


def train(
    trainable: Trainable,
    batch_at: Callable[[int], MatryoshkaBatch],
    *,
    recipe: TrainingRecipe,
    folder: Path,
    on_save: Callable[[int], dict[str, float]] | None = None,
    progress: Advance | None = None,
    on_log: Callable[[dict[str, float]], None] | None = None,
) -> dict[str, torch.Tensor]:
    """Train in place with the Matryoshka objective, resuming from ``folder``.

    Of ``n`` processes the ``i``-th takes ``batch_at(step * n + i)``; all take the same scales.

    Args:
        trainable: The model to train.
        batch_at: A batch by its number; it must depend on the number alone, so that a resumed
            run sees what an undisturbed one would.
        recipe: How to train.
        folder: Receives ``state/`` (weights, optimiser, step) and ``training_log.jsonl``.
        on_save: Called at every save with the step; its figures join the log line.
        progress: Called by the main process with (steps done, steps in all, the loss).
        on_log: Called by the main process with every line of the log.

    Returns:
        The trained weights by their names in ``trainable.module``, updates by LoRA merged in; the
        module holds them too, unless FSDP or DeepSpeed keep it in shards. In shards only the
        main process is sure to get all weights.

    Raises:
        MismatchError: If ``folder`` holds a run of another recipe, or the model lacks a scale.
        ModelError: If the recipe asks for LoRA and peft is not installed.
    """
    for scale in recipe.scales:
        trainable.check_scale(scale)
    folder.mkdir(parents=True, exist_ok=True)
    accelerator = new_accelerator()
    updates, optimizers = _prepare(accelerator, trainable, recipe)
    objective = optimizers.module
    first = load_state(accelerator, folder, recipe)
    began, sums = time.monotonic(), {m: [0.0, 0] for m in recipe.scales}
    objective.train()
    for step in range(first, recipe.steps):
        scales = recipe.scales_at(step)
        batch = batch_at(step * accelerator.num_processes + accelerator.process_index)
        with autocast(accelerator, recipe.mixed_precision):
            losses = objective(batch.to(accelerator.device), scales)
        accelerator.backward(losses.mean())
        accelerator.clip_grad_norm_(objective.parameters(), 1.0)
        optimizers.step()
        for m, loss in zip(scales, losses.detach().tolist(), strict=True):
            sums[m][0] += loss
            sums[m][1] += 1
        if progress and accelerator.is_main_process:
            progress(step + 1, recipe.steps, f"loss {losses.detach().mean():.3f}")
        if (step + 1) % recipe.save_every == 0 or step + 1 == recipe.steps:
            line: dict[str, float] = {"step": step + 1, "seconds": time.monotonic() - began}
            line |= {f"loss@{m}": total / count for m, (total, count) in sums.items() if count}
            sums = {m: [0.0, 0] for m in recipe.scales}
            save_state(accelerator, folder, step + 1, recipe)
            if on_save:
                objective.eval()
                line |= on_save(step + 1)
                objective.train()
            if accelerator.is_main_process:
                append_line(folder / LOG, line)
                if on_log:
                    on_log(line)
    if recipe.gradient_checkpointing:
        for part in (trainable.language, trainable.tower):
            part.gradient_checkpointing_disable()
    return _finish(accelerator, trainable, objective, updates, recipe)


def _prepare(
    accelerator: Accelerator, trainable: Trainable, recipe: TrainingRecipe
) -> tuple[Any, ScheduledOptimizers]:
    """Make the model trainable as the recipe says; gives peft's handle, or None, and optimisers."""
    torch.manual_seed(recipe.seed)
    updates = None
    if recipe.lora_rank:
        updates = add_lora(
            trainable,
            rank=recipe.lora_rank,
            alpha=recipe.lora_alpha,
            dropout=recipe.lora_dropout,
        )
    if recipe.gradient_checkpointing:
        for part in (trainable.language, trainable.tower):
            part.gradient_checkpointing_enable({"use_reentrant": False})
    parts = _optimizers(trainable, recipe)
    if accelerator.distributed_type == DistributedType.DEEPSPEED and len(parts) > 1:
        raise MismatchError(
            f"DeepSpeed drives one optimiser, and this recipe needs {len(parts)}: set "
            "tower_learning_rate and muon_learning_rate to 0, or use FSDP"
        )
    objective = MatryoshkaLoss(trainable)
    return updates, ScheduledOptimizers(accelerator, objective, parts, recipe.rate_at)


def _finish(
    accelerator: Accelerator,
    trainable: Trainable,
    objective: torch.nn.Module,
    updates: Any,
    recipe: TrainingRecipe,
) -> dict[str, torch.Tensor]:
    """Gather the weights and merge updates into them, in the module too where it is whole."""
    weights = accelerator.get_state_dict(objective)
    weights = {name.removeprefix("model."): tensor for name, tensor in weights.items()}
    if updates is not None:
        weights = merged(weights, recipe.lora_alpha / recipe.lora_rank)
    if accelerator.distributed_type not in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        if updates is not None:
            updates.unload()
        trainable.module.load_state_dict(weights)
    trainable.module.eval()
    return weights

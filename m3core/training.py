"""Train a LLaVA with the Matryoshka objective: one model that answers from every scale."""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from transformers import LlavaForConditionalGeneration

from data.errors import MismatchError
from m3core.objective import MatryoshkaBatch, MatryoshkaLoss
from m3core.optimizers import ScheduledOptimizers, new_optimizers

logger = logging.getLogger(__name__)

LOG = "training_log.jsonl"
PROGRESS = "progress.json"


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """How to train.

    Attributes:
        scales: Visual tokens of each scale, coarsest first.
        periods: A scale takes part in every ``period``-th step; all 1 is M3's objective.
        steps: Optimiser steps.
        learning_rate: Peak rate of projector and language model (AdamW).
        tower_learning_rate: Peak rate of the vision tower; 0 freezes it.
        muon_learning_rate: Peak rate of Muon for the matrices inside transformer layers;
            0 leaves them to AdamW.
        tower_muon_learning_rate: The same for the tower's.
        warmup: Steps of linear warm-up, before a cosine down to a hundredth.
        weight_decay: Of AdamW.
        mixed_precision: ``no`` or ``bf16``.
        save_every: Steps between two resumable states.
        seed: Seeds batches and dropout.
    """

    scales: tuple[int, ...]
    periods: tuple[int, ...]
    steps: int
    learning_rate: float
    tower_learning_rate: float = 0.0
    muon_learning_rate: float = 0.0
    tower_muon_learning_rate: float = 0.0
    warmup: int = 100
    weight_decay: float = 0.01
    mixed_precision: str = "no"
    save_every: int = 200
    seed: int = 0

    def scales_at(self, step: int) -> tuple[int, ...]:
        """The scales that take part in a step."""
        return tuple(
            m for m, period in zip(self.scales, self.periods, strict=True) if step % period == 0
        )

    def rate_at(self, step: int) -> float:
        """Learning rate at a step as a share of the peak."""
        cosine = 0.01 + 0.99 * (1 + math.cos(math.pi * min(1.0, step / self.steps))) / 2
        return min(1.0, (step + 1) / self.warmup) * cosine


def _optimizers(
    model: LlavaForConditionalGeneration, recipe: TrainingRecipe
) -> list[torch.optim.Optimizer]:
    tower = dict(model.model.vision_tower.named_parameters())
    for parameter in tower.values():
        parameter.requires_grad_(recipe.tower_learning_rate > 0)
    known = {id(parameter) for parameter in tower.values()}
    rest = {name: one for name, one in model.named_parameters() if id(one) not in known}
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
    """An accelerator for a GPU where there is one, else for the CPU."""
    return Accelerator(cpu=not torch.cuda.is_available())


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
    fresh, current = folder / "state.new", folder / "state"
    shutil.rmtree(fresh, ignore_errors=True)
    accelerator.save_state(str(fresh))
    progress = {"step": step, "recipe": asdict(recipe)}  # type: ignore[call-overload]
    (fresh / PROGRESS).write_text(json.dumps(progress))
    shutil.rmtree(current, ignore_errors=True)
    fresh.rename(current)


def load_state(accelerator: Accelerator, folder: Path, recipe: object) -> int:
    """Go back to the state in ``folder``, if there is one.

    Returns:
        Steps done; 0 where there is no state.

    Raises:
        MismatchError: If the state is of another recipe.
    """
    for name in ("state", "state.new"):  # a kill between the two renames leaves only the second
        file = folder / name / PROGRESS
        if file.exists():
            progress = json.loads(file.read_text())
            wanted = json.loads(json.dumps(asdict(recipe)))  # type: ignore[call-overload]
            if progress["recipe"] != wanted:
                raise MismatchError(
                    f"{folder} holds a training of another recipe: it has {progress['recipe']}, "
                    f"asked for {wanted}; choose another folder or the same recipe"
                )
            accelerator.load_state(str(folder / name))
            return int(progress["step"])
    return 0


def append_line(file: Path, line: dict[str, float]) -> None:
    """Add a line to a training log, and tell the logger."""
    logger.info("%s", line)
    with file.open("a") as log:
        log.write(json.dumps(line) + "\n")


def train(
    model: LlavaForConditionalGeneration,
    batch_at: Callable[[int], MatryoshkaBatch],
    *,
    recipe: TrainingRecipe,
    folder: Path,
    on_save: Callable[[int], dict[str, float]] | None = None,
) -> LlavaForConditionalGeneration:
    """Train in place with the Matryoshka objective, resuming from ``folder``.

    Args:
        model: The model to train.
        batch_at: The batch of a step; it must depend on the step alone, so that a resumed run
            sees what an undisturbed one would.
        recipe: How to train.
        folder: Receives ``state/`` (weights, optimiser, step) and ``training_log.jsonl``.
        on_save: Called at every save with the step; its figures join the log line.

    Returns:
        The same model.

    Raises:
        MismatchError: If ``folder`` holds a run of another recipe.
    """
    folder.mkdir(parents=True, exist_ok=True)
    accelerator = new_accelerator()
    torch.manual_seed(recipe.seed)
    objective = accelerator.prepare(MatryoshkaLoss(model))
    optimizers = ScheduledOptimizers(accelerator, _optimizers(model, recipe), recipe.rate_at)
    first = load_state(accelerator, folder, recipe)
    began, sums = time.monotonic(), {m: [0.0, 0] for m in recipe.scales}
    objective.train()
    for step in range(first, recipe.steps):
        batch, scales = batch_at(step), recipe.scales_at(step)
        moved = MatryoshkaBatch(
            images=batch.images.to(accelerator.device), text=batch.text.to(accelerator.device)
        )
        with autocast(accelerator, recipe.mixed_precision):
            losses = objective(moved, scales)
        accelerator.backward(losses.mean())
        accelerator.clip_grad_norm_(objective.parameters(), 1.0)
        optimizers.step()
        for m, loss in zip(scales, losses.detach().tolist(), strict=True):
            sums[m][0] += loss
            sums[m][1] += 1
        if (step + 1) % recipe.save_every == 0 or step + 1 == recipe.steps:
            line: dict[str, float] = {"step": step + 1, "seconds": time.monotonic() - began}
            line |= {f"loss@{m}": total / count for m, (total, count) in sums.items() if count}
            sums = {m: [0.0, 0] for m in recipe.scales}
            save_state(accelerator, folder, step + 1, recipe)
            if on_save:
                objective.eval()
                line |= on_save(step + 1)
                objective.train()
            append_line(folder / LOG, line)
    return model.eval()

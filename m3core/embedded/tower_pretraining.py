"""First stage of the embedded model: the vision tower learns to say what each patch shows.

Trained end to end from scratch, a model of this size stays on a plateau where it answers only
the colour of the background; dense labels lift the tower over it. Small scenes (12 x 12 cells,
placed at random offsets of the position table) come first because they cost a fifth of a whole
picture; whole pictures follow.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import CLIPVisionModel

from data.scenes.drawing import PATCH_LABELS, patch_labels, render
from data.scenes.export import VALIDATION_SEEDS
from data.scenes.world import CELLS, make_scene
from m3core.embedded.architecture import HIDDEN, IMAGE_MEAN, IMAGE_STD, new_tower
from m3core.training import (
    LOG,
    append_line,
    autocast,
    load_state,
    new_accelerator,
    save_state,
)

SMALL = 12
"""Cells along one side of a small scene."""
WARMUP = 200


@dataclass(frozen=True, kw_only=True)
class TowerRecipe:
    """Everything that decides the tower's weights.

    Attributes:
        small_steps: Steps on scenes of 12 x 12 cells.
        small_batch: Scenes in one such step.
        whole_steps: Steps on whole scenes, after the small ones.
        whole_batch: Scenes in one such step.
        learning_rate: Peak rate of AdamW; warmed up, then a cosine down to a hundredth.
        save_every: Steps between two resumable states.
        seed: Seed of the weights and of the offsets; scenes follow from the step.
    """

    small_steps: int
    small_batch: int = 64
    whole_steps: int
    whole_batch: int = 16
    learning_rate: float = 2e-3
    save_every: int = 200
    seed: int = 0

    @property
    def steps(self) -> int:
        """Steps in all."""
        return self.small_steps + self.whole_steps

    @property
    def watched(self) -> range:
        """Seeds of the whole scenes that the learning curve is measured on."""
        return range(VALIDATION_SEEDS.start, VALIDATION_SEEDS.start + 64)

    def scenes_at(self, step: int) -> tuple[int, range]:
        """Cells along a side, and seeds, of a step's scenes."""
        if step < self.small_steps:
            start, count, cells = step * self.small_batch, self.small_batch, SMALL
        else:
            start, count = (step - self.small_steps) * self.whole_batch, self.whole_batch
            cells = CELLS
        return cells, range(start, start + count)

    def rate_at(self, step: int) -> float:
        """Learning rate at a step as a share of the peak."""
        cosine = 0.01 + 0.99 * (1 + math.cos(math.pi * min(1.0, step / self.steps))) / 2
        return min(1.0, (step + 1) / WARMUP) * cosine


_LOSS_WEIGHTS = {"first": 2.0, "second": 2.0}
"""Labels that need a look at the neighbouring patches are learned last; the others weigh 1."""


class PatchReader(nn.Module):
    """A tower with one linear head for each patch label."""

    def __init__(self, tower: CLIPVisionModel) -> None:
        super().__init__()
        self.tower = tower
        self.norm = nn.LayerNorm(HIDDEN)
        self.heads = nn.ModuleDict({name: nn.Linear(HIDDEN, n) for name, n in PATCH_LABELS.items()})

    def forward(self, pixels: torch.Tensor, corner: tuple[int, int]) -> dict[str, torch.Tensor]:
        """Logits (batch, cells * cells, classes) for each label.

        Args:
            pixels: Normalised pictures, (batch, 3, side, side).
            corner: Row and column of the position table where the picture's first patch lies.
        """
        embeddings = self.tower.embeddings
        patches = embeddings.patch_embedding(pixels)  # (batch, HIDDEN, cells, cells)
        cells = patches.shape[-1]
        table = embeddings.position_embedding.weight
        grid = table[1:].view(CELLS, CELLS, HIDDEN)
        place = grid[corner[0] : corner[0] + cells, corner[1] : corner[1] + cells]
        hidden = patches.flatten(2).transpose(1, 2) + place.reshape(1, -1, HIDDEN)
        first = (embeddings.class_embedding + table[0]).expand(len(hidden), 1, -1)
        hidden = self.tower.pre_layrnorm(torch.cat([first, hidden], dim=1))
        hidden = self.tower.encoder(inputs_embeds=hidden).last_hidden_state[:, 1:]
        hidden = self.norm(hidden)
        return {name: head(hidden) for name, head in self.heads.items()}


def scene_batch(
    seeds: range, cells: int, *, device: torch.device | str = "cpu"
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Pictures (batch, 3, side, side) and labels (batch, cells * cells) of the scenes."""
    scenes = [make_scene(seed, cells=cells) for seed in seeds]
    pixels = torch.from_numpy(np.stack([render(scene) for scene in scenes]))
    pixels = (pixels.permute(0, 3, 1, 2).float() / 255 - IMAGE_MEAN) / IMAGE_STD
    labels = [patch_labels(scene) for scene in scenes]
    return pixels.to(device), {
        name: torch.from_numpy(np.stack([one[name] for one in labels])).flatten(1).to(device)
        for name in PATCH_LABELS
    }


def dense_loss(logits: dict[str, torch.Tensor], labels: dict[str, torch.Tensor]) -> torch.Tensor:
    """Weighted sum of the labels' cross-entropies; empty patches weigh a twentieth."""
    weight = torch.where(labels["kind"] > 0, 1.0, 0.05)
    total = logits["kind"].new_zeros(())
    for name, output in logits.items():
        loss = F.cross_entropy(
            output.float().flatten(0, 1), labels[name].flatten(), reduction="none"
        )
        mean = (loss * weight.flatten()).sum() / weight.sum()
        total = total + _LOSS_WEIGHTS.get(name, 1.0) * mean
    return total


@torch.no_grad()
def patch_accuracy(reader: PatchReader, seeds: range) -> dict[str, float]:
    """Share of right labels on whole scenes, over the patches where the label is not "none"."""
    right: dict[str, list[torch.Tensor]] = {name: [] for name in PATCH_LABELS}
    for start in range(seeds.start, seeds.stop, 32):
        part = range(start, min(start + 32, seeds.stop))
        pixels, labels = scene_batch(part, CELLS, device=reader.norm.weight.device)
        for name, output in reader(pixels, (0, 0)).items():
            there = labels[name] > 0
            right[name].append((output.argmax(-1) == labels[name])[there].float())
    return {name: float(torch.cat(parts).mean()) for name, parts in right.items()}


def train_tower(recipe: TowerRecipe, folder: Path) -> CLIPVisionModel:
    """Train the tower, resuming from ``folder`` where an earlier run left off.

    Args:
        recipe: What to train.
        folder: Receives ``state/`` and ``training_log.jsonl``.

    Returns:
        The trained tower, on the CPU.

    Raises:
        MismatchError: If ``folder`` holds a run of another recipe.
    """
    folder.mkdir(parents=True, exist_ok=True)
    accelerator = new_accelerator()
    reader = PatchReader(new_tower(seed=recipe.seed))
    optimizer = torch.optim.AdamW(reader.parameters(), lr=recipe.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, recipe.rate_at)
    model, optimizer, schedule = accelerator.prepare(reader, optimizer, schedule)
    first = load_state(accelerator, folder, recipe)
    began, running = time.monotonic(), 0.0
    for step in range(first, recipe.steps):
        cells, seeds = recipe.scenes_at(step)
        offsets = np.random.default_rng([recipe.seed, step]).integers(0, CELLS - cells + 1, 2)
        pixels, labels = scene_batch(seeds, cells, device=accelerator.device)
        with autocast(accelerator, "bf16"):
            logits = model(pixels, (int(offsets[0]), int(offsets[1])))
        loss = dense_loss(logits, labels)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        running += float(loss.detach())
        if (step + 1) % recipe.save_every == 0 or step + 1 == recipe.steps:
            since = step % recipe.save_every + 1
            line = {"step": step + 1, "seconds": time.monotonic() - began, "loss": running / since}
            running = 0.0
            save_state(accelerator, folder, step + 1, recipe)
            append_line(folder / LOG, line | patch_accuracy(reader, recipe.watched))
    return reader.tower.cpu()

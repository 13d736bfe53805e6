"""First stage of the embedded model: the vision tower learns to say what each patch shows.

Trained end to end from scratch, a model of this size stays on a plateau where it answers only
the colour of the background; dense labels lift the tower over it.
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

from experiments.embedded_model.architecture import HIDDEN, hold_looks, new_tower
from experiments.embedded_model.curriculum import scene_pixels
from m3router.data.scenes.drawing import PATCH_LABELS, patch_labels, patch_weights
from m3router.data.scenes.export import VALIDATION_SEEDS
from m3router.data.scenes.world import make_scene
from m3router.m3core.training.loop import (
    LOG,
    append_line,
    autocast,
    load_state,
    new_accelerator,
    save_state,
)
from m3router.m3core.training.optimizers import ScheduledOptimizers, new_optimizers

WARMUP = 100


@dataclass(frozen=True, kw_only=True)
class TowerRecipe:
    """Everything that decides the tower's weights.

    Attributes:
        steps: Optimiser steps.
        batch: Scenes in a step; the scenes follow from the step.
        learning_rate: Peak rate of AdamW; warmed up, then a cosine down to a hundredth.
        muon_learning_rate: Peak rate of Muon, for the matrices inside the tower's layers.
        save_every: Steps between two resumable states.
        seed: Seed of the weights.
    """

    steps: int
    batch: int = 16
    learning_rate: float = 2e-3
    muon_learning_rate: float = 2e-2
    save_every: int = 200
    seed: int = 0

    def rate_at(self, step: int) -> float:
        """Learning rate at a step as a share of the peak."""
        cosine = 0.01 + 0.99 * (1 + math.cos(math.pi * min(1.0, step / self.steps))) / 2
        return min(1.0, (step + 1) / WARMUP) * cosine


_LOSS_WEIGHTS = {"glyph": 2.0, "first": 2.0, "second": 2.0}
"""What is printed is learned last; the other labels weigh 1."""
GROUND = 0.02
"""Weight of a patch of the ground, where an item of one patch has 1."""
SAMPLE = 200
"""Scenes whose patches decide the whitening."""


class _Heads(nn.ModuleDict):
    def forward(self, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
        return {name: head(tokens) for name, head in self.items()}


class PatchReader(nn.Module):
    """A tower with linear heads for all patch labels behind every layer.

    Heads behind the early layers (deep supervision, Lee et al., AISTATS 2015) make a glyph known
    early, so that the later layers have something to fetch from the next patch.
    """

    def __init__(self, tower: CLIPVisionModel) -> None:
        super().__init__()
        self.tower = tower
        self.readers = nn.ModuleList(
            _Heads({name: _head(classes) for name, classes in PATCH_LABELS.items()})
            for _ in range(tower.config.num_hidden_layers)
        )

    def forward(self, pixels: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        """For each layer the logits (batch, patches, classes) of every label.

        Args:
            pixels: Normalised images, (batch, 3, side, side).
        """
        hidden = self.tower(pixels, output_hidden_states=True).hidden_states[1:]
        return [heads(layer[:, 1:]) for layer, heads in zip(hidden, self.readers, strict=True)]


def _head(classes: int) -> nn.Module:
    return nn.Sequential(nn.LayerNorm(HIDDEN), nn.Linear(HIDDEN, classes))


def scene_batch(
    seeds: range, *, device: torch.device | str = "cpu"
) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
    """Images (batch, 3, side, side), labels and weights (batch, patches) of the scenes."""
    scenes = [make_scene(seed) for seed in seeds]
    labels = [patch_labels(scene) for scene in scenes]

    def stacked(maps: list[np.ndarray]) -> torch.Tensor:
        return torch.from_numpy(np.stack(maps)).flatten(1).to(device)

    return (
        scene_pixels(seeds).to(device),
        {name: stacked([one[name] for one in labels]) for name in PATCH_LABELS},
        stacked([patch_weights(scene) for scene in scenes]),
    )


def dense_loss(
    logits: dict[str, torch.Tensor], labels: dict[str, torch.Tensor], weights: torch.Tensor
) -> torch.Tensor:
    """Sum of the labels' cross-entropies, balanced between patches with and without a label.

    A printed glyph is rare beside plain patches and the inside of large shapes; an even mean
    over patches leaves it unlearned.

    Args:
        logits: (batch, patches, classes) for each label.
        labels: Classes (batch, patches) for each label; class 0 is "none".
        weights: Of every patch, (batch, patches); 0 for the ground.
    """
    total = weights.new_zeros(())
    ground = torch.where(weights > 0, weights, GROUND).flatten()
    for name, output in logits.items():
        classes = labels[name].flatten()
        losses = F.cross_entropy(output.float().flatten(0, 1), classes, reduction="none")
        present = weights.flatten() * (classes > 0)
        absent = ground * (classes == 0)
        loss = (losses * present).sum() / present.sum().clamp(min=1)
        loss = loss + 0.5 * (losses * absent).sum() / absent.sum()
        total = total + _LOSS_WEIGHTS.get(name, 1.0) * loss
    return total


@torch.no_grad()
def patch_accuracy(reader: PatchReader, seeds: range) -> dict[str, float]:
    """Share of right labels on whole scenes, over the patches where the label is not "none"."""
    right: dict[str, list[torch.Tensor]] = {name: [] for name in PATCH_LABELS}
    for start in range(seeds.start, seeds.stop, 32):
        part = range(start, min(start + 32, seeds.stop))
        pixels, labels, _ = scene_batch(part, device=reader.tower.device)
        for name, output in reader(pixels)[-1].items():
            there = labels[name] > 0
            right[name].append((output.argmax(-1) == labels[name])[there].float())
    return {name: float(torch.cat(parts).mean()) for name, parts in right.items()}


def train_tower(recipe: TowerRecipe, folder: Path, *, watched: int = 64) -> CLIPVisionModel:
    """Train the tower, resuming from ``folder`` where an earlier run left off.

    Args:
        recipe: What to train.
        folder: Receives ``state/`` and ``training_log.jsonl``.
        watched: Held-out scenes that the learning curve is measured on.

    Returns:
        The trained tower, on the CPU.

    Raises:
        MismatchError: If ``folder`` holds a run of another recipe.
    """
    folder.mkdir(parents=True, exist_ok=True)
    accelerator = new_accelerator()
    reader = PatchReader(new_tower(scene_pixels(range(SAMPLE)), seed=recipe.seed))
    hold_looks(reader.tower)
    optimizers = ScheduledOptimizers(
        accelerator,
        reader,
        new_optimizers(
            reader.named_parameters(),
            learning_rate=recipe.learning_rate,
            muon_learning_rate=recipe.muon_learning_rate,
            weight_decay=0.01,
        ),
        recipe.rate_at,
    )
    model = optimizers.module
    first = load_state(accelerator, folder, recipe)
    seeds_watched = range(VALIDATION_SEEDS.start, VALIDATION_SEEDS.start + watched)
    began, running = time.monotonic(), 0.0
    for step in range(first, recipe.steps):
        seeds = range(step * recipe.batch, (step + 1) * recipe.batch)
        pixels, labels, weights = scene_batch(seeds, device=accelerator.device)
        with autocast(accelerator, "bf16"):
            layers = model(pixels)
        losses = torch.stack([dense_loss(logits, labels, weights) for logits in layers])
        accelerator.backward(losses.sum())
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizers.step()
        running += float(losses[-1].detach())
        if (step + 1) % recipe.save_every == 0 or step + 1 == recipe.steps:
            since = step % recipe.save_every + 1
            line = {"step": step + 1, "seconds": time.monotonic() - began, "loss": running / since}
            running = 0.0
            save_state(accelerator, folder, step + 1, recipe)
            append_line(folder / LOG, line | patch_accuracy(reader, seeds_watched))
    return reader.tower.cpu()

"""How to train: the settings of a run, checked when they are made."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from m3router.data.errors import MismatchError
from m3router.m3core.matryoshka.scales import ScaleGrid

PERIODS = "periods"
RANDOM = "random"


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """How to train.

    Attributes:
        scales: Visual tokens of each scale, coarsest first.
        choice: Which scales take part in a step. ``periods``: each as its period says, by default
            all of them, which is M3's objective (eq. 3.2). ``random``: one, drawn anew at every
            step, which is M3's ablation and, over
            :data:`m3router.m3core.matryoshka.scales.MQT_TRAINING_SCALES`, MQT-LLaVA's own training.
        periods: A scale takes part in every ``period``-th step; None is 1 for all.
        steps: Optimiser steps.
        learning_rate: Peak rate of connector and language model (AdamW).
        tower_learning_rate: Peak rate of the vision tower; 0 freezes it, as M3's published code
            does in effect (``clip_encoder.py`` runs it under ``torch.no_grad``).
        muon_learning_rate: Peak rate of Muon for the matrices inside transformer layers;
            0 leaves them to AdamW.
        tower_muon_learning_rate: The same for the tower's.
        lora_rank: Rank of the low-rank updates that take the place of the language model's own
            weights (LoRA; :mod:`m3router.m3core.training.lora`); 0 trains the weights themselves.
        lora_alpha: The updates count ``lora_alpha / lora_rank`` times (LLaVA: 256 / 128).
        lora_dropout: Dropout before the updates, in [0, 1).
        gradient_checkpointing: Compute activations twice instead of keeping them.
        warmup: Steps of linear warm-up, before a cosine down to a hundredth.
        weight_decay: Of AdamW.
        mixed_precision: ``no`` or ``bf16``.
        save_every: Steps between two resumable states.
        seed: Seeds batches, random scales and dropout.

    Raises:
        MismatchError: If settings contradict each other, or a step would have no scale.
    """

    scales: tuple[int, ...]
    choice: str = PERIODS
    periods: tuple[int, ...] | None = None
    steps: int
    learning_rate: float
    tower_learning_rate: float = 0.0
    muon_learning_rate: float = 0.0
    tower_muon_learning_rate: float = 0.0
    lora_rank: int = 0
    lora_alpha: int = 16
    lora_dropout: float = 0.0
    gradient_checkpointing: bool = False
    warmup: int = 100
    weight_decay: float = 0.01
    mixed_precision: str = "no"
    save_every: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        """Check what can be checked without a model."""
        ScaleGrid(scales=self.scales, side=None)
        for name in ("steps", "warmup", "save_every"):
            if getattr(self, name) < 1:
                raise MismatchError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if self.choice not in (PERIODS, RANDOM):
            raise MismatchError(f"choice must be {PERIODS!r} or {RANDOM!r}, got {self.choice!r}")
        if self.periods is not None:
            self._check_periods(self.periods)
        self._check_lora()

    def _check_periods(self, periods: tuple[int, ...]) -> None:
        if self.choice == RANDOM:
            raise MismatchError(
                f"periods {periods} mean nothing with choice {RANDOM!r}; leave them out"
            )
        if len(periods) != len(self.scales) or min(periods) < 1:
            raise MismatchError(
                f"periods must be one whole number from 1 for each of the {len(self.scales)} "
                f"scales {self.scales}, got {periods}"
            )
        for step in range(min(self.steps, math.lcm(*periods))):
            if not self.scales_at(step):
                raise MismatchError(
                    f"periods {periods} leave step {step} without any scale; give at least one "
                    "scale the period 1"
                )

    def _check_lora(self) -> None:
        if self.lora_rank < 0 or not 0 <= self.lora_dropout < 1:
            raise MismatchError(
                "lora_rank must be 0 (off) or more and lora_dropout in [0, 1), got "
                f"{self.lora_rank} and {self.lora_dropout}"
            )
        if self.lora_rank and self.muon_learning_rate:
            raise MismatchError(
                f"lora_rank {self.lora_rank} and muon_learning_rate {self.muon_learning_rate}: "
                "Muon is for whole matrices, and LoRA trains none of the language model's; set "
                "one of the two to 0"
            )

    def scales_at(self, step: int) -> tuple[int, ...]:
        """The scales that take part in a step; depends on recipe and step alone."""
        if self.choice == RANDOM:
            drawn = np.random.default_rng((self.seed, step)).integers(len(self.scales))
            return (self.scales[drawn],)
        periods = self.periods or (1,) * len(self.scales)
        return tuple(
            m for m, period in zip(self.scales, periods, strict=True) if step % period == 0
        )

    def rate_at(self, step: int) -> float:
        """Learning rate at a step as a share of the peak."""
        cosine = 0.01 + 0.99 * (1 + math.cos(math.pi * min(1.0, step / self.steps))) / 2
        return min(1.0, (step + 1) / self.warmup) * cosine

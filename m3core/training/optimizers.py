"""Optimisers: Muon for the matrices inside transformer layers, AdamW for everything else.

Muon (Jordan et al. 2024; ``torch.optim.Muon``) makes every update of a matrix orthogonal. The
embedded model's tower is trained with it; no recorded run compares it there with AdamW.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn


def is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is a matrix inside a numbered transformer layer.

    Args:
        name: Its name in the model, as in ``model.layers.0.mlp.up_proj.weight``.
        parameter: The parameter.
    """
    return parameter.ndim == 2 and "layers" in name.split(".")


def new_optimizers(
    parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    learning_rate: float,
    muon_learning_rate: float,
    weight_decay: float,
) -> list[torch.optim.Optimizer]:
    """AdamW for all parameters, or Muon for hidden matrices and AdamW for the others.

    Args:
        parameters: Names and parameters; those that take no gradient are left out.
        learning_rate: Of AdamW.
        muon_learning_rate: Of Muon, with updates scaled to AdamW's size (Liu et al.,
            arXiv 2502.16982); 0 leaves hidden matrices to AdamW.
        weight_decay: Of both.
    """
    hidden: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in parameters:
        if not parameter.requires_grad:
            continue
        chosen = muon_learning_rate > 0 and is_hidden_matrix(name, parameter)
        (hidden if chosen else rest).append(parameter)
    common: dict[str, Any] = {"weight_decay": weight_decay}
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(rest, lr=learning_rate, betas=(0.9, 0.98), **common)
    ]
    if hidden:
        optimizers.append(
            torch.optim.Muon(
                hidden, lr=muon_learning_rate, adjust_lr_fn="match_rms_adamw", **common
            )
        )
    return optimizers


class ScheduledOptimizers:
    """Several optimisers that step together, their rates following one curve.

    Module and optimisers are prepared in one call, as DeepSpeed and FSDP2 need it.

    Args:
        accelerator: Prepares them, and so saves and restores their state.
        module: What is trained.
        optimizers: The optimisers, with their peak rates.
        rate_at: Share of the peak rate at a step.

    Attributes:
        module: The prepared module.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        module: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        rate_at: Callable[[int], float],
    ) -> None:
        schedules = [torch.optim.lr_scheduler.LambdaLR(one, rate_at) for one in optimizers]
        prepared: Any = accelerator.prepare(module, *optimizers, *schedules)
        self.module, *self._parts = prepared
        self._optimizers = self._parts[: len(optimizers)]

    def step(self) -> None:
        """One step of every optimiser and schedule; gradients are cleared."""
        for part in self._parts:
            part.step()
        for optimizer in self._optimizers:
            optimizer.zero_grad()

"""Low-rank updates of a language model through peft (LoRA; Hu et al., ICLR 2022).

The projections of attention and MLP get updates, all else of the language model is frozen, and
the connector is trained in full. A run ends with the updates merged into the weights, so that the
checkpoint it leaves loads like any other and needs no peft.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

from m3router.data.errors import MismatchError, ModelError
from m3router.m3core.matryoshka.trainable import Trainable

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Every linear layer inside a Llama block, as in LLaVA's ``find_all_linear_names``."""
_ADAPTER = "default"
_BASE, _DOWN, _UP = ".base_layer.", f".lora_A.{_ADAPTER}.weight", f".lora_B.{_ADAPTER}.weight"


def add_lora(trainable: Trainable, *, rank: int, alpha: int, dropout: float) -> Any:
    """Put updates into the language model in place; at first they change nothing.

    The tower's ``requires_grad`` stays as it was.

    Args:
        trainable: The model.
        rank: Of the updates.
        alpha: They count ``alpha / rank`` times.
        dropout: Before the updates.

    Returns:
        peft's handle, whose ``unload()`` takes them out again.

    Raises:
        ModelError: If peft is not installed.
        MismatchError: If the language model has none of the projections.
    """
    if importlib.util.find_spec("peft") is None:
        raise ModelError(
            f"lora_rank {rank} needs the package peft; install it with "
            "`pip install 'm3router[train]'`, or set lora_rank to 0"
        )
    from peft import LoraConfig, LoraModel

    language = trainable.language
    if not any(name.rpartition(".")[2] in PROJECTIONS for name, _ in language.named_modules()):
        raise MismatchError(
            f"a {type(language).__name__} has none of the layers {', '.join(PROJECTIONS)} that "
            "LoRA updates; set lora_rank to 0"
        )
    for part in (language, trainable.embeddings, trainable.head):
        part.requires_grad_(False)
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=list(PROJECTIONS)
    )
    return LoraModel(language, {_ADAPTER: config}, _ADAPTER)


def merged(weights: dict[str, torch.Tensor], scaling: float) -> dict[str, torch.Tensor]:
    """Weights with their updates added, under the names that they have without LoRA.

    Args:
        weights: State of a module with updates in it.
        scaling: ``alpha / rank``.

    Returns:
        W + scaling * B A for every updated matrix; the others as they are.
    """
    whole = {}
    for name, tensor in weights.items():
        if name.endswith((_DOWN, _UP)):
            continue
        stem, base, kind = name.rpartition(_BASE)
        if base and stem + _UP in weights and kind == "weight":
            up, down = weights[stem + _UP].float(), weights[stem + _DOWN].float()
            tensor = (tensor.float() + scaling * (up @ down)).to(tensor.dtype)
        whole[f"{stem}.{kind}" if base else name] = tensor
    return whole

"""What a prefill shows: states of the prompt's last token, and how sure the first answer token is.

Other routers (CARES) decide from a model's own states in its middle layers; here a request's
own prefill is read, so that nothing is lost when the answer then goes on from it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

LIKELIEST = 5
"""How many of the likeliest first tokens are given; fewer where the vocabulary is smaller."""


@dataclass
class Watched:
    """The last position's states of every row, of the newest forward pass.

    Attributes:
        middle: Behind half of the layers, (R, D).
        last: Behind all layers and the norm, what the output matrix reads, (R, D).
    """

    middle: torch.Tensor
    last: torch.Tensor


@contextmanager
def watch(model: PreTrainedModel) -> Iterator[Watched]:
    """Look on while a language model reads; padding must be on the left.

    Only one position a row is kept, where ``output_hidden_states`` would keep all of all layers.
    What other threads let the same model read meanwhile is not looked at.

    Args:
        model: A causal language model, or one with a vision tower before it.
    """
    stack = model.get_decoder()
    seen = Watched(middle=torch.empty(0, 0), last=torch.empty(0, 0))
    watcher = threading.get_ident()

    def keep(name: str, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
        if threading.get_ident() != watcher:
            return
        hidden = output[0] if isinstance(output, tuple) else output
        setattr(seen, name, hidden[:, -1].detach().float().cpu())

    middle = stack.layers[(len(stack.layers) - 1) // 2]
    hooks = [
        middle.register_forward_hook(lambda _, __, output: keep("middle", output)),
        stack.norm.register_forward_hook(lambda _, __, output: keep("last", output)),
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def first_token_distribution(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How sure the model is of its first token.

    Args:
        logits: Of the next token, (R, V).

    Returns:
        Entropies in nats (R,), and the natural-log probabilities of the likeliest tokens, largest
        first, (R, min(V, LIKELIEST)); float32 on the CPU.
    """
    logprobs = logits.float().log_softmax(-1)
    entropy = torch.special.entr(logprobs.exp()).sum(-1)
    top = logprobs.topk(min(LIKELIEST, logprobs.shape[-1]), dim=-1).values
    return entropy.cpu(), top.cpu()

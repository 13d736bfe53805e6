"""Tokens that are drawn instead of the likeliest ones: plain values, and the drawing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How an answer's tokens are drawn.

    Attributes:
        temperature: The log-probabilities are divided by it, above 0; 1 is the model's own
            distribution, and near 0 the likeliest token is drawn.
        top_p: Tokens are drawn from the fewest likeliest ones that together have this probability,
            in [0, 1] (nucleus sampling: Holtzman et al., ICLR 2020).
        seed: Equal seeds draw equal answers to equal requests, whatever else is in the batch.
    """

    temperature: float
    top_p: float = 1.0
    seed: int = 0


class Draw:
    """Draws the tokens of one answer, one after the other.

    Args:
        sampling: How.
    """

    def __init__(self, sampling: Sampling) -> None:
        import torch

        self._sampling = sampling
        # On the processor, so that an answer does not depend on the device's generator.
        self._generator = torch.Generator().manual_seed(sampling.seed % 2**63)

    def __call__(self, logprobs: torch.Tensor) -> int:
        """Draw one token.

        Args:
            logprobs: Of all tokens, (V,).
        """
        import torch

        # In float64 a temperature next to 0 is still one, and the likeliest token is 0 / it.
        scaled = logprobs.cpu().double()
        scaled = (scaled - scaled.max()) / self._sampling.temperature
        likely, tokens = scaled.softmax(-1).sort(descending=True, stable=True)
        before = likely.cumsum(-1) - likely  # what the likelier ones have
        likely = likely.where(before < self._sampling.top_p, 0.0)
        likely[0] = likely[0].clamp(min=1e-300)  # top_p = 0 keeps the likeliest one
        return int(tokens[torch.multinomial(likely, 1, generator=self._generator)])

"""What a language model has read: the keys and values of a batch whose rows come and go.

Notation for shapes: ``R`` rows, ``V`` vocabulary. Rows are padded on the left, so that the last
position is always a row's own last token.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import pad
from transformers import DynamicCache


class State:
    """Keys, values and which of their positions are padding, for the rows of a batch."""

    def __init__(self, cache: DynamicCache, mask: torch.Tensor) -> None:
        self.cache = cache
        self.mask = mask  # (R, positions so far), 1 where there is a token
        self.padded = False
        self.logits = torch.zeros(len(mask), 0)  # (R, kept, V), of what was read last

    def picked(self, rows: Sequence[int]) -> State:
        """A state of these rows, to go on from while this one stays as it is."""
        index = torch.tensor(rows)
        cache = DynamicCache()
        for number, layer in enumerate(self.cache.layers):
            here = index.to(layer.keys.device)
            cache.update(layer.keys[here], layer.values[here], number)
        state = State(cache, self.mask[index.to(self.mask.device)])
        state.padded = self.padded
        state.logits = self.logits[index.to(self.logits.device)]
        return state

    def select(self, rows: torch.Tensor) -> None:
        """Keep these rows, in this order; a row may be taken several times."""
        if len(rows) == len(self.mask) and torch.equal(rows, torch.arange(len(rows))):
            return
        self.cache.batch_select_indices(rows)  # layers may lie on several devices
        self.mask = self.mask[rows]
        self.logits = self.logits[rows]

    def join(self, other: State) -> None:
        """Take in the rows of another state, which is used up; only last logits are kept."""
        length = max(self._used(), other._used())
        cache = DynamicCache()
        for number, (ours, theirs) in enumerate(
            zip(self.cache.layers, other.cache.layers, strict=True)
        ):
            keys = torch.cat([_fitted(one.keys, length) for one in (ours, theirs)])
            values = torch.cat([_fitted(one.values, length) for one in (ours, theirs)])
            cache.update(keys, values, number)
        self.cache = cache
        masks = [_fitted(one.mask[..., None], length)[..., 0] for one in (self, other)]
        self.mask = torch.cat(masks)
        self.padded = bool((self.mask == 0).any())
        self.logits = torch.cat([one.logits[:, -1:] for one in (self, other)])

    def _used(self) -> int:
        """Positions from the first one on that is a token in any row."""
        return int(self.mask.shape[1] - self.mask.any(dim=0).to(torch.uint8).argmax())


def _fitted(values: torch.Tensor, length: int) -> torch.Tensor:
    """The last ``length`` of the positions (..., positions, D), padded on the left if fewer."""
    missing = length - values.shape[-2]
    return pad(values, (0, 0, missing, 0)) if missing > 0 else values[..., -length:, :]

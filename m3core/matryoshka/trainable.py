"""What the Matryoshka objective asks of a model in training.

Notation for shapes: ``B`` images, ``P`` patches, ``Dv`` width of the tower, ``V`` visual tokens of
the finest scale, ``D`` width of the language model.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn


class Trainable(Protocol):
    """A model in training.

    Attributes:
        module: Holds every weight.
    """

    module: nn.Module

    @property
    def tower(self) -> Any:
        """The vision tower, a Hugging Face model."""
        ...

    @property
    def connector(self) -> nn.Module:
        """What stands between tower and language model."""
        ...

    @property
    def language(self) -> Any:
        """The decoder without its head, a Hugging Face model."""
        ...

    @property
    def embeddings(self) -> nn.Module:
        """From ids to the decoder's inputs."""
        ...

    @property
    def head(self) -> nn.Module:
        """From the decoder's outputs to logits."""
        ...

    def check_scale(self, scale: int) -> int:
        """Return a scale that can be trained.

        Raises:
            MismatchError: If the model has no such scale.
        """
        ...

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Encode once for all scales, with gradients.

        Args:
            images: Normalised pixels (B, 3, H, W), or tower tokens (B, P, Dv) computed earlier.

        Returns:
            (B, V, D), behind the connector.
        """
        ...

    def at(self, features: torch.Tensor, scale: int) -> torch.Tensor:
        """The visual tokens of a scale, (B, scale, D), from what :meth:`encode` gave."""
        ...

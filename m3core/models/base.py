"""What the rest of the project asks of a multi-scale model.

Notation for shapes: ``S * S`` patch tokens of an image, ``D`` width of the language model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image

from m3core.cost import ModelShape
from m3core.pooling import average_pool, detail_lost
from m3core.scales import ScaleGrid


@dataclass(frozen=True, kw_only=True)
class VisualEncoding:
    """What the vision tower and the projector made of one image, once for all scales.

    Attributes:
        features: Unpooled tokens after the projector, (S * S, D).
    """

    features: torch.Tensor

    def at(self, scale: int) -> torch.Tensor:
        """The visual tokens of a scale, (scale, D)."""
        return average_pool(self.features, scale)

    def tokens(self, scale: int) -> int:
        """How many visual tokens :meth:`at` gives at a scale."""
        return scale

    def detail(self, coarse: int, fine: int, *, regions: int) -> torch.Tensor:
        """What a finer scale shows beyond a coarser one, by region of the picture.

        Args:
            coarse: The coarser scale.
            fine: The finer scale.
            regions: Square regions to sort the detail into; a scale no finer than ``coarse``.

        Returns:
            (regions, fine / regions, D), float32.
        """
        detail = detail_lost(self.features.float(), coarse, fine)  # (fine, D), raster order
        across = math.isqrt(regions)
        window = math.isqrt(fine) // across
        squares = detail.reshape(across, window, across, window, -1).transpose(1, 2)
        return squares.reshape(regions, window * window, -1)


@dataclass(frozen=True, kw_only=True)
class Request:
    """One question to be answered from one encoded image at one scale."""

    encoding: VisualEncoding
    question: str
    scale: int


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer with what it cost and how sure the model was.

    Attributes:
        text: The answer, stripped.
        logprob: Sum of the natural-log probabilities of the generated tokens.
        confidence: Probability of the first generated token, in [0, 1].
        answer_tokens: Generated tokens, the end-of-sequence token included.
        visual_tokens: Tokens that the language model received from the image.
        text_tokens: All other prompt tokens.
    """

    text: str
    logprob: float
    confidence: float
    answer_tokens: int
    visual_tokens: int
    text_tokens: int


@runtime_checkable
class MultiScaleModel(Protocol):
    """A frozen model that answers from any scale of its grid.

    Attributes:
        name: How the user called it (a hub id, a folder's name, ``embedded``).
        revision: Hash of what decides its answers; logs of different revisions never mix.
        grid: Its scales.
        prompt: Name of its prompt template.
        shape: Its sizes, for the cost model.
        dtype: Name of its number format, such as ``float32``.
    """

    name: str
    revision: str
    grid: ScaleGrid
    prompt: str
    shape: ModelShape
    dtype: str

    def encode(self, images: Sequence[Image.Image]) -> list[VisualEncoding]:
        """Run tower and projector once for each image."""
        ...

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """Answer all requests in one batch; scales and questions may differ.

        Raises:
            MismatchError: If the model has no such scale.
            DataError: If a question is empty or does not fit the context.
        """
        ...

    def prompt_length(self, question: str, scale: int) -> int:
        """Prompt tokens of a request, visual ones included.

        Raises:
            MismatchError: If the scale is not in the grid.
            DataError: If the question is empty or does not fit the context.
        """
        ...

    def embed_question(self, question: str) -> np.ndarray:
        """The language model's input embeddings of a question, (tokens, D), float32."""
        ...

"""What the rest of the project asks of a multi-scale model.

Notation for shapes: ``S * S`` patch tokens of an image, ``D`` width of the language model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image

from m3router.m3core.cost.operations import ModelShape
from m3router.m3core.matryoshka.pooling import detail_by_region, pool
from m3router.m3core.matryoshka.sampling import Sampling
from m3router.m3core.matryoshka.scales import ScaleGrid

ANSWER_TOKENS = 16
"""Tokens of a model's longest answer unless something else is asked for. So much room is kept free
behind every prompt; a longer answer may use what the context has left."""


class VisualEncoding(Protocol):
    """What a model made of one image, once for all scales.

    What one image costs is asked here, never read off the scale's name.
    """

    @property
    def features(self) -> torch.Tensor:
        """Unpooled tokens of the whole image, (S * S, D): what the router looks at."""
        ...

    @property
    def views(self) -> int:
        """Images that the tower ran on for this image; high-resolution models cut crops."""
        ...

    def tokens(self, scale: int) -> int:
        """Tokens that the language model really receives at a scale; at least ``scale``."""
        ...

    def at(self, scale: int) -> torch.Tensor:
        """The visual tokens of a scale, (tokens(scale), D)."""
        ...

    def detail(self, coarse: int, fine: int, *, regions: int) -> torch.Tensor:
        """What a finer scale shows beyond a coarser one, by region of the image.

        Args:
            coarse: The coarser scale.
            fine: The finer scale.
            regions: Square regions to sort the detail into; a scale no finer than ``coarse``.

        Returns:
            (regions, tokens in each, D), float32.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class GridEncoding:
    """One square grid of tokens, reduced to fewer; a scale costs as many tokens as its name says.

    Attributes:
        features: Tokens after the projector, (S * S, D).
        pooling: A name in :data:`m3router.m3core.matryoshka.pooling.POOLINGS`.
    """

    features: torch.Tensor
    pooling: str = "average"

    @property
    def views(self) -> int:
        """The tower saw the image once."""
        return 1

    def tokens(self, scale: int) -> int:
        """``scale`` itself."""
        return scale

    def at(self, scale: int) -> torch.Tensor:
        """The visual tokens of a scale, (scale, D)."""
        return pool(self.features, scale, self.pooling)

    def detail(self, coarse: int, fine: int, *, regions: int) -> torch.Tensor:
        """Average-pooled detail, (regions, fine / regions, D)."""
        return detail_by_region(self.features, coarse, fine, regions=regions)


@dataclass(frozen=True, kw_only=True)
class Request:
    """One question to be answered from one encoded image at one scale.

    Attributes:
        encoding: The image.
        question: What is asked.
        scale: A scale of the model.
        answer: None to generate one; else the answer whose probability is asked for, in one pass
            without decoding ("teacher forcing"). Requests of both kinds are not mixed in a batch.
        max_new_tokens: Tokens of the longest answer, at least 1; None for the model's own limit.
            What the context has left behind the prompt is a limit too.
    """

    encoding: VisualEncoding
    question: str
    scale: int
    answer: str | None = None
    max_new_tokens: int | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer with what it cost and how sure the model was.

    Attributes:
        text: The answer, stripped.
        logprob: Sum of the natural-log probabilities of the answer's tokens.
        confidence: Probability of the answer's first token, in [0, 1].
        answer_tokens: Tokens of the answer, the end-of-sequence token included.
        visual_tokens: Tokens that the language model really received from the image.
        text_tokens: All other prompt tokens.
        cut: Whether its longest length ended it, and not the model.
    """

    text: str
    logprob: float
    confidence: float
    answer_tokens: int
    visual_tokens: int
    text_tokens: int
    cut: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Peek:
    """What a request's prefill shows before anything is answered.

    Attributes:
        middle: State of the prompt's last token behind half of the layers, (D,), float32.
        last: The same behind all layers and the norm, (D,), float32.
        entropy: Of the first answer token, in nats.
        top_logprobs: Natural-log probabilities of the likeliest first answer tokens, largest
            first; :data:`m3router.m3core.matryoshka.prefill_probe.LIKELIEST` of them, or the whole
            vocabulary.
        visual_tokens: Tokens that the language model read from the image.
        text_tokens: All other prompt tokens.
        max_new_tokens: The request's.
        state: From where the model can go on answering; for the model itself only. It holds the
            keys and values of its whole batch, so a peek that is not needed should not be kept.
    """

    middle: np.ndarray
    last: np.ndarray
    entropy: float
    top_logprobs: np.ndarray
    visual_tokens: int
    text_tokens: int
    state: Any
    max_new_tokens: int | None = None


class IncrementalAnswer(Protocol):
    """An answer while it is being written."""

    @property
    def ended(self) -> bool:
        """Whether nothing follows any more."""
        ...

    @property
    def whole(self) -> bool:
        """Whether the model itself ended it, and not its longest length."""
        ...

    def settled(self) -> str:
        """The text so far that no later token can change: a beginning of the answer's text."""
        ...

    def so_far(self) -> str:
        """The same with blanks at its end, which are not part of an answer that ends there."""
        ...

    def answer(self) -> Answer:
        """The answer as it stands; after at least one step."""
        ...

    def give_up(self) -> None:
        """End it here: it leaves its batch."""
        ...


class IncrementalAnswers(Protocol):
    """A batch of answers that grow by a token a step; others join, those that ended leave."""

    @property
    def rows(self) -> Sequence[IncrementalAnswer]:
        """Those that have not ended."""
        ...

    def step(self) -> None:
        """One more token for each."""
        ...

    def join(self, other: Any) -> None:
        """Take in another batch of the same model, which is used up."""
        ...


@runtime_checkable
class MultiScaleModel(Protocol):
    """A frozen model that answers from any scale of its grid.

    Attributes:
        name: How the user called it (a hub id, a folder's name, ``embedded``).
        revision: Hash of what decides its answers; logs of different revisions never mix.
        max_new_tokens: Tokens of its longest answer, where a request names no other limit.
        grid: Its scales.
        prompt: Name of its prompt template.
        shape: Its sizes, for the cost model.
        dtype: Name of its number format, such as ``float32``.
        visual: How its visual tokens are made, such as ``{"pooling": "average"}``; recorded in
            logs. Whatever differs from the checkpoint's own way also changes the revision.
    """

    name: str
    revision: str
    max_new_tokens: int
    grid: ScaleGrid
    prompt: str
    shape: ModelShape
    dtype: str
    visual: Mapping[str, str]

    @property
    def prepare(self) -> Callable[[Image.Image], Any]:
        """Turns an RGB image into what the tower takes; can be pickled."""
        ...

    def encode(self, images: Sequence[Any]) -> list[VisualEncoding]:
        """Run tower and projector once for each image.

        Args:
            images: RGB images, or what :attr:`prepare` made of them.
        """
        ...

    def check_scale(self, scale: int) -> int:
        """Return a scale that the model can be asked at; some know more than their grid names.

        Raises:
            MismatchError: If the model has no such scale.
        """
        ...

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """Answer all requests in one batch; scales and questions may differ.

        Raises:
            MismatchError: If the model has no such scale, or only some requests bring an answer.
            DataError: If a question is empty or does not fit the context.
        """
        ...

    def peek(self, requests: Sequence[Request]) -> list[Peek]:
        """Read all requests in one batch, and answer none of them yet.

        Raises:
            MismatchError: If the model has no such scale, or a request brings an answer.
            DataError: If a question is empty or does not fit the context.
        """
        ...

    def finish(self, peeks: Sequence[Peek]) -> list[Answer]:
        """Answer from where peeks of this very model stopped; no prompt is read again.

        The answers are those that :meth:`answer` gives to the same requests. A peek may be
        finished any number of times.
        """
        ...

    def begin(
        self,
        requests: Sequence[Request],
        *,
        most: Sequence[int] | None = None,
        sampling: Sequence[Sampling | None] | None = None,
    ) -> IncrementalAnswers:
        """Read all requests in one batch, to answer them step by step, each as :meth:`answer` does.

        Args:
            requests: At least one; none brings an answer.
            most: Tokens of each one's longest answer, at least 1; None for the requests' own.
            sampling: How each one's tokens are drawn; None for the likeliest ones, as
                :meth:`answer` takes them.

        Raises:
            MismatchError: If the model has no such scale, or a request brings an answer.
            DataError: If a question is empty or does not fit the context.
        """
        ...

    def resume(
        self,
        peeks: Sequence[Peek],
        *,
        most: Sequence[int] | None = None,
        sampling: Sequence[Sampling | None] | None = None,
    ) -> IncrementalAnswers:
        """Answer step by step from where peeks of one batch stopped; see :meth:`begin`."""
        ...

    def answer_length(self, answer: str, *, most: int | None = None) -> int:
        """Tokens of a given answer, the end-of-sequence token included.

        Args:
            answer: The answer.
            most: Tokens of the longest answer; None for :attr:`max_new_tokens`.

        Raises:
            DataError: If the model could never say so much.
        """
        ...

    def prompt_length(self, question: str, visual_tokens: int, *, room: int | None = None) -> int:
        """Prompt tokens of a question with so many visual ones (``encoding.tokens(scale)``).

        Args:
            question: What is asked.
            visual_tokens: Of the image.
            room: Answer tokens that must fit behind the prompt; None for those of a short answer.

        Raises:
            DataError: If the question is empty or does not fit the context.
        """
        ...

    def embed_question(self, question: str) -> np.ndarray:
        """The language model's input embeddings of a question, (tokens, D), float32."""
        ...


def revision_with(revision: str, changes: Mapping[str, str]) -> str:
    """The revision of a model that is used in another way than its checkpoint says.

    Args:
        revision: Hash of the checkpoint's files.
        changes: Setting to value, only those that differ; with none the revision stays.
    """
    if not changes:
        return revision
    text = json.dumps([revision, dict(sorted(changes.items()))])
    return hashlib.sha256(text.encode()).hexdigest()

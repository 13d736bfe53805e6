"""A multi-scale model without weights, for tests and for trying the tools.

It "sees" coarse colour averages, "needs" a scale that follows from the image and the question,
and below it answers something else. Everything is a pure function of its input.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, overload

import numpy as np
import torch
from PIL import Image

from m3router.data.errors import DataError, MismatchError
from m3router.m3core.cost.operations import ModelShape, StackShape
from m3router.m3core.matryoshka.base import (
    Answer,
    GridEncoding,
    Peek,
    Request,
    VisualEncoding,
    revision_with,
)
from m3router.m3core.matryoshka.by_option import ScalesAsOptions, answer_by_option
from m3router.m3core.matryoshka.pooling import AVERAGE, check_pooling
from m3router.m3core.matryoshka.prompts import get_template
from m3router.m3core.matryoshka.sampling import Sampling
from m3router.m3core.matryoshka.scales import ScaleGrid
from m3router.m3core.options import Answer as OptionAnswer
from m3router.m3core.options import Failure
from m3router.m3core.options import Request as OptionRequest

_WIDTH = 8
_CONTEXT = 1024
_STACK = StackShape(
    layers=1, hidden=_WIDTH, intermediate=16, heads=1, kv_heads=1, head_dim=_WIDTH, gated=True
)


class FakeModel(ScalesAsOptions):
    """Answers ``yes`` from the needed scale on and ``no`` below it.

    The needed scale grows with the length of the question and the contrast of the image, so
    that a router has something to learn.

    Args:
        grid: The scales; the grid's side is also the side of the "tower".
        pooling: Recorded as for real models; the answers do not depend on it.

    Raises:
        MismatchError: If the grid has no side, or there is no such pooling.
    """

    name = "fake"
    prompt = "scenes-1"
    dtype = "float32"
    max_new_tokens = 1

    def __init__(self, grid: ScaleGrid | None = None, *, pooling: str = AVERAGE) -> None:
        self.grid = grid or ScaleGrid()
        if self.grid.side is None:
            raise MismatchError(
                f"the fake model pools a square grid of tokens, and the scales {self.grid.scales} "
                "name no side; give the grid a side"
            )
        self._side = self.grid.side
        self.pooling = check_pooling(pooling)
        self.visual: Mapping[str, str] = {"pooling": pooling}
        own = hashlib.sha256(b"fake-1").hexdigest()
        self.revision = revision_with(own, {} if pooling == AVERAGE else self.visual)
        self.shape = ModelShape(
            text=_STACK, tower=_STACK, patches=self.grid.finest + 1, patch_values=3, vocabulary=2
        )

    @property
    def prepare(self) -> Callable[[Image.Image], np.ndarray]:
        """Shrinks an image to the grid."""
        return partial(_shrink, side=self._side)

    def encode(self, images: Sequence[Image.Image | np.ndarray]) -> list[VisualEncoding]:
        """The image itself, shrunk to the grid: its colours fill the first three channels."""
        encodings: list[VisualEncoding] = []
        for image in images:
            small = self.prepare(image) if isinstance(image, Image.Image) else image
            pixels = torch.tensor(small, dtype=torch.float32) / 255
            features = torch.zeros(self.grid.finest, _WIDTH)
            features[:, :3] = pixels.reshape(-1, 3)
            encodings.append(GridEncoding(features=features, pooling=self.pooling))
        return encodings

    def prompt_length(self, question: str, visual_tokens: int, *, room: int | None = None) -> int:
        """Prompt tokens: one for each word, and the visual ones."""
        words = len(get_template(self.prompt).text_after(question).split())
        if words + visual_tokens > _CONTEXT:
            raise DataError(
                f"the question does not fit: {words} words and {visual_tokens} visual tokens "
                f"exceed the context of {_CONTEXT}; shorten the question"
            )
        return words + visual_tokens

    def check_scale(self, scale: int) -> int:
        """A scale of the grid."""
        return self.grid.check(scale)

    def answer_length(self, answer: str, *, most: int | None = None) -> int:
        """One token, whatever is answered."""
        return 1

    def needed(self, encoding: VisualEncoding, question: str) -> int:
        """The coarsest scale at which this model answers ``yes``."""
        contrast = float(encoding.features[:, :3].std())
        level = (min(1.0, 2 * contrast) + min(1.0, len(question) / 60)) / 2
        return self.grid.scales[min(int(level * len(self.grid)), len(self.grid) - 1)]

    @overload
    def answer(self, requests: Sequence[Request]) -> list[Answer]: ...

    @overload
    def answer(self, requests: Sequence[OptionRequest]) -> list[OptionAnswer | Failure]: ...

    def answer(self, requests: Sequence[Any]) -> list[Any]:
        """``yes`` from the needed scale on, ``no`` below it."""
        if any(isinstance(one, OptionRequest) for one in requests):
            return answer_by_option(self, requests)
        answers = []
        for request in requests:
            visual_tokens = request.encoding.tokens(self.check_scale(request.scale))
            prompt = self.prompt_length(request.question, visual_tokens)
            sure = request.scale >= self.needed(request.encoding, request.question)
            says, probability = ("yes", 0.9) if sure else ("no", 0.6)
            if request.answer is not None and request.answer != says:
                probability = 1 - probability
            answers.append(
                Answer(
                    text=says if request.answer is None else request.answer,
                    logprob=float(np.log(probability)),
                    confidence=probability,
                    answer_tokens=1,
                    visual_tokens=visual_tokens,
                    text_tokens=prompt - visual_tokens,
                )
            )
        return answers

    def peek(self, requests: Sequence[Request]) -> list[Peek]:
        """States of colours and words; how sure it is of ``yes`` or ``no``."""
        if any(request.answer is not None for request in requests):
            raise MismatchError("a request that brings an answer cannot be peeked at; leave it out")
        peeks = []
        for request, answer in zip(requests, self.answer(requests), strict=True):
            odds = np.array([answer.confidence, 1 - answer.confidence])
            peeks.append(
                Peek(
                    middle=request.encoding.at(request.scale).mean(0).numpy(),
                    last=self.embed_question(request.question).mean(0),
                    entropy=float(-(odds * np.log(odds)).sum()),
                    top_logprobs=np.log(odds).astype(np.float32),
                    visual_tokens=answer.visual_tokens,
                    text_tokens=answer.text_tokens,
                    state=answer,
                )
            )
        return peeks

    def finish(self, peeks: Sequence[Peek]) -> list[Answer]:
        """What it would have answered at once."""
        return [peek.state for peek in peeks]

    def begin(
        self,
        requests: Sequence[Request],
        *,
        most: Sequence[int] | None = None,
        sampling: Sequence[Sampling | None] | None = None,
    ) -> _SaidAtOnce:
        """Each answer is one token, said in the first step; always the likeliest."""
        if any(request.answer is not None for request in requests):
            raise MismatchError("a request that brings an answer is scored, not written; ask it")
        return _SaidAtOnce([_Said(answer) for answer in self.answer(requests)])

    def resume(
        self,
        peeks: Sequence[Peek],
        *,
        most: Sequence[int] | None = None,
        sampling: Sequence[Sampling | None] | None = None,
    ) -> _SaidAtOnce:
        """What it would have answered at once."""
        return _SaidAtOnce([_Said(peek.state) for peek in peeks])

    def embed_question(self, question: str) -> np.ndarray:
        """One row for each word: its length and a hash."""
        words = get_template(self.prompt).text_after(question).split()
        rows = np.zeros((len(words), _WIDTH), dtype=np.float32)
        for row, word in zip(rows, words, strict=True):
            row[0] = len(word)
            row[1 + hashlib.sha256(word.encode()).digest()[0] % (_WIDTH - 1)] = 1
        return rows


class _Said:
    """An answer of one token; an :class:`m3router.m3core.matryoshka.base.IncrementalAnswer`."""

    def __init__(self, answer: Answer) -> None:
        self.ended = self.whole = False
        self._answer = answer

    def settled(self) -> str:
        return self._answer.text if self.whole else ""

    def so_far(self) -> str:
        return self.settled()

    def answer(self) -> Answer:
        return self._answer

    def give_up(self) -> None:
        self.ended = True


class _SaidAtOnce:
    """A batch of them, all said in the first step."""

    def __init__(self, rows: list[_Said]) -> None:
        self.rows = rows

    def step(self) -> None:
        for row in self.rows:
            row.whole = not row.ended
            row.ended = True
        self.rows = []

    def join(self, other: _SaidAtOnce) -> None:
        self.rows = self.rows + other.rows


def _shrink(image: Image.Image, side: int) -> np.ndarray:
    return np.asarray(image.convert("RGB").resize((side, side)))

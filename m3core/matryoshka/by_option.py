"""A Matryoshka model asked by option: its scales are its options, its visual tokens their cost.

This is the way of every model (:class:`m3router.m3core.options.OptionModel`), from an image to an
answer. Whoever asks many scales of one image encodes it once instead, and asks with
:class:`m3router.m3core.matryoshka.base.Request`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from PIL import Image

from m3router.data.errors import DataError, MismatchError
from m3router.data.registry import unknown_name
from m3router.m3core.matryoshka import base
from m3router.m3core.matryoshka.base import MultiScaleModel
from m3router.m3core.matryoshka.batching import answer_in_batches, limits_for
from m3router.m3core.options import Answer, Failure, Option, Request, Usage, options_named

COST_UNIT = "visual tokens"


class ScalesAsOptions:
    """What a :class:`MultiScaleModel` adds to be an option model."""

    @property
    def options(self: MultiScaleModel) -> tuple[Option, ...]:
        """The scales of its grid, coarsest first."""
        return options_named(self.grid.names)

    @property
    def cost_unit(self) -> str:
        """Visual tokens, as the language model receives them."""
        return COST_UNIT

    @property
    def provenance(self: MultiScaleModel) -> Mapping[str, Any]:
        """Prompt, number format and how visual tokens are made."""
        return {"prompt": self.prompt, "dtype": self.dtype, "visual": dict(self.visual)}

    @property
    def spec(self: MultiScaleModel) -> Mapping[str, Any]:
        """Name, pooling and grids; see :func:`m3router.m3core.opening.reopen`."""
        return {
            "kind": "matryoshka",
            "name": self.name,
            "visual": dict(self.visual),
            "max_new_tokens": self.max_new_tokens,
        }

    def count(self: MultiScaleModel, image: Image.Image, option: str) -> Usage:
        """What the image costs at a scale.

        NOTE: a high-resolution model's tokens depend on how it cuts the image, which its tower's
        pass tells; so the image is encoded, unlike elsewhere.
        """
        scale = scale_named(self, option)
        (encoding,) = self.encode([image])
        tokens = encoding.tokens(scale)
        return Usage(
            cost=float(tokens),
            image_tokens=tokens,
            image_tokens_from="counted",
            tower_flops=self.shape.vision_flops(encoding.views),
        )


def answer_by_option(model: MultiScaleModel, requests: Sequence[Request]) -> list[Answer | Failure]:
    """Answer requests about images; what is the same object is encoded once.

    Raises:
        MismatchError: If the model has no such option.
    """
    scales = [scale_named(model, one.option) for one in requests]
    told: dict[int, Answer | Failure] = {}
    began = time.perf_counter()
    images = {id(one.image): one.image for one in requests}
    encodings = dict(zip(images, model.encode(list(images.values())), strict=True))
    asked, places = [], []
    for place, (one, scale) in enumerate(zip(requests, scales, strict=True)):
        encoding = encodings[id(one.image)]
        try:
            model.prompt_length(one.question, encoding.tokens(scale))
        except DataError as error:
            told[place] = Failure(message=str(error))
            continue
        places.append(place)
        asked.append(
            base.Request(
                encoding=encoding,
                question=one.question,
                scale=scale,
                max_new_tokens=one.max_new_tokens,
            )
        )
    for batch in answer_in_batches(model, asked, limits_for(model)):
        for index in batch.indices if batch.error else ():
            told[places[index]] = Failure(message=str(batch.error))
        for index, answer in zip(batch.indices, batch.answers, strict=False):
            told[places[index]] = _answer(model, asked[index].encoding, answer)
    seconds = (time.perf_counter() - began) / max(1, len(requests))
    return [
        replace(one, usage=replace(one.usage, seconds=seconds)) if isinstance(one, Answer) else one
        for _, one in sorted(told.items())
    ]


def scale_named(model: MultiScaleModel, option: str) -> int:
    """The scale that an option names; a model may know more than those of its grid.

    Raises:
        MismatchError: If it names none.
    """
    if not option.isdecimal():
        raise MismatchError(unknown_name("option", option, model.grid.names))
    return model.check_scale(int(option))


def _answer(model: MultiScaleModel, encoding: base.VisualEncoding, said: base.Answer) -> Answer:
    prompt = said.visual_tokens + said.text_tokens
    return Answer(
        text=said.text,
        confidence=said.confidence,
        logprob=said.logprob,
        cut=said.cut,
        usage=Usage(
            cost=float(said.visual_tokens),
            image_tokens=said.visual_tokens,
            image_tokens_from="counted",
            prompt_tokens=prompt,
            answer_tokens=said.answer_tokens,
            tower_flops=model.shape.vision_flops(encoding.views),
            language_flops=model.shape.answer_flops(prompt, said.answer_tokens),
            attempts=1,
        ),
    )

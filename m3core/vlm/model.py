"""The adapter: any of the families as a model that answers at several options."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from PIL import Image

from m3router.data.errors import DataError
from m3router.m3core.cost.vision_language import VisionLanguageShape
from m3router.m3core.matryoshka.base import ANSWER_TOKENS
from m3router.m3core.matryoshka.batching import (
    KEPT_FREE,
    Limits,
    Need,
    in_batches,
    out_of_memory,
)
from m3router.m3core.matryoshka.decoding import Decoded
from m3router.m3core.matryoshka.incremental_decoding import is_whole, text_of
from m3router.m3core.options import (
    Answer,
    Failure,
    Option,
    Request,
    Usage,
    check_option,
    options_named,
)
from m3router.m3core.vlm.decoding import EncodedImage, Reader, ReadState
from m3router.m3core.vlm.families import Family, Options
from m3router.m3core.vlm.preparing import Counts, PreparedImage, Preparer

_WAITING = 2
"""Prepared images wait until they fill so many batches: more would only hold memory."""


@dataclass(kw_only=True)
class _Asked:
    """A request on its way.

    Attributes:
        place: Where its answer goes.
        request: What is asked.
        image: The prepared image.
        ids: Of the prompt behind the image.
        most: Tokens of its longest answer.
        seconds: Time spent on it so far.
    """

    place: int
    request: Request
    image: PreparedImage
    ids: list[int] = field(repr=False)
    most: int
    seconds: float

    @property
    def prompt(self) -> list[int]:
        """Ids of the whole prompt."""
        return [*self.image.prefix, *self.ids]

    @property
    def length(self) -> int:
        """Tokens of the prompt."""
        return len(self.image.prefix) + len(self.ids)

    def need(self, *, shared: int) -> Need:
        """What it adds to a batch in which so many tokens of its prompt are shared."""
        kept = min(KEPT_FREE, self.most)
        return Need(prefix=(0, 0), shared=shared, own=self.length - shared, answer=kept)


class VisionLanguageModel:
    """A local vision-language model by visual budget, an ``OptionModel``.

    Args:
        reader: Reads prompts and answers them.
        preparer: Makes the prompts.
        family: What differs from other families.
        options: Name -> keyword arguments of the image processor, the coarsest first.
        name: How the user called it.
        revision: Hash of all that decides its answers.
        provenance: What makes its answers, for the log.
        spec: From which the same model can be made again.
        max_new_tokens: Longest answer where a request names no other limit; None for the usual
            :data:`m3router.m3core.matryoshka.base.ANSWER_TOKENS`.
        limits: What one call of the model may hold; made smaller when memory runs out.
    """

    cost_unit = "image tokens"

    def __init__(
        self,
        *,
        reader: Reader,
        preparer: Preparer,
        family: Family,
        options: Options,
        name: str,
        revision: str,
        provenance: Mapping[str, Any],
        spec: Mapping[str, Any],
        max_new_tokens: int | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.reader = reader
        self.preparer = preparer
        self.name = name
        self.revision = revision
        self.max_new_tokens = max_new_tokens or ANSWER_TOKENS
        self.options: tuple[Option, ...] = options_named(options)
        self.provenance: Mapping[str, Any] = dict(provenance)
        self.spec: Mapping[str, Any] = dict(spec)
        self.limits = limits or Limits()
        config = reader.model.config
        self.context: int = config.get_text_config().max_position_embeddings
        self.shape = VisionLanguageShape.of(config.to_dict())
        self._keywords = options
        self._lock = threading.Lock()  # models keep state of the image that they read last
        self._family = family

    def count(self, image: Image.Image, option: str) -> Usage:
        """What an image costs at an option; see ``OptionModel``.

        Raises:
            MismatchError: If there is no such option.
            ImageError: If the image processor refuses the image.
        """
        check_option(self, option)
        return self._usage(self.preparer.count(image.size, option))

    @torch.inference_mode()
    def answer(self, requests: Sequence[Request]) -> list[Answer | Failure]:
        """Answer requests, in their order; see ``OptionModel``.

        Questions about one image (the same object) at one option share what stands before them:
        it is encoded and read once. Others are read in batches of any options.

        Raises:
            MismatchError: If there is no such option.
            ModelError: If the model's files do not belong together.
        """
        rank = {request.option: check_option(self, request.option).rank for request in requests}
        with self._lock:
            return self._answers(requests, rank)

    def _answers(
        self, requests: Sequence[Request], rank: Mapping[str, int]
    ) -> list[Answer | Failure]:
        groups: dict[tuple[int, int], list[int]] = {}
        for place, request in enumerate(requests):
            groups.setdefault((rank[request.option], id(request.image)), []).append(place)
        found: dict[int, Answer | Failure] = {}
        alone: list[_Asked] = []
        for _, places in sorted(groups.items(), key=lambda item: (item[0][0], item[1])):
            asked = self._prepared([(place, requests[place]) for place in places], found)
            if len(asked) > 1:
                self._answer_together(asked, found)
                continue
            alone += asked
            if sum(one.length for one in alone) >= _WAITING * self.limits.tokens:
                self._answer_alone(alone, found)
                alone = []
        self._answer_alone(alone, found)
        return [found[place] for place in range(len(requests))]

    def _prepared(
        self, requests: Sequence[tuple[int, Request]], found: dict[int, Answer | Failure]
    ) -> list[_Asked]:
        """Requests about one image at one option that can be asked; others fail."""
        began = time.perf_counter()
        first = requests[0][1]
        try:
            image = self.preparer.prepare(first.image, first.option)
        except DataError as error:
            found.update({place: Failure(message=str(error)) for place, _ in requests})
            return []
        spent = (time.perf_counter() - began) / len(requests)
        asked = []
        for place, request in requests:
            try:
                ids = self.preparer.question(image, request.question)
                most = self._most(request, len(image.prefix) + len(ids))
            except DataError as error:
                found[place] = Failure(message=str(error))
                continue
            asked.append(
                _Asked(place=place, request=request, image=image, ids=ids, most=most, seconds=spent)
            )
        return asked

    def _most(self, request: Request, length: int) -> int:
        """Tokens of the longest answer, within what the context has left."""
        most = request.max_new_tokens or self.max_new_tokens
        if length + min(most, ANSWER_TOKENS) > self.context:
            raise DataError(
                f"the question does not fit: a prompt of {length} tokens, those of the image at "
                f"option {request.option!r} included, and up to {min(most, ANSWER_TOKENS)} answer "
                f"tokens exceed the model's context of {self.context}; shorten the question or "
                "choose a coarser option"
            )
        return min(most, self.context - length)

    def _answer_together(self, asked: list[_Asked], found: dict[int, Answer | Failure]) -> None:
        """Questions about one image at one option, behind a prefix that is read once."""
        began = time.perf_counter()
        image = asked[0].image
        try:
            prefix = self.reader.read([self.encode(image)], [image.prefix])
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            found.update({one.place: _too_large(one) for one in asked})
            return
        spent = (time.perf_counter() - began) / len(asked)
        for one in asked:
            one.seconds += spent
        sorts: dict[int, list[_Asked]] = {}
        for one in asked:
            # Where no padding may follow the prefix, questions of one length are read together.
            sorts.setdefault(0 if prefix.takes_padding else len(one.ids), []).append(one)

        def ask(batch: Sequence[_Asked]) -> list[Decoded]:
            state = prefix.copied(len(batch))
            self.reader.read_on(state, [one.ids for one in batch])
            return self._decode(state, batch)

        for some in sorts.values():
            needs = [one.need(shared=len(image.prefix)) for one in some]
            self._in_batches(some, needs, ask, found)

    def _answer_alone(self, asked: list[_Asked], found: dict[int, Answer | Failure]) -> None:
        """Questions that share nothing, of any options."""

        def ask(batch: Sequence[_Asked]) -> list[Decoded]:
            images = [self.encode(one.image) for one in batch]
            state = self.reader.read(images, [one.prompt for one in batch])
            return self._decode(state, batch)

        self._in_batches(asked, [one.need(shared=0) for one in asked], ask, found)

    def _decode(self, state: ReadState, batch: Sequence[_Asked]) -> list[Decoded]:
        most = [one.most for one in batch]
        return self.reader.answer(state, [one.prompt for one in batch], most)

    def _in_batches(
        self,
        asked: list[_Asked],
        needs: list[Need],
        ask: Any,
        found: dict[int, Answer | Failure],
    ) -> None:
        def timed(indices: list[int]) -> list[Decoded]:
            began = time.perf_counter()
            batch = [asked[index] for index in indices]
            decoded: list[Decoded] = ask(batch)
            for one in batch:
                one.seconds += (time.perf_counter() - began) / len(batch)
            return decoded

        for result in in_batches(needs, timed, self.limits):
            if result.error:
                found.update({asked[i].place: _too_large(asked[i]) for i in result.indices})
                continue
            for index, decoded in zip(result.indices, result.answers, strict=True):
                found[asked[index].place] = self._answer(asked[index], decoded)

    def _answer(self, asked: _Asked, decoded: Decoded) -> Answer:
        usage = replace(
            self._usage(asked.image.counts),
            prompt_tokens=asked.length,
            answer_tokens=len(decoded.tokens),
            language_flops=self.shape.language_flops(asked.length, len(decoded.tokens)),
            seconds=asked.seconds,
            attempts=1,
        )
        return Answer(
            text=text_of(self.preparer.tokenizer, decoded),
            usage=usage,
            confidence=math.exp(decoded.logprobs[0]),
            logprob=sum(decoded.logprobs),
            cut=not is_whole(decoded, self.reader.ends),
        )

    def _usage(self, counts: Counts) -> Usage:
        """What is known before anything is asked."""
        return Usage(
            cost=float(counts.image_tokens),
            image_tokens=counts.image_tokens,
            image_tokens_from="counted",
            pixels=counts.pixels,
            tower_flops=self.shape.tower_flops(counts.views, counts.visual_tokens),
        )

    def encode(self, image: PreparedImage) -> EncodedImage:
        """Run tower and connector on a prepared image."""
        keywords = self._keywords[image.option]
        stored = {name: keywords[name] for name in self._family.stored if name in keywords}
        with _changed(self.reader.model.config, stored):
            return self.reader.encode(image, keywords)


@contextmanager
def _changed(config: Any, values: Mapping[str, Any]) -> Iterator[None]:
    """A configuration with other values for as long as a tower runs."""
    before = {name: getattr(config, name) for name in values}
    for name, value in values.items():
        setattr(config, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(config, name, value)


def _too_large(asked: _Asked) -> Failure:
    return Failure(
        message=f"out of memory with this request alone (a prompt of {asked.length} tokens); "
        "choose a coarser option or a smaller number format"
    )

"""What every LLaVA family shares: prompts, batches behind shared prefixes, reading answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from m3router.data.errors import DataError, MismatchError
from m3router.m3core.cost.operations import ModelShape
from m3router.m3core.matryoshka.base import ANSWER_TOKENS, Answer, Peek, Request, VisualEncoding
from m3router.m3core.matryoshka.by_option import ScalesAsOptions, answer_by_option
from m3router.m3core.matryoshka.decoding import Decoded, Decoder, DecodingState, KVCacheState
from m3router.m3core.matryoshka.incremental_decoding import (
    TokenAnswer,
    TokenAnswers,
    answer_of,
    text_of,
)
from m3router.m3core.matryoshka.prefill_probe import first_token_distribution, watch
from m3router.m3core.matryoshka.prompts import PromptTemplate
from m3router.m3core.matryoshka.sampling import Sampling
from m3router.m3core.matryoshka.scales import ScaleGrid
from m3router.m3core.options import Answer as OptionAnswer
from m3router.m3core.options import Failure
from m3router.m3core.options import Request as OptionRequest


class AnsweringModel(ScalesAsOptions, ABC):
    """A language model that reads visual tokens between the two texts of a template.

    A family adds :meth:`encode` and ``prepare``, and :meth:`check_scale` where more scales than
    those of its grid can be asked for.

    Args:
        model: Takes ``inputs_embeds`` and generates; in evaluation mode.
        tokenizer: Its tokenizer.
        template: Prompt template.
        grid: Scales.
        shape: Sizes, for the cost model.
        visual: How visual tokens are made; see :class:`MultiScaleModel`.
        name: How the user called the model.
        revision: Hash of its files.
        max_new_tokens: Longest answer where a request names no other limit.
        context: Longest prompt and answer together; None takes the model's positions.
    """

    prepare: Callable[[Image.Image], Any]
    """From an RGB image to what the tower takes; see :class:`MultiScaleModel`."""

    def __init__(
        self,
        *,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        template: PromptTemplate,
        grid: ScaleGrid,
        shape: ModelShape,
        visual: Mapping[str, str],
        name: str,
        revision: str,
        max_new_tokens: int = ANSWER_TOKENS,
        context: int | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.template = template
        self.grid = grid
        self.shape = shape
        self.visual: Mapping[str, str] = dict(visual)
        self.name = name
        self.revision = revision
        self.max_new_tokens = max_new_tokens
        self.context = context or model.config.get_text_config().max_position_embeddings
        self.prompt = template.name
        self.dtype = str(model.dtype).removeprefix("torch.")
        self._before = self._ids(template.before, first=True)

    @abstractmethod
    def encode(self, images: Sequence[Any]) -> list[VisualEncoding]:
        """Run tower and connector once for each image; see :class:`MultiScaleModel`."""

    def prepared(self, image: Any) -> Any:
        """An image as :meth:`prepare` gives it, if it is not already."""
        return self.prepare(image) if isinstance(image, Image.Image) else image

    def check_scale(self, scale: int) -> int:
        """Return a scale that the model can be asked at.

        Raises:
            MismatchError: If the model has no such scale.
        """
        return self.grid.check(scale)

    def _ids(self, text: str, *, first: bool = False) -> list[int]:
        # A question that spells "<image>" or "</s>" is text: it must not become that token.
        ids = (
            self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            if text
            else []
        )
        return [self.tokenizer.bos_token_id, *ids] if first else list(ids)

    def prompt_length(self, question: str, visual_tokens: int, *, room: int | None = None) -> int:
        """Prompt tokens of a question; see :class:`MultiScaleModel`."""
        text = len(self._before) + len(self._ids(self.template.text_after(question)))
        room = min(self.max_new_tokens, ANSWER_TOKENS) if room is None else room
        if text + visual_tokens + room > self.context:
            raise DataError(
                f"the question does not fit: {text} text tokens, {visual_tokens} visual tokens "
                f"and up to {room} answer tokens exceed the model's context of "
                f"{self.context}; shorten the question or choose a coarser scale"
            )
        return text + visual_tokens

    def embed_prompt(self, request: Request) -> torch.Tensor:
        """The input embeddings of one request, (prompt tokens, D).

        Raises:
            MismatchError: If the model has no such scale.
            DataError: If the question is empty or does not fit the context.
        """
        visual = request.encoding.at(self.check_scale(request.scale))
        self.prompt_length(request.question, len(visual))
        after = self._ids(self.template.text_after(request.question))
        visual = visual.to(self.model.device, self.model.dtype)
        return torch.cat([self._embed(self._before), visual, self._embed(after)])

    @overload
    def answer(self, requests: Sequence[Request]) -> list[Answer]: ...

    @overload
    def answer(self, requests: Sequence[OptionRequest]) -> list[OptionAnswer | Failure]: ...

    def answer(self, requests: Sequence[Any]) -> list[Any]:
        """Answer requests about images, or all requests about encodings in one batch.

        See :class:`m3router.m3core.options.OptionModel` and :class:`MultiScaleModel`. Requests of
        one encoding at one scale share what stands before their questions.
        """
        if any(isinstance(one, OptionRequest) for one in requests):
            return answer_by_option(self, requests)
        return self._answer_encoded(requests)

    @torch.inference_mode()
    def _answer_encoded(self, requests: Sequence[Request]) -> list[Answer]:
        if not requests:
            return []
        given = [request.answer for request in requests if request.answer is not None]
        if 0 < len(given) < len(requests):
            raise MismatchError(
                f"{len(given)} of {len(requests)} requests bring an answer; a batch either "
                "generates or scores, so ask in two batches"
            )
        visual, owners, questions = self._shared(requests)
        counts = self._counts(visual, owners, questions)
        decoder = self._decoder()
        if given:
            ids = [self._answer_ids(answer) for answer in given]
            found = decoder.logprobs(visual, owners, questions, ids)
        else:
            most = self._most([request.max_new_tokens for request in requests], counts)
            found = decoder.generate(visual, owners, questions, max_new_tokens=most)
        texts = given or [text_of(self.tokenizer, one) for one in found]
        return [
            answer_of(text, one, visual=tokens, text_tokens=words, ends=decoder.ends)
            for text, one, (tokens, words) in zip(texts, found, counts, strict=True)
        ]

    def _counts(
        self,
        visual: Sequence[torch.Tensor],
        owners: Sequence[int],
        questions: Sequence[torch.Tensor],
    ) -> list[tuple[int, int]]:
        """Visual and other tokens of each prompt."""
        return [
            (len(visual[owner]), len(self._before) + len(question))
            for owner, question in zip(owners, questions, strict=True)
        ]

    def _most(self, asked: Sequence[int | None], counts: Sequence[tuple[int, int]]) -> list[int]:
        """Tokens of each longest answer, within what the context has left: whatever the batch."""
        return [
            min(self.max_new_tokens if one is None else one, self.context - sum(prompt))
            for one, prompt in zip(asked, counts, strict=True)
        ]

    @torch.inference_mode()
    def peek(self, requests: Sequence[Request]) -> list[Peek]:
        """Read all requests in one batch; see :class:`MultiScaleModel`."""
        if not requests:
            return []
        if any(request.answer is not None for request in requests):
            raise MismatchError("a request that brings an answer cannot be peeked at; leave it out")
        visual, owners, questions = self._shared(requests)
        with watch(self.model) as seen:
            state = self._decoder().read(visual, owners, questions)
        entropies, top = first_token_distribution(state.logits[:, -1])
        counts = self._counts(visual, owners, questions)
        return [
            Peek(
                middle=seen.middle[row].numpy(),
                last=seen.last[row].numpy(),
                entropy=float(entropies[row]),
                top_logprobs=top[row].numpy(),
                visual_tokens=tokens,
                text_tokens=words,
                state=(state, row),
                max_new_tokens=request.max_new_tokens,
            )
            for row, (request, (tokens, words)) in enumerate(zip(requests, counts, strict=True))
        ]

    @torch.inference_mode()
    def finish(self, peeks: Sequence[Peek]) -> list[Answer]:
        """Answer from where peeks stopped; see :class:`MultiScaleModel`."""
        by_batch: dict[int, list[int]] = {}
        for place, peek in enumerate(peeks):
            by_batch.setdefault(id(peek.state[0]), []).append(place)
        found: dict[int, Decoded] = {}
        decoder = self._decoder()
        for places in by_batch.values():
            batch = [peeks[place] for place in places]
            state: KVCacheState = batch[0].state[0]
            rows = state.picked([peek.state[1] for peek in batch])
            counts = [(peek.visual_tokens, peek.text_tokens) for peek in batch]
            most = self._most([peek.max_new_tokens for peek in batch], counts)
            answers = decoder.go_on(rows, max_new_tokens=most)
            found.update(zip(places, answers, strict=True))
        return [
            answer_of(
                text_of(self.tokenizer, found[place]),
                found[place],
                visual=peek.visual_tokens,
                text_tokens=peek.text_tokens,
                ends=decoder.ends,
            )
            for place, peek in enumerate(peeks)
        ]

    @torch.inference_mode()
    def begin(
        self,
        requests: Sequence[Request],
        *,
        most: Sequence[int] | None = None,
        sampling: Sequence[Sampling | None] | None = None,
    ) -> TokenAnswers:
        """Read all requests in one batch; see :class:`MultiScaleModel`."""
        if any(request.answer is not None for request in requests):
            raise MismatchError("a request that brings an answer is scored, not written; ask it")
        visual, owners, questions = self._shared(requests)
        decoder = self._decoder()
        state = decoder.read(visual, owners, questions)
        counts = self._counts(visual, owners, questions)
        asked = [request.max_new_tokens for request in requests] if most is None else most
        return self._incremental(decoder, state, counts, self._most(asked, counts), sampling)

    @torch.inference_mode()
    def resume(
        self,
        peeks: Sequence[Peek],
        *,
        most: Sequence[int] | None = None,
        sampling: Sequence[Sampling | None] | None = None,
    ) -> TokenAnswers:
        """Answer from where peeks of one batch stopped; see :class:`MultiScaleModel`."""
        state: KVCacheState = peeks[0].state[0]
        rows = state.picked([peek.state[1] for peek in peeks])
        counts = [(peek.visual_tokens, peek.text_tokens) for peek in peeks]
        asked = [peek.max_new_tokens for peek in peeks] if most is None else most
        most = self._most(asked, counts)
        return self._incremental(self._decoder(), rows, counts, most, sampling)

    def _incremental(
        self,
        decoder: Decoder,
        state: KVCacheState,
        counts: Sequence[tuple[int, int]],
        most: Sequence[int],
        sampling: Sequence[Sampling | None] | None,
    ) -> TokenAnswers:
        decoding = DecodingState(decoder, state, most, sampling)
        rows = [
            TokenAnswer(
                decoded=decoded,
                visual_tokens=visual,
                text_tokens=text,
                tokenizer=self.tokenizer,
                ends=decoder.ends,
            )
            for decoded, (visual, text) in zip(decoding.rows, counts, strict=True)
        ]
        return TokenAnswers(decoding, rows)

    def answer_length(self, answer: str, *, most: int | None = None) -> int:
        """Tokens of a given answer; see :class:`MultiScaleModel`."""
        length = len(self._answer_ids(answer))
        most = self.max_new_tokens if most is None else most
        if length > most:
            raise DataError(
                f"the answer {answer[:40]!r} has {length} tokens, its end included, and the model "
                f"answers with {most} at most, so it cannot be scored; shorten it, or allow longer "
                "answers with max_new_tokens"
            )
        return length

    def _answer_ids(self, answer: str) -> list[int]:
        return [*self._ids(answer), self.tokenizer.eos_token_id]

    def _shared(
        self, requests: Sequence[Request]
    ) -> tuple[list[torch.Tensor], list[int], list[torch.Tensor]]:
        """Each distinct (encoding, scale) once, whose each request is, and its question."""
        known: dict[tuple[int, int], int] = {}
        visual: list[torch.Tensor] = []
        owners, questions = [], []
        for request in requests:
            scale = self.check_scale(request.scale)
            self.prompt_length(request.question, request.encoding.tokens(scale))
            key = (id(request.encoding), scale)
            if key not in known:
                known[key] = len(visual)
                visual.append(request.encoding.at(scale).to(self.model.device, self.model.dtype))
            owners.append(known[key])
            questions.append(self._embed(self._ids(self.template.text_after(request.question))))
        return visual, owners, questions

    def _embed(self, ids: Sequence[int]) -> torch.Tensor:
        embed = self.model.get_input_embeddings()
        return embed(torch.tensor(list(ids), device=self.model.device)).to(self.model.dtype)

    def _decoder(self) -> Decoder:
        """Made anew for each batch, as training may have changed the weights in between."""
        ends = self.model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        ends = {self.tokenizer.eos_token_id, *ends} - {None}
        return Decoder(self.model, self._embed(self._before), ends=sorted(ends))

    @torch.inference_mode()
    def embed_question(self, question: str) -> np.ndarray:
        """Input embeddings of a question; see :class:`MultiScaleModel`."""
        self.template.text_after(question)  # refuses an empty question
        ids = torch.tensor(self._ids(question.strip()), device=self.model.device)
        return self.model.get_input_embeddings()(ids).float().cpu().numpy()

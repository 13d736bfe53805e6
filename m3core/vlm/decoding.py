"""Greedy answers in batches, and prefixes that are read once for several questions.

Families differ in what they keep of what they have read: keys of all positions, keys of a sliding
window, states of a convolution or of linear attention. Padding may stand in front of a prompt in
all of them, but between a prefix and what follows it only where keys of all positions are kept.

Notation for shapes: ``R`` rows (prompts), ``L`` tokens that are read now, ``P`` positions so far,
``V`` vocabulary. Rows are padded on the left, so that the last position is always a token.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList
from transformers.cache_utils import DynamicLayer

from m3router.data.errors import ModelError
from m3router.m3core.matryoshka.decoding import FREED_SHARE, Decoded
from m3router.m3core.vlm.preparing import PreparedImage


@dataclass(frozen=True, kw_only=True)
class EncodedImage:
    """What the tower made of a prepared image.

    Attributes:
        prepared: The image.
        features: Output of ``get_image_features``.
    """

    prepared: PreparedImage
    features: Any


@dataclass(kw_only=True)
class ReadState:
    """Rows that a language model has read.

    Attributes:
        cache: What the model keeps of them.
        mask: (R, P), 1 where there is a token.
        shift: What is added to the number of a token for its position, (R, 1), where images take
            fewer positions than tokens (multimodal rotary embeddings); None where they do not.
        logits: Behind each row's last token, (R, V).
    """

    cache: Any
    mask: torch.Tensor
    shift: torch.Tensor | None
    logits: torch.Tensor

    @property
    def takes_padding(self) -> bool:
        """Whether rows may read on with padding in between."""
        return all(type(layer) is DynamicLayer for layer in self.cache.layers)

    def copied(self, rows: int) -> ReadState:
        """So many copies of the only row; this one stays as it is."""
        state = copy.deepcopy(self)
        state.keep(torch.zeros(rows, dtype=torch.long, device=self.mask.device))
        return state

    def keep(self, rows: torch.Tensor) -> None:
        """Keep these rows, in this order; a row may be taken several times."""
        self.cache.reorder_cache(rows)
        self.mask = self.mask[rows]
        self.shift = None if self.shift is None else self.shift[rows]
        self.logits = self.logits[rows]


@dataclass(kw_only=True)
class _Row:
    """An answer that grows.

    Attributes:
        prompt: Ids.
        limit: Tokens of the longest answer.
        rules: What changes its scores.
        decoded: What was answered so far.
    """

    prompt: list[int]
    limit: int
    rules: LogitsProcessorList
    decoded: Decoded = field(default_factory=Decoded)

    def scores(self, logits: torch.Tensor) -> torch.Tensor:
        """What the next token is chosen by, from (1, V) to (1, V)."""
        if not self.rules:
            return logits
        ids = torch.tensor([self.prompt + self.decoded.tokens], device=logits.device)
        changed: torch.Tensor = self.rules(ids, logits)
        return changed

    def add(self, token: int, logprob: float, ends: Collection[int]) -> None:
        """Take the next token, unless the answer has ended."""
        if not self.decoded.ended:
            self.decoded.tokens.append(token)
            self.decoded.logprobs.append(logprob)
            self.decoded.ended = token in ends or len(self.decoded.tokens) >= self.limit


class Reader:
    """Reads and answers with any model whose forward takes ``mm_encoder_outputs``.

    Args:
        model: In evaluation mode.
        processor: Its processor.

    Attributes:
        ends: Ids that end an answer.

    Raises:
        ModelError: If this version of transformers is too old.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self.model = model
        self.processor = processor
        self._arguments = set(inspect.signature(model.forward).parameters)
        self._encoder_arguments = [
            name
            for name in inspect.signature(model.base_model.get_image_features).parameters
            if name != "kwargs"
        ]
        if "mm_encoder_outputs" not in self._arguments:
            raise ModelError(
                f"{type(model).__name__} does not take mm_encoder_outputs; install transformers "
                "5.18 or later"
            )
        self._settings = _greedy(model, processor.tokenizer.eos_token_id)
        self.ends = frozenset(self._settings.eos_token_id)

    @property
    def rules(self) -> list[str]:
        """What the checkpoint's generation settings do to scores, by transformers' names."""
        return [type(rule).__name__ for rule in self._rules_for(1, 1)]

    def encode(self, prepared: PreparedImage, keywords: Mapping[str, Any]) -> EncodedImage:
        """Run tower and connector.

        Args:
            prepared: The image.
            keywords: Of its option; some towers take one.

        Raises:
            ModelError: If the tower gives another number of tokens than the prompt has places.
        """
        values = {**keywords, **prepared.inputs}
        wanted = {
            name: values[name] if name in values else getattr(self.model.config, name, None)
            for name in self._encoder_arguments
        }
        given = {name: self._placed(one) for name, one in wanted.items() if one is not None}
        found = self.model.base_model.get_image_features(**given, return_dict=True)
        rows = found.pooler_output
        count = sum(one.reshape(-1, one.shape[-1]).shape[0] for one in rows)
        if count != prepared.counts.visual_tokens:
            raise ModelError(
                f"the tower gives {count} visual tokens for {prepared.counts.visual_tokens} places "
                f"in the prompt at option {prepared.option!r}; the processor's files belong to "
                "another checkpoint"
            )
        more = {}
        if getattr(found, "deepstack_features", None) is not None:
            more["deepstack_features"] = found.deepstack_features
        return EncodedImage(prepared=prepared, features=type(found)(pooler_output=rows, **more))

    def _placed(self, value: Any) -> Any:
        """Tensors on the model's device, numbers in its format."""
        if not isinstance(value, torch.Tensor):
            return value
        dtype = self.model.dtype if value.is_floating_point() else None
        return value.to(self.model.device, dtype)

    def read(self, images: Sequence[EncodedImage], ids: Sequence[Sequence[int]]) -> ReadState:
        """Read prompts with their images.

        Args:
            images: One for each row, of any options.
            ids: Each row's prompt, or its beginning.
        """
        tokens, mask = self._padded(ids)
        given: dict[str, Any] = {"input_ids": tokens, "attention_mask": mask}
        if self.processor.return_mm_token_type_ids:
            known = "mm_token_type_ids" in self._arguments
            kinds = self.processor.create_mm_token_type_ids(tokens.tolist())
            name = "mm_token_type_ids" if known else "token_type_ids"
            given[name] = torch.tensor(kinds, device=tokens.device) * mask
        inner = self.model.base_model
        shifts = hasattr(inner, "rope_deltas")
        if shifts:
            grids = [image.prepared.inputs["image_grid_thw"] for image in images]
            given["image_grid_thw"] = torch.cat(grids).to(tokens.device)
        else:
            given["position_ids"] = _numbers(mask)
        # A fresh object: the model writes into it.
        given["mm_encoder_outputs"] = {"image": _joined([image.features for image in images])}
        found = self._run(given)
        shift = inner.rope_deltas.clone() if shifts else None  # the next image overwrites it
        return ReadState(
            cache=found.past_key_values, mask=mask, shift=shift, logits=found.logits[:, -1].float()
        )

    def read_on(self, state: ReadState, ids: Sequence[Sequence[int]]) -> None:
        """Let every row read some more text.

        Args:
            state: Of any rows; of one length where it does not take padding.
            ids: For each row, at least one.
        """
        tokens, mask = self._padded(ids)
        state.mask = torch.cat([state.mask, mask], dim=1)
        places = _numbers(state.mask)[:, -tokens.shape[1] :]
        if state.shift is not None:
            places = (places + state.shift).expand(3, -1, -1)
        found = self._run(
            {
                "input_ids": tokens,
                "attention_mask": state.mask,
                "position_ids": places,
                "past_key_values": state.cache,
            }
        )
        state.logits = found.logits[:, -1].float()

    def answer(
        self, state: ReadState, prompts: Sequence[Sequence[int]], most: Sequence[int]
    ) -> list[Decoded]:
        """Answer as ``generate(do_sample=False)`` does each prompt alone; the state is used up.

        Penalties, suppressed tokens and the like of the checkpoint's generation settings are
        applied, with each row's own prompt. Probabilities are the model's, before that.

        NOTE: Beams and classifier-free guidance are not: an answer is one greedy sequence.

        Args:
            state: Prompts that were read.
            prompts: Their ids.
            most: Tokens of each row's longest answer, at least 1.
        """
        done = [
            _Row(prompt=list(prompt), limit=limit, rules=self._rules_for(len(prompt), limit))
            for prompt, limit in zip(prompts, most, strict=True)
        ]
        rows = list(done)
        while True:
            chosen = torch.cat(
                [row.scores(state.logits[[i]]) for i, row in enumerate(rows)]
            ).argmax(-1)
            logprobs = state.logits.log_softmax(-1).gather(1, chosen[:, None])[:, 0]
            for row, token, logprob in zip(rows, chosen.tolist(), logprobs.tolist(), strict=True):
                row.add(token, logprob, self.ends)
            alive = [place for place, row in enumerate(rows) if not row.decoded.ended]
            if not alive:
                return [row.decoded for row in done]
            if len(alive) <= (1 - FREED_SHARE) * len(rows):
                index = torch.tensor(alive, device=chosen.device)
                state.keep(index)
                chosen = chosen[index]
                rows = [rows[place] for place in alive]
            self.read_on(state, chosen[:, None].tolist())

    def _rules_for(self, prompt_tokens: int, most: int) -> LogitsProcessorList:
        """What changes the scores of one row."""
        settings = copy.copy(self._settings)
        settings.max_new_tokens, settings.max_length = most, prompt_tokens + most
        # The one place that knows them all and their order; ``generate`` calls it the same way.
        return self.model._get_logits_processor(
            settings, input_ids_seq_length=prompt_tokens, device=self.model.device
        )

    def _run(self, given: dict[str, Any]) -> Any:
        if "logits_to_keep" in self._arguments:
            given["logits_to_keep"] = 1
        return self.model(**given, use_cache=True, return_dict=True)

    def _padded(self, ids: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and mask, both (R, L), padded on the left."""
        longest = max(map(len, ids))
        tokens = torch.full((len(ids), longest), self._pad, dtype=torch.long)
        mask = torch.zeros(len(ids), longest, dtype=torch.long)
        for row, one in enumerate(ids):
            tokens[row, longest - len(one) :] = torch.tensor(list(one), dtype=torch.long)
            mask[row, longest - len(one) :] = 1
        return tokens.to(self.model.device), mask.to(self.model.device)

    @property
    def _pad(self) -> int:
        """An id for padding, which must not be that of an image's tokens."""
        image: int = self.model.config.image_token_id
        pad = self.processor.tokenizer.pad_token_id
        return pad if pad is not None and pad != image else next(iter(self.ends), 0)


def _greedy(model: Any, end: int | None) -> GenerationConfig:
    """A checkpoint's generation settings, for greedy answers.

    Args:
        model: Has them.
        end: The tokenizer's id of an end, for settings without one.
    """
    settings = copy.deepcopy(model.generation_config)
    settings.update(do_sample=False, num_beams=1, guidance_scale=None)
    if settings.eos_token_id is None:
        settings.eos_token_id = end
    ends = settings.eos_token_id
    settings.eos_token_id = ends if isinstance(ends, list) else [] if ends is None else [ends]
    # Where ``generate`` keeps them for the rules that need them.
    settings._eos_token_tensor = torch.tensor(settings.eos_token_id, device=model.device)
    return settings


def _numbers(mask: torch.Tensor) -> torch.Tensor:
    """The number of each token in its row; 0 for padding."""
    return (mask.cumsum(1) - 1).clamp(min=0)


def _joined(features: Sequence[Any]) -> Any:
    """Features of several images, whatever their number of tokens."""
    rows = [one.pooler_output for one in features]
    whole = (
        torch.cat(rows) if isinstance(rows[0], torch.Tensor) else [r for many in rows for r in many]
    )
    more = {}
    deep = getattr(features[0], "deepstack_features", None)
    if deep is not None:
        more["deepstack_features"] = [
            [tensor for one in features for tensor in one.deepstack_features[layer]]
            for layer in range(len(deep))
        ]
    return type(features[0])(pooler_output=whole, **more)

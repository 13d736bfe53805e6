"""Decoding in which requests about one image share what stands before their questions.

It is greedy unless a row is asked to be sampled.

What stands before a question, the text before the image and the visual tokens of a scale, is
its *prefix*. It runs through the language model once; its keys and values are then copied for
every question behind it. A sequence that has ended leaves the batch.

Notation for shapes: ``N`` prefixes of up to ``P`` tokens, ``R`` rows (questions) of up to ``T``
tokens, ``D`` width of the language model, ``V`` vocabulary. Everything is padded on the left, so
that the last position is always a row's own last token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, PreTrainedModel

from m3router.m3core.matryoshka.sampling import Draw, Sampling

LONG_TEXT = 8
"""From so many tokens on, the text before the images is computed once for a batch. A shorter one
costs less than the attention mask that queries behind cached keys need."""
ONE_CALL = 2_048
"""Prefixes of so many tokens in all that no two questions share are read together with their
questions: that saves a call. Longer ones are read alone, as attention without padding is faster."""
FREED_SHARE = 0.25
"""Ended rows leave the batch when they are at least this share of it: copying costs too."""


@dataclass(kw_only=True)
class Decoded:
    """What was generated behind one question.

    Attributes:
        tokens: Generated ids, the end-of-sequence one included.
        logprobs: Natural-log probability of each of them.
        ended: Whether nothing follows any more; may be set to give the rest up.
    """

    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    ended: bool = False


class KVCacheState:
    """What a language model has read: keys, values and padding of a batch's rows."""

    def __init__(self, cache: DynamicCache, mask: torch.Tensor) -> None:
        self.cache = cache
        self.mask = mask  # (R, positions so far), 1 where there is a token
        self.padded = False
        self.logits = torch.zeros(len(mask), 0)  # (R, kept, V), of what was read last

    def picked(self, rows: Sequence[int]) -> KVCacheState:
        """A state of these rows, to go on from while this one stays as it is."""
        index = torch.tensor(rows)
        cache = DynamicCache()
        for number, layer in enumerate(self.cache.layers):
            here = index.to(layer.keys.device)
            cache.update(layer.keys[here], layer.values[here], number)
        state = KVCacheState(cache, self.mask[index.to(self.mask.device)])
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

    def join(self, other: KVCacheState) -> None:
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


class Decoder:
    """Runs a causal language model behind shared prefixes.

    Args:
        model: Takes ``inputs_embeds`` and a cache; in evaluation mode.
        before: Embeddings of the text before every image, (tokens, D).
        ends: Ids that end an answer.
    """

    def __init__(
        self, model: PreTrainedModel, before: torch.Tensor, *, ends: Sequence[int]
    ) -> None:
        self.model = model
        self.before = before
        self.ends = frozenset(ends)

    def generate(
        self,
        visual: Sequence[torch.Tensor],
        owners: Sequence[int],
        questions: Sequence[torch.Tensor],
        *,
        max_new_tokens: int | Sequence[int],
    ) -> list[Decoded]:
        """Answer greedily.

        Args:
            visual: Visual tokens of each prefix, (its tokens, D); at least one prefix.
            owners: For each question the number of its prefix.
            questions: Embeddings of the text behind the image, (its tokens, D) each.
            max_new_tokens: Tokens of the longest answer, one number for all or one for each.
        """
        return self.go_on(self.read(visual, owners, questions), max_new_tokens=max_new_tokens)

    def read(
        self,
        visual: Sequence[torch.Tensor],
        owners: Sequence[int],
        questions: Sequence[torch.Tensor],
    ) -> KVCacheState:
        """Read prompts up to their last tokens; arguments as for :meth:`generate`."""
        return self._prefill(visual, owners, questions, kept=1)

    def go_on(self, state: KVCacheState, *, max_new_tokens: int | Sequence[int]) -> list[Decoded]:
        """Answer greedily behind prompts that were read; the state is used up.

        Args:
            state: What :meth:`read` gave, or some rows of it.
            max_new_tokens: Tokens of the longest answer, one number for all or one for each.
        """
        count = len(state.mask)
        most = [max_new_tokens] * count if isinstance(max_new_tokens, int) else max_new_tokens
        decoding = DecodingState(self, state, most)
        done = list(decoding.rows)
        while decoding.rows:
            decoding.step()
        return done

    def logprobs(
        self,
        visual: Sequence[torch.Tensor],
        owners: Sequence[int],
        questions: Sequence[torch.Tensor],
        answers: Sequence[Sequence[int]],
    ) -> list[Decoded]:
        """How likely given answers are, in one pass ("teacher forcing").

        Args:
            visual: As for :meth:`generate`.
            owners: As for :meth:`generate`.
            questions: As for :meth:`generate`.
            answers: Ids of an answer to each question, at least one each.
        """
        embed, device = self.model.get_input_embeddings(), self.before.device
        ids = [torch.tensor(list(answer), device=device) for answer in answers]
        # The last token of an answer is predicted, never read.
        texts = [
            torch.cat([question, embed(answer[:-1]).to(question.dtype)])
            for question, answer in zip(questions, ids, strict=True)
        ]
        longest = max(len(answer) for answer in ids)
        state = self._prefill(visual, owners, texts, kept=longest)
        logits = state.logits.to(device).float().log_softmax(-1)  # (R, up to longest, V)
        found = []
        for row, answer in zip(logits, ids, strict=True):
            picked = row[-len(answer) :].gather(1, answer[:, None])[:, 0]
            found.append(Decoded(tokens=answer.tolist(), logprobs=picked.tolist()))
        return found

    def _prefill(
        self,
        visual: Sequence[torch.Tensor],
        owners: Sequence[int],
        texts: Sequence[torch.Tensor],
        *,
        kept: int,
    ) -> KVCacheState:
        """Run prefixes once, then every row's text behind its own."""
        if len(self.before) < LONG_TEXT:
            visual = [torch.cat([self.before, one]) for one in visual]
        if len(set(owners)) == len(owners) and sum(map(len, visual)) <= ONE_CALL:
            state = self._start(len(owners))
            rows = [torch.cat([visual[o], text]) for o, text in zip(owners, texts, strict=True)]
            self.forward(state, *_padded(rows), kept=kept)
            return state
        state = self._start(len(visual))
        self.forward(state, *_padded(visual), kept=1)
        state.select(torch.tensor(list(owners)))
        self.forward(state, *_padded(texts), kept=kept)
        return state

    def _start(self, count: int) -> KVCacheState:
        """The state of so many rows that have read nothing, or a long text before the image."""
        empty = torch.zeros(1, 0, dtype=torch.long, device=self.before.device)
        state = KVCacheState(DynamicCache(), empty)
        if len(self.before) >= LONG_TEXT:
            self.forward(state, self.before[None], None, kept=1)
        state.select(torch.zeros(count, dtype=torch.long))
        return state

    def forward(
        self, state: KVCacheState, embeddings: torch.Tensor, mask: torch.Tensor | None, *, kept: int
    ) -> None:
        """Let every row read some more: (R, length, D), and (R, length) or None for no padding."""
        rows, length, _ = embeddings.shape
        state.padded |= mask is not None
        if mask is None:
            mask = torch.ones(rows, length, dtype=torch.long, device=embeddings.device)
        state.mask = torch.cat([state.mask, mask], dim=1)
        positions = (state.mask.cumsum(1) - 1).clamp(min=0)[:, -length:]
        state.logits = self.model(
            inputs_embeds=embeddings,
            attention_mask=state.mask if state.padded else None,
            position_ids=positions,
            past_key_values=state.cache,
            use_cache=True,
            logits_to_keep=kept,
        ).logits


class DecodingState:
    """Answers that grow by a token a step, in a batch that questions join and leave.

    Attributes:
        rows: Answers in the batch; those that have ended leave it soon.

    Args:
        decoder: Goes on reading.
        state: Prompts that were read; used up.
        most: Tokens of each row's longest answer, at least 1.
        sampling: How each row's tokens are drawn, None for the likeliest; None for all rows.
    """

    def __init__(
        self,
        decoder: Decoder,
        state: KVCacheState,
        most: Sequence[int],
        sampling: Sequence[Sampling | None] | None = None,
    ) -> None:
        self.rows = [Decoded() for _ in most]
        self._decoder = decoder
        self._state = state
        self._most = list(most)
        self._draws = [None if one is None else Draw(one) for one in sampling or [None] * len(most)]

    def step(self) -> None:
        """Give every row that has not ended one more token."""
        last = self._state.logits[:, -1].to(self._decoder.before.device).float()
        logprobs = last.log_softmax(-1)
        best, chosen = logprobs.max(-1)
        for place, draw in enumerate(self._draws):
            if draw is not None and not self.rows[place].ended:
                chosen[place] = draw(logprobs[place])
                best[place] = logprobs[place, chosen[place]]
        for row, most, token, logprob in zip(
            self.rows, self._most, chosen.tolist(), best.tolist(), strict=True
        ):
            if not row.ended:
                row.tokens.append(token)
                row.logprobs.append(logprob)
                row.ended = token in self._decoder.ends or len(row.tokens) >= most
        alive = [place for place, row in enumerate(self.rows) if not row.ended]
        if not alive:
            self.rows, self._most, self._draws = [], [], []
            return
        if len(alive) <= (1 - FREED_SHARE) * len(self.rows):
            self._state.select(torch.tensor(alive))
            chosen = chosen[torch.tensor(alive, device=chosen.device)]
            self.rows = [self.rows[place] for place in alive]
            self._most = [self._most[place] for place in alive]
            self._draws = [self._draws[place] for place in alive]
        embed = self._decoder.model.get_input_embeddings()
        read = embed(chosen)[:, None].to(self._decoder.model.dtype)
        self._decoder.forward(self._state, read, None, kept=1)

    def join(self, other: DecodingState) -> None:
        """Take in the rows of another batch of the same model, which is used up."""
        if not self.rows:
            self._state = other._state
        elif other.rows:
            self._state.join(other._state)
        self.rows, self._most = self.rows + other.rows, self._most + other._most
        self._draws = self._draws + other._draws


def _padded(rows: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Stack rows (length, D) of any lengths, padded on the left; with a mask where they differ."""
    longest = max(len(row) for row in rows)
    if all(len(row) == longest for row in rows):
        return torch.stack(list(rows)), None
    ones = [torch.ones(len(row), dtype=torch.long, device=row.device) for row in rows]
    return (
        pad_sequence(list(rows), batch_first=True, padding_side="left"),
        pad_sequence(ones, batch_first=True, padding_side="left"),
    )


def _fitted(values: torch.Tensor, length: int) -> torch.Tensor:
    """The last ``length`` of the positions (..., positions, D), padded on the left if fewer."""
    missing = length - values.shape[-2]
    return pad(values, (0, 0, missing, 0)) if missing > 0 else values[..., -length:, :]

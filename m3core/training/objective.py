"""The Matryoshka objective: the mean next-token loss over all scales.

M3 (Cai et al., ICLR 2025, eq. 3.2). Here an image is encoded once per step for all scales, and
several independent questions may be packed behind one image: each sees the image and itself only.
A row may also be without an image: its text sees nothing but itself.

Notation for shapes: ``B`` images, ``S * S`` patch tokens, ``D`` model width, ``T`` packed text
tokens, ``P`` prefix length (text before the image, then the visual tokens of a scale).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from m3router.m3core.matryoshka.trainable import Trainable

IGNORED = -100


@dataclass(frozen=True, kw_only=True)
class PackedText:
    """Questions with their answers, packed behind an image.

    A *segment* is what sees itself only: one question, or one conversation of several turns.

    Attributes:
        before: Ids of the text before the image, (B, T0), the same length for all.
        ids: Packed ids, (B, T), padded on the right.
        labels: The id to predict *at* each position, (B, T); ``IGNORED`` where none.
        positions: Place of each token within its own segment, (B, T).
        segments: Number of the segment, from 1, (B, T); 0 is padding.
        blind: Rows that see neither ``before`` nor image, (B,), boolean.
    """

    before: torch.Tensor
    ids: torch.Tensor
    labels: torch.Tensor
    positions: torch.Tensor
    segments: torch.Tensor
    blind: torch.Tensor

    def to(self, device: torch.device) -> PackedText:
        """The same on another device."""
        return PackedText(**{name: value.to(device) for name, value in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class MatryoshkaBatch:
    """One step's images and text.

    Attributes:
        images: Normalised pixels (B, 3, H, W), or tower tokens (B, S * S, Dv) computed earlier.
        text: What is asked and answered.
    """

    images: torch.Tensor
    text: PackedText

    def to(self, device: torch.device) -> MatryoshkaBatch:
        """The same on another device."""
        return MatryoshkaBatch(images=self.images.to(device), text=self.text.to(device))


def pack(
    turns: Sequence[Sequence[tuple[list[int], list[int]]]],
    *,
    before: list[int],
    pad: int,
    conversations: bool = False,
    blind: Sequence[bool] | None = None,
) -> PackedText:
    """Pack each image's (prompt ids, answer ids) pairs one behind the other.

    Args:
        turns: For each image its pairs; an answer ends with the end-of-sequence id.
        before: Ids of the text before the image.
        pad: Padding id.
        conversations: A row's pairs are the turns of one conversation, each of which sees those
            before it; otherwise each pair is a question of its own.
        blind: Rows without an image, whose first prompt holds all that comes before it.
    """
    length = max(sum(len(p) + len(a) for p, a in pairs) for pairs in turns)
    shape = (len(turns), length)
    ids = torch.full(shape, pad)
    labels = torch.full(shape, IGNORED)
    positions, segments = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    for row, pairs in enumerate(turns):
        start = first = 0
        for number, (prompt, answer) in enumerate(pairs, start=1):
            stop = start + len(prompt) + len(answer)
            ids[row, start:stop] = torch.tensor(prompt + answer)
            labels[row, start + len(prompt) - 1 : stop - 1] = torch.tensor(answer)
            first = first if conversations else start
            positions[row, start:stop] = torch.arange(start - first, stop - first)
            segments[row, start:stop] = 1 if conversations else number
            start = stop
    head = torch.tensor([before] * len(turns), dtype=torch.long).reshape(len(turns), len(before))
    return PackedText(
        before=head,
        ids=ids,
        labels=labels,
        positions=positions,
        segments=segments,
        blind=torch.tensor(blind or [False] * len(turns)),
    )


def block_mask(
    segments: torch.Tensor, prefix: int, blind: torch.Tensor | None = None
) -> torch.Tensor:
    """Which position may attend to which: causal, and never to another segment.

    Args:
        segments: (B, T) as in :class:`PackedText`.
        prefix: Tokens before the packed text, ``P``.
        blind: Rows whose text does not see the prefix, (B,); None for no such row.

    Returns:
        Boolean tensor of shape (B, 1, P + T, P + T).
    """
    owner = F.pad(segments, (prefix, 0), value=-1)  # (B, P + T); -1 is the prefix
    same = owner[:, :, None] == owner[:, None, :]
    seen = owner[:, None, :] == -1
    if blind is not None:
        seen = seen & ~blind[:, None, None]
    causal = torch.ones(owner.shape[1], owner.shape[1], dtype=torch.bool, device=owner.device)
    return ((same | seen) & causal.tril())[:, None]


class MatryoshkaLoss(nn.Module):
    """The mean next-token loss over scales, of any trainable family.

    Args:
        trainable: The model; its parts are trained as their ``requires_grad`` says.
    """

    def __init__(self, trainable: Trainable) -> None:
        super().__init__()
        self.trainable = trainable
        self.model = trainable.module

    def forward(self, batch: MatryoshkaBatch, scales: Sequence[int]) -> torch.Tensor:
        """Loss at each scale, shape (len(scales),); M3's objective is its mean."""
        features = self.trainable.encode(batch.images)  # (B, V, D)
        return torch.stack(
            [self._at_scale(self.trainable.at(features, m), batch.text) for m in scales]
        )

    @torch.no_grad()
    def exact_match(self, batch: MatryoshkaBatch, scales: Sequence[int]) -> dict[int, float]:
        """Share of answers whose every token is the most likely one, by scale.

        With greedy decoding this is the share of answers that are generated exactly.
        """
        features = self.trainable.encode(batch.images)
        wanted = batch.text.labels != IGNORED
        rows = torch.arange(len(wanted), device=wanted.device)[:, None].expand_as(wanted)
        owner = (rows * (1 + batch.text.segments.max()) + batch.text.segments)[wanted]
        _, owner = owner.unique(return_inverse=True)
        shares = {}
        for scale in scales:
            logits, labels = self._predict(self.trainable.at(features, scale), batch.text)
            wrong = torch.zeros(int(owner.max()) + 1, device=wanted.device)
            wrong.index_add_(0, owner, (logits.argmax(-1) != labels).float())
            shares[scale] = float((wrong == 0).float().mean())
        return shares

    def _at_scale(self, visual: torch.Tensor, text: PackedText) -> torch.Tensor:
        logits, labels = self._predict(visual, text)
        return F.cross_entropy(logits.float(), labels)

    def _predict(self, visual: torch.Tensor, text: PackedText) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits and labels at the positions that have a label: (L, vocabulary) and (L,)."""
        embed = self.trainable.embeddings
        before = embed(text.before)
        inputs = torch.cat([before, visual.to(before.dtype), embed(text.ids)], dim=1)
        prefix = text.before.shape[1] + visual.shape[1]
        places = torch.arange(prefix, device=inputs.device).expand(len(inputs), prefix)
        starts = prefix * (~text.blind).long()[:, None]
        hidden = self.trainable.language(
            inputs_embeds=inputs,
            attention_mask=block_mask(text.segments, prefix, text.blind),
            position_ids=torch.cat([places, starts + text.positions], dim=1),
            use_cache=False,
        ).last_hidden_state[:, prefix:]  # (B, T, D)
        wanted = text.labels != IGNORED
        return self.trainable.head(hidden[wanted]), text.labels[wanted]

"""Second stage of the embedded model: the projector learns to speak the language model's words.

Every patch is described by a few words (what stands there, its colour, what is printed on it).
The projector and the shared embedding table are trained so that a projected patch points at the
embeddings of its words. The language model then finds a red tag by the very vector that the word
"red" in the question has, and answers by copying; without this it stays for thousands of steps
on a plateau where it answers from the question alone.
"""

from __future__ import annotations

import logging

import numpy as np
import torch
from torch.nn import functional as F
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerBase

from m3router.data.scenes.drawing import patch_labels
from m3router.data.scenes.glyphs import CHARACTERS
from m3router.data.scenes.world import BACKGROUNDS, COLORS, SHAPES, WORDS, Scene, make_scene

logger = logging.getLogger(__name__)

_KIND_WORDS = (*SHAPES, "tag", "sign", "bar", "letter")
_TAG = 1 + len(SHAPES)
_CONTINUED = "##"
GROUND = 0.2
"""Weight of a patch of the background, where one of an item has 1."""
LOUDNESS = 0.1
"""Weight of the squared log ratio of a projected patch's size to a word's. Were items hundreds of
times as loud as the ground between them, pooling would drown the ground, and the faint items."""


class PatchWords:
    """Which tokens describe each patch of a scene.

    Args:
        tokenizer: The embedded model's tokenizer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.vocabulary = len(tokenizer)
        ids = tokenizer.convert_tokens_to_ids

        def table(words: tuple[str, ...] | list[str]) -> np.ndarray:
            return np.array([-1, *ids(list(words))])

        self._kind = table(_KIND_WORDS)
        self._color = table(list(COLORS))
        self._word = table(WORDS)
        self._character = table(list(CHARACTERS))
        self._continued = table([_CONTINUED + one for one in CHARACTERS])
        self._background = dict(zip(BACKGROUNDS, ids(list(BACKGROUNDS)), strict=True))

    def __call__(self, scene: Scene) -> np.ndarray:
        """Shares (patches, vocabulary), float32: equal for a patch's words, zero for others."""
        labels = {name: values.reshape(-1) for name, values in patch_labels(scene).items()}
        # A tag's number is one word of two pieces; a bar or an entry has two words.
        second = np.where(
            labels["kind"] == _TAG,
            self._continued[labels["second"]],
            self._character[labels["second"]],
        )
        words = np.stack(
            [
                self._kind[labels["kind"]],
                self._color[labels["color"]],
                self._word[labels["word"]],
                self._character[labels["first"]],
                second,
                np.where(labels["kind"] == 0, self._background[scene.background], -1),
            ]
        )
        shares = np.zeros((len(labels["kind"]), self.vocabulary), dtype=np.float32)
        for row in words:
            there = np.flatnonzero(row >= 0)
            shares[there, row[there]] += 1
        return shares / shares.sum(1, keepdims=True)


def _rms(vectors: torch.Tensor) -> torch.Tensor:
    return vectors.square().mean(-1).clamp(min=1e-12).sqrt()


def align_projector(
    model: LlavaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    table: np.ndarray,
    *,
    steps: int,
    batch: int,
    learning_rate: float,
) -> float:
    """Train projector and embedding table on cached tower tokens.

    Args:
        model: Its projector and (tied) embeddings are trained in place.
        tokenizer: Its tokenizer.
        table: Tower tokens of the scenes 0, 1, …, (scenes, S * S, Dv).
        steps: Optimiser steps.
        batch: Scenes in a step.
        learning_rate: Of AdamW, falling linearly to zero.

    Returns:
        The loss of the last step: cross-entropy against the patches' words, in nats.
    """
    words = PatchWords(tokenizer)
    projector, embeddings = model.model.multi_modal_projector, model.get_input_embeddings()
    parameters = [*projector.parameters(), *embeddings.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.01)
    loss = torch.zeros(())
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * (1 - step / steps)
        start = step * batch % (len(table) - batch + 1)
        seeds = range(start, start + batch)
        target = torch.from_numpy(np.stack([words(make_scene(seed)) for seed in seeds]))
        tokens = torch.from_numpy(table[start : seeds.stop].astype(np.float32))
        projected = projector(tokens)
        logits = F.rms_norm(projected, projected.shape[-1:]) @ embeddings.weight.T
        # Patches of the background have one word only and are many.
        weight = torch.where(target.max(-1).values < 1, 1.0, GROUND)
        losses = F.cross_entropy(logits.flatten(0, 1), target.flatten(0, 1), reduction="none")
        loss = (losses * weight.flatten()).sum() / weight.sum()
        loudness = _rms(projected) / _rms(embeddings.weight).mean()
        loss = loss + LOUDNESS * loudness.log().square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 100 == 0:
            logger.info("alignment step %d: loss %.3f", step + 1, float(loss.detach()))
    return float(loss.detach())

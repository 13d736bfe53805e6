"""The Matryoshka objective: one model that answers from every scale.

M3 (Cai et al., ICLR 2025, eq. 3.2) minimises the mean of the next-token loss over all scales.
Here an image is encoded once per step and pooled for each scale, and several independent
questions may be packed behind one image: each sees the image and itself only.

Notation for shapes: ``B`` images, ``S * S`` patch tokens, ``D`` model width, ``T`` packed text
tokens, ``P`` prefix length (text before the image, then the visual tokens of a scale).
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn import functional as F
from transformers import LlavaForConditionalGeneration

from data.errors import MismatchError
from m3core.models.parts import project, tower_tokens
from m3core.pooling import average_pool

logger = logging.getLogger(__name__)

IGNORED = -100


@dataclass(frozen=True, kw_only=True)
class PackedText:
    """Questions with their answers, packed behind an image.

    Attributes:
        before: Ids of the text before the image, (B, T0), the same length for all.
        ids: Packed ids, (B, T), padded on the right.
        labels: The id to predict *at* each position, (B, T); ``IGNORED`` where none.
        positions: Place of each token within its own question, (B, T).
        segments: Number of the question, from 1, (B, T); 0 is padding.
    """

    before: torch.Tensor
    ids: torch.Tensor
    labels: torch.Tensor
    positions: torch.Tensor
    segments: torch.Tensor

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


def pack(
    turns: Sequence[Sequence[tuple[list[int], list[int]]]], *, before: list[int], pad: int
) -> PackedText:
    """Pack each image's (prompt ids, answer ids) pairs one behind the other.

    Args:
        turns: For each image its pairs; an answer ends with the end-of-sequence id.
        before: Ids of the text before the image.
        pad: Padding id.
    """
    length = max(sum(len(p) + len(a) for p, a in pairs) for pairs in turns)
    shape = (len(turns), length)
    ids = torch.full(shape, pad)
    labels = torch.full(shape, IGNORED)
    positions, segments = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    for row, pairs in enumerate(turns):
        start = 0
        for number, (prompt, answer) in enumerate(pairs, start=1):
            stop = start + len(prompt) + len(answer)
            ids[row, start:stop] = torch.tensor(prompt + answer)
            labels[row, start + len(prompt) - 1 : stop - 1] = torch.tensor(answer)
            positions[row, start:stop] = torch.arange(stop - start)
            segments[row, start:stop] = number
            start = stop
    head = torch.tensor([before] * len(turns), dtype=torch.long).reshape(len(turns), len(before))
    return PackedText(before=head, ids=ids, labels=labels, positions=positions, segments=segments)


def block_mask(segments: torch.Tensor, prefix: int) -> torch.Tensor:
    """Which position may attend to which: causal, and never to another question.

    Args:
        segments: (B, T) as in :class:`PackedText`.
        prefix: Tokens before the packed text, ``P``.

    Returns:
        Boolean tensor of shape (B, 1, P + T, P + T).
    """
    owner = F.pad(segments, (prefix, 0), value=-1)  # (B, P + T); -1 is the prefix
    same = owner[:, :, None] == owner[:, None, :]
    allowed = same | (owner[:, None, :] == -1)
    causal = torch.ones(owner.shape[1], owner.shape[1], dtype=torch.bool, device=owner.device)
    return (allowed & causal.tril())[:, None]


class MatryoshkaLoss(nn.Module):
    """The mean next-token loss over scales, of a stock LLaVA.

    Args:
        model: The model; its parts are trained as their ``requires_grad`` says.
    """

    def __init__(self, model: LlavaForConditionalGeneration) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: MatryoshkaBatch, scales: Sequence[int]) -> torch.Tensor:
        """Loss at each scale, shape (len(scales),); M3's objective is its mean."""
        features = self._features(batch.images)
        return torch.stack([self._at_scale(average_pool(features, m), batch.text) for m in scales])

    @torch.no_grad()
    def exact_match(self, batch: MatryoshkaBatch, scales: Sequence[int]) -> dict[int, float]:
        """Share of answers whose every token is the most likely one, by scale.

        With greedy decoding this is the share of answers that are generated exactly.
        """
        features = self._features(batch.images)
        wanted = batch.text.labels != IGNORED
        rows = torch.arange(len(wanted), device=wanted.device)[:, None].expand_as(wanted)
        owner = (rows * (1 + batch.text.segments.max()) + batch.text.segments)[wanted]
        _, owner = owner.unique(return_inverse=True)
        shares = {}
        for scale in scales:
            logits, labels = self._predict(average_pool(features, scale), batch.text)
            wrong = torch.zeros(int(owner.max()) + 1, device=wanted.device)
            wrong.index_add_(0, owner, (logits.argmax(-1) != labels).float())
            shares[scale] = float((wrong == 0).float().mean())
        return shares

    def _features(self, images: torch.Tensor) -> torch.Tensor:
        tokens = tower_tokens(self.model, images) if images.dim() == 4 else images
        return project(self.model, tokens)  # (B, S * S, D)

    def _at_scale(self, visual: torch.Tensor, text: PackedText) -> torch.Tensor:
        logits, labels = self._predict(visual, text)
        return F.cross_entropy(logits.float(), labels)

    def _predict(self, visual: torch.Tensor, text: PackedText) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits and labels at the positions that have a label: (L, vocabulary) and (L,)."""
        embed = self.model.get_input_embeddings()
        before = embed(text.before)
        inputs = torch.cat([before, visual.to(before.dtype), embed(text.ids)], dim=1)
        prefix = text.before.shape[1] + visual.shape[1]
        places = torch.arange(prefix, device=inputs.device).expand(len(inputs), prefix)
        hidden = self.model.model.language_model(
            inputs_embeds=inputs,
            attention_mask=block_mask(text.segments, prefix),
            position_ids=torch.cat([places, prefix + text.positions], dim=1),
            use_cache=False,
        ).last_hidden_state[:, prefix:]  # (B, T, D)
        wanted = text.labels != IGNORED
        return self.model.lm_head(hidden[wanted]), text.labels[wanted]


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """How to train.

    Attributes:
        scales: Visual tokens of each scale, coarsest first.
        periods: A scale takes part in every ``period``-th step; all 1 is M3's objective.
        steps: Optimiser steps.
        learning_rate: Peak rate of projector and language model (AdamW).
        tower_learning_rate: Peak rate of the vision tower; 0 freezes it.
        warmup: Steps of linear warm-up, before a cosine down to a hundredth.
        weight_decay: Of AdamW.
        mixed_precision: ``no``, ``bf16`` or ``fp16`` (accelerate's names).
        save_every: Steps between two resumable states.
        seed: Seeds batches and dropout.
    """

    scales: tuple[int, ...]
    periods: tuple[int, ...]
    steps: int
    learning_rate: float
    tower_learning_rate: float = 0.0
    warmup: int = 100
    weight_decay: float = 0.01
    mixed_precision: str = "no"
    save_every: int = 200
    seed: int = 0

    def scales_at(self, step: int) -> tuple[int, ...]:
        """The scales that take part in a step."""
        return tuple(
            m for m, period in zip(self.scales, self.periods, strict=True) if step % period == 0
        )

    def rate_at(self, step: int) -> float:
        """Learning rate at a step as a share of the peak."""
        cosine = 0.01 + 0.99 * (1 + math.cos(math.pi * min(1.0, step / self.steps))) / 2
        return min(1.0, (step + 1) / self.warmup) * cosine


def _optimizer(model: LlavaForConditionalGeneration, recipe: TrainingRecipe) -> torch.optim.AdamW:
    tower = list(model.model.vision_tower.parameters())
    for parameter in tower:
        parameter.requires_grad_(recipe.tower_learning_rate > 0)
    known = {id(parameter) for parameter in tower}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in known]
    groups = [{"params": rest, "lr": recipe.learning_rate}]
    if recipe.tower_learning_rate > 0:
        groups.append({"params": tower, "lr": recipe.tower_learning_rate})
    return torch.optim.AdamW(groups, weight_decay=recipe.weight_decay, betas=(0.9, 0.98))


def _save_state(accelerator: Accelerator, folder: Path, step: int, recipe: TrainingRecipe) -> None:
    fresh, current = folder / "state.new", folder / "state"
    shutil.rmtree(fresh, ignore_errors=True)
    accelerator.save_state(str(fresh))
    (fresh / "progress.json").write_text(json.dumps({"step": step, "recipe": asdict(recipe)}))
    shutil.rmtree(current, ignore_errors=True)
    fresh.rename(current)


def _load_state(accelerator: Accelerator, folder: Path, recipe: TrainingRecipe) -> int:
    for name in ("state", "state.new"):  # a kill between the two renames leaves only the second
        file = folder / name / "progress.json"
        if file.exists():
            progress = json.loads(file.read_text())
            wanted = json.loads(json.dumps(asdict(recipe)))
            if progress["recipe"] != wanted:
                raise MismatchError(
                    f"{folder} holds a training of another recipe: it has {progress['recipe']}, "
                    f"asked for {wanted}; choose another folder or the same recipe"
                )
            accelerator.load_state(str(folder / name))
            return int(progress["step"])
    return 0


def train(
    model: LlavaForConditionalGeneration,
    batch_at: Callable[[int], MatryoshkaBatch],
    *,
    recipe: TrainingRecipe,
    folder: Path,
    on_save: Callable[[int], dict[str, float]] | None = None,
) -> LlavaForConditionalGeneration:
    """Train in place with the Matryoshka objective, resuming from ``folder``.

    Args:
        model: The model to train.
        batch_at: The batch of a step; it must depend on the step alone, so that a resumed run
            sees what an undisturbed one would.
        recipe: How to train.
        folder: Receives ``state/`` (weights, optimiser, step) and ``training_log.jsonl``.
        on_save: Called at every save with the step; its figures join the log line.

    Returns:
        The same model.

    Raises:
        MismatchError: If ``folder`` holds a run of another recipe.
    """
    folder.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator(
        mixed_precision=recipe.mixed_precision, cpu=not torch.cuda.is_available()
    )
    torch.manual_seed(recipe.seed)
    optimizer = _optimizer(model, recipe)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, recipe.rate_at)
    objective, optimizer, schedule = accelerator.prepare(MatryoshkaLoss(model), optimizer, schedule)
    first = _load_state(accelerator, folder, recipe)
    began, sums = time.monotonic(), {m: [0.0, 0] for m in recipe.scales}
    objective.train()
    for step in range(first, recipe.steps):
        batch, scales = batch_at(step), recipe.scales_at(step)
        moved = MatryoshkaBatch(
            images=batch.images.to(accelerator.device), text=batch.text.to(accelerator.device)
        )
        with accelerator.autocast():
            losses = objective(moved, scales)
        accelerator.backward(losses.mean())
        accelerator.clip_grad_norm_(objective.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        for m, loss in zip(scales, losses.detach().tolist(), strict=True):
            sums[m][0] += loss
            sums[m][1] += 1
        if (step + 1) % recipe.save_every == 0 or step + 1 == recipe.steps:
            line: dict[str, float] = {"step": step + 1, "seconds": time.monotonic() - began}
            line |= {f"loss@{m}": total / count for m, (total, count) in sums.items() if count}
            sums = {m: [0.0, 0] for m in recipe.scales}
            _save_state(accelerator, folder, step + 1, recipe)
            if on_save:
                objective.eval()
                line |= on_save(step + 1)
                objective.train()
            logger.info("%s", line)
            with (folder / "training_log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
    return model.eval()

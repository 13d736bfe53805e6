"""Scenes as batches for the Matryoshka objective."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerBase

from experiments.embedded_model.architecture import IMAGE_MEAN, IMAGE_STD
from m3router.data.scenes.drawing import render
from m3router.data.scenes.questions import ask_about
from m3router.data.scenes.world import make_scene
from m3router.m3core.matryoshka.models.parts import tower_tokens
from m3router.m3core.matryoshka.prompts import PromptTemplate
from m3router.m3core.training.objective import MatryoshkaBatch, PackedText, pack

logger = logging.getLogger(__name__)


def scene_pixels(seeds: range) -> torch.Tensor:
    """Normalised images of whole scenes, (len(seeds), 3, side, side)."""
    pixels = torch.from_numpy(np.stack([render(make_scene(seed)) for seed in seeds]))
    return (pixels.permute(0, 3, 1, 2).float() / 255 - IMAGE_MEAN) / IMAGE_STD


class SceneText:
    """Turns the questions of scenes into packed ids.

    Args:
        tokenizer: The embedded model's tokenizer.
        template: The prompt that the model is trained for.
        questions: Questions drawn for each scene.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, template: PromptTemplate, *, questions: int
    ) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.questions = questions
        self._cache: dict[str, list[int]] = {}

    def _ids(self, text: str) -> list[int]:
        if text not in self._cache:
            self._cache[text] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return self._cache[text]

    def __call__(self, seeds: range) -> PackedText:
        """The packed questions of these scenes."""
        end = [self.tokenizer.eos_token_id]
        turns = [
            [
                (self._ids(self.template.text_after(q.text)), self._ids(q.answer) + end)
                for q in ask_about(make_scene(seed), self.questions)
            ]
            for seed in seeds
        ]
        before = [self.tokenizer.bos_token_id, *self._ids(self.template.before)]
        return pack(turns, before=before, pad=self.tokenizer.pad_token_id)


@torch.no_grad()
def cache_tower(model: LlavaForConditionalGeneration, scenes: int, file: Path) -> np.ndarray:
    """Tower tokens of the first scenes, kept in a memory-mapped file of half precision.

    Returns:
        Read-only array of shape (scenes, S * S, Dv), float16.
    """
    if not file.exists():
        side = model.config.image_seq_length
        fresh = file.with_suffix(".new.npy")
        shape = (scenes, side, model.config.vision_config.hidden_size)
        table = np.lib.format.open_memmap(fresh, mode="w+", dtype=np.float16, shape=shape)
        for start in range(0, scenes, 32):
            seeds = range(start, min(start + 32, scenes))
            table[start : seeds.stop] = tower_tokens(model, scene_pixels(seeds)).numpy()
            if start % 1024 == 0:
                logger.info("tower tokens of %d / %d scenes", seeds.stop, scenes)
        table.flush()
        fresh.rename(file)
    return np.load(file, mmap_mode="r")


class CachedScenes:
    """Batches from cached tower tokens; cycles through the cached scenes."""

    def __init__(self, table: np.ndarray, text: SceneText, *, batch: int) -> None:
        self.table = table
        self.text = text
        self.batch = batch

    def seeds(self, step: int) -> range:
        """The scenes of a step's batch."""
        start = step * self.batch % (len(self.table) - self.batch + 1)
        return range(start, start + self.batch)

    def __call__(self, step: int) -> MatryoshkaBatch:
        """The batch of a step."""
        seeds = self.seeds(step)
        images = torch.from_numpy(self.table[seeds.start : seeds.stop].astype(np.float32))
        return MatryoshkaBatch(images=images, text=self.text(seeds))


class FreshScenes:
    """Batches of scenes never drawn before, as pixels; for training with the tower."""

    def __init__(self, first_seed: int, text: SceneText, *, batch: int) -> None:
        self.first_seed = first_seed
        self.text = text
        self.batch = batch

    def __call__(self, step: int) -> MatryoshkaBatch:
        """The batch of a step."""
        start = self.first_seed + step * self.batch
        seeds = range(start, start + self.batch)
        return MatryoshkaBatch(images=scene_pixels(seeds), text=self.text(seeds))

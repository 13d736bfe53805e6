"""Build the embedded model from nothing, in resumable stages.

Dense labels for the tower come first; then the projector learns the language model's words, whose
layers start as a look-up by these; then projector and language model learn to answer on cached
tokens of the frozen tower; at last by M3's own objective, all scales in every step.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlavaForConditionalGeneration

from experiments.embedded_model.alignment import align_projector
from experiments.embedded_model.architecture import new_model, whiten_projector
from experiments.embedded_model.curriculum import CachedScenes, FreshScenes, SceneText, cache_tower
from experiments.embedded_model.export import export
from experiments.embedded_model.lookup_initialization import start_as_lookup
from experiments.embedded_model.tokenizer import SPECIAL, build_tokenizer
from experiments.embedded_model.tower_pretraining import TowerRecipe, train_tower
from m3router.data.scenes.export import VALIDATION_SEEDS
from m3router.m3core.checkpoints.families.llava import LlavaTrainable
from m3router.m3core.matryoshka.prompts import get_template
from m3router.m3core.matryoshka.scales import M3_SCALES
from m3router.m3core.training.loop import train
from m3router.m3core.training.objective import MatryoshkaLoss
from m3router.m3core.training.recipe import TrainingRecipe

SAMPLE = 64
"""Scenes whose tokens decide the whitening."""
TEMPLATE = get_template("scenes-1")


class Validation:
    """Exact match by scale on held-out scenes, for the learning curve.

    Args:
        model: The model in training.
        text: Packs the questions.
        scenes: Scenes asked about.
    """

    def __init__(
        self,
        model: LlavaForConditionalGeneration,
        text: SceneText,
        scenes: int = 64,
    ) -> None:
        batch = min(32, scenes)
        self.objective = MatryoshkaLoss(LlavaTrainable(model))
        self.batches = FreshScenes(VALIDATION_SEEDS.start, text, batch=batch)
        self.steps = range(scenes // batch)

    def __call__(self, step: int) -> dict[str, float]:
        """The figures after a step."""
        parts = [self.objective.exact_match(self.batches(one), M3_SCALES) for one in self.steps]
        return {
            f"exact@{scale}": sum(part[scale] for part in parts) / len(parts) for scale in M3_SCALES
        }


def _training(table: Mapping[str, Any], seed: int) -> TrainingRecipe:
    """The part of a stage's table that the trainer reads."""
    known = set(TrainingRecipe.__dataclass_fields__)
    values = {key: value for key, value in table.items() if key in known}
    values |= {"scales": tuple(table["scales"]), "periods": tuple(table["periods"])}
    return TrainingRecipe(**values, mixed_precision="bf16", seed=seed)


def build(recipe: Mapping[str, Any], work: Path, checkpoint: Path) -> None:
    """Run the recipe; every stage goes on where an interrupted run left off.

    Args:
        recipe: A ``seed``, the number of ``cached_scenes``, that of ``validation_scenes`` if it is
            not 64, tables ``tower`` and ``alignment``, and a list of ``stages``; see
            ``experiments/embedded_model/recipe.toml``. A stage with a
            ``tower_learning_rate`` trains the tower too, on scenes from ``first_seed`` on.
        work: Receives states, logs and cached tokens.
        checkpoint: Receives the finished model.
    """
    seed, watched = recipe["seed"], recipe.get("validation_scenes", 64)
    first = TowerRecipe(**recipe["tower"], seed=seed)
    tower = train_tower(first, work / "tower", watched=watched)
    tokenizer = build_tokenizer()
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in SPECIAL.items()}
    model = new_model(tower, vocabulary=len(tokenizer), ids=ids, seed=seed)

    cached = cache_tower(model, recipe["cached_scenes"], work / "tower_tokens.npy")
    sample = torch.from_numpy(cached[:SAMPLE].astype(np.float32)).flatten(0, 1)
    whiten_projector(model, sample, seed=seed)
    align_projector(model, tokenizer, cached, **recipe["alignment"])
    start_as_lookup(model, seed=seed)
    for stage in recipe["stages"]:
        text = SceneText(tokenizer, TEMPLATE, questions=stage["questions"])
        frozen = stage.get("tower_learning_rate", 0) == 0
        batches = (
            CachedScenes(cached, text, batch=stage["batch"])
            if frozen
            else FreshScenes(stage["first_seed"], text, batch=stage["batch"])
        )
        train(
            LlavaTrainable(model),
            batches,
            recipe=_training(stage, seed),
            folder=work / stage["name"],
            on_save=Validation(model, text, watched),
        )
    export(model.float(), tokenizer, TEMPLATE, checkpoint)

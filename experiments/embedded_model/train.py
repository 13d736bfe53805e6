"""Train the embedded model in three resumable stages and write its checkpoint and card.

python -m experiments.embedded_model.train --work runs/embedded
"""

from __future__ import annotations

import argparse
import logging
import tomllib
from pathlib import Path
from typing import Any

import torch
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerBase

from data.scenes.export import VALIDATION_SEEDS
from m3core.embedded.architecture import new_model
from m3core.embedded.curriculum import CachedScenes, FreshScenes, SceneText, cache_tower
from m3core.embedded.export import export
from m3core.embedded.tokenizer import SPECIAL, build_tokenizer
from m3core.embedded.tower_pretraining import TowerRecipe, train_tower
from m3core.prompts import PromptTemplate, get_template
from m3core.training import MatryoshkaLoss, TrainingRecipe, train

HERE = Path(__file__).parent


def _recipe(table: dict[str, Any], seed: int) -> TrainingRecipe:
    """The part of a stage's table that the trainer reads."""
    known = set(TrainingRecipe.__dataclass_fields__)
    values = {key: value for key, value in table.items() if key in known}
    values |= {"scales": tuple(table["scales"]), "periods": tuple(table["periods"])}
    return TrainingRecipe(**values, mixed_precision="bf16", seed=seed)


def _start(tower_folder: Path, recipe: dict[str, Any]) -> tuple[Any, PreTrainedTokenizerBase]:
    tower = train_tower(TowerRecipe(**recipe["tower"], seed=recipe["seed"]), tower_folder)
    tokenizer = build_tokenizer()
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in SPECIAL.items()}
    model = new_model(tower, vocabulary=len(tokenizer), ids=ids, seed=recipe["seed"])
    return model, tokenizer


class Validation:
    """Exact match by scale on held-out scenes, for the learning curve.

    Args:
        model: The model in training.
        text: Packs the questions.
        scales: Visual tokens of each scale.
        scenes: Scenes asked about.
    """

    def __init__(
        self,
        model: LlavaForConditionalGeneration,
        text: SceneText,
        scales: list[int],
        scenes: int = 64,
    ) -> None:
        self.objective = MatryoshkaLoss(model)
        self.scales = scales
        self.batches = FreshScenes(VALIDATION_SEEDS.start, text, batch=32)
        self.steps = range(scenes // 32)

    def __call__(self, step: int) -> dict[str, float]:
        """The figures after a step."""
        parts = [self.objective.exact_match(self.batches(one), self.scales) for one in self.steps]
        return {
            f"exact@{scale}": sum(part[scale] for part in parts) / len(parts)
            for scale in self.scales
        }


def train_language(
    model: LlavaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    template: PromptTemplate,
    table: dict[str, Any],
    seed: int,
    work: Path,
) -> None:
    """Second stage: projector and language model; the tower stays as it is."""
    cached = cache_tower(model, table["scenes"], work / "tower_tokens.npy")
    text = SceneText(tokenizer, template, questions=table["questions"])
    batches = CachedScenes(cached, text, batch=table["batch"])
    watch = Validation(model, text, table["scales"])
    train(model, batches, recipe=_recipe(table, seed), folder=work / "language", on_save=watch)


def train_jointly(
    model: LlavaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    template: PromptTemplate,
    table: dict[str, Any],
    seed: int,
    work: Path,
) -> None:
    """Third stage: everything, on scenes that were never drawn before."""
    text = SceneText(tokenizer, template, questions=table["questions"])
    batches = FreshScenes(table["first_seed"], text, batch=table["batch"])
    watch = Validation(model, text, table["scales"])
    train(model, batches, recipe=_recipe(table, seed), folder=work / "joint", on_save=watch)


def main() -> None:
    """Run the recipe; every stage goes on where an interrupted run left off."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for states and logs")
    parser.add_argument("--out", type=Path, help="checkpoint folder (default: WORK/checkpoint)")
    parser.add_argument("--recipe", type=Path, default=HERE / "recipe.toml")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    recipe = tomllib.loads(arguments.recipe.read_text())
    template = get_template("scenes-1")
    model, tokenizer = _start(arguments.work / "tower", recipe)
    stages = (tokenizer, template)
    train_language(model, *stages, recipe["language"], recipe["seed"], arguments.work)
    train_jointly(model, *stages, recipe["joint"], recipe["seed"], arguments.work)
    export(model.float(), tokenizer, template, arguments.out or arguments.work / "checkpoint")


if __name__ == "__main__":
    main()

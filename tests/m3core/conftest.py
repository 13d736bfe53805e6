"""A LLaVA with random weights in the embedded model's layout, written once for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.embedded_model.architecture import new_model, new_tower
from experiments.embedded_model.curriculum import scene_pixels
from experiments.embedded_model.export import export
from experiments.embedded_model.tokenizer import SPECIAL, build_tokenizer
from m3router.m3core.checkpoints import load_model
from m3router.m3core.matryoshka.models.llava import LlavaM3
from m3router.m3core.matryoshka.prompts import get_template


@pytest.fixture(scope="session")
def random_checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("random-m3")
    tokenizer = build_tokenizer()
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in SPECIAL.items()}
    model = new_model(
        new_tower(scene_pixels(range(100)), seed=1),
        vocabulary=len(tokenizer),
        ids=ids,
        seed=1,
    )
    export(model, tokenizer, get_template("scenes-1"), folder)
    return folder


@pytest.fixture(scope="session")
def random_m3(random_checkpoint) -> LlavaM3:
    model = load_model(str(random_checkpoint), device="cpu")
    model.max_new_tokens = 4
    return model

from __future__ import annotations

import json

import torch
from PIL import Image

from experiments.embedded_model.build import build
from m3router.data.scenes.drawing import render
from m3router.data.scenes.world import make_scene
from m3router.m3core.checkpoints import load_model
from m3router.m3core.matryoshka.base import Request

STAGE = {
    "batch": 2,
    "questions": 2,
    "scales": [1, 9, 144],
    "periods": [1, 1, 2],
    "steps": 2,
    "learning_rate": 1e-3,
    "muon_learning_rate": 1e-3,
    "save_every": 2,
}
JOINT = {"name": "joint", "first_seed": 1_000_000, "tower_learning_rate": 1e-3}
RECIPE = {
    "seed": 0,
    "cached_scenes": 8,
    "validation_scenes": 2,
    "tower": {"steps": 2, "batch": 2},
    "alignment": {"steps": 2, "batch": 2, "learning_rate": 1e-3},
    "stages": [STAGE | {"name": "language"}, STAGE | JOINT],
}


def test_the_whole_recipe_makes_a_model_that_loads_and_answers(tmp_path):
    build(RECIPE, tmp_path / "work", tmp_path / "checkpoint")
    model = load_model(str(tmp_path / "checkpoint"), device="cpu")
    (encoding,) = model.encode([Image.fromarray(render(make_scene(0)))])
    (answer,) = model.answer([Request(encoding=encoding, question="What color?", scale=9)])
    assert answer.visual_tokens == 9 and answer.answer_tokens >= 1
    lines = (tmp_path / "work" / "joint" / "training_log.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == 2
    assert (tmp_path / "checkpoint" / "model.safetensors").stat().st_size < 12 * 2**20

    # A second run finds everything done and writes the same weights.
    weights = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    build(RECIPE, tmp_path / "work", tmp_path / "again")
    again = load_model(str(tmp_path / "again"), device="cpu").model.state_dict()
    assert all(torch.equal(weights[name], again[name]) for name in weights)

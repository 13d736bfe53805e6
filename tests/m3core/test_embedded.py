"""The shipped checkpoint: is it there, is it the one that the card describes, does it answer?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from m3router.data.scenes.drawing import render
from m3router.data.scenes.export import TEST_SEEDS, scene_examples
from m3router.data.scenes.world import make_scene
from m3router.m3core.checkpoints import embedded_folder, load_model, revision_of
from m3router.m3core.matryoshka.base import Request
from m3router.m3core.matryoshka.batching import answer_all

RESULTS = Path(__file__).parents[2] / "experiments" / "embedded_model" / "results" / "test.json"


@pytest.fixture(scope="module")
def model():
    return load_model("embedded", device="cpu")


@pytest.fixture(scope="module")
def recorded():
    return json.loads(RESULTS.read_text())


def test_it_is_small_and_the_one_that_was_measured(model, recorded):
    assert (embedded_folder() / "model.safetensors").stat().st_size <= 12 * 10**6
    assert revision_of(embedded_folder()) == model.revision == recorded["revision"]
    assert model.revision in (embedded_folder() / "README.md").read_text()


def test_it_answers_test_scenes_as_well_as_its_card_says(model, recorded):
    """A subset of the card's own test scenes, within four standard errors."""
    asked = []
    for seed in range(TEST_SEEDS.start, TEST_SEEDS.start + 40):
        scene = make_scene(seed)
        (encoding,) = model.encode([Image.fromarray(render(scene))])
        asked += [(example, encoding) for example in scene_examples(scene, 4)]
    for scale in (1, 576):
        requests = [
            Request(encoding=encoding, question=example.question, scale=scale)
            for example, encoding in asked
        ]
        answers = answer_all(model, requests)
        right = [
            example.score(answer.text) for (example, _), answer in zip(asked, answers, strict=True)
        ]
        expected = recorded["accuracy"]["all"][str(scale)]["value"]
        error = (expected * (1 - expected) / len(right)) ** 0.5
        assert abs(sum(right) / len(right) - expected) < 4 * error


def test_labels_do_not_depend_on_the_batch(model):
    """fp32: every answer alone equals the same answer in company, at every scale."""
    requests = []
    for seed in range(TEST_SEEDS.start + 100, TEST_SEEDS.start + 106):
        scene = make_scene(seed)
        (encoding,) = model.encode([Image.fromarray(render(scene))])
        for example in scene_examples(scene, 2):
            requests += [
                Request(encoding=encoding, question=example.question, scale=scale)
                for scale in model.grid.scales
            ]
    together = model.answer(requests)
    for request, answer in zip(requests, together, strict=True):
        assert model.answer([request])[0].text == answer.text

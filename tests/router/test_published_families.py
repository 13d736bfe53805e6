"""Checkpoints in their published layout go the whole way: label, train, calibrate, ask."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from m3router.data.example import Example
from m3router.m3core.checkpoints import load_model
from m3router.m3core.matryoshka.base import Request
from m3router.m3core.matryoshka.batching import answer_all
from m3router.router import calibrate_stage, evaluate_stage, label_stage, report_stage, train_stage
from m3router.router.inference.pipeline import AutoScalePipeline
from m3router.router.runs.run import Run
from tests.m3core import layouts

QUESTIONS = ["What color is the dog?", "Is there a cat on the table?"]


def new_image(seed: int) -> Image.Image:
    """Coarse coloured noise of many shapes."""
    random = np.random.default_rng(seed)
    height, width = random.integers(20, 120, 2).tolist()
    blocks = random.integers(0, 256, (5, 7, 3)).astype(np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.BILINEAR)


@pytest.mark.parametrize("family", ["llava", "mqt"])
def test_the_whole_way(family, tmp_path):
    """LLaVA-NeXT's is beside its model's tests; right is what the finest scale answers."""
    folder = layouts.write(tmp_path / "model", *layouts.published(family, seed=5))
    model = load_model(str(folder), device="cpu")
    model.max_new_tokens = 3
    images = {f"{number}.png": new_image(number) for number in range(30)}
    for name, image in images.items():
        image.save(tmp_path / name)
    encodings = dict(zip(images, model.encode(list(images.values())), strict=True))
    asked = [(name, question) for name in images for question in QUESTIONS]
    finest = answer_all(
        model,
        [
            Request(encoding=encodings[name], question=question, scale=model.grid.finest)
            for name, question in asked
        ],
    )
    examples = [
        Example(
            id=str(number),
            image=name,
            question=question,
            answers=(answer.text or "nothing",),
            metric="exact",
            group=name,
        )
        for number, ((name, question), answer) in enumerate(zip(asked, finest, strict=True))
    ]
    run = Run(tmp_path / "run")
    log = label_stage(run, examples, images=tmp_path, model=model)
    assert log.n_gaps == 0 and log.costs[0].tolist() == list(model.grid.scales)
    train_stage(run, estimator="logistic", ablations=False)
    calibrate_stage(run, budget=float(np.mean(model.grid.scales)))
    if family == "mqt":  # the other's options are those of all other reports
        evaluate_stage(run, draws=20, budgets=[36])
        assert report_stage(run, images=tmp_path).is_file()
    pipeline = AutoScalePipeline.load(run.root, model=model)
    answers = pipeline.answer(list(images.values())[:5], [QUESTIONS[0]] * 5)
    for one in answers:
        assert one.answer.visual_tokens == one.scale in model.grid.scales
        assert set(one.sufficiency) == set(model.grid.scales)

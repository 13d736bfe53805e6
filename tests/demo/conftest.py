"""A small finished run of the embedded model; each image has an easy and a hard question."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from m3router.data.scenes.drawing import render
from m3router.data.scenes.questions import all_questions
from m3router.data.scenes.world import make_scene
from m3router.data.sources.jsonl import load_jsonl
from m3router.m3core.checkpoints import load_model
from m3router.router.demo.service import DemoService
from m3router.router.runs.run import Run
from m3router.router.stages.labelling import label_stage
from m3router.router.stages.learning import calibrate_stage, train_stage

SEEDS = (
    "29000004 29000046 29000056 29000079 29000102 29000117 29000142 29000160 "
    "29000165 29000201 29000223 29000239 29000270 29000359 29000391 29000493"
)
BACKGROUND = "What color is the background?"


@dataclass(frozen=True)
class World:
    run: Path
    images: Path


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A run after `train` and `calibrate`: one colour and two small prints in each scene."""
    root = tmp_path_factory.mktemp("demo")
    images = root / "images"
    images.mkdir()
    lines = []
    for seed in SEEDS.split():
        scene = make_scene(int(seed))
        Image.fromarray(render(scene)).save(images / f"{seed}.png")
        asked = all_questions(scene)
        small = [one for one in asked if one.kind in ("entry", "bar value")][:2]
        for number, one in enumerate([asked[0], *small]):
            line = {"id": f"{seed}-{number}", "image": f"{seed}.png", "question": one.text}
            lines.append(json.dumps(line | {"answers": [one.answer], "group": seed}))
    (root / "examples.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    run = Run(root / "run")
    examples = load_jsonl(root / "examples.jsonl", images=images)
    label_stage(run, examples, images=images, model=load_model("embedded", device="cpu"))
    train_stage(run, ablations=False)
    calibrate_stage(run, name="default", budget=100)
    return World(run=run.root, images=images)


@pytest.fixture(scope="session")
def service(world: World) -> DemoService:
    return DemoService.load(world.run, device="cpu")


@pytest.fixture(scope="session")
def scene(world: World) -> Path:
    """An image of the run."""
    return world.images / "29000160.png"

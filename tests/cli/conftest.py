"""A small world for the fake model, which answers `yes` from the scale on that it needs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from m3router.router.cli.main import app

IMAGES = 36
QUESTIONS = (
    "Is it?",
    "Is there a red one?",
    "Is the number on the tag below seven?",
    "Is the smallest of all numbers on the tags of the lower row even?",
)


@dataclass(frozen=True)
class World:
    examples: Path
    images: Path


Invoke = Callable[..., Result]


def write_world(folder: Path, *, images: int = IMAGES, seed: int = 0) -> World:
    """Images of growing contrast, each with questions of growing length."""
    generator = np.random.default_rng(seed)
    drawn = folder / "images"
    drawn.mkdir(parents=True)
    lines = []
    for number in range(images):
        contrast = 127 * number / images
        noise = contrast * generator.choice([-1, 1], size=(24, 24, 3))
        Image.fromarray((128 + noise).astype(np.uint8)).save(drawn / f"{number}.png")
        for place, question in enumerate(QUESTIONS):
            lines.append(
                {
                    "id": f"{number}-{place}",
                    "image": f"{number}.png",
                    "question": question,
                    "answers": ["yes"],
                    "metric": "yes_no",
                    "dataset": "short" if place < 2 else "long",
                    "chance": 0.0,
                }
            )
    examples = folder / "examples.jsonl"
    examples.write_text("\n".join(json.dumps(line) for line in lines) + "\n", encoding="utf-8")
    return World(examples, drawn)


def invoke_app(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="session")
def invoke() -> Invoke:
    return invoke_app


@pytest.fixture(scope="session")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def _finished(small_world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("finished") / "run"
    label = ["label", "--examples", small_world.examples, "--images", small_world.images]
    for command in (
        [*label, "--model", "fake", "--out", run],
        ["train", run],
        ["calibrate", run, "--budget", 100],
        ["evaluate", run, "--draws", 100],
        ["report", run, "--images", small_world.images],
    ):
        result = invoke_app(*command)
        assert result.exit_code == 0, result.output
    return run


@pytest.fixture
def finished(_finished: Path, tmp_path: Path) -> Path:
    """A copy of a run folder in which every stage was run."""
    return Path(shutil.copytree(_finished, tmp_path / "run"))

"""A run of the embedded model that is made in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from m3router.data.example import Example
from m3router.data.images import open_image
from m3router.data.scenes.export import LABEL_SEEDS, write_scenes
from m3router.data.sources.jsonl import load_jsonl
from m3router.m3core.checkpoints import load_model
from m3router.router.runs.run import Run
from m3router.router.stages.labelling import label_stage
from m3router.router.stages.learning import calibrate_stage, train_stage


@dataclass(frozen=True)
class SmallRun:
    """A run folder and questions to ask it."""

    root: Path
    asked: list[tuple[Image.Image, str]]


def make_small_run(folder: Path, *, scenes: int = 20, questions: int = 2) -> SmallRun:
    """Draw, label, train and calibrate; what the folder already holds is not made again."""
    run, images = Run(folder / "run"), folder / "scenes" / "images"
    if not run.policy_file("default").is_file():
        seeds = range(LABEL_SEEDS.start, LABEL_SEEDS.start + scenes)
        write_scenes(folder / "scenes", seeds, questions=questions)
        examples = _examples(folder)
        label_stage(run, examples, images=images, model=load_model("embedded", device="cpu"))
        train_stage(run, estimator="logistic", ablations=False)
        calibrate_stage(run, name="default", budget=60)
    examples = _examples(folder)
    pictures = {one.image: open_image(images / one.image) for one in examples}
    return SmallRun(run.root, [(pictures[one.image], one.question) for one in examples])


def _examples(folder: Path) -> list[Example]:
    (path,) = (folder / "scenes").glob("*.jsonl")
    return load_jsonl(path, images=folder / "scenes" / "images")

"""Scenes as examples: images in a folder and a JSONL file beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from m3router.data.example import Example
from m3router.data.manifest import atomic_write_text
from m3router.data.paths import StrPath, as_path
from m3router.data.scenes.drawing import render
from m3router.data.scenes.questions import CHANCE, ask_about
from m3router.data.scenes.world import Scene, make_scene

TRAIN_SEEDS = range(0, 10_000_000)
VALIDATION_SEEDS = range(10_000_000, 20_000_000)
LABEL_SEEDS = range(20_000_000, 30_000_000)
TEST_SEEDS = range(30_000_000, 40_000_000)
"""Disjoint: the model's training, its tuning, examples for routers, the model card's figures."""


def scene_examples(scene: Scene, questions: int) -> list[Example]:
    """Examples about one scene, all of the same group; ``dataset`` is the kind of question."""
    name = f"scene-{scene.seed}.png"
    return [
        Example(
            id=f"scene-{scene.seed}-{number}",
            image=name,
            question=question.text,
            answers=(question.answer,),
            dataset=question.kind,
            group=name,
            chance=CHANCE[question.kind],
        )
        for number, question in enumerate(ask_about(scene, questions))
    ]


def write_scenes(
    folder: StrPath,
    seeds: range,
    *,
    questions: int,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Draw scenes and write them as a JSONL source.

    Args:
        folder: Receives ``examples.jsonl`` and ``images/``.
        seeds: One scene for each.
        questions: Most questions for each scene.
        progress: Called with (scenes done, scenes in all).

    Returns:
        Path of ``examples.jsonl``.
    """
    folder = as_path(folder)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines = []
    for done, seed in enumerate(seeds, start=1):
        scene = make_scene(seed)
        examples = scene_examples(scene, questions)
        image = folder / "images" / examples[0].image
        if not image.exists():
            fresh = image.with_suffix(".tmp")
            Image.fromarray(render(scene)).save(fresh, format="PNG")
            fresh.replace(image)
        lines += [json.dumps(example.to_dict()) for example in examples]
        if progress:
            progress(done, len(seeds))
    atomic_write_text(folder / "examples.jsonl", "\n".join(lines) + "\n")
    return folder / "examples.jsonl"

"""An imported log about images of several sizes, taken from import to a policy with a tiny CLIP."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPVisionConfig, CLIPVisionModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from m3router.router.runs.run import Run
from m3router.router.stages.labelling import featurize_stage, import_stage
from m3router.router.stages.learning import calibrate_stage, train_stage
from tests.router.inference.world import QUESTIONS, SIZES, Imported, paid

TINY = {
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("clip") / "tower"
    CLIPVisionModel(CLIPVisionConfig(**TINY)).save_pretrained(folder)
    CLIPImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def imported(tiny_clip: str, tmp_path_factory: pytest.TempPathFactory) -> Imported:
    """96 images of four sizes with two questions; the long one often needs the high option."""
    random = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("imported")
    (folder / "images").mkdir()
    lines = ["id,image,question,option,correct,cost,dataset"]
    for n in range(96):
        size = SIZES[n % 4]
        pixels = random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{n}.png")
        for place, question in enumerate(QUESTIONS):
            for option, right in (("low", (0.9, 0.3)), ("high", (0.95, 0.9))):
                correct = int(random.random() < right[place])
                cost = paid(size, option, question)
                lines.append(f"{n}-{place},{n}.png,{question},{option},{correct},{cost},world")
    table = folder / "answers.csv"
    table.write_text("\n".join(lines))
    run = Run(folder / "run")
    import_stage(run, "table", table, cost_unit="tokens")
    featurize_stage(run, images=folder / "images", encoder=tiny_clip)
    train_stage(run, estimator="logistic", ablations=False)
    calibrate_stage(run, budget=80)
    return Imported(run=run, images=folder / "images", encoder=tiny_clip)


@pytest.fixture
def opened(imported: Imported) -> Callable[[int], Image.Image]:
    def read(number: int) -> Image.Image:
        with Image.open(imported.images / f"{number}.png") as image:
            return image.convert("RGB")

    return read

"""Photographs, screenshots, documents and noise are outside what the embedded model can read."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from m3router.data.scenes.drawing import render
from m3router.data.scenes.export import TEST_SEEDS
from m3router.data.scenes.world import make_scene
from m3router.m3core.checkpoints import load_model
from m3router.m3core.matryoshka.models.fake import FakeModel
from m3router.router.demo.samples import SCENES
from m3router.router.monitoring.scenes import combined, is_outside, reads_scenes_only, scenes
from m3router.router.text.familiarity import UNLIKE

ROOT = Path(__file__).resolve().parents[2]


def drawn(seed: int) -> Image.Image:
    return Image.fromarray(render(make_scene(seed)))


def as_jpeg(image: Image.Image) -> Image.Image:
    kept = io.BytesIO()
    image.save(kept, "JPEG", quality=80)
    return Image.open(kept).convert("RGB")


def document(random: np.random.Generator) -> Image.Image:
    """Black lines of text on white paper."""
    page = Image.new("RGB", (600, 800), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(int(random.integers(12, 28)))
    for y in range(40, 760, int(random.integers(20, 40))):
        words = "the quick brown fox jumps over the lazy dog"[int(random.integers(20)) :]
        draw.text((40, y), words, fill="black", font=font)
    return page


def smooth(random: np.random.Generator) -> Image.Image:
    """Colours that run into each other, as where a photograph is out of focus."""
    few = random.integers(0, 256, (int(random.integers(4, 24)), 12, 3), dtype=np.uint8)
    return Image.fromarray(few).resize((320, 240), Image.Resampling.BICUBIC)


def photographs() -> dict[str, Image.Image]:
    """Those that happen to be installed."""
    found = {}
    for package, folder in (
        ("sklearn", "datasets/images"),
        ("matplotlib", "mpl-data/sample_data"),
        ("skimage", "data"),
    ):
        try:
            root = Path(__import__(package).__file__).parent / folder
        except ImportError:
            continue
        for path in sorted([*root.glob("*.jpg"), *root.glob("*.jpeg")]):
            found[path.name] = Image.open(path).convert("RGB")
    return found


def test_scenes_are_familiar_at_the_nominal_rate():
    """Also larger, smaller and as JPEG, which the model reads as well."""
    images = [drawn(TEST_SEEDS.start + number) for number in range(200)]
    p = np.array([scenes().of(one) for one in images])

    def most(scenes: int) -> float:
        return UNLIKE + 4 * np.sqrt(UNLIKE / scenes)  # by chance

    assert (p <= UNLIKE).mean() <= most(len(p)) and np.median(p) > 0.3
    others = [as_jpeg(one) for one in images[:60]]
    others += [one.resize((384, 384), Image.Resampling.BICUBIC) for one in images[:60]]
    assert np.mean([is_outside(scenes().of(one)) for one in others]) <= most(60)


def test_the_demo_s_examples_are_scenes():
    assert not any(is_outside(scenes().of(drawn(seed))) for seed, *_ in SCENES)


def test_everything_else_is_outside():
    random = np.random.default_rng(0)
    across, down = np.meshgrid(np.arange(240), np.arange(240))
    gradient = np.stack([across, down, np.full_like(across, 128)], -1).astype(np.uint8)
    images = {
        "noise": Image.fromarray(random.integers(0, 256, (200, 240, 3), dtype=np.uint8)),
        "gradient": Image.fromarray(gradient),
        "white": Image.new("RGB", (240, 240), "white"),
        "black": Image.new("RGB", (1, 1)),
        "screenshot": Image.open(ROOT / "docs/images/demo-desktop.png").convert("RGB"),
        "small screenshot": Image.open(ROOT / "docs/images/demo-phone.png").convert("RGB"),
        **{f"document {number}": document(random) for number in range(10)},
        **{f"smooth {number}": smooth(random) for number in range(10)},
        **photographs(),
    }
    assert {"flower.jpg", "china.jpg"} <= set(images)
    read = [name for name, image in images.items() if not is_outside(scenes().of(image))]
    assert read == []


def test_it_is_said_of_the_embedded_model_alone():
    assert reads_scenes_only(load_model("embedded", device="cpu"))
    assert not reads_scenes_only(FakeModel())


@pytest.mark.parametrize("usual", [0.2, 1.0])
def test_several_p_values_are_one(usual):
    """Of n uniform ones, at most u is at most u with probability at most u."""
    random = np.random.default_rng(0)
    found = [combined(*random.uniform(size=2)) for _ in range(20_000)]
    level = 0.05 * usual
    assert np.mean(np.array(found) <= level) <= level + 4 * np.sqrt(level / len(found))

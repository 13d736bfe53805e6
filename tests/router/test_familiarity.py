"""How unlike the training images an image is: valid p-values, small ones for other kinds."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from m3router.data.errors import DataError, MismatchError
from m3router.router.features.cheap import image_cues
from m3router.router.features.groups import FEATURE_GROUPS
from m3router.router.features.looks import LOOKS
from m3router.router.hub.repository import router_files
from m3router.router.inference.route_lines import record_of
from m3router.router.inference.router import Router
from m3router.router.monitoring.familiarity import FILES, learn
from m3router.router.stages.learning import train_stage
from m3router.router.text.familiarity import unfamiliar_sentence
from m3router.router.training.scale_router import ScaleRouter
from tests.router.inference.conftest import imported, opened, tiny_clip  # noqa: F401
from tests.router.inference.world import QUESTIONS


def test_p_values_of_images_drawn_alike_are_uniform_or_larger():
    """P(p <= u) <= u, and just that where u is a multiple of 1 / (n + 1)."""
    random = np.random.default_rng(0)
    mixing = random.normal(size=(12, 12))

    def drawn(n: int) -> dict[str, np.ndarray]:
        heavy = random.standard_t(3, size=(n, 12)) @ mixing  # far from normal
        return {"image": heavy.astype(np.float32)}

    levels, found = np.array([0.01, 0.05, 0.1, 0.3, 0.7]), []
    for _ in range(60):
        known = learn(drawn(40), drawn(40), drawn(99), scales=0)
        fresh = drawn(150)["image"]
        p = np.array([known.of({"image": one}) for one in fresh])
        found.append((p[:, None] <= levels).mean(0))
    mean, error = np.mean(found, axis=0), np.std(found, axis=0) / np.sqrt(len(found))
    assert (np.abs(mean - levels) < 4 * error).all(), mean


def page(random: np.random.Generator) -> Image.Image:
    """Dark strokes on white paper."""
    image = Image.new("RGB", (160, 120), tuple(random.integers(235, 256, 3)))
    draw = ImageDraw.Draw(image)
    for _ in range(random.integers(5, 40)):
        x, y = random.integers(0, 150), random.integers(0, 115)
        shade = tuple(random.integers(0, 80, 3))
        draw.line(
            (x, y, x + random.integers(5, 60), y), fill=shade, width=int(random.integers(1, 4))
        )
    return image


def photo(random: np.random.Generator) -> Image.Image:
    """Smooth and colourful."""
    small = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return small.resize((160, 120), Image.Resampling.BICUBIC)


def test_images_of_another_kind_have_small_p_values():
    random = np.random.default_rng(0)

    def cues(images) -> dict[str, np.ndarray]:
        return {"cheap": np.stack([image_cues(one) for one in images])}

    known = learn(*(cues(page(random) for _ in range(n)) for n in (100, 100, 150)))
    noise = [Image.fromarray(random.integers(0, 256, (120, 160, 3), dtype=np.uint8))]
    others = {
        "noise": noise,
        "inverted": [ImageOps.invert(page(random)) for _ in range(10)],
        "photos": [photo(random) for _ in range(10)],
        "blank": [Image.new("RGB", (160, 120))],
    }
    for name, images in others.items():
        p = [known.of({"cheap": image_cues(one)}) for one in images]
        assert max(p) <= 0.01, name
    alike = [known.of({"cheap": image_cues(page(random))}) for _ in range(60)]
    assert np.median(alike) > 0.3 and np.mean(np.array(alike) <= 0.01) <= 0.05
    cues_of_one = image_cues(page(random))
    larger = cues_of_one + np.array([2.0] * 4 + [0.0] * 12, dtype=np.float32)
    assert known.of({"cheap": larger}) == known.of({"cheap": cues_of_one})  # size does not count


def test_what_looks_are_made_of_is_made():
    assert set(LOOKS) <= set(FEATURE_GROUPS)


def test_a_router_keeps_it_and_decisions_tell_it(imported, opened, tmp_path):  # noqa: F811
    router = Router.load(imported.run.root)
    known = router.router.familiarity
    assert known is not None and {one.group for one in known.aspects} == {"image"}
    assert {one.kind for one in known.aspects} == {"channels", "detail"}
    decision = router.decide(opened(0), QUESTIONS[0])
    (look,) = router.look([opened(0)])
    assert decision.familiarity == known.of(look.parts) == look.familiarity
    blank = router.decide(Image.new("RGB", (80, 60)), QUESTIONS[0])
    assert blank.familiarity == 1 / (1 + len(known.scores)) < decision.familiarity
    assert set(FILES) <= set(router_files())  # what the hub takes and gives


def test_a_router_without_it_is_the_same_router(imported, opened, tmp_path):  # noqa: F811
    run = type(imported.run)(shutil.copytree(imported.run.root, tmp_path / "run"))
    new, now = ScaleRouter.read(run.arm()), Router.load(run.root).decide(opened(0), QUESTIONS[0])
    for name in FILES:
        (run.arm() / name).unlink()
    old, before = ScaleRouter.read(run.arm()), Router.load(run.root).decide(opened(0), QUESTIONS[0])
    assert old.familiarity is None and old.fingerprint == new.fingerprint
    assert before.familiarity is None
    assert replace(now, familiarity=None, milliseconds={}) == replace(before, milliseconds={})


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_or_foreign_one_is_refused(imported, tmp_path, name):  # noqa: F811
    folder = shutil.copytree(imported.run.arm(), tmp_path / "router")
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[:-3])
    with pytest.raises(DataError):
        ScaleRouter.read(folder)
    (folder / name).write_bytes(whole)
    other = replace(ScaleRouter.read(folder), cost_unit="coins")
    other.write(tmp_path / "other")
    for one in FILES:
        shutil.copy(folder / one, tmp_path / "other" / one)
    with pytest.raises(MismatchError, match="belongs to another router"):
        ScaleRouter.read(tmp_path / "other")


def test_sizes_and_questions_alone_say_nothing_of_looks(imported, tmp_path):  # noqa: F811
    run = imported.run.copy_data(tmp_path / "run").opened()
    groups = ["question", "size"]
    trained = train_stage(run, estimator="logistic", feature_groups=groups, ablations=False)
    assert trained.familiarity is None


def test_what_is_unlike_is_told_in_a_sentence(imported, opened):  # noqa: F811
    decision = Router.load(imported.run.root).decide(opened(0), QUESTIONS[0])
    told = record_of(replace(decision, familiarity=0.004))
    assert told["familiarity"] == 0.004 and "fewer than 1 in 250 of them" in told["unlike"]
    assert "unlike" not in record_of(decision) and json.dumps(told)
    assert unfamiliar_sentence(0.01) and not unfamiliar_sentence(0.011)
    assert not unfamiliar_sentence(None)

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from m3router.data.scenes.drawing import PATCH, PATCH_LABELS, patch_labels, patch_weights, render
from m3router.data.scenes.export import (
    LABEL_SEEDS,
    TEST_SEEDS,
    TRAIN_SEEDS,
    VALIDATION_SEEDS,
    write_scenes,
)
from m3router.data.scenes.glyphs import CHARACTERS, glyph_mask
from m3router.data.scenes.questions import CHANCE, all_questions, ask_about
from m3router.data.scenes.world import CELLS, make_scene
from m3router.data.sources.jsonl import load_jsonl

SEEDS = st.integers(0, 40_000_000)
ABOUT = {  # kind of question -> whether an item is the one that its words are about
    "tag": lambda item, words: item.kind == "tag" and item.color in words,
    "sign": lambda item, words: item.kind == "sign" and item.color in words,
    "entry": lambda item, words: item.kind == "entry" and item.text[0] == words[-1],
    "bar value": lambda item, words: item.kind == "bar" and item.text[0] == words[-1],
    "shape color": lambda item, words: item.kind == "shape" and item.shape in words,
    "shape kind": lambda item, words: item.kind == "shape" and item.color in words,
}


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_items_lie_inside_and_never_overlap(seed):
    scene = make_scene(seed)
    taken = np.zeros((CELLS, CELLS), dtype=int)
    for item in scene.items:
        assert item.row >= 0 and item.row + item.height <= CELLS
        assert item.col >= 0 and item.col + item.width <= CELLS
        taken[item.row : item.row + item.height, item.col : item.col + item.width] += 1
    assert taken.max(initial=0) <= 1


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_a_seed_decides_the_scene_the_image_and_the_questions(seed):
    one, two = make_scene(seed), make_scene(seed)
    assert one == two
    assert np.array_equal(render(one), render(two))
    assert ask_about(one, 4) == ask_about(two, 4)


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_every_question_has_one_answer_that_the_scene_bears_out(seed):
    scene = make_scene(seed)
    questions = all_questions(scene)
    assert len({question.text for question in questions}) == len(questions)
    for question in questions:
        words = question.text.rstrip("?").lower().split()
        if question.kind not in ABOUT:
            continue
        (item,) = [one for one in scene.items if ABOUT[question.kind](one, words)]
        told = {
            "tag": item.text,
            "sign": item.text,
            "shape color": item.color,
            "shape kind": item.shape,
        }.get(question.kind, item.text[-1:])
        assert question.answer == told


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_patch_labels_say_what_is_drawn(seed):
    scene = make_scene(seed)
    labels = patch_labels(scene)
    assert labels["anchor"].sum() == len(scene.items)
    for name, classes in PATCH_LABELS.items():
        assert labels[name].shape == (CELLS, CELLS)
        assert labels[name].min() >= 0 and labels[name].max() < classes
    letters = Counter(labels["glyph"].flatten().tolist())
    for item in scene.items:
        if item.scale == 1:
            for character in item.text:
                assert letters[1 + CHARACTERS.index(character)] >= 1


def test_presence_is_asked_fairly():
    answers = Counter(
        question.answer
        for seed in range(1500)
        for question in all_questions(make_scene(seed))
        if question.kind == "presence"
    )
    assert 0.4 < answers["yes"] / answers.total() < 0.6


def test_all_glyphs_differ_and_scale():
    masks = {character: glyph_mask(character, 1).tobytes() for character in CHARACTERS}
    assert len(set(masks.values())) == len(CHARACTERS)
    big = glyph_mask("7", 3)
    assert big.shape == (21, 15)
    assert np.array_equal(big[::3, ::3], glyph_mask("7", 1))


def test_training_label_and_test_scenes_are_disjoint():
    ranges = [TRAIN_SEEDS, VALIDATION_SEEDS, LABEL_SEEDS, TEST_SEEDS]
    for one in ranges:
        for other in ranges:
            assert one is other or one.stop <= other.start or other.stop <= one.start


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_glyphs_stand_on_the_pooling_windows(seed):
    for item in make_scene(seed).items:
        if item.kind != "shape":
            assert item.scale in (1, 2, 4, 8)
            assert item.row % item.scale == 0 and item.col % item.scale == 0


def test_an_item_weighs_as_much_as_its_side_is_long():
    for seed in range(40):
        scene = make_scene(seed)
        weights = patch_weights(scene)
        total = sum(np.sqrt(item.height * item.width) for item in scene.items)
        assert weights.sum() == pytest.approx(total, rel=1e-4)
        assert (weights > 0).sum() == sum(item.height * item.width for item in scene.items)


def test_exported_scenes_are_a_source_of_examples(tmp_path):
    seeds = range(LABEL_SEEDS.start, LABEL_SEEDS.start + 5)
    path = write_scenes(tmp_path, seeds, questions=3)
    examples = load_jsonl(path, images=tmp_path / "images")
    assert len({example.group for example in examples}) == 5
    assert {example.dataset for example in examples} <= set(CHANCE)
    first = examples[0]
    with Image.open(tmp_path / "images" / first.image) as image:
        drawn = np.asarray(image)
    assert np.array_equal(drawn, render(make_scene(seeds.start)))
    assert drawn.shape == (CELLS * PATCH, CELLS * PATCH, 3)
    before = path.read_text()
    write_scenes(tmp_path, seeds, questions=3)
    assert path.read_text() == before
    assert all(json.loads(line)["chance"] > 0 for line in before.splitlines())

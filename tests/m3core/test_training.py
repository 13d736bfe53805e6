from __future__ import annotations

import copy

import pytest
import torch

from data.errors import MismatchError
from data.scenes.questions import ask_about
from data.scenes.world import make_scene
from m3core.embedded.architecture import new_model, new_tower
from m3core.embedded.curriculum import (
    CachedScenes,
    FreshScenes,
    SceneText,
    cache_tower,
    scene_pixels,
)
from m3core.embedded.tokenizer import SPECIAL, build_tokenizer
from m3core.objective import IGNORED, MatryoshkaBatch, MatryoshkaLoss, block_mask, pack
from m3core.prompts import get_template
from m3core.training import TrainingRecipe, train

TEMPLATE = get_template("scenes-1")


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture
def model(tokenizer):
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in SPECIAL.items()}
    return new_model(
        new_tower(scene_pixels(range(100)), seed=0), vocabulary=len(tokenizer), ids=ids, seed=0
    )


def recipe(**changes) -> TrainingRecipe:
    values = {"scales": (1, 9), "periods": (1, 1), "steps": 4, "learning_rate": 2e-3}
    return TrainingRecipe(**(values | {"warmup": 2, "save_every": 2} | changes))


def test_block_mask_against_its_definition():
    segments = torch.tensor([[1, 1, 2, 2, 2, 0]])
    mask = block_mask(segments, 3)[0, 0]
    owner = [None] * 3 + [1, 1, 2, 2, 2, 0]
    for row in range(9):
        for col in range(9):
            visible = col <= row and (owner[col] is None or owner[col] == owner[row])
            assert bool(mask[row, col]) == visible, (row, col)


def test_pack_predicts_exactly_the_answers():
    text = pack([[([5, 6], [7, 2]), ([8], [9, 2])], [([5], [2])]], before=[1], pad=0)
    assert text.ids.tolist() == [[5, 6, 7, 2, 8, 9, 2], [5, 2, 0, 0, 0, 0, 0]]
    x = IGNORED
    assert text.labels.tolist() == [[x, 7, 2, x, 9, 2, x], [2, x, x, x, x, x, x]]
    assert text.positions.tolist() == [[0, 1, 2, 3, 0, 1, 2], [0, 1, 0, 0, 0, 0, 0]]
    assert text.segments.tolist() == [[1, 1, 1, 1, 2, 2, 2], [1, 1, 0, 0, 0, 0, 0]]
    assert text.before.tolist() == [[1], [1]]


def test_packed_questions_have_the_loss_of_each_question_alone(model, tokenizer):
    text = SceneText(tokenizer, TEMPLATE, questions=4)
    batch = FreshScenes(0, text, batch=2)(0)
    objective, end = MatryoshkaLoss(model).eval(), tokenizer.eos_token_id
    encode = lambda words: tokenizer(words, add_special_tokens=False)["input_ids"]  # noqa: E731
    total = count = 0.0
    with torch.no_grad():
        together = objective(batch, (1, 36))
        for row in range(2):
            for question in ask_about(make_scene(row), 4):
                pair = (encode(TEMPLATE.text_after(question.text)), [*encode(question.answer), end])
                alone = pack([[pair]], before=[tokenizer.bos_token_id], pad=0)
                loss = objective(
                    MatryoshkaBatch(images=batch.images[row : row + 1], text=alone), (1, 36)
                )
                total, count = total + loss * len(pair[1]), count + len(pair[1])
    torch.testing.assert_close(together, total / count, atol=1e-4, rtol=1e-4)


def test_training_lowers_the_loss_at_every_scale(model, tokenizer, tmp_path):
    batches = FreshScenes(0, SceneText(tokenizer, TEMPLATE, questions=3), batch=2)
    fixed = batches(0)
    objective = MatryoshkaLoss(model)
    with torch.no_grad():
        before = objective(fixed, (1, 9))
    train(model, lambda step: fixed, recipe=recipe(steps=8), folder=tmp_path)
    with torch.no_grad():
        after = objective(fixed, (1, 9))
    assert (after < before - 0.5).all()


def test_an_interrupted_run_ends_with_the_weights_of_an_undisturbed_one(model, tokenizer, tmp_path):
    class Killed(RuntimeError):
        pass

    batches = FreshScenes(0, SceneText(tokenizer, TEMPLATE, questions=2), batch=2)
    undisturbed = train(copy.deepcopy(model), batches, recipe=recipe(), folder=tmp_path / "a")

    def dying(step):
        if step == 3:
            raise Killed
        return batches(step)

    with pytest.raises(Killed):
        train(copy.deepcopy(model), dying, recipe=recipe(), folder=tmp_path / "b")
    resumed = train(copy.deepcopy(model), batches, recipe=recipe(), folder=tmp_path / "b")
    for name, weight in undisturbed.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


def test_a_folder_of_another_recipe_is_refused(model, tokenizer, tmp_path):
    batches = FreshScenes(0, SceneText(tokenizer, TEMPLATE, questions=2), batch=2)
    train(model, batches, recipe=recipe(steps=2), folder=tmp_path)
    with pytest.raises(MismatchError, match="training of another recipe"):
        train(model, batches, recipe=recipe(steps=3), folder=tmp_path)


def test_a_frozen_tower_stays_as_it_was_and_a_free_one_moves(model, tokenizer, tmp_path):
    batches = FreshScenes(0, SceneText(tokenizer, TEMPLATE, questions=2), batch=2)
    before = copy.deepcopy(model.model.vision_tower.state_dict())
    train(model, batches, recipe=recipe(steps=2), folder=tmp_path / "frozen")
    after = model.model.vision_tower.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    free = recipe(steps=2, tower_learning_rate=1e-3)
    train(model, batches, recipe=free, folder=tmp_path / "free")
    after = model.model.vision_tower.state_dict()
    assert not all(torch.equal(before[name], after[name]) for name in before)


def test_cached_tower_tokens_give_the_loss_of_pixels(model, tokenizer, tmp_path):
    model.eval()
    text = SceneText(tokenizer, TEMPLATE, questions=2)
    table = cache_tower(model, 4, tmp_path / "tokens.npy")
    assert table.shape == (4, 576, 128)
    cached = CachedScenes(table, text, batch=2)
    objective = MatryoshkaLoss(model)
    with torch.no_grad():
        for step in (0, 1):
            fresh = FreshScenes(cached.seeds(step).start, text, batch=2)(0)
            torch.testing.assert_close(
                objective(cached(step), (9,)), objective(fresh, (9,)), atol=5e-3, rtol=0
            )


def test_scales_take_part_in_every_period_th_step():
    wanted = recipe(scales=(1, 576), periods=(1, 4))
    assert [wanted.scales_at(step) for step in (0, 1, 4)] == [(1, 576), (1,), (1, 576)]


def test_exact_match_counts_answers_not_tokens(model, tokenizer):
    """After fitting one batch, some answers are right; counted by hand from the logits."""
    text = SceneText(tokenizer, TEMPLATE, questions=3)
    batch = FreshScenes(0, text, batch=2)(0)
    objective = MatryoshkaLoss(model).eval()
    packed = batch.text
    with torch.no_grad():
        visual = objective._features(batch.images).mean(1, keepdim=True)
        logits, labels = objective._predict(visual, packed)
    hits, cells = {}, (packed.labels != IGNORED).nonzero().tolist()
    for (row, col), logit, label in zip(cells, logits, labels, strict=True):
        key = (row, int(packed.segments[row, col]))
        hits[key] = hits.get(key, True) and int(logit.argmax()) == int(label)
    expected = sum(hits.values()) / len(hits)
    assert objective.exact_match(batch, (1,)) == {1: pytest.approx(expected)}

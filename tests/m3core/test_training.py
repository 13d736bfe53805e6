from __future__ import annotations

import copy
import dataclasses
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from experiments.embedded_model.architecture import new_model, new_tower
from experiments.embedded_model.curriculum import (
    CachedScenes,
    FreshScenes,
    SceneText,
    cache_tower,
    scene_pixels,
)
from experiments.embedded_model.tokenizer import SPECIAL, build_tokenizer
from m3router.data.errors import MismatchError, ModelError
from m3router.data.scenes.questions import ask_about
from m3router.data.scenes.world import make_scene
from m3router.m3core.checkpoints import load_model
from m3router.m3core.checkpoints.families.llava import LlavaTrainable
from m3router.m3core.checkpoints.families.mqt import MqtTrainable
from m3router.m3core.checkpoints.families.table import trainable_of
from m3router.m3core.matryoshka.prompts import get_template
from m3router.m3core.matryoshka.scales import M3_SCALES, MQT_TRAINING_SCALES
from m3router.m3core.training.loop import train
from m3router.m3core.training.lora import add_lora, merged
from m3router.m3core.training.objective import (
    IGNORED,
    MatryoshkaBatch,
    MatryoshkaLoss,
    block_mask,
    pack,
)
from m3router.m3core.training.recipe import TrainingRecipe
from tests.m3core import layouts

TEMPLATE = get_template("scenes-1")


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def untrained(tokenizer):
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in SPECIAL.items()}
    return new_model(
        new_tower(scene_pixels(range(100)), seed=0),
        vocabulary=len(tokenizer),
        ids=ids,
        seed=0,
    )


@pytest.fixture
def model(untrained):
    """A copy to train."""
    return copy.deepcopy(untrained)


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
    objective, end = MatryoshkaLoss(LlavaTrainable(model)).eval(), tokenizer.eos_token_id
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


@pytest.mark.parametrize(
    ("steps", "scales", "settings"),
    [
        (6, M3_SCALES, {}),
        (10, (1, 9, 36), {"choice": "random"}),
        (8, (1, 9, 36), {"lora_rank": 8, "learning_rate": 1e-2}),
    ],
    ids=["all scales", "one random scale", "lora"],
)
def test_training_lowers_the_loss_at_every_scale(
    model, tokenizer, tmp_path, steps, scales, settings
):
    batches = FreshScenes(0, SceneText(tokenizer, TEMPLATE, questions=3), batch=1)
    fixed = batches(0)
    objective = MatryoshkaLoss(LlavaTrainable(model))
    wanted = recipe(scales=scales, periods=None, steps=steps, save_every=100, **settings)
    with torch.no_grad():
        before = objective(fixed, scales)
    train(LlavaTrainable(model), lambda step: fixed, recipe=wanted, folder=tmp_path)
    with torch.no_grad():
        after = objective(fixed, scales)
    assert (after < before - 0.5).all(), (before, after)


def test_an_interrupted_run_ends_with_the_weights_of_an_undisturbed_one(model, tokenizer, tmp_path):
    class Killed(RuntimeError):
        pass

    batches = FreshScenes(0, SceneText(tokenizer, TEMPLATE, questions=2), batch=2)
    undisturbed = train(
        LlavaTrainable(copy.deepcopy(model)), batches, recipe=recipe(), folder=tmp_path / "a"
    )

    def dying(step):
        if step == 3:
            raise Killed
        return batches(step)

    with pytest.raises(Killed):
        train(LlavaTrainable(copy.deepcopy(model)), dying, recipe=recipe(), folder=tmp_path / "b")
    resumed = train(
        LlavaTrainable(copy.deepcopy(model)), batches, recipe=recipe(), folder=tmp_path / "b"
    )
    for name, weight in undisturbed.items():
        assert torch.equal(weight, resumed[name]), name


def test_a_folder_of_another_recipe_is_refused(model, tokenizer, tmp_path):
    batches = FreshScenes(0, SceneText(tokenizer, TEMPLATE, questions=2), batch=2)
    train(LlavaTrainable(model), batches, recipe=recipe(steps=2), folder=tmp_path)
    with pytest.raises(MismatchError, match="training of another recipe"):
        train(LlavaTrainable(model), batches, recipe=recipe(steps=3), folder=tmp_path)


def test_a_frozen_tower_stays_as_it_was_and_a_free_one_moves(model, tokenizer, tmp_path):
    batches = FreshScenes(0, SceneText(tokenizer, TEMPLATE, questions=2), batch=2)
    before = copy.deepcopy(model.model.vision_tower.state_dict())
    train(LlavaTrainable(model), batches, recipe=recipe(steps=2), folder=tmp_path / "frozen")
    after = model.model.vision_tower.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    free = recipe(steps=2, tower_learning_rate=1e-3)
    train(LlavaTrainable(model), batches, recipe=free, folder=tmp_path / "free")
    after = model.model.vision_tower.state_dict()
    assert not all(torch.equal(before[name], after[name]) for name in before)


def test_cached_tower_tokens_give_the_loss_of_pixels(model, tokenizer, tmp_path):
    model.eval()
    text = SceneText(tokenizer, TEMPLATE, questions=2)
    table = cache_tower(model, 4, tmp_path / "tokens.npy")
    assert table.shape == (4, 576, 128)
    cached = CachedScenes(table, text, batch=2)
    objective = MatryoshkaLoss(LlavaTrainable(model))
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
    objective = MatryoshkaLoss(LlavaTrainable(model)).eval()
    packed = batch.text
    with torch.no_grad():
        visual = objective.trainable.encode(batch.images).mean(1, keepdim=True)
        logits, labels = objective._predict(visual, packed)
    hits, cells = {}, (packed.labels != IGNORED).nonzero().tolist()
    for (row, col), logit, label in zip(cells, logits, labels, strict=True):
        key = (row, int(packed.segments[row, col]))
        hits[key] = hits.get(key, True) and int(logit.argmax()) == int(label)
    expected = sum(hits.values()) / len(hits)
    assert objective.exact_match(batch, (1,)) == {1: pytest.approx(expected)}


def test_random_scales_depend_on_seed_and_step_alone():
    one = recipe(scales=MQT_TRAINING_SCALES, periods=None, choice="random", steps=2000)
    drawn = [one.scales_at(step) for step in range(2000)]
    assert [one.scales_at(step) for step in reversed(range(2000))] == drawn[::-1]
    assert all(len(scales) == 1 for scales in drawn)
    assert {m for (m,) in drawn} == set(range(2, 257, 2))  # each of the 128 comes up
    other = dataclasses.replace(one, seed=1)
    assert [other.scales_at(step) for step in range(2000)] != drawn


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"scales": (1, 9, 36, 144, 576), "periods": (4, 3, 2, 2, 3)}, "leave step 1 without any"),
        ({"periods": (1,)}, "one whole number from 1 for each of the 2 scales"),
        ({"periods": (1, 0)}, "one whole number from 1"),
        ({"choice": "random"}, "mean nothing with choice 'random'"),
        ({"choice": "some"}, "choice must be 'periods' or 'random', got 'some'"),
        ({"scales": (9, 1)}, "must ascend"),
        ({"steps": 0}, "steps must be 1 or more, got 0"),
        ({"lora_rank": 4, "muon_learning_rate": 1e-3}, "Muon is for whole matrices"),
        ({"lora_dropout": 1.0}, r"lora_dropout in \[0, 1\)"),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_refused(changes, what):
    with pytest.raises(MismatchError, match=what):
        recipe(**changes)


@given(
    periods=st.lists(st.integers(1, 5), min_size=2, max_size=2),
    steps=st.integers(1, 40),
)
def test_periods_are_refused_just_when_a_step_would_be_empty(periods, steps):
    empty = any(all(step % period for period in periods) for step in range(steps))
    if empty:
        with pytest.raises(MismatchError, match="without any scale"):
            recipe(periods=tuple(periods), steps=steps)
    else:
        recipe(periods=tuple(periods), steps=steps)


def test_a_state_from_before_a_setting_existed_counts_as_its_default(model, tokenizer, tmp_path):
    batches = FreshScenes(0, SceneText(tokenizer, TEMPLATE, questions=2), batch=2)
    trained = train(LlavaTrainable(model), batches, recipe=recipe(steps=2), folder=tmp_path)
    file = tmp_path / "state" / "progress.json"
    progress = json.loads(file.read_text())
    for later in ("choice", "lora_rank", "gradient_checkpointing"):
        del progress["recipe"][later]
    del progress["processes"]
    file.write_text(json.dumps(progress))
    again = train(LlavaTrainable(model), batches, recipe=recipe(steps=2), folder=tmp_path)
    assert all(torch.equal(again[name], trained[name]) for name in trained)


def test_a_state_of_more_processes_is_refused(model, tokenizer, tmp_path):
    batches = FreshScenes(0, SceneText(tokenizer, TEMPLATE, questions=2), batch=2)
    train(LlavaTrainable(model), batches, recipe=recipe(steps=2), folder=tmp_path)
    file = tmp_path / "state" / "progress.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"processes": 2}))
    with pytest.raises(MismatchError, match="by 2 processes, and this one has 1"):
        train(LlavaTrainable(model), batches, recipe=recipe(steps=2), folder=tmp_path)


def test_a_scale_that_the_model_lacks_is_refused_before_training(model, tmp_path):
    with pytest.raises(MismatchError, match="scale 10 does not nest"):
        train(LlavaTrainable(model), None, recipe=recipe(scales=(1, 10)), folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_row_without_an_image_has_the_loss_of_its_text_alone(model):
    text = [([5, 6, 7], [8, 2]), ([9, 10], [11, 12, 2])]
    alone = pack([text], before=[1], pad=0, conversations=True, blind=[True])
    objective = MatryoshkaLoss(LlavaTrainable(model)).eval()
    with torch.no_grad():
        images = scene_pixels(range(1))
        losses = objective(MatryoshkaBatch(images=images, text=alone), (1, 576))
        ids = torch.tensor([[5, 6, 7, 8, 2, 9, 10, 11, 12, 2]])
        plain = model.lm_head(model.model.language_model(input_ids=ids).last_hidden_state)[0]
    wanted = {2: 8, 3: 2, 6: 11, 7: 12, 8: 2}
    expected = F.cross_entropy(plain[list(wanted)], torch.tensor(list(wanted.values())))
    torch.testing.assert_close(losses, expected.expand(2), atol=1e-5, rtol=1e-5)


# --- LoRA and gradient checkpointing -------------------------------------------------------------


def test_lora_changes_only_what_it_should_and_is_merged(model, tokenizer, tmp_path):
    batches = FreshScenes(0, SceneText(tokenizer, TEMPLATE, questions=2), batch=2)
    before = copy.deepcopy(model.state_dict())
    trained = train(
        LlavaTrainable(model), batches, recipe=recipe(lora_rank=2, steps=2), folder=tmp_path
    )
    assert trained.keys() == model.state_dict().keys() == before.keys()
    changed = {name for name in before if not torch.equal(before[name], trained[name])}
    layers = model.config.text_config.num_hidden_layers
    projections = {
        f"model.language_model.layers.{layer}.{part}.weight"
        for layer in range(layers)
        for part in [f"self_attn.{one}_proj" for one in "qkvo"]
        + [f"mlp.{one}_proj" for one in ("gate", "up", "down")]
    }
    connector = {name for name in before if ".multi_modal_projector." in name}
    assert changed == projections | connector
    for name in projections:
        assert torch.linalg.matrix_rank((trained[name] - before[name]).double(), atol=1e-7) <= 2


def test_merged_weights_answer_as_the_updates_did(model):
    trainable = LlavaTrainable(model.eval())
    batch = MatryoshkaBatch(
        images=scene_pixels(range(2)),
        text=pack([[([5, 6], [7, 2])], [([8], [9, 2])]], before=[1], pad=0),
    )
    objective = MatryoshkaLoss(trainable)
    with torch.no_grad():
        plain = objective(batch, (1, 36))
        updates = add_lora(trainable, rank=3, alpha=12, dropout=0.0)
        torch.testing.assert_close(objective(batch, (1, 36)), plain)
        for name, parameter in trainable.language.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.1)
        updated = objective(batch, (1, 36))
        assert (updated - plain).abs().min() > 1e-3
        weights = merged(model.state_dict(), scaling=4.0)
        updates.unload()
        model.load_state_dict(weights)
        torch.testing.assert_close(objective(batch, (1, 36)), updated, atol=1e-4, rtol=1e-4)


def test_lora_without_peft_names_what_to_install(model, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install 'm3router\[train\]'"):
        train(LlavaTrainable(model), None, recipe=recipe(lora_rank=2), folder=tmp_path)


def test_gradient_checkpointing_gives_the_same_gradients(model, tokenizer):
    batch = FreshScenes(0, SceneText(tokenizer, TEMPLATE, questions=2), batch=2)(0)
    objective = MatryoshkaLoss(LlavaTrainable(model)).train()
    seen: list[dict[str, torch.Tensor]] = []
    calls = []
    first = model.model.language_model.layers[0].input_layernorm
    first.register_forward_hook(lambda *_: calls.append(1))
    for on in (False, True):
        if on:
            for part in (model.model.language_model, model.model.vision_tower):
                part.gradient_checkpointing_enable({"use_reentrant": False})
        objective.zero_grad()
        objective(batch, (1, 36)).mean().backward()
        seen.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert len(calls) == 2 + 4  # each scale once, and once more where activations are recomputed
    assert seen[0].keys() == seen[1].keys()
    for name, gradient in seen[0].items():
        torch.testing.assert_close(seen[1][name], gradient, atol=1e-6, rtol=1e-4)


def test_a_run_with_gradient_checkpointing_ends_with_the_same_weights(model, tokenizer, tmp_path):
    batches = FreshScenes(0, SceneText(tokenizer, TEMPLATE, questions=2), batch=2)
    ends = [
        train(
            LlavaTrainable(copy.deepcopy(model)),
            batches,
            recipe=recipe(steps=2, gradient_checkpointing=on, tower_learning_rate=1e-3),
            folder=tmp_path / str(on),
        )
        for on in (False, True)
    ]
    for name, weight in ends[0].items():
        torch.testing.assert_close(ends[1][name], weight, atol=1e-4, rtol=1e-3)


# --- MQT-LLaVA -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mqt_folder(tmp_path_factory):
    return layouts.write(tmp_path_factory.mktemp("mqt") / "tiny", *layouts.published("mqt"))


def mqt_batch() -> MatryoshkaBatch:
    images = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    text = pack([[([5, 6], [7, 2])], [([8, 20], [9, 10, 2])]], before=[1, 30], pad=0)
    return MatryoshkaBatch(images=images, text=text)


def test_mqt_losses_are_those_of_its_own_encodings(mqt_folder):
    """Each number of tokens by hand: tower, the layer asked for so many, embeddings, decoder."""
    model, batch = load_model(str(mqt_folder), device="cpu"), mqt_batch()
    with torch.no_grad():
        losses = MatryoshkaLoss(MqtTrainable(model)).eval()(batch, (2, 36, 256))
        for loss, tokens in zip(losses, (2, 36, 256), strict=True):
            hidden = model.tower(batch.images, output_hidden_states=True).hidden_states[-2][:, 1:]
            visual, total, count = model.abstractor(hidden, tokens), 0.0, 0
            for row, (prompt, answer) in enumerate([([5, 6], [7, 2]), ([8, 20], [9, 10, 2])]):
                embed = model.model.get_input_embeddings()
                parts = [
                    embed(torch.tensor([1, 30])),
                    visual[row],
                    embed(torch.tensor(prompt + answer)),
                ]
                logits = model.model(inputs_embeds=torch.cat(parts)[None]).logits[0]
                predicted = logits[-len(answer) - 1 : -1]
                total += F.cross_entropy(predicted, torch.tensor(answer), reduction="sum")
                count += len(answer)
            torch.testing.assert_close(loss, total / count, atol=1e-5, rtol=1e-5)


def test_mqt_with_random_m_learns_and_resumes_to_the_same_weights(mqt_folder, tmp_path):
    batch, watched = mqt_batch(), (2, 36, 256)
    settings = {"scales": MQT_TRAINING_SCALES, "periods": None, "choice": "random", "steps": 12}
    wanted = recipe(**settings, save_every=5, learning_rate=5e-3, tower_learning_rate=1e-4)

    def dying(step):
        if step == 8:
            raise RuntimeError("killed")
        return batch

    model = load_model(str(mqt_folder), device="cpu")
    objective = MatryoshkaLoss(MqtTrainable(model)).eval()
    queries = model.abstractor.query.detach().clone()
    with torch.no_grad():
        before = objective(batch, watched)
    trained = train(MqtTrainable(model), lambda step: batch, recipe=wanted, folder=tmp_path / "a")
    with torch.no_grad():
        after = objective(batch, watched)
    assert (after < before - 0.2).all()
    assert not torch.equal(model.abstractor.query, queries)  # its attention learns too
    other = MqtTrainable(load_model(str(mqt_folder), device="cpu"))
    with pytest.raises(RuntimeError, match="killed"):
        train(other, dying, recipe=wanted, folder=tmp_path / "b")
    fresh = MqtTrainable(load_model(str(mqt_folder), device="cpu"))
    resumed = train(fresh, lambda step: batch, recipe=wanted, folder=tmp_path / "b")
    assert all(torch.equal(resumed[name], trained[name]) for name in trained)


def test_mqt_refuses_more_tokens_than_queries(mqt_folder, tmp_path):
    trainable = trainable_of(load_model(str(mqt_folder), device="cpu"))
    with pytest.raises(MismatchError, match="any number from 1 to 256"):
        train(trainable, None, recipe=recipe(scales=(2, 300)), folder=tmp_path)


def test_a_family_without_training_is_named(random_m3):
    assert isinstance(trainable_of(random_m3), LlavaTrainable)
    with pytest.raises(MismatchError, match="a FakeModel cannot be trained"):
        trainable_of(load_model("fake"))

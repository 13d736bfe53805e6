from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModel,
)

from m3router.data.errors import DataError, ModelError
from m3router.data.example import Example
from m3router.m3core.encoders import load_encoder, nested_scales
from m3router.m3core.labelling import label
from m3router.m3core.matryoshka.base import GridEncoding
from m3router.m3core.matryoshka.models.fake import FakeModel
from m3router.m3core.matryoshka.pooling import detail_by_region
from m3router.m3core.matryoshka.scales import ScaleGrid
from m3router.router.features.examples import FeatureInput
from m3router.router.features.extract import FeatureCollector
from m3router.router.features.featurizer import Featurizer
from m3router.router.features.groups import FEATURE_GROUPS
from m3router.router.features.image import image_features
from m3router.router.features.question import HashedQuestions, ModelQuestions, question_encoder
from m3router.router.runs.run import Run
from m3router.router.stages.labelling import featurize_stage, label_stage

GRID = ScaleGrid()
WORD_IDS = ([2, 4, 5, 3], [2, 5, 3], [2, 4, 5, 3])  # red on; on; red on


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16))
def test_detail_lost_splits_the_variance_exactly(seed):
    tokens = torch.randn(576, 4, generator=torch.Generator().manual_seed(seed))
    steps = zip(GRID.scales[:-1], GRID.scales[1:], strict=True)
    details = [detail_by_region(tokens, coarse, fine, regions=1)[0] for coarse, fine in steps]
    added = sum(detail.double().square().mean(0) for detail in details)
    torch.testing.assert_close(added, tokens.double().var(0, correction=0), rtol=1e-5, atol=1e-6)


def test_image_features_of_a_flat_and_of_a_fine_image():
    flat = torch.ones(576, 4)
    chequered = flat.clone()
    chequered[::2] = -1  # alternates within every 2 x 2 block: only the last step sees it
    width = 4 + 4 * (4 + 2)
    for tokens in (flat, chequered):
        assert image_features(GridEncoding(features=tokens), GRID).shape == (width,)
    flat_features = image_features(GridEncoding(features=flat), GRID)
    assert np.allclose(flat_features[:4], 1) and np.allclose(flat_features[4:8], 0)
    fine = image_features(GridEncoding(features=chequered), GRID)
    energies = [fine[4 + step * 6 + 4] for step in range(4)]
    assert energies == pytest.approx([0, 0, 0, 1], abs=1e-6)


def test_detail_in_one_corner_is_told_from_detail_everywhere():
    everywhere = torch.randn(576, 4, generator=torch.Generator().manual_seed(0))
    corner = torch.zeros(24, 24, 4)
    corner[:8, :8] = everywhere.reshape(24, 24, 4)[:8, :8]
    spread = image_features(GridEncoding(features=everywhere), GRID)
    local = image_features(GridEncoding(features=corner.reshape(576, 4)), GRID)
    assert spread[-1] < 0.2
    assert local[-1] == pytest.approx(1.0)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(5):
        pixels = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    asked = [
        Example(
            id=f"{number}-{ask}",
            image=f"{number}.png",
            question="Is it so?" if ask else "What in the world is it?",
            answers=("yes",),
            group=f"{number}.png",
        )
        for number in range(5)
        for ask in range(2)
    ]
    return folder, asked


def collector_of(folder, examples, images):
    model = FakeModel()
    featurizer = Featurizer(
        feature_groups=tuple(FEATURE_GROUPS), model=model, questions=ModelQuestions(model)
    )
    asked = [FeatureInput(one.id, one.image, one.question) for one in examples]
    return FeatureCollector(folder, featurizer, asked, images=images)


def test_features_of_the_labelling_pass_equal_those_of_a_pass_of_their_own(source, tmp_path):
    images, asked = source
    run, other = Run(tmp_path / "a"), Run(tmp_path / "b")
    label_stage(run, asked, images=images, model=FakeModel(), feature_groups=tuple(FEATURE_GROUPS))
    table = run.features(run.log())
    label(asked, images=images, model=FakeModel(), folder=other.log_folder)
    alone, causes = featurize_stage(
        other, images=images, encoder="fake", feature_groups=tuple(FEATURE_GROUPS)
    )
    assert causes == {}
    assert alone.ids == table.ids == tuple(one.id for one in asked)
    assert alone.metadata == table.metadata
    assert list(alone.blocks) == list(table.blocks) == list(FEATURE_GROUPS)
    for name in alone.blocks:
        np.testing.assert_array_equal(alone.blocks[name], table.blocks[name])


def test_an_interrupted_collection_goes_on(source, tmp_path):
    images, asked = source
    names = [one.image for one in asked]
    with collector_of(tmp_path / "features", asked, images) as collector:
        collector.collect(names[:4])
    calls = []
    with collector_of(tmp_path / "features", asked, images) as collector:
        collector.collect(names, lambda *told: calls.append(told))
        assert collector.causes == {}
    assert calls == [(5, 5, "images")]
    with collector_of(tmp_path / "features", asked, images) as collector:
        collector.collect(names, lambda *told: calls.append(told))
    assert len(calls) == 1  # nothing was left to do


def test_unreadable_images_are_named_and_left_out(source, tmp_path):
    images, asked = source
    run = Run(tmp_path / "run")
    label(asked, images=images, model=FakeModel(), folder=run.log_folder)
    (images / "1.png").write_bytes(b"no picture")
    table, causes = featurize_stage(run, images=images, encoder="fake")
    assert list(causes) == ["1.png"]
    assert len(table) == 8
    for number in range(5):
        (images / f"{number}.png").unlink()
    other = Run(tmp_path / "other")
    label(asked, images=images, model=FakeModel(), folder=other.log_folder)
    with pytest.raises(DataError, match="no image could be read"):
        featurize_stage(other, images=images, encoder="fake")
    with pytest.raises(DataError, match="images folder .* does not exist"):
        featurize_stage(other, images=tmp_path / "nowhere", encoder="fake")


def test_any_log_gets_features_from_a_clip_tower_without_an_lmm(source, tmp_path):
    images, asked = source
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=4,
    )
    clip = str(tmp_path / "clip")
    CLIPVisionModel(config).save_pretrained(clip)
    CLIPImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(clip)
    assert load_encoder(clip).grid.scales == (1, 4, 16, 64)
    run = Run(tmp_path / "run")
    label(asked, images=images, model=FakeModel(), folder=run.log_folder)
    table, causes = featurize_stage(run, images=images, encoder=clip)
    assert table.widths == {"image": 16 + 3 * 18, "question": 128, "size": 4} and causes == {}
    assert table.metadata["question_encoder"] == "hashed"
    assert not np.array_equal(table.blocks["image"][0], table.blocks["image"][2])
    assert np.array_equal(table.blocks["image"][0], table.blocks["image"][1])


def test_hashed_words_know_words_and_their_order():
    rows = HashedQuestions().encode(["red on blue", "blue on red", "red on blue"])
    assert rows.shape == (3, 128)
    assert np.array_equal(rows[0], rows[2]) and not np.array_equal(rows[0], rows[1])
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-6)


def test_model_questions_summarise_the_tokens():
    model = FakeModel()
    (row,) = ModelQuestions(model).encode(["What is it?"])
    tokens = model.embed_question("What is it?")
    np.testing.assert_allclose(row[:8], tokens.mean(0))
    np.testing.assert_allclose(row[8:16], tokens.max(0))
    assert row[16] == pytest.approx(np.log(len(tokens)))


def test_a_sentence_encoder_is_loaded_by_folder(tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    (tmp_path / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "on"])
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=6,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    BertModel(config).save_pretrained(tmp_path)
    BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    encoder = question_encoder(f"sentence:{tmp_path}")
    rows = encoder.encode(["red on", "on", "red on"])
    direct = sentence_transformers.SentenceTransformer(str(tmp_path), device="cpu")
    np.testing.assert_allclose(rows, direct.encode(["red on", "on", "red on"]), atol=1e-6)
    assert rows.shape == (3, 16) and rows.dtype == np.float32
    bert = BertModel.from_pretrained(tmp_path).eval()
    with torch.inference_mode():  # mean pooling by hand; the word ids include [CLS] and [SEP]
        by_hand = [bert(torch.tensor([ids])).last_hidden_state[0].mean(0) for ids in WORD_IDS]
    np.testing.assert_allclose(rows, torch.stack(by_hand).numpy(), atol=1e-5)
    again = question_encoder(encoder.name)
    assert again.revision == encoder.revision != ""
    (tmp_path / "vocab.txt").write_text((tmp_path / "vocab.txt").read_text() + "\nnew")
    assert question_encoder(encoder.name).revision != encoder.revision
    assert question_encoder(encoder.name).name == encoder.name


def test_unknown_question_encoders_are_refused():
    with pytest.raises(DataError, match="Unknown question encoder 'bert'"):
        question_encoder("bert", FakeModel())
    with pytest.raises(DataError, match="needs a multi-scale model"):
        question_encoder("model")


@given(st.integers(1, 64))
def test_nested_scales_nest(side):
    scales = nested_scales(side)
    assert scales[0] == 1 and scales[-1] == side * side and len(scales) <= 5
    if side > 1:
        assert ScaleGrid(scales=scales, side=side).finest == side * side
    for coarse, fine in zip(scales[:-1], scales[1:], strict=True):
        assert fine % coarse == 0 and round(fine**0.5) % round(coarse**0.5) == 0


def test_a_model_that_is_no_image_encoder_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelError, match="'bert' model"):
        load_encoder(str(tmp_path))
    with pytest.raises(ModelError, match="neither 'embedded'"):
        load_encoder(str(tmp_path / "nowhere"))

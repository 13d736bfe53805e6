from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from m3router.data.errors import DataError, MismatchError, ModelError
from m3router.data.scenes.drawing import render
from m3router.data.scenes.world import make_scene
from m3router.m3core.checkpoints import load_model, revision_of
from m3router.m3core.matryoshka.base import Request
from m3router.m3core.matryoshka.preprocessing import pad_to_square

QUESTIONS = ["What color is the background?", "Is there a red ring?", "How many shapes are there?"]


def new_image(seed: int) -> Image.Image:
    return Image.fromarray(render(make_scene(seed)))


def test_mixed_scales_in_one_batch_answer_as_each_alone(random_m3):
    encodings = random_m3.encode([new_image(seed) for seed in range(3)])
    requests = [
        Request(encoding=encodings[index % 3], question=QUESTIONS[index % 3], scale=scale)
        for index, scale in enumerate([576, 1, 9, 36, 144, 1])
    ]
    together = random_m3.answer(requests)
    alone = [random_m3.answer([request])[0] for request in requests]
    assert [one.text for one in together] == [one.text for one in alone]
    for batched, single in zip(together, alone, strict=True):
        assert batched.logprob == pytest.approx(single.logprob, abs=1e-3)
        assert batched.answer_tokens == single.answer_tokens
    assert [one.visual_tokens for one in together] == [576, 1, 9, 36, 144, 1]


def test_the_finest_scale_equals_the_stock_model(random_m3):
    """The reference is Hugging Face's own forward pass with image placeholders and pixels."""
    image, question = new_image(5), QUESTIONS[0]
    tokenizer, model = random_m3.tokenizer, random_m3.model
    prompt = tokenizer(f"{question} answer:", add_special_tokens=False)["input_ids"]
    ids = [tokenizer.bos_token_id] + [model.config.image_token_index] * 576 + prompt
    pixels = random_m3.image_processor(image, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids]), pixel_values=pixels).logits[0, -1]
    stock = logits.float().log_softmax(-1)
    request = Request(encoding=random_m3.encode([image])[0], question=question, scale=576)
    answer = random_m3.answer([request])[0]
    assert answer.confidence == pytest.approx(float(stock.max().exp()), rel=1e-4)
    assert answer.text_tokens == len(prompt) + 1


def test_a_image_that_is_not_square_is_padded_with_the_mean_colour():
    padded = np.asarray(pad_to_square(Image.new("RGB", (4, 2), (255, 0, 0)), (0.5, 0.25, 0.0)))
    assert padded.shape == (4, 4, 3)
    assert (padded[0] == (127, 63, 0)).all()
    assert (padded[1:3] == (255, 0, 0)).all()


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 3)])
def test_odd_image_sizes_are_encoded(random_m3, size):
    (encoding,) = random_m3.encode([Image.new("RGB", size)])
    assert encoding.features.shape == (576, 128)
    assert torch.isfinite(encoding.features).all()


def test_a_question_longer_than_the_context_is_refused(random_m3):
    question = "red " * 1100
    with pytest.raises(DataError, match=r"does not fit: 1\d\d\d text tokens, 1 visual.*1024"):
        random_m3.prompt_length(question, 1)


def test_an_empty_question_and_an_unknown_scale_are_refused(random_m3):
    with pytest.raises(DataError, match="question is empty"):
        random_m3.prompt_length("  ", 1)
    (encoding,) = random_m3.encode([new_image(0)])
    with pytest.raises(MismatchError, match="scale 100 is not in"):
        random_m3.answer([Request(encoding=encoding, question="What?", scale=100)])


@pytest.fixture
def broken(random_checkpoint, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(random_checkpoint, folder)
    return folder


def test_missing_and_unexpected_weights_are_listed(broken):
    weights = load_file(broken / "model.safetensors")
    key = next(name for name in weights if name.endswith("linear_1.weight"))
    weights["something.else"] = weights.pop(key)
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="linear_1.weight.*unexpected keys: something.else"):
        load_model(str(broken))


def test_weights_of_another_shape_are_refused(broken):
    weights = load_file(broken / "model.safetensors")
    key = next(name for name in weights if name.endswith("linear_1.weight"))
    weights[key] = torch.zeros(3, 3)
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="linear_1.weight"):
        load_model(str(broken))


def test_truncated_weights_are_refused(broken):
    file = broken / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(str(broken))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "must hold a JSON object"),
        ('{"model_type": "llava_mistral"}', "model_type 'llava_mistral'.*loads 'llava_llama'"),
    ],
)
def test_a_bad_config_is_refused(broken, content, message):
    (broken / "config.json").write_text(content)
    with pytest.raises(ModelError, match=message):
        load_model(str(broken))


def test_a_folder_without_config_or_tokenizer_is_refused(broken, tmp_path):
    with pytest.raises(ModelError, match="no config.json"):
        load_model(str(tmp_path))
    (broken / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="tokenizer"):
        load_model(str(broken))


def test_a_grid_that_does_not_fit_the_tower_is_refused(broken):
    config = json.loads((broken / "config.json").read_text())
    config["matryoshka"]["scales"] = [1, 100, 576]
    (broken / "config.json").write_text(json.dumps(config))
    with pytest.raises(MismatchError, match="scale 100 does not nest"):
        load_model(str(broken))


def test_unknown_dtype_is_refused():
    with pytest.raises(ModelError, match="unknown dtype 'int3'"):
        load_model("embedded", dtype="int3")


def test_the_revision_changes_with_one_byte(broken):
    before = revision_of(broken)
    file = broken / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert revision_of(broken) != before

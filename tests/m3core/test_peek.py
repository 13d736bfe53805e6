from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from m3router.data.errors import DataError, MismatchError
from m3router.data.scenes.drawing import render
from m3router.data.scenes.world import make_scene
from m3router.m3core.checkpoints import load_model
from m3router.m3core.matryoshka.base import MultiScaleModel, Request
from m3router.m3core.matryoshka.batching import Limits, answer_all, peek_in_batches
from m3router.m3core.matryoshka.models.fake import FakeModel
from m3router.m3core.matryoshka.prefill_probe import LIKELIEST
from tests.m3core.peeks import check_peeks, positions_read

QUESTIONS = ["What color is the background?", "Is there a red ring?", "How many shapes are there?"]


def new_image(seed: int) -> Image.Image:
    return Image.fromarray(render(make_scene(seed)))


@pytest.fixture(scope="module")
def embedded():
    return load_model("embedded", device="cpu")


def test_peeks_of_random_weights(random_m3):
    check_peeks(random_m3, [new_image(seed) for seed in range(4)], QUESTIONS)


def test_peeks_of_the_shipped_model(embedded):
    assert isinstance(embedded, MultiScaleModel) and embedded.peek([]) == embedded.finish([]) == []
    check_peeks(embedded, [new_image(seed) for seed in range(6)], QUESTIONS)


def test_a_peek_shows_the_stock_models_states(embedded):
    """The reference is one plain forward pass of the whole prompt that returns all states."""
    (encoding,) = embedded.encode([new_image(5)])
    request = Request(encoding=encoding, question=QUESTIONS[2], scale=9)
    prompt = embedded.embed_prompt(request)[None]
    with torch.inference_mode():
        stock = embedded.model(inputs_embeds=prompt, output_hidden_states=True)
    logprobs = stock.logits[0, -1].double().log_softmax(-1)
    (peek,) = embedded.peek([request])
    layers = embedded.model.config.text_config.num_hidden_layers
    middle, last = stock.hidden_states[layers // 2], stock.hidden_states[-1]
    np.testing.assert_allclose(peek.middle, middle[0, -1].numpy(), atol=1e-4)
    np.testing.assert_allclose(peek.last, last[0, -1].numpy(), atol=1e-4)
    assert peek.entropy == pytest.approx(float(-(logprobs.exp() * logprobs).sum()), abs=1e-4)
    best = np.sort(logprobs.numpy())[::-1][:LIKELIEST]
    np.testing.assert_allclose(peek.top_logprobs, best, atol=1e-4)
    assert peek.visual_tokens + peek.text_tokens == prompt.shape[1]


def test_nothing_looks_on_when_nobody_peeks(embedded):
    (encoding,) = embedded.encode([new_image(0)])
    parts = list(embedded.model.get_decoder().modules())  # transformers has hooks of its own
    before = [len(part._forward_hooks) for part in parts]
    embedded.peek([Request(encoding=encoding, question=QUESTIONS[0], scale=1)])
    assert [len(part._forward_hooks) for part in parts] == before


def test_batches_of_peeks_keep_to_the_limits(embedded):
    requests = [
        Request(encoding=encoding, question=question, scale=1)
        for encoding in embedded.encode([new_image(seed) for seed in range(5)])
        for question in QUESTIONS
    ]
    answers, finished = answer_all(embedded, requests), {}
    with positions_read(embedded) as read:
        for batch in peek_in_batches(embedded, requests, Limits(requests=4)):
            assert len(batch.indices) <= 4 and batch.error is None
            found = embedded.finish(batch.answers)
            finished |= dict(zip(batch.indices, found, strict=True))
    assert max(rows for rows, _ in read) <= 4
    assert [finished[place].text for place in range(15)] == [one.text for one in answers]


def test_the_fake_model_peeks_at_what_it_says():
    model = FakeModel()
    requests = [
        Request(encoding=encoding, question=question, scale=1)
        for encoding in model.encode([new_image(0), Image.new("RGB", (9, 9))])
        for question in ("Is it?", "Is there anything at all to be seen in this image?")
    ]
    first, again = model.peek(requests), model.peek(requests)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.middle, other.middle)
        np.testing.assert_array_equal(one.last, other.last)
        assert np.exp(one.top_logprobs).sum() == pytest.approx(1)
    assert model.finish(first) == model.answer(requests)


@pytest.mark.parametrize("name", ["fake", "embedded"])
def test_what_cannot_be_peeked_at_is_refused(name):
    model = load_model(name)
    (encoding,) = model.encode([new_image(0)])
    with pytest.raises(MismatchError, match="cannot be peeked at"):
        model.peek([Request(encoding=encoding, question="Is it?", scale=1, answer="yes")])
    with pytest.raises(MismatchError, match="scale 100 is not in"):
        model.peek([Request(encoding=encoding, question="Is it?", scale=100)])
    with pytest.raises(DataError, match="question is empty"):
        model.peek([Request(encoding=encoding, question=" ", scale=1)])

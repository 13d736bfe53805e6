"""The endpoint's client against `transformers serve`, with a random model that is here too."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from transformers import AutoTokenizer

from m3router.data.errors import ModelError
from m3router.m3core.endpoint import connect, parse_options
from m3router.m3core.options import Request
from m3router.m3core.vlm import load_vlm
from m3router.m3core.vlm.tiny import save_tiny
from tests.m3core.endpoint.real_servers import transformers_serve

BUDGETS = (64, 256)
MARKERS = 2
"""Tokens that Qwen's chat template, not its processor, writes around an image."""
QUESTIONS = ("what?", "how many cats?")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny("qwen3_vl", tmp_path_factory.mktemp("tiny") / "qwen3_vl")


@pytest.fixture(scope="module")
def url(folder):
    with transformers_serve(folder) as address:
        yield address


def area(tokens):
    return {"size": {"shortest_edge": 4 * 32**2, "longest_edge": tokens * 32**2}}


def options(folder, field):
    tables = [{"name": str(budget), "body": {field: area(budget)}} for budget in BUDGETS]
    return parse_options({"model": str(folder), "option": tables})


def noise(width, height, seed):
    small = np.random.default_rng(seed).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def without(tokens, text):
    for token in tokens:
        text = text.replace(token, "")
    return text.strip()


def test_the_server_answers_as_the_model_loaded_here(folder, url):
    ladder = {str(budget): area(budget) for budget in BUDGETS}
    here = load_vlm(str(folder), device="cpu", options=ladder, max_new_tokens=6)
    there = connect(url, options(folder, "chat_template_kwargs"), max_new_tokens=6)
    requests = [
        Request(image=image, question=question, option=str(budget))
        for image in (noise(480, 320, 1), noise(300, 500, 2))
        for budget in BUDGETS
        for question in QUESTIONS
    ]
    answers = list(zip(there.answer(requests), here.answer(requests), strict=True))
    special = AutoTokenizer.from_pretrained(folder).all_special_tokens
    for (
        one,
        two,
    ) in answers:  # `transformers serve` gives special tokens out, which these models say
        assert without(special, one.text) == two.text
    assert len({two.text for _, two in answers}) > 4, "the answers hardly differ"
    for one, two in answers:
        assert one.usage.image_tokens == two.usage.image_tokens + MARKERS
        assert (one.usage.image_tokens_from, two.usage.image_tokens_from) == ("derived", "counted")
        assert one.usage.prompt_tokens == two.usage.prompt_tokens
        assert one.usage.answer_tokens == two.usage.answer_tokens
        assert one.confidence is None and two.confidence is not None
    there.close()


def test_a_field_that_the_server_refuses_is_named(folder, url):
    with pytest.raises(ModelError, match="mm_processor_kwargs"):
        connect(url, options(folder, "mm_processor_kwargs"))

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

from m3core.cost import ModelShape

LLAVA_7B = LlavaConfig(
    vision_config=CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
    ),
    text_config=LlamaConfig(vocab_size=32064),
)


@pytest.mark.parametrize(
    ("scale", "published"), [(576, 8.0), (144, 2.2), (36, 0.9), (9, 0.5), (1, 0.4)]
)
def test_prefill_of_llava_7b_against_the_papers_table_9(scale, published):
    """M3, Table 9: TFLOPs of LLaVA-1.5-7B with 30 text tokens, given with one decimal."""
    shape = ModelShape.of(LLAVA_7B)
    assert shape.text.flops(scale + 30) / 1e12 == pytest.approx(published, rel=0.05)


def test_prefill_against_torchs_flop_counter(random_m3):
    length = 50
    embeddings = torch.zeros(1, length, 128)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        random_m3.model.model.language_model(inputs_embeds=embeddings, use_cache=False)
    assert random_m3.shape.text.flops(length) == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_vision_against_torchs_flop_counter(random_m3):
    pixels = torch.zeros(1, 3, 192, 192)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        random_m3.model.model.get_image_features(pixels)
    assert random_m3.shape.vision_flops() == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_an_answer_costs_its_prefill_and_each_further_token(random_m3):
    shape = random_m3.shape
    head = 2 * 128 * shape.vocabulary
    one = shape.answer_flops(100, 1)
    assert one == shape.text.flops(100) + head
    assert shape.answer_flops(100, 3) == one + 2 * head + shape.text.flops(1, 100) + (
        shape.text.flops(1, 101)
    )

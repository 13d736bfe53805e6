from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    CLIPVisionConfig,
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
)

from m3router.data.errors import ModelError
from m3router.m3core.cost.operations import ModelShape, Numbers

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


# --- weights -------------------------------------------------------------------------------------


def weights_of(kind, config) -> int:
    """All parameters of a real model, which takes no memory on the meta device."""
    with torch.device("meta"):
        return sum(part.numel() for part in kind(config).parameters())


def test_weights_of_llava_7b_against_the_real_model():
    shape = ModelShape.of(LLAVA_7B)
    count = weights_of(LlavaForConditionalGeneration, LLAVA_7B)
    assert shape.language_weights + shape.vision_weights == count
    assert shape.weight_bytes(Numbers(dtype="float16")) == 2 * count
    assert shape.weight_bytes(Numbers(dtype="float32")) == 4 * count


def test_weights_of_llava_next_lack_only_the_newline_token():
    config = LlavaNextConfig(vision_config=LLAVA_7B.vision_config, text_config=LLAVA_7B.text_config)
    shape = ModelShape.of(config)
    count = weights_of(LlavaNextForConditionalGeneration, config)
    assert shape.language_weights + shape.vision_weights == count - 4096


def test_weights_with_grouped_queries_and_tied_embeddings():
    config = LlavaConfig(
        vision_config=LLAVA_7B.vision_config,
        text_config=LlamaConfig(
            hidden_size=96,
            intermediate_size=200,
            num_hidden_layers=3,
            num_attention_heads=6,
            num_key_value_heads=2,
            vocab_size=500,
            tie_word_embeddings=True,
        ),
        tie_word_embeddings=True,
    )
    shape = ModelShape.of(config)
    count = weights_of(LlavaForConditionalGeneration, config)
    assert shape.language_weights + shape.vision_weights == count


@pytest.mark.parametrize(("bits", "each"), [(8, 1.0), (4, 0.5625)])
def test_only_the_matrices_of_the_language_layers_are_quantised(bits, each):
    shape, half = ModelShape.of(LLAVA_7B), Numbers(dtype="bfloat16")
    with torch.device("meta"):
        language = LlamaForCausalLM(LLAVA_7B.text_config)
    quantised = sum(part.numel() for name, part in language.named_parameters() if "proj" in name)
    saved = shape.weight_bytes(half) - shape.weight_bytes(Numbers(dtype="bfloat16", bits=bits))
    assert saved == quantised * (2 - each)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"dtype": "int8"}, "unknown dtype 'int8'.*float16"), ({"bits": 3}, "8 or 4, got 3")],
)
def test_unknown_numbers_are_refused(settings, message):
    with pytest.raises(ModelError, match=message):
        Numbers(**settings)


# --- cache and activations -----------------------------------------------------------------------


def small_llama(kv_heads: int, intermediate: int = 688) -> tuple[LlamaConfig, ModelShape]:
    text = LlamaConfig(
        hidden_size=256,
        intermediate_size=intermediate,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=kv_heads,
        vocab_size=100,
    )
    return text, ModelShape.of_parts(text, LLAVA_7B.vision_config)


@pytest.mark.parametrize("kv_heads", [8, 2])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_cache_against_a_real_dynamic_cache(kv_heads, dtype):
    text, shape = small_llama(kv_heads)
    model, cache = LlamaModel(text).to(getattr(torch, dtype)).eval(), DynamicCache(config=text)
    with torch.no_grad():
        model(input_ids=torch.ones(1, 37, dtype=torch.long), past_key_values=cache, use_cache=True)
    stored = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert shape.text.cache_bytes(37, Numbers(dtype=dtype)) == stored


@pytest.mark.parametrize(
    ("kv_heads", "intermediate"),
    [(8, 688), (2, 688), (8, 512), (8, 64), (4, 64), (2, 64)],  # the last three peak in attention
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_peak_activations_against_torchs_own_allocations(kv_heads, intermediate, dtype):
    text, shape = small_llama(kv_heads, intermediate)
    model = LlamaModel(text).to(getattr(torch, dtype)).eval()
    embeddings = torch.randn(1, 300, 256, dtype=getattr(torch, dtype))
    alive = peak = embeddings.nbytes
    with torch.no_grad():
        model(inputs_embeds=embeddings, use_cache=False)  # whatever the first call alone makes
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
            model(inputs_embeds=embeddings, use_cache=False)
    for event in recorded.profiler.kineto_results.events():
        if event.name() == "[memory]":
            alive += event.nbytes()
            peak = max(peak, alive)
    assert shape.activation_bytes(300, Numbers(dtype=dtype)) == pytest.approx(peak, rel=0.01)


def test_memory_of_an_answer_adds_up():
    shape = ModelShape.of(LLAVA_7B)
    memory = shape.memory(606, 3)
    assert memory.cache == 2 * 32 * 4096 * 608 * 2  # keys of the last token are never needed
    assert memory.total == memory.weights + memory.cache + memory.activations
    assert shape.memory(606, 1).activations == memory.activations

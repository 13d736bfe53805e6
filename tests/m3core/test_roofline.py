from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from m3router.data.errors import MismatchError
from m3router.m3core.cost.operations import ModelShape, Numbers, StackShape
from m3router.m3core.cost.roofline import (
    ATTENTION,
    DEVICES,
    GROUPS,
    HEAD,
    LINEAR,
    Device,
    Operation,
    choose_device,
    estimate,
    find_device,
    forward_pass,
    seconds_by_group,
)
from m3router.m3core.matryoshka.models.untrained import LLAVA_7B, llava_config

SHAPE = ModelShape.of(llava_config(**LLAVA_7B))
HALF = Numbers(dtype="float16")


def test_an_operation_takes_the_longer_of_computing_and_moving():
    device = Device(name="toy", flops=100.0, bandwidth=10.0)
    moving = Operation(group=LINEAR, flops=50, reads=20, writes=5, cached=5, repeats=4)
    computing = Operation(group=LINEAR, flops=500, reads=20)
    assert moving.seconds(device) == 4 * 3.0
    assert computing.seconds(device) == 5.0
    assert seconds_by_group([moving, computing], device)[LINEAR] == 17.0


def test_one_token_through_one_matrix_by_hand():
    """1 layer, all matrices 2 x 2 but for those of the feed-forward block, 2 x 3; float32."""
    stack = StackShape(
        layers=1, hidden=2, intermediate=3, heads=1, kv_heads=1, head_dim=2, gated=True
    )
    shape = ModelShape(text=stack, tower=stack, patches=2, patch_values=3, vocabulary=5)
    operations = forward_pass(shape, 1, 6, numbers=Numbers(dtype="float32"))
    linear = [one for one in operations if one.group == LINEAR]
    assert [one.flops for one in linear] == [8, 8, 8, 8, 12, 12, 12]
    assert [one.reads for one in linear] == [24, 24, 24, 24, 32, 32, 36]
    assert [one.writes for one in linear] == [8, 0, 0, 8, 12, 12, 8]
    assert [one.cached for one in linear] == [0, 8, 8, 0, 0, 0, 0]
    (attention,) = [one for one in operations if one.group == ATTENTION]
    assert attention.flops == 2 * 2 * 7 * 2 + 5 * 7
    assert attention.reads == 8 + 2 * 7 * 2 * 4
    (head,) = [one for one in operations if one.group == HEAD]
    assert (head.flops, head.reads, head.writes) == (20, 48, 20)


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_operations_against_torchs_flop_counter(kv_heads):
    text = LlamaConfig(
        hidden_size=128,
        intermediate_size=344,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        vocab_size=300,
    )
    shape = ModelShape.of_parts(text, llava_config(**LLAVA_7B).vision_config)
    model = LlamaForCausalLM(text).eval()
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=torch.ones(1, 50, dtype=torch.long), logits_to_keep=1, use_cache=False)
    matrices = [one for one in forward_pass(shape, 50, numbers=HALF) if one.group in (LINEAR, HEAD)]
    softmax_free = 2 * 2 * 2 * 50 * 50 * 128  # both products, in two layers
    ours = sum(one.repeats * one.flops for one in matrices) + softmax_free
    assert ours == pytest.approx(counter.get_total_flops(), rel=0.002)  # the rotation is theirs


@pytest.mark.parametrize("fused", [True, False])
def test_operations_agree_with_the_analytic_count(fused):
    for tokens in (31, 606):
        operations = forward_pass(SHAPE, tokens, numbers=HALF, fused=fused)
        total = sum(one.repeats * one.flops for one in operations)
        assert total == pytest.approx(SHAPE.answer_flops(tokens, 1), rel=0.01)


def test_every_weight_is_read_once_in_a_pass():
    """Beyond the weights and the cache, a pass of one token moves next to nothing."""
    past = 100
    operations = forward_pass(SHAPE, 1, past, numbers=HALF)
    embeddings = SHAPE.text.hidden * SHAPE.vocabulary
    weights = 2 * (SHAPE.language_weights - embeddings)
    cache = SHAPE.text.cache_bytes(past + 1, HALF)
    moved = sum(one.repeats * one.traffic for one in operations)
    assert moved == pytest.approx(weights + cache, rel=0.001)


def test_fused_attention_moves_no_scores_and_computes_the_same():
    plain, fused = (
        [
            one
            for one in forward_pass(SHAPE, 606, numbers=HALF, fused=fused)
            if one.group == ATTENTION
        ]
        for fused in (False, True)
    )
    assert sum(one.flops for one in plain) == sum(one.flops for one in fused)
    scores = 32 * 606 * 606 * 2
    moved = sum(one.traffic for one in plain) - sum(one.traffic for one in fused)
    assert moved == 4 * scores


def test_prefill_is_bound_by_memory_when_short_and_by_computing_when_long():
    device = DEVICES["A100"]
    weights = 2 * SHAPE.text.matrix_weights / device.bandwidth
    short = estimate(SHAPE, 31, device=device)
    assert short.prefill[LINEAR] == pytest.approx(weights, rel=0.02)
    long = estimate(SHAPE, 4000, device=device)
    assert long.prefill[LINEAR] == pytest.approx(
        2 * SHAPE.text.matrix_weights * 4000 / device.flops
    )
    assert set(short.prefill) == set(GROUPS)
    assert short.prefill_seconds == sum(short.prefill.values())


def test_decoding_a_token_is_bound_by_reading_weights_and_cache():
    device = DEVICES["H100"]
    one, three = (estimate(SHAPE, 100, count, device=device) for count in (1, 3))
    assert one.decode == 0
    embeddings = SHAPE.text.hidden * SHAPE.vocabulary
    least = 2 * (SHAPE.language_weights - embeddings) / device.bandwidth
    assert least < three.decode / 2 < 1.02 * least
    assert three.flops == SHAPE.answer_flops(100, 3)
    assert three.memory == SHAPE.memory(100, 3)


def test_fewer_bits_make_decoding_faster_in_proportion():
    device = DEVICES["A100"]
    whole, quarter = (
        estimate(SHAPE, 100, 2, device=device, numbers=Numbers(bits=bits)).decode
        for bits in (None, 4)
    )
    assert 3.0 < whole / quarter < 2 / 0.5625


def test_devices_are_named_or_given():
    assert find_device("V100") is DEVICES["V100"]
    own = choose_device("whatever", tflops=10, gigabytes=100)
    assert (own.flops, own.bandwidth) == (1e13, 1e11)
    with pytest.raises(MismatchError, match="unknown device 'h100'.*V100.*Did you mean 'H100'"):
        choose_device("h100")
    with pytest.raises(MismatchError, match="needs both rates"):
        choose_device("V100", tflops=10)
    with pytest.raises(MismatchError, match="bandwidth of the device your device.*above 0: 0"):
        choose_device("V100", tflops=10, gigabytes=0)
    with pytest.raises(MismatchError, match="at least one prompt token"):
        estimate(SHAPE, 0, device=own)

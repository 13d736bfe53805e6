"""Operations computed from a configuration, against those that torch counts in a random model.

Attention is eager: torch counts its two products like any other. What torch does not see is named
where it matters; norms, softmax and activations are counted on neither side.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForImageTextToText

from m3router.data.errors import ModelError
from m3router.m3core.cost.vision_language import FAMILIES, VisionLanguageShape
from m3router.m3core.vlm.tiny import TINY, Sizes

VOCABULARY = 50
Changes = Mapping[str, Mapping[str, Any]]


def tiny(family: str, changes: Changes | None = None) -> tuple[Any, VisionLanguageShape]:
    """A random model and the shape that its config.json gives."""
    plan = TINY[family](Sizes())
    settings = copy.deepcopy(plan.settings)
    settings["text_config"]["vocab_size"] = VOCABULARY
    for part, values in (changes or {}).items():
        settings[part] |= values
    config = getattr(transformers, plan.config)(**settings)
    model = AutoModelForImageTextToText.from_config(
        config, attn_implementation="eager", experts_implementation="eager"
    ).eval()
    written = json.loads(config.to_json_string())  # what save_pretrained writes
    return model, VisionLanguageShape.of(written)


@dataclass(frozen=True)
class Seen:
    """What a tower is given.

    Attributes:
        inputs: Arguments of ``get_image_features``.
        views: Patches of each view.
        changes: Of the tiny model, so that its views are small.
    """

    inputs: Callable[[], dict[str, Any]]
    views: list[int]
    changes: Changes = field(default_factory=dict)


def qwen(rows: int, columns: int, side: int, frames: int = 2) -> Seen:
    patches = rows * columns
    return Seen(
        lambda: {
            "pixel_values": torch.rand(patches, 3 * frames * side**2),
            "image_grid_thw": torch.tensor([[1, rows, columns]]),
        },
        [patches],
    )


def squares(
    views: int, side: int, patches: int, changes: Changes | None = None, **more: Any
) -> Seen:
    return Seen(
        lambda: {"pixel_values": torch.rand(views, 3, side, side), **more},
        [patches] * views,
        changes or {},
    )


def minicpm(mode: str) -> Seen:
    grids = torch.tensor([[8, 12], [4, 20]])
    patches = grids.prod(1).tolist()
    return Seen(
        lambda: {
            "pixel_values": torch.rand(1, 3, 14, 14 * sum(patches)),
            "target_sizes": grids,
            "downsample_mode": mode,
        },
        patches,
    )


def padded(budget: int, rows: int, columns: int) -> dict[str, Any]:
    """Patches of Gemma 4, behind them the padding that its image processor adds."""
    patches = 9 * budget
    places = torch.full((1, patches, 2), -1)
    x, y = torch.meshgrid(torch.arange(columns), torch.arange(rows), indexing="xy")
    places[0, : rows * columns] = torch.stack([x.flatten(), y.flatten()], dim=1)
    return {"pixel_values": torch.rand(1, patches, 768), "image_position_ids": places}


def two_shapes() -> dict[str, Any]:
    """Two views of LFM2-VL, padded to the same number of patches."""
    mask = torch.zeros(2, 256, dtype=torch.long)
    mask[0, : 12 * 16], mask[1, : 8 * 8] = 1, 1
    return {
        "pixel_values": torch.rand(2, 256, 768),
        "spatial_shapes": torch.tensor([[12, 16], [8, 8]]),
        "pixel_attention_mask": mask,
    }


ANYRES = {
    "image_sizes": torch.tensor([[600, 800]]),
    "vision_feature_layer": -1,
    "vision_feature_select_strategy": "full",
    "vision_aspect_ratio": "anyres_max_9",
}
SEEN = {
    "gemma3": squares(2, 448, 1024, {"vision_config": {"image_size": 448}}),
    "gemma4": Seen(lambda: padded(70, 21, 27), [630]),
    "internvl": squares(
        3,
        224,
        256,
        {"vision_config": {"image_size": [224, 224]}},
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    ),
    "lfm2_vl": Seen(two_shapes, [256, 256]),
    "llava_onevision": Seen(
        lambda: {"pixel_values": torch.rand(1, 7, 3, 384, 384), **ANYRES}, [729] * 7
    ),
    "minicpmv4_6": minicpm("16x"),
    "minicpmv4_6 at 4x": minicpm("4x"),
    "qwen2_5_vl": qwen(16, 24, 14),
    "qwen3_vl": qwen(12, 22, 16),
    "qwen3_vl, three merged earlier": Seen(
        qwen(12, 22, 16).inputs,
        [264],
        {"vision_config": {"depth": 4, "deepstack_visual_indexes": [0, 1, 2]}},
    ),
    "smolvlm": Seen(
        lambda: {"pixel_values": torch.rand(1, 5, 3, 256, 256)},
        [256] * 5,
        {"vision_config": {"image_size": 256}},
    ),
}


def tower(name: str, seen: Seen) -> tuple[float, float]:
    """Operations computed and counted."""
    model, shape = tiny(name.split(",")[0].split(" ")[0], seen.changes)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        found = model.base_model.get_image_features(**seen.inputs(), return_dict=True)
    tokens = sum(rows.reshape(-1, rows.shape[-1]).shape[0] for rows in found.pooler_output)
    return shape.tower_flops(seen.views, tokens), counter.get_total_flops()


@pytest.mark.parametrize("name", SEEN)
def test_a_tower_costs_what_torch_counts(name):
    computed, counted = tower(name, SEEN[name])
    assert computed == counted


def test_windows_that_the_grid_cuts_are_counted_as_full():
    """The bound is tight: attention within windows is under 1 % of a real tower's layer."""
    computed, counted = tower("qwen2_5_vl", qwen(26, 36, 14))
    assert counted < computed < 1.01 * counted


TEXTS: dict[str, Changes] = {
    **dict.fromkeys(sorted(set(TINY) - {"minicpmv4_6", "lfm2_vl"}), {}),
    "gemma3, a short window": {"text_config": {"sliding_window": 16}},
    "gemma4, shared keys and wide layers": {
        "text_config": {
            "num_hidden_layers": 6,
            "layer_types": ["sliding_attention", "full_attention"] * 3,
            "num_kv_shared_layers": 3,
            "use_double_wide_mlp": True,
            "sliding_window": 16,
        }
    },
    "gemma4, experts and keys as values": {
        "text_config": {
            "enable_moe_block": True,
            "num_experts": 4,
            "top_k_experts": 2,
            "moe_intermediate_size": 24,
            "attention_k_eq_v": True,
            "num_global_key_value_heads": 1,
            "hidden_size_per_layer_input": 0,
        }
    },
}


def language(name: str, changes: Changes, prompt: int, answer: int) -> tuple[float, float, Any]:
    """Operations computed and counted, and the shape."""
    model, shape = tiny(name.split(",")[0], changes)
    ids = torch.randint(5, VOCABULARY, (1, prompt), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        given = {"attention_mask": torch.ones_like(ids), "do_sample": False}
        model.generate(ids, **given, max_new_tokens=answer, min_new_tokens=answer)
    return shape.language_flops(prompt, answer), counter.get_total_flops(), shape.language


@pytest.mark.parametrize("name", TEXTS)
def test_an_answer_costs_what_torch_counts(name):
    computed, counted, _ = language(name, TEXTS[name], 37, 4)
    assert computed == counted


@pytest.mark.parametrize(
    "changes",
    [{}, {"block_auto_adjust_ff_dim": True, "block_multiple_of": 16, "intermediate_size": 128}],
    ids=["", "adjusted width"],
)
def test_short_convolutions_cost_what_torch_counts(changes):
    """torch counts the convolution's padding too: two positions more, when a prompt is read."""
    computed, counted, shape = language("lfm2_vl", {"text_config": changes}, 37, 1)
    assert counted - computed == 2 * 2 * 3 * shape.hidden


@pytest.mark.parametrize("prompt", [37, 64, 130])
def test_linear_attention_costs_what_torch_counts(prompt):
    """torch counts the padding of the convolution and transformers' logits of the whole prompt.

    The triangular systems are on neither side: torch has no formula for their solution.
    """
    computed, counted, shape = language("minicpmv4_6", {}, prompt, 1)
    mixed = 3 * 2 * 8  # queries, keys and values of two heads
    unused = 2 * (prompt - 1) * shape.hidden * VOCABULARY
    assert counted - computed == unused + 2 * 3 * 4 * mixed


def test_one_token_of_linear_attention_is_three_products_with_its_state():
    """torch's fallback multiplies them number by number, which its counter does not see."""
    _, shape = tiny("minicpmv4_6")
    (linear,) = (group for group in shape.language.groups if group.delta)
    assert linear.delta.flops(1) == 2 * 2 * 3 * 8 * 8
    assert linear.decode_flops(10) == linear.decode_flops(10_000)


def test_every_family_is_checked():
    assert {name.split(",")[0].split(" ")[0] for name in SEEN} == set(FAMILIES) == set(TINY)


def test_a_window_saves_only_while_decoding():
    _, short = tiny("gemma3", {"text_config": {"sliding_window": 16}})
    _, long = tiny("gemma3")
    assert short.language_flops(100, 1) == long.language_flops(100, 1)
    saved = long.language_flops(100, 2) - short.language_flops(100, 2)
    assert saved == 2 * 2 * 32 * (101 - 16)  # two products, the width of all heads, one layer


def test_what_a_config_leaves_out_has_transformers_defaults():
    """Gemma 3 4B's published file names neither heads nor their width."""
    text = {"model_type": "gemma3_text", "hidden_size": 2560, "num_hidden_layers": 34}
    config = {"model_type": "gemma3", "text_config": text, "vision_config": {}}
    sliding, full = VisionLanguageShape.of(config).language.groups
    assert (sliding.stack.layers, full.stack.layers) == (29, 5)
    assert (full.stack.heads, full.stack.head_dim) == (8, 256)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "qwen3vl"}, "Unknown model_type 'qwen3vl'. Did you mean 'qwen3_vl'"),
        ({}, "Unknown model_type 'None'"),
        ({"model_type": "gemma4"}, "gemma4 model has no vision_config"),
        (
            {"model_type": "internvl", "text_config": {"model_type": "gpt2"}},
            "Unknown language model 'gpt2'",
        ),
        (
            {"model_type": "qwen3_vl", "text_config": {"hidden_size": "wide"}},
            "configuration of a qwen3_vl model cannot be read: .*'hidden_size' expected int",
        ),
    ],
    ids=["misspelt", "no type", "no tower", "other language model", "no number"],
)
def test_what_cannot_be_counted_is_refused(config, message):
    with pytest.raises(ModelError, match=message):
        VisionLanguageShape.of(config)


def test_costs_are_finite_and_grow():
    for family in FAMILIES:
        shape = VisionLanguageShape.of({"model_type": family, "vision_config": {}})
        costs = [shape.tower_flops([16 * n], n) + shape.language_flops(n, 2) for n in (64, 128)]
        assert 0 < costs[0] < costs[1] < math.inf

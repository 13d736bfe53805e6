"""What a router's own image encoder computes, against torch's counter."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPVisionConfig, CLIPVisionModel, SiglipVisionConfig, SiglipVisionModel

from m3router.m3core.encoders import TowerEncoder, encoder_flops

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 4,
}


@pytest.mark.parametrize(
    ("tower", "config", "leading"),
    [(CLIPVisionModel, CLIPVisionConfig, 1), (SiglipVisionModel, SiglipVisionConfig, 0)],
)
def test_operations_of_a_tower(tower, config, leading):
    model = tower._from_config(config(**SIZES), attn_implementation="eager").eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, 32, 32), output_hidden_states=True)
    encoder = TowerEncoder(
        model=model, image_processor=None, name="t", revision="r", leading=leading
    )
    assert encoder_flops(encoder) == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_of_another_encoder_they_are_not_known():
    assert encoder_flops(object()) is None

from __future__ import annotations

import json

import pytest

from experiments.families import page
from experiments.families.record import CONFIGS, COUNTS
from m3router.m3core.cost.vision_language import FAMILIES, VisionLanguageShape

PUBLISHED = {
    "InternVL3-8B-hf": 7_944_373_760,
    "Qwen2.5-VL-7B-Instruct": 8_292_166_656,
    "Qwen3-VL-2B-Instruct": 2_127_532_032,
    "Qwen3-VL-8B-Instruct": 8_767_123_696,
    "SmolVLM2-2.2B-Instruct": 2_246_784_880,
    "gemma-3-4b-it": 4_300_079_472,
    "llava-onevision-qwen2-7b-ov-hf": 8_030_348_832,
}
"""Weights of the models as they are known; the files themselves were not at hand."""


def test_the_page_is_what_the_recorded_counts_give(capsys, monkeypatch, tmp_path):
    assert page.main(["--check"]) == 0
    monkeypatch.setattr(page, "PAGE", tmp_path / "families.md")
    assert page.main(["--check"]) == 1
    assert "stale" in capsys.readouterr().out


def test_every_family_is_counted():
    models = json.loads(COUNTS.read_text(encoding="utf-8"))["models"]
    assert {one["family"] for one in models.values()} == set(FAMILIES)
    assert {path.stem for path in CONFIGS.glob("*.json")} <= set(models)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.json")))
def test_a_published_model_of_full_size(name):
    """As many weights as its file has, and the prefill that torch counts, without any memory."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = json.loads((CONFIGS / f"{name}.json").read_text(encoding="utf-8"))
    kind, tokens, on = AutoConfig.for_model(**config), 500, {"device": "meta"}
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(kind, attn_implementation="eager").eval()
    if name in PUBLISHED:
        assert sum(part.numel() for part in model.parameters()) == PUBLISHED[name]
    given = {
        "input_ids": torch.zeros(1, tokens, dtype=torch.long, **on),
        "position_ids": torch.zeros(1, tokens, dtype=torch.long, **on),
        "attention_mask": torch.zeros(1, 1, tokens, tokens, **on),
    }
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(**given, logits_to_keep=1, use_cache=False)
    computed = VisionLanguageShape.of(config).language_flops(tokens, 1)
    assert computed == counter.get_total_flops()

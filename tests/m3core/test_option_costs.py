from __future__ import annotations

import json

import pytest

from m3router.data.errors import MismatchError, ModelError
from m3router.m3core.vlm.option_costs import read_budgets
from m3router.m3core.vlm.tiny import save_tiny

ANSWER = {"text_tokens": 20, "answer_tokens": 3}


@pytest.mark.parametrize("family", ["gemma3", "internvl", "llava_onevision", "qwen3_vl", "smolvlm"])
def test_a_config_alone_costs_what_its_folder_costs(family, tmp_path):
    """But for the marks around an image, which only a tokenizer can count."""
    folder = save_tiny(family, tmp_path)
    (folder / "model.safetensors").unlink()
    whole, alone = (read_budgets(str(one)) for one in (folder, folder / "config.json"))
    assert (whole.assumed, len(alone.assumed)) == ((), 2)
    assert whole.options == alone.options
    costs = [one.costs((640, 200), **ANSWER) for one in (whole, alone)]
    for ours, bare in zip(*costs, strict=True):
        assert ours.tower_flops == bare.tower_flops > 0
        assert ours.image_tokens >= bare.image_tokens > 0
        marks = ours.image_tokens - bare.image_tokens
        shape = whole.shape
        assert ours.language_flops == shape.language_flops(bare.image_tokens + marks + 20, 3)
        assert ours.tower_share == ours.tower_flops / (ours.tower_flops + ours.language_flops)


def test_an_image_processor_beside_the_config_is_taken(tmp_path):
    folder = save_tiny("qwen3_vl", tmp_path / "whole")
    bare = tmp_path / "bare"
    bare.mkdir()
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    settings["merge_size"] = 4
    (bare / "preprocessor_config.json").write_text(json.dumps(settings))
    (bare / "config.json").write_text((folder / "config.json").read_text())
    budgets = read_budgets(str(bare))
    assert len(budgets.assumed) == 1 and "no tokenizer" in budgets.assumed[0]
    assert budgets.options["64"]["size"]["longest_edge"] == 64 * (4 * 16) ** 2


@pytest.mark.parametrize(
    ("config", "options", "error", "message"),
    [
        ({"model_type": "qwen3_vl_moe"}, None, ModelError, "Did you mean 'qwen3_vl'.*its folder"),
        (
            {"model_type": "qwen3_vl", "vision_config": {}},
            {"a": {"max_pixel": 3}},
            MismatchError,
            "option 'a': Unknown argument of the image processor 'max_pixel'",
        ),
    ],
)
def test_what_cannot_be_counted_is_said(tmp_path, config, options, error, message):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config))
    with pytest.raises(error, match=message):
        read_budgets(str(file), options=options)

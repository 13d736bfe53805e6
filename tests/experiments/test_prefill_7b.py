"""The GPU benchmark, on a tiny model and the CPU."""

from __future__ import annotations

import json

import pytest
import torch

from experiments.benchmarks.prefill_7b import Settings, flips, main, requests_by_scale
from m3router.m3core.cost.operations import ModelShape
from m3router.m3core.matryoshka.base import Answer
from m3router.m3core.matryoshka.models.untrained import LLAVA_7B, llava_config, untrained_llava

TINY = {
    "text": {
        "vocab_size": 500,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
    "vision": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 48,
        "patch_size": 2,
    },
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_runs_with_sizes_rates_and_format_of_the_users(tmp_path, capsys, dtype):
    sizes, out = tmp_path / "tiny.json", tmp_path / "out.json"
    sizes.write_text(json.dumps(TINY))
    rates = ["--peak-tflops", "0.1", "--bandwidth", "10"]
    small = ["--images", "3", "--answer-tokens", "3", "--repeats", "2"]
    where = ["--device", "cpu", "--dtype", dtype, "--sizes", str(sizes), "--out", str(out)]
    main([*where, *rates, *small])
    results = json.loads(out.read_text())
    assert json.loads(capsys.readouterr().out) == results
    assert results["model"]["dtype"] == dtype
    shape = ModelShape.of(llava_config(**TINY))
    assert results["model"]["weights"] == shape.language_weights + shape.vision_weights
    assert list(results["prefill"]) == list(results["flips"]) == ["1", "9", "36", "144", "576"]
    for row in results["prefill"].values():
        assert row["median_ms"] > 0
        assert row["roofline_ms"] == pytest.approx(sum(row["roofline_ms_by_group"].values()))
        assert "measured_memory_gb" not in row
    for ways in results["flips"].values():
        assert ways["alone_again"]["answer"] == 0
        if dtype == "float32":
            assert ways["batch_of_one_scale"]["answer"] == 0
            assert ways["mixed_as_labelling"]["answer"] == 0
            assert ways["mixed_as_labelling"]["largest_confidence_ratio"] < 1.001


def answer(text: str, confidence: float = 0.5) -> Answer:
    return Answer(
        text=text,
        logprob=0.0,
        confidence=confidence,
        answer_tokens=1,
        visual_tokens=1,
        text_tokens=1,
    )


def test_flips_are_counted():
    alone = [answer("a b"), answer("a b"), answer("a"), answer("")]
    other = [answer("a b"), answer("a c"), answer("b", 0.25), answer("")]
    assert flips(other, alone) == {
        "answer": 0.5,
        "first_token": 0.25,
        "largest_confidence_ratio": 2.0,
    }


def test_equal_texts_are_equal_tokens_and_questions_differ_in_length():
    model = untrained_llava(llava_config(**TINY), dtype=torch.float32)
    assert len(model.tokenizer) == 500
    assert model.tokenizer.decode([3, 499]) == "word3 word499"
    assert model.tokenizer("word3 nonsense")["input_ids"] == [3, 0]
    requests = requests_by_scale(model, Settings(images=8))[9]
    assert len({len(one.question.split()) for one in requests}) > 3


def test_the_7b_sizes_are_those_of_llava():
    with torch.device("meta"):
        shape = ModelShape.of(llava_config(**LLAVA_7B))
    assert shape.language_weights == 6_738_415_616  # Vicuna-7B
    tower = shape.vision_weights - (1024 * 4096 + 4096 + 4096**2 + 4096)
    assert tower == 303_507_456  # CLIP ViT-L/14 at 336 pixels

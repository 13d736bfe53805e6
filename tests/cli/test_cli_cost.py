from __future__ import annotations

import json
import re

import pytest

CONFIG = {
    "model_type": "llava_llama",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "mm_vision_tower": "openai/clip-vit-large-patch14-336",
    "mm_projector_type": "mlp2x_gelu",
    "image_aspect_ratio": "pad",
}
NEXT = {
    "image_aspect_ratio": "anyres",
    "mm_patch_merge_type": "spatial_unpad",
    "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
}


@pytest.fixture
def folder(tmp_path):
    def write(**changes) -> str:
        (tmp_path / "config.json").write_text(json.dumps(CONFIG | changes))
        return str(tmp_path)

    return write


def table(text: str) -> dict[int, list[float]]:
    """The numbers behind each scale."""
    lines = [line.replace(",", "").split() for line in text.splitlines()]
    return {
        int(line[0]): [float(cell) for cell in line[1:]]
        for line in lines
        if len(line) == 9 and all(re.fullmatch(r"[\d.e+-]+", cell) for cell in line)
    }


def test_cost_of_a_config_alone(invoke, folder):
    result = invoke("cost", "--model", folder(), "--device-type", "V100")
    assert result.exit_code == 0, result.output
    found = table(result.stdout)
    assert list(found) == [1, 9, 36, 144, 576]
    assert [row[1] / 1000 for row in found.values()] == pytest.approx(
        [0.4, 0.5, 0.9, 2.2, 8.0], rel=0.05
    )  # M3, Table 9
    assert {row[2] for row in found.values()} == {406}
    assert found[576][3] == 318  # MB of cache
    assert "14.1 GB of weights" in result.stdout
    assert "125 TFLOPS, 900 GB/s" in result.stdout


def test_llava_next_counts_the_tokens_of_the_image(invoke, folder):
    result = invoke("cost", "--model", folder(**NEXT), "--image-size", "640x480")
    found = table(result.stdout)
    assert [row[0] for row in found.values()] == [7, 37, 166, 594, 2340]
    assert {row[2] for row in found.values()} == {2030}  # five views
    assert "in 5 views" in result.stderr


def test_mqt_has_its_own_scales(invoke, folder):
    found = table(invoke("cost", "--model", folder(query_abstractor_type="m")).stdout)
    assert list(found) == [2, 4, 8, 16, 36, 64, 144, 256]
    assert found[256][2] == 386


def test_own_rates_bits_and_answer_tokens(invoke, folder):
    own = ["--peak-tflops", 100, "--bandwidth", 1000, "--bits", 4, "--answer-tokens", 11]
    result = invoke("cost", "--model", folder(), *own)
    assert "your device: 100 TFLOPS, 1000 GB/s" in result.stdout
    found = table(result.stdout)
    matrices, rest = 32 * (4 * 4096**2 + 3 * 4096 * 11008), 32000 * 4096
    one = (matrices * 0.5625 + rest * 2) / 1e12
    assert found[1][-1] == pytest.approx(10 * 1e3 * one, rel=0.02)


def test_the_embedded_model_has_its_costs(invoke):
    assert list(table(invoke("cost", "--model", "embedded").stdout)) == [1, 9, 36, 144, 576]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device-type", "V10"], "unknown device 'V10'; known: V100"),
        (["--bandwidth", 5], "needs both rates"),
        (["--bits", 5], "bits must be 8 or 4"),
        (["--image-size", "big"], "'big' is not an image size"),
    ],
)
def test_what_cannot_be_computed_is_said(invoke, arguments, message):
    result = invoke("cost", "--model", "embedded", *arguments)
    assert result.exit_code == 1
    assert message in result.stderr.replace("\n", " ")

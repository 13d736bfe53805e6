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
        (["--device-type", "V10"], "Unknown device 'V10'; known: V100"),
        (["--bandwidth", 5], "needs both rates"),
        (["--bits", 5], "bits must be 8 or 4"),
        (["--image-size", "big"], "'big' is not an image size"),
    ],
)
def test_what_cannot_be_computed_is_said(invoke, arguments, message):
    result = invoke("cost", "--model", "embedded", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr.replace("\n", " ")


# --- models by visual budget ----------------------------------------------------------------------

SMOLVLM = {  # SmolVLM2 2.2B's published sizes, but for the depths
    "model_type": "smolvlm",
    "scale_factor": 3,
    "text_config": {"model_type": "llama", "hidden_size": 2048, "vocab_size": 49280},
    "vision_config": {"hidden_size": 1152, "image_size": 384, "patch_size": 14},
}


def test_options_of_a_config_alone(invoke, tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(SMOLVLM))
    result = invoke("cost", "--model", file, "--image", "1600x1200")
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines() if line[:1].isdigit()]
    assert [row[:2] for row in rows] == [["81", "81"], ["405", "405"], ["810", "810"]] + [
        ["1377", "1053"]  # not four rows of four tiles: the image is wider than high
    ]
    assert rows[-1][-1] == "100"
    assert "computed from config.json, not measured" in result.stdout.replace("\n", " ")
    assert "assumed to be SmolVLM2's published one" in result.stderr


def test_options_of_a_folder_as_json(invoke, tmp_path):
    from m3router.m3core.vlm.tiny import save_tiny

    folder = save_tiny("gemma4", tmp_path)
    (folder / "model.safetensors").unlink()
    options = [
        "--option",
        'low={"max_soft_tokens": 70}',
        "--option",
        'high={"max_soft_tokens": 280}',
    ]
    result = invoke("cost", "--model", folder, "--image", "300x200", "--json", *options)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert (document["assumed"], document["markers_counted"]) == ([], True)
    low, high = document["options"]
    assert (low["option"], low["image_tokens"]) == ("low", 62)  # 60 and both markers
    assert high["relative_to_finest"] == 1.0 > low["relative_to_finest"]
    assert 0 < low["tower_share"] < 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bits", 4], "--bits counts memory or time"),
        (["--option", 'a={"max_pixel": 1}'], "Unknown argument of the image processor 'max_pixel'"),
        (["--option", "a={"], "must be a JSON object"),
    ],
)
def test_what_options_do_not_have_is_said(invoke, tmp_path, arguments, message):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(SMOLVLM))
    result = invoke("cost", "--model", file, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr.replace("\n", " ")


def test_scales_are_no_options(invoke):
    result = invoke("cost", "--model", "embedded", "--option", "a")
    assert result.exit_code == 2
    assert "its options are its scales" in result.stderr.replace("\n", " ")


def test_scales_as_json(invoke):
    document = json.loads(invoke("cost", "--model", "embedded", "--json").stdout)
    assert [one["scale"] for one in document["scales"]] == [1, 9, 36, 144, 576]

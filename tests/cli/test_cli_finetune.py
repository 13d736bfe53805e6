from __future__ import annotations

import json
from importlib.util import find_spec

import pytest

from m3router.m3core.checkpoints import load_model
from m3router.m3core.matryoshka.scales import M3_SCALES, MQT_TRAINING_SCALES
from tests.m3core import layouts

SETTINGS = ["--batch", 2, "--learning-rate", 1e-4, "--warmup", 1, "--save-every", 1]


@pytest.fixture
def material(small_world, tmp_path):
    """Options that name conversations about the world's images."""
    entries = [
        {
            "id": str(number),
            "image": f"{number}.png",
            "conversations": [
                {"from": "human", "value": "<image>\nIs it?"},
                {"from": "gpt", "value": "yes"},
            ],
        }
        for number in range(4)
    ]
    data = tmp_path / "train.json"
    data.write_text(json.dumps(entries))
    return ["--data", data, "--images", small_world.images]


@pytest.mark.parametrize(
    ("family", "words", "scales", "periods", "choice"),
    [
        ("llava", [], M3_SCALES, None, "periods"),
        (
            "llava",
            ["--scale", 1, "--scale", 576, "--period", 1, "--period", 2],
            (1, 576),
            [1, 2],
            "periods",
        ),
        ("mqt", ["--mqt-scales", "--choice", "random"], MQT_TRAINING_SCALES, None, "random"),
    ],
)
def test_it_trains_at_the_scales_asked_for_and_writes_what_loads(
    invoke, material, tmp_path, family, words, scales, periods, choice
):
    source = layouts.write(tmp_path / "source", *layouts.published(family))
    out = tmp_path / "tuned"
    command = ["finetune", source, *material, "--out", out, "--steps", 1, *SETTINGS, *words]
    told = ["--log-to", "tensorboard"] if find_spec("tensorboard") else []
    result = invoke(*command, *told)
    assert result.exit_code == 0, result.output
    assert f"written: {out}" in result.stdout
    assert len([*tmp_path.glob("tuned.work/tensorboard/finetune-*/events*")]) == bool(told)
    recipe = json.loads((tmp_path / "tuned.work" / "state" / "progress.json").read_text())["recipe"]
    assert tuple(recipe["scales"]) == scales
    assert (recipe["periods"], recipe["choice"]) == (periods, choice)
    model = load_model(str(out), device="cpu")
    assert family == "mqt" or model.grid.scales == scales
    again = invoke(*command)
    assert again.exit_code == 2 and "not empty" in again.stderr


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--scale", 9, "--mqt-scales"], "leave one of them out"),
        (["--period", 1], "periods must be one whole number"),
        (["--scale", 9], "finest scale must be the whole grid of 576"),
        (["--mixed-precision", "fp8"], "mixed_precision must be"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    invoke, material, tmp_path, words, why
):
    out = tmp_path / "tuned"
    command = ["finetune", "embedded", *material, "--out", out, "--steps", 1, *SETTINGS]
    result = invoke(*command, *words)
    assert result.exit_code == 2 and why in result.stderr.replace("\n", " ")
    assert not out.exists()

"""The documented commands and configurations are read by the programs they are for."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser

from experiments.train import parser, recipe_of
from m3core.scales import M3_SCALES, MQT_TRAINING_SCALES
from tests.docs.fences import fences

DOCS = Path(__file__).resolve().parents[2] / "docs"
TEXT = (DOCS / "training.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["fsdp", "deepspeed"])
def test_accelerate_reads_the_documented_configurations(name):
    config = load_config_from_file(str(DOCS / "accelerate" / f"{name}.yaml"))
    assert config.distributed_type.value == name.upper()
    known = {action.dest for action in launch_command_parser()._actions}
    settings = config.fsdp_config if name == "fsdp" else config.deepspeed_config
    assert settings and set(settings) <= known


def test_the_deepspeed_file_is_found_and_clips_as_the_trainer_does():
    config = load_config_from_file(str(DOCS / "accelerate" / "deepspeed.yaml"))
    file = DOCS.parent / config.deepspeed_config["deepspeed_config_file"]
    settings = json.loads(file.read_text())
    assert settings["gradient_clipping"] == 1.0
    assert isinstance(settings["train_micro_batch_size_per_gpu"], int)


def test_the_documented_command_is_understood():
    (command,) = (
        fence.text.partition("python -m experiments.train ")[2]
        for fence in fences(TEXT)
        if fence.text.startswith("pip install 'm3router[train]'")
    )
    arguments = parser().parse_args(shlex.split(command.replace("\\\n", " ")))
    recipe = recipe_of(arguments)
    assert recipe.scales == M3_SCALES and recipe.periods is None and recipe.steps == 2000
    assert recipe.gradient_checkpointing and recipe.mixed_precision == "bf16"


@pytest.mark.parametrize(
    ("words", "scales", "periods"),
    [
        (["--choice", "random", "--scales", "mqt"], MQT_TRAINING_SCALES, None),
        (["--periods", "1,1,1,2,4"], M3_SCALES, (1, 1, 1, 2, 4)),
    ],
)
def test_ways_to_choose_scales(words, scales, periods):
    common = ["x", "--data", "a", "--images", "b", "--out", "c", "--steps", "3"]
    recipe = recipe_of(parser().parse_args([*common, *words]))
    assert (recipe.scales, recipe.periods) == (scales, periods)


def test_scales_that_are_no_numbers_are_named():
    common = ["x", "--data", "a", "--images", "b", "--out", "c", "--steps", "3"]
    with pytest.raises(SystemExit, match="expected whole numbers such as 1,9,36, got '1;9'"):
        recipe_of(parser().parse_args([*common, "--scales", "1;9"]))

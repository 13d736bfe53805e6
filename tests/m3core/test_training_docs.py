"""The documented commands and configurations are read by the programs they are for."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path

import pytest
import typer
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser

from m3router.m3core.training.recipe import TrainingRecipe
from m3router.router.cli.main import app
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


def parsed(text: str) -> dict:
    """The parameters that a documented command gives to ``m3router finetune``."""
    command = typer.main.get_command(app).commands["finetune"]
    words = shlex.split(text.replace("\\\n", " "))
    return command.make_context("finetune", words).params


def test_the_documented_command_is_understood():
    (command,) = (
        fence.text.partition("m3router finetune ")[2]
        for fence in fences(TEXT)
        if fence.text.startswith("pip install 'm3router[train]'")
    )
    found = parsed(command)
    assert not found["scales"] and not found["periods"] and found["steps"] == 2000
    assert found["gradient_checkpointing"] and found["mixed_precision"] == "bf16"


def test_defaults_are_those_of_the_recipe():
    found = parsed("x --data a --images b --out c --steps 3")
    assert found["learning_rate"] == 2e-5
    for field in dataclasses.fields(TrainingRecipe):
        if field.name in found and field.name not in ("scales", "steps", "learning_rate"):
            assert (found[field.name] or field.default) == field.default, field.name

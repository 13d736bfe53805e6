"""What the README tells a newcomer to type works, with the fake model in the real one's place."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from m3router.router.cli.main import COMMANDS, app
from tests.docs.fences import fences

ROOT = Path(__file__).resolve().parents[2]
STAYING = {"serve", "demo"}
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    return next(fence.text for fence in fences(README) if fence.language == language)


@pytest.fixture
def folder(small_world, tmp_path, monkeypatch) -> Path:
    shutil.copytree(small_world.images, tmp_path / "images")
    shutil.copy(small_world.images / "9.png", tmp_path / "images" / "tag.png")
    shutil.copy(small_world.examples, tmp_path / "my.jsonl")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_run_as_written(folder, invoke):
    typed = [line for fence in fences(README) for line in fence.text.splitlines()]
    lines = [line.split("#")[0] for line in typed if line.startswith("m3router ")]
    ending = [line for line in lines if line.split()[1] not in STAYING]
    assert len(ending) == 6
    for line in ending:
        arguments = ["fake" if word == "embedded" else word for word in shlex.split(line)[1:]]
        result = invoke(*arguments)
        assert result.exit_code == 0, (line, result.output)
    assert (folder / "run/report/report.html").is_file()


def test_the_commands_that_stay_take_what_is_written():
    """That they serve is tested with a browser and with clients, in tests/demo and tests/serve."""
    typed = [line for fence in fences(README) for line in fence.text.splitlines()]
    staying = [shlex.split(line)[1:] for line in typed if line.startswith("m3router ")]
    staying = [words for words in staying if words[0] in STAYING]
    assert {words[0] for words in staying} == STAYING
    commands = typer.main.get_command(app).commands
    for name, *arguments in staying:
        commands[name].make_context(name, list(arguments))


def test_the_python_example_runs_as_written(folder):
    code = block("python")
    assert 'load_model("embedded")' in code
    done = subprocess.run(
        [sys.executable, "-c", code.replace("embedded", "fake")],
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert re.match(r"(yes|no) \d+ \{1: ", done.stdout)


def test_every_named_target_and_command_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)", README)) <= targets
    assert set(re.findall(r"m3router ([a-z]+)", README)) <= set(COMMANDS)

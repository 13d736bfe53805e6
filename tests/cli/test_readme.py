"""What README and guide tell a newcomer to type works, with the fake model in place of others."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from PIL import Image

from m3router.m3core.endpoint import parse_options
from m3router.m3core.functions import load_reference
from m3router.m3core.options import Request
from m3router.router.cli.main import COMMANDS, app
from tests.docs.fences import NOT_RUN, Fence, fences

ROOT = Path(__file__).resolve().parents[2]
STAYING = {"serve", "demo"}
README, GUIDE = (
    (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/guide.md")
)


def block(language: str, holding: str = "") -> str:
    return next(
        fence.text
        for fence in [*fences(README), *fences(GUIDE)]
        if fence.language == language and holding in fence.text
    )


def commands(fence: Fence) -> list[str]:
    """The lines of a block that are this package's commands, continued ones put together."""
    lines = fence.text.replace("\\\n", " ").splitlines()
    return [line.split("#")[0] for line in lines if line.startswith("m3router ")]


@pytest.fixture
def folder(small_world, tmp_path, monkeypatch) -> Iterator[Path]:
    shutil.copytree(small_world.images, tmp_path / "images")
    shutil.copy(small_world.images / "9.png", tmp_path / "images" / "tag.png")
    shutil.copy(small_world.examples, tmp_path / "my.jsonl")
    rows = [json.loads(line) for line in small_world.examples.read_text().splitlines()]
    with (tmp_path / "my.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["image", "question", "answers"])
        table.writeheader()
        for row in rows:
            answer = {"answers": row["answers"][0]}
            table.writerow({name: row[name] for name in ("image", "question")} | answer)
    (tmp_path / "reader.py").write_text(block("python", "def answer"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("reader", None)


@pytest.mark.parametrize("page, count", [(README, 6), (GUIDE, 8)], ids=["README", "guide"])
def test_the_commands_run_as_written(page, count, folder, invoke):
    typed = [fence for fence in fences(page) if not fence.title.startswith(NOT_RUN)]
    lines = [line for fence in typed for line in commands(fence)]
    ending = [line for line in lines if line.split()[1] not in STAYING]
    assert len(ending) == count
    for line in ending:
        arguments = ["fake" if word == "embedded" else word for word in shlex.split(line)[1:]]
        result = invoke(*arguments)
        assert result.exit_code == 0, (line, result.output)
    assert (folder / "run/report/report.html").is_file()


def test_the_commands_that_are_not_run_take_what_is_written():
    """That the staying ones serve is tested with a browser and with clients, elsewhere."""
    known = typer.main.get_command(app).commands
    waiting = [
        shlex.split(line)[1:]
        for fence in [*fences(README), *fences(GUIDE)]
        for line in commands(fence)
        if line.split()[1] in STAYING or fence.title.startswith(NOT_RUN)
    ]
    assert [words[0] for words in waiting] == ["advise"] * 2 + ["serve"] + ["label"] * 4
    for name, *arguments in waiting:
        known[name].make_context(name, list(arguments))


def test_two_models_behind_a_gateway_are_options():
    small, large = parse_options(tomllib.loads(block("toml"))).options
    assert (small.model, large.model) == ("my-small-model", "my-large-model")
    assert small.prices.input == 0.05 and large.prices.output == 10.0


def test_the_documented_functions_are_models(tmp_path, monkeypatch):
    page = (ROOT / "docs" / "functions.md").read_text(encoding="utf-8")
    code = [fence.text for fence in fences(page) if fence.language == "python"]
    (tmp_path / "documented_reader.py").write_text("\n".join(code))
    monkeypatch.syspath_prepend(tmp_path)
    image = Image.new("RGB", (8, 4), "white")
    options = ["small", "large"]
    plain = load_reference("documented_reader:answer", options=options)
    made = load_reference("documented_reader:model")
    careful = load_reference("documented_reader:careful", options=options)
    for model, unit in ((plain, "seconds"), (made, "megapixels"), (careful, "seconds")):
        assert [option.name for option in model.options] == options and model.cost_unit == unit
        (told,) = model.answer([Request(image=image, question="Light?", option="large")])
        assert told.text == "light" and told.usage.cost is not None
    assert made.count(image, "large").cost == 512**2 / 1e6
    assert told.confidence == 0.9 and told.usage.price == 0.002


def test_the_python_example_runs_as_written(folder, capsys):
    code = block("python", "load_model") + "\n" + block("python", "open_pipeline")
    assert 'load_model("embedded")' in code
    exec(compile(code.replace("embedded", "fake"), "example", "exec"), {})
    assert re.match(r"(yes|no) \d+ \{1: .*\n(yes|no) \d+$", capsys.readouterr().out)


def test_every_named_target_and_command_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)", README + GUIDE)) <= targets
    named = set(re.findall(r"(?:^|`)m3router ([a-z]+)", README + GUIDE, re.MULTILINE))
    assert "advise" in named and named <= set(COMMANDS)


def test_the_readme_is_short():
    assert len(README.split()) < 900

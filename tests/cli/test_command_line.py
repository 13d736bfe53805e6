"""What all commands have in common: how they are found, how values are written, what they say."""

from __future__ import annotations

import inspect
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from m3router.router.cli import main
from m3router.router.cli.renamed import RENAMED
from m3router.router.cli.serve import serve
from m3router.router.serve.settings import EngineSettings, FrontSettings, ServeSettings
from m3router.router.text.fractions import fraction, signed_fraction
from m3router.router.training.targets import RULES

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "pandas", "scipy", "sklearn")


def leaves(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Every command with its words, those of groups too."""
    found = command.load() if isinstance(command, main.LazyCommand) else command
    subcommands = getattr(found, "commands", None)
    if subcommands is None:
        yield path, found
    for name, one in (subcommands or {}).items():
        yield from leaves(f"{path} {name}", one)


def all_commands() -> dict[str, Any]:
    program: Any = typer.main.get_command(main.app)
    return {
        path: command
        for name, one in program.commands.items()
        for path, command in leaves(name, one)
    }


def examples(help: str) -> list[list[str]]:
    """The commands in a help's code block, as words."""
    (block,) = re.findall(r"```\n(.*?)```", inspect.cleandoc(help), re.DOTALL)
    lines = block.replace("\\\n", "").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("m3router ")]


class TestFractions:
    decimals = st.decimals(0, 1, allow_nan=False, places=6)

    @given(decimals.filter(lambda value: value < 1))
    def test_both_ways_are_the_same_number(self, value):
        per_cent = f"{value * 100:f}%"
        assert fraction(f"{value:f}") == fraction(per_cent) == float(value)
        assert signed_fraction(f"-{value:f}") == signed_fraction(f" -{per_cent} ") == -float(value)

    @given(st.decimals(1, 100, allow_nan=False, places=3), st.sampled_from(["", "-"]))
    def test_a_bare_number_from_1_on_is_refused_with_what_to_write(self, value, sign):
        with pytest.raises(typer.BadParameter, match="for per cent write") as refused:
            signed_fraction(f"{sign}{value:f}")
        told = re.search(r"write (\S+)% or ([\d.-]+)", str(refused.value))
        assert told
        assert Decimal(told[1]) == Decimal(f"{sign}{value:f}") == 100 * Decimal(told[2])

    @given(st.text())
    def test_any_other_text_is_a_number_between_0_and_1_or_refused(self, text):
        try:
            assert 0 <= fraction(text) <= 1
        except typer.BadParameter as refused:
            assert repr(text) in str(refused)

    @pytest.mark.parametrize("text", ["0", "0%", "0.0", "-0", "-0%"])
    def test_nothing(self, text):
        assert str(fraction(text)) == "0.0"

    @pytest.mark.parametrize("text", ["100%", "100.0 %"])
    def test_all(self, text):
        assert fraction(text) == 1

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("1", "for per cent write 1% or 0.01, and 100% for all"),
            ("1.0", "for per cent write 1.0% or 0.01, and 100% for all"),
            ("64", "for per cent write 64% or 0.64"),
            ("101%", "more than 100%"),
            ("101", "more than 100%"),
            ("1e999999999999", "more than 100%"),
            ("-1%", "below 0"),
            ("one", "write it as 1% or 0.01"),
            ("nan", "write it as 1% or 0.01"),
            ("inf%", "write it as 1% or 0.01"),
            ("%", "write it as 1% or 0.01"),
            ("1%%", "write it as 1% or 0.01"),
            ("", "write it as 1% or 0.01"),
        ],
    )
    def test_what_is_none(self, text, said):
        with pytest.raises(typer.BadParameter, match=re.escape(said)):
            fraction(text)

    def test_every_option_that_is_a_fraction_says_so(self):
        found = {
            f"{path} {parameter.opts[0]}"
            for path, command in all_commands().items()
            for parameter in command.params
            if "FRACTION" in str(parameter.metavar)
        }
        assert found == {
            "advise --confidence",
            "advise --max-loss",
            "advise --max-regret",
            "calibrate --max-loss",
            "calibrate --max-loss-observed",
            "calibrate --max-regret",
            "calibrate --confidence",
            "monitor --false-alarm",
            "serve --traffic-share",
            "serve --unlike",
            "study learning-curve --share",
            "train --split-share",
            "tune --split-share",
        }


def test_listing_the_commands_imports_none_of_them():
    code = (
        "import sys; from m3router.router.cli.main import app; "
        "app(['--help'], standalone_mode=False); "
        f"print('loaded', sorted(set(sys.modules) & {{*{HEAVY!r}, 'm3router.router.cli.train'}}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Learn which scale suffices." in done.stdout
    assert "Say who may ask a server." in done.stdout
    assert done.stdout.endswith("loaded []\n")


def test_a_command_is_one_file_and_one_line_of_the_table(tmp_path, monkeypatch):
    (tmp_path / "toy_command.py").write_text(
        'def toy(times: int = 1) -> None:\n    """Say toy."""\n    print("toy " * times)\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(main.COMMANDS, "toy", "toy_command:toy")
    runner = CliRunner()
    assert re.search(r"│ toy +Say toy\. ", runner.invoke(main.app, ["--help"]).stdout)
    assert "m3router toy" in runner.invoke(main.app, ["toy", "--help"], prog_name="m3router").stdout
    assert runner.invoke(main.app, ["toy", "--times", "2"]).stdout == "toy toy \n"
    assert runner.invoke(main.app, ["toy", "--time", "2"]).exit_code == 2
    assert "Did you mean 'toy'" in runner.invoke(main.app, ["toi"]).stderr


@pytest.mark.parametrize(("path", "command"), all_commands().items())
def test_every_help_has_an_example_that_the_command_takes(path, command):
    ours = [words for words in examples(command.help) if " ".join(words).startswith(f"{path} ")]
    assert ours
    for words in ours:
        given = words[len(path.split()) :]
        command.make_context(path, given)


@pytest.mark.parametrize("name", ["import", "traffic", "keys", "study"])
def test_groups_show_examples_and_each_subcommand_has_only_its_own_options(name):
    program: Any = typer.main.get_command(main.app)
    group = program.commands[name].load()
    assert len(group.commands) >= 2
    for words in examples(group.help):
        if words[0] == name:
            group.commands[words[1]].make_context(words[1], words[2:])
    for one in group.commands.values():
        for parameter in one.params:
            assert not re.match(r"[a-z-]+(, [a-z-]+)*: ", parameter.help or ""), parameter.help


def test_the_run_comes_first_and_a_policy_is_an_option():
    for path, command in all_commands().items():
        options = {word for one in command.params for word in one.opts}
        arguments = [one.name for one in command.params if one.param_type_name == "argument"]
        assert not options & {"--run", "--name", "--tiers", "--pictures"}, path
        if "run" in arguments:
            assert arguments[0] == "run", path
        if "--policy" in options:
            assert arguments[0] in ("run", "run_a"), path


def test_every_sufficiency_rule_is_in_the_help():
    for path in ("train", "tune"):
        (rule,) = [one for one in all_commands()[path].params if one.name == "rule"]
        assert all(name in rule.help for name in RULES)


def old_options() -> list[tuple[str, str, str]]:
    return [(name, old, new) for name, known in RENAMED.items() for old, new in known.items()]


@pytest.mark.parametrize(("name", "old", "new"), old_options())
def test_an_option_of_before_is_answered_with_the_new_one(invoke, name, old, new):
    for words in ([old, "1"], [f"{old}=1"]):
        refused = invoke(name, "run", *words)
        assert refused.exit_code == 2
        told = " ".join(refused.stderr.replace("│", " ").split())
        assert old in told and new in told


@pytest.mark.parametrize(("name", "old", "new"), old_options())
def test_what_an_option_is_called_now_exists(name, old, new):
    commands = {path: one for path, one in all_commands().items() if path.split()[0] == name}
    options = {word for one in commands.values() for param in one.params for word in param.opts}
    assert old not in options
    named = re.search(r"--[a-z-]+", new)
    if named:
        assert named[0] in options
    else:
        assert any(path in new for path in commands)
    assert f"| `{name} {old}` |" in (ROOT / "docs" / "renames.md").read_text(encoding="utf-8")


class TestServeSettings:
    def test_the_command_has_the_options_of_the_settings(self):
        names = [one.name for one in fields(ServeSettings)]
        taken = list(inspect.signature(serve).parameters)
        assert taken == [name for name in names if name in taken]
        assert set(names) - set(taken) == {"workers", "body_seconds", "max_depth"}

    def test_defaults_are_written_once(self):
        defaults = {one.name: one.default for one in fields(ServeSettings)}
        for name, one in inspect.signature(serve).parameters.items():
            assert name == "run" or one.default == defaults[name]

    def test_an_engine_gets_its_own_part(self):
        settings = ServeSettings(run="run/", batch=3, port=0, keys=Path("secret"))
        assert settings.engine == EngineSettings(run="run/", batch=3)
        assert isinstance(settings, FrontSettings)

    def test_words_of_the_table(self):
        options = {word for one in all_commands()["serve"].params for word in one.opts}
        assert options >= {
            "--encode-batch-size",
            "--image-cache-size",
            "--request-timeout",
            "--shutdown-timeout",
            "--allow-unauthenticated",
            "--requests-per-minute",
        }

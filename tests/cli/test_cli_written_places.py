"""Where commands cannot write: one message each, at once, and what is there stays as it is."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from m3router.router.cli.main import app
from m3router.router.traffic import TrafficFolder
from tests.fuzz.artefacts import finished_run
from tests.fuzz.test_damage import made_once as made_once
from tests.fuzz.test_damage import without_root_powers
from tests.traffic.made import add

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")
FOLDERS = {  # whose --out is a folder
    "label": "label --examples {scenes}/examples.jsonl --images {scenes}/images --model fake",
    "import": "import table {table}",
    "export": "export {run}",
    "push": "push {run} me/name --license mit",
    "train": "train {run} --estimator logistic --no-ablations",
    "quickstart": "quickstart --scenes 20",
    "fetch": "fetch pope --file {table}",
}
FILES = {  # that write one file
    "route": "route {run} --examples {few} --images {scenes}/images --out {out}",
    "inspect": "inspect {run} --draws 2 --html {out}",
    "look": "look {image} --question what? --model fake --out {out}.png",
    "keys": "keys add {out} alice",
    "sheet": "traffic sheet {traffic} {out}",
}
INSIDE = {  # that write into what they are given
    "purge": "traffic purge {traffic} --keep-days 1",
    "forget": "traffic forget {traffic} one",
    "write": "traffic write {traffic} week",
    "revoke": "keys revoke {keys} alice",
    "report": "report {run}",
    "featurize": "featurize {run} --features question",
}


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> dict[str, Path]:
    """What the commands read."""
    root = tmp_path_factory.mktemp("given")
    made = finished_run()
    scenes = made.parent / "scenes"
    table = root / "table.csv"
    table.write_text("id,question,option,correct,cost\nq,What?,a,1,1\nq,What?,b,1,2\n")
    few, lines = root / "few.jsonl", (scenes / "examples.jsonl").read_text().splitlines()
    few.write_text("\n".join(lines[:2]))
    with TrafficFolder.open(root / "traffic", make=True) as folder:
        add(folder, "one", 1)
    CliRunner().invoke(app, ["keys", "add", str(root / "keys"), "alice"])
    shutil.copytree(made, root / "run", ignore=shutil.ignore_patterns("report"))
    return {
        "run": root / "run",
        "scenes": scenes,
        "table": table,
        "few": few,
        "image": next((scenes / "images").iterdir()),
        "traffic": root / "traffic",
        "keys": root / "keys",
    }


def commands(table: dict[str, str], given: dict[str, Path], out: Path) -> dict[str, list[str]]:
    values = {name: str(path) for name, path in given.items()} | {"out": str(out)}
    found = {}
    for name, text in table.items():
        line = [part.format(**values) for part in text.split(" ")]
        found[name] = line + (["--out", str(out)] if name in FOLDERS else [])
    return found


def told(wanted: dict[str, list[str]], place: Path, *, seconds: int = 300) -> dict[str, list[str]]:
    """What each says, in a child to which modes of files count, and which ends where one hangs."""
    child = os.fork()
    if not child:
        without_root_powers()
        found = {}
        for name, line in wanted.items():
            signal.alarm(seconds)
            got = CliRunner().invoke(app, line)
            found[name] = [repr(got.exception), got.output]
            place.write_text(json.dumps(found))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    found = json.loads(place.read_text()) if place.exists() else {}
    assert status == 0, f"it hung after {list(found)}"
    return found


def assert_one_message(found: dict[str, list[str]]) -> None:
    for name, (exception, output) in found.items():
        assert exception in ("SystemExit(1)", "SystemExit(2)"), (name, exception, output)
        errors = [line for line in output.splitlines() if line.startswith("Error: ")]
        assert len(errors) == 1 or exception == "SystemExit(2)", (name, output)
        assert "Traceback" not in output, name


def strange(place: str, root: Path) -> Path:
    """Where nothing can be written."""
    path = root / "out"
    match place:
        case "below a file":
            path.write_text("")
            return path / "within"
        case "pipe":
            os.mkfifo(path)
        case "loop":
            path.symlink_to(path.name)
            return path / "within"
        case "read-only":
            path.mkdir(mode=0o500)
            return path / "within"
        case "another kind":
            raise AssertionError
    return path


@pytest.mark.parametrize("place", ["below a file", "pipe", "loop", "read-only"])
def test_a_place_that_cannot_be_written(given, tmp_path, place):
    out = strange(place, tmp_path)
    wanted = commands(FOLDERS | FILES, given, out)
    if place == "pipe":
        os.mkfifo(tmp_path / "out.png")
    found = told(wanted, tmp_path / "told")
    assert found.keys() == wanted.keys()
    assert_one_message(found)


def test_files_where_folders_are_wanted_and_the_other_way_round(given, tmp_path):
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.write_text("mine")
    folder.mkdir()
    (tmp_path / "folder.png").mkdir()
    wanted = commands(FOLDERS, given, file) | commands(FILES, given, folder)
    assert_one_message(told(wanted, tmp_path / "told"))
    assert file.read_text() == "mine" and not list(folder.iterdir())


@pytest.mark.parametrize("name", FOLDERS)
def test_no_place_is_not_the_present_folder(given, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    line = commands(FOLDERS, given, Path("x"))[name][:-1]
    for end in ([*line, ""], [*line[:-1], "--out="]):
        got = CliRunner().invoke(app, end)
        assert got.exit_code == 2 and "--out is empty" in got.output, got.output
    assert not list(tmp_path.iterdir())


def test_what_is_read_only_is_told_and_left(given, tmp_path):
    paths = [one for name in ("run", "traffic") for one in (given[name], *given[name].rglob("*"))]
    modes = {path: path.stat().st_mode for path in paths}
    parent = given["keys"].parent
    try:
        for path in [*paths, parent]:
            path.chmod(path.stat().st_mode & ~0o222)
        found = told(commands(INSIDE, given, tmp_path), tmp_path / "told")
    finally:
        parent.chmod(0o700)
        for path, mode in modes.items():
            path.chmod(mode)
    assert_one_message(found)


def test_a_line_break_in_a_name_is_a_name(given, tmp_path):
    wanted = {one: commands(FILES, given, tmp_path / f"{one}\nb")[one] for one in FILES}
    wanted |= {"export": commands(FOLDERS, given, tmp_path / "c\nd")["export"]}
    for name, (exception, output) in told(wanted, tmp_path / "told").items():
        assert exception == "None", (name, output)

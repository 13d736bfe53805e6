"""Every file of a finished run, damaged: by its readers, and by the commands that people run."""

from __future__ import annotations

import ctypes
import json
import os
import random
import shutil
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from m3router.data.errors import DataError, M3RouterError
from m3router.router.cli.main import app
from m3router.router.inference.loading import read_rule
from m3router.router.runs.run import Run
from m3router.router.serve.backends.policies import Policies
from tests.fuzz.artefacts import FILES, KINDS, Damage, apply, check, finished_run, messages, reseal
from tests.serve.small_run import make_small_run

BY_SORT = ("log/manifest.json", "log/oracle.parquet", "router/router.json", "split.json")
EVERYWHERE = ("truncate", "number", "folder", "loop")
TABLE = [(file, kind) for file in BY_SORT for kind in KINDS if kind not in EVERYWHERE]
TABLE += [(file, kind) for file in FILES for kind in EVERYWHERE]
SAMPLE = random.Random(17).sample(TABLE, 12)
DOCUMENTS = {
    "evaluation/evaluation.json": ("rows", "metrics", "lost", "datasets", "calibration", "n"),
    "importance/importance.json": ("blocks", "features", "aiq"),
}
"""Entries that a report shows; with right hashes nothing but showing them tells."""


@pytest.fixture(autouse=True)
def made_once(monkeypatch, tmp_path_factory):
    base = tmp_path_factory.getbasetemp()
    folder = base / "fuzz_run"
    if not folder.exists():  # evaluated further, so a copy of what the server's tests use
        shutil.copytree(make_small_run(base / "small_run").root.parent, folder)
    monkeypatch.setenv("M3ROUTER_FUZZ_RUN", str(folder))


@pytest.fixture
def run(tmp_path):
    return Run(shutil.copytree(finished_run(), tmp_path / "run"))


@pytest.mark.parametrize(("file", "kind"), SAMPLE)
def test_a_damage_is_told_in_a_message(file, kind):
    check(Damage(file, kind, seed=5))


@pytest.mark.slow
@pytest.mark.parametrize(("file", "kind"), sorted(set(TABLE) - set(SAMPLE)))
def test_every_damage_is_told_in_a_message(file, kind):
    check(Damage(file, kind, seed=5))


def test_an_undamaged_run_has_nothing_to_tell(run):
    assert messages(run.root) == []


@pytest.mark.parametrize(
    ("file", "kind", "told"),
    [
        ("router/logistic.safetensors", "number", "NaN or infinite"),
        ("log/manifest.json", "deep", "nested deeper than 100 levels"),
        ("log/manifest.json", "surrogate", "half of a surrogate pair"),
        ("policies/default.json", "kind", "default.json"),
    ],
)
def test_right_hashes_help_no_damage(run, file, kind, told):
    apply(run.root, Damage(file, kind, seed=2, sealed=True))
    found = messages(run.root, file)
    assert any(told in one for one in found), found


@pytest.mark.parametrize("file", DOCUMENTS)
def test_a_report_names_the_document_that_it_cannot_show(run, file):
    whole = json.loads((run.root / file).read_bytes())
    entry = random.Random(file).choice(DOCUMENTS[file])
    value = random.Random(17).choice([5, "x", [[]], {"x": None}])
    (run.root / file).write_text(json.dumps({**whole, entry: value}))
    reseal(run.root, file)
    got = CliRunner().invoke(app, ["report", str(run.root)])
    errors = [line for line in got.output.splitlines() if line.startswith("Error: ")]
    assert isinstance(got.exception, SystemExit), got.exception
    assert len(errors) == 1 and f"{Path(file).name} is damaged" in errors[0], got.output


@pytest.mark.parametrize("written", ["NaN", "1e999", "-1e999", "1" * 5000])
def test_numbers_that_are_none_are_named_with_their_file(run, written):
    path = run.policy_file("default")
    text = path.read_text()
    start = text.index('"lam": ') + len('"lam": ')
    path.write_text(text[:start] + written + text[text.index(",", start) :])
    with pytest.raises(DataError, match=r"default\.json is not a usable policy: .*(NaN|1e999|111)"):
        read_rule(run, "default")


def commands(run):
    """What people run on a finished run; serving needs a model, and would go on for ever."""
    root = str(run.root)
    return [
        ["inspect", root],
        ["evaluate", root],
        ["report", root],
        ["serve", root, "--port", "0"],
    ]


@pytest.mark.parametrize("number", range(4))
def test_commands_refuse_a_truncated_log_in_one_message(run, number, caplog):
    path = run.log_folder / "oracle.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    got = CliRunner().invoke(app, commands(run)[number])
    assert got.exit_code == 2 and isinstance(got.exception, SystemExit), got.exception
    told = [line for line in got.output.splitlines() if line.startswith("Error: ")]
    assert len(told) == 1 and "oracle.parquet is damaged or was changed" in told[0]
    assert "ready:" not in got.output and "Traceback" not in got.output
    assert "startup failed" not in caplog.text + got.output


def test_no_log_and_a_damaged_log_are_different_things(run):
    router = run.router()
    (run.log_folder / "manifest.json").unlink()
    with pytest.raises(DataError, match=r"log/manifest\.json is missing"):
        Policies(run.root, router)
    for folder in (run.log_folder, run.features_folder):
        shutil.rmtree(folder)
    with pytest.raises(M3RouterError, match="log"):
        Policies(run.root, router)  # the split is still there: something was lost
    run.split_file.unlink()
    Policies(run.root, router)  # as it is published: a router and policies alone


def without_root_powers():
    """Let modes of files count for this process, though it is root's."""
    libc = ctypes.CDLL(None, use_errno=True)
    head, powers = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(head, powers) == 0
    for one in range(3):  # effective, permitted, inheritable: DAC_OVERRIDE and DAC_READ_SEARCH
        powers[one] &= ~0b110
    assert libc.capset(head, powers) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")
def test_a_read_only_run_is_told_and_left_as_it_is(run):
    before = {path: path.stat().st_mtime_ns for path in run.root.rglob("*")}
    for path in [run.root, *run.root.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o222)
    root, place = str(run.root), run.root.parent / "told"
    wanted = (["calibrate", root, "--budget", "40"], ["evaluate", root, "--draws", "20"])
    child = os.fork()
    if not child:
        without_root_powers()
        got = [CliRunner().invoke(app, one) for one in wanted]
        told = [(one.exit_code, one.output, repr(one.exception)) for one in got]
        place.write_text(json.dumps(told))
        os._exit(0)
    os.waitpid(child, 0)
    for code, output, exception in json.loads(place.read_text()):
        assert code == 2 and exception == "SystemExit(2)", exception
        errors = [line for line in output.splitlines() if line.startswith("Error: ")]
        assert len(errors) == 1 and "Permission denied" in errors[0]
    assert before == {path: path.stat().st_mtime_ns for path in run.root.rglob("*")}
    for path in [run.root, *run.root.rglob("*")]:
        path.chmod(path.stat().st_mode | 0o200)

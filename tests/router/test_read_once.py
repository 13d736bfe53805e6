"""Every stage and command reads and hashes each file of a run once.

Opened files are counted by the interpreter itself (`sys.addaudithook`); Parquet is parsed outside
of it, so that calls of pyarrow are counted beside.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from m3router.data.manifest import MANIFEST
from m3router.router.cli.main import app
from m3router.router.evaluation.studies.retraining import Recipe
from m3router.router.hub import Facts
from m3router.router.hub.publishing import run_files
from m3router.router.runs.calibration_data import CalibrationData
from m3router.router.runs.run import Run
from m3router.router.stages.checks import check_run
from m3router.router.stages.comparing import compare_runs
from m3router.router.stages.escalating import escalate_stage
from m3router.router.stages.evaluating import evaluate_stage
from m3router.router.stages.importance import importance_stage
from m3router.router.stages.learning import calibrate_stage, train_stage
from m3router.router.stages.monitoring import monitor_stage
from m3router.router.stages.references import reference_stage
from m3router.router.stages.reporting import report_stage
from tests.router.answered import answered_world

TABLES = ("oracle.parquet", "features.parquet")


@dataclass
class Counts:
    """How often files were opened for reading, and tables parsed, while `on`."""

    on: bool = False
    opened: Counter[str] = field(default_factory=Counter)
    parsed: Counter[str] = field(default_factory=Counter)


COUNTS = Counts()


def _watch(event: str, arguments: tuple) -> None:
    if COUNTS.on and event == "open" and isinstance(arguments[0], str | bytes | Path):
        path, mode, flags = str(arguments[0]), arguments[1], arguments[2]
        reads = flags & os.O_ACCMODE == os.O_RDONLY and not flags & os.O_DIRECTORY
        if "r" in str(mode) or (mode is None and reads and not os.path.isdir(path)):
            COUNTS.opened[path] += 1


sys.addaudithook(_watch)  # nobody can take it away again; it counts only while `on`


@contextmanager
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counts]:
    class Counted(pq.ParquetFile):
        def __init__(self, source, *args, **kwargs):
            super().__init__(source, *args, **kwargs)
            self.path = str(source)

        def read(self, *args, **kwargs):
            COUNTS.parsed[self.path] += 1
            return super().read(*args, **kwargs)

    COUNTS.opened.clear()
    COUNTS.parsed.clear()
    with monkeypatch.context() as patch:
        patch.setattr(pq, "ParquetFile", Counted)
        COUNTS.on = True
        try:
            yield COUNTS
        finally:
            COUNTS.on = False


def check(counts: Counts, *roots: Path, uploaded: bool = False) -> None:
    """Tables are hashed once and parsed once; other files are hashed once and read once.

    What is uploaded is read once more, as the bytes that it is.
    """
    inside = {
        path: times
        for path, times in counts.opened.items()
        if any(Path(path).is_relative_to(root) for root in roots) and Path(path).name != MANIFEST
    }
    allowed = {path: 1 + (not is_table(path)) + uploaded for path in inside}
    assert {path: times for path, times in inside.items() if times > allowed[path]} == {}
    assert all(times == 1 for times in counts.parsed.values())


def is_table(path: str) -> bool:
    return Path(path).name in TABLES


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("once")
    world = answered_world(n=240, options=3)
    run = Run(root / "run")
    world.log.write(run.log_folder)
    world.features.write(run.features_folder)
    train_stage(run)
    calibrate_stage(run, budget=100)
    escalate_stage(run, name="again", budget=100)
    evaluate_stage(run, draws=5, budgets=[100])
    shutil.copytree(run.root, root / "twin")
    fresh = Run(root / "fresh")
    frame = answered_world(n=100, options=3, seed=5).log.frame
    other = answered_world(n=100, options=3, seed=5).features
    for column in ("example_id", "group"):
        frame[column] = "fresh-" + frame[column]
    log = type(world.log)(frame, options=world.log.options, cost_unit=world.log.cost_unit)
    log.write(fresh.log_folder)
    ids = tuple(f"fresh-{name}" for name in other.ids)
    type(other)(ids=ids, blocks=other.blocks, metadata=other.metadata).write(fresh.features_folder)
    return root


@pytest.fixture
def root(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "once"))


STAGES: dict[str, Callable[[Run, Run], object]] = {
    "train": lambda run, _: train_stage(run, estimator="knn"),  # which one, reads nothing else
    "train, nothing to do": lambda run, _: train_stage(run, reuse=True),
    "calibrate": lambda run, _: calibrate_stage(run, budget=90),
    "calibrate a guarantee": lambda run, _: calibrate_stage(run, max_regret=0.2),
    "calibrate a cascade": lambda run, _: escalate_stage(run, budget=90),
    "calibrate a cascade with a guarantee": lambda run, _: escalate_stage(run, max_regret=0.2),
    "reference": lambda run, _: reference_stage(run),
    "data of policies": lambda run, _: CalibrationData.read(run),
    "recipe": lambda run, _: Recipe.read(run),
    "evaluate": lambda run, _: evaluate_stage(run, draws=5, budgets=[100]),
    "importance": lambda run, _: importance_stage(run, repeats=1, draws=5),
    "report": lambda run, _: report_stage(run),
    "monitor": lambda run, fresh: monitor_stage(run, fresh),
    "monitor a cascade": lambda run, fresh: monitor_stage(run, fresh, name="again"),
    "compare": lambda run, _: compare_runs(run, Run(run.root.parent / "twin"), draws=5),
    "check": lambda run, _: check_run(run),
    "publish": lambda run, _: run_files(run, Facts(name="me/router")),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_reads_once(root, stage, monkeypatch):
    run, fresh = Run(root / "run"), Run(root / "fresh")
    with counting(monkeypatch) as counts:
        STAGES[stage](run, fresh)
    assert counts.opened[str(run.log_folder / "oracle.parquet")] == 1
    check(counts, root, uploaded=stage == "publish")


COMMANDS = [
    ("calibrate", "RUN", "--budget", "90"),
    ("calibrate", "RUN", "--budget", "90", "--escalate"),
    ("calibrate", "RUN", "--max-regret", "0.2", "--escalate"),
    ("train", "RUN", "--estimator", "knn"),
    ("evaluate", "RUN", "--draws", "5"),
    ("report", "RUN"),
    ("compare", "RUN", "TWIN"),
    ("monitor", "RUN", "--traffic", "FRESH"),
    ("push", "RUN", "me/router", "--license", "mit", "--out", "NEW"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_command_reads_once(root, command, monkeypatch):
    run = Run(root / "run")
    folders = {name: root / name.lower() for name in ("RUN", "TWIN", "FRESH", "NEW")}
    line = [str(folders.get(word, word)) for word in command]
    with counting(monkeypatch) as counts:
        done = CliRunner().invoke(app, line)
    assert done.exit_code == 0, done.output
    assert counts.opened[str(run.log_folder / "oracle.parquet")] == 1
    check(counts, root, uploaded="push" in command)


def test_an_open_run_sees_what_is_written_while_it_is_open(root):
    run = Run(root / "run").opened()
    before = run.router().fingerprint
    train_stage(run, estimator="knn", seed=3)
    after = run.router().fingerprint
    assert before != after == Run(run.root).router().fingerprint
    assert run.split(run.log()).seed == 3

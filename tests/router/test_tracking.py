"""Experiment trackers are told what stages find, by their real libraries, offline.

Each is read back as it keeps things. A tracker whose package is not installed is skipped.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from m3router.data.errors import DataError
from m3router.router.runs.run import Run
from m3router.router.stages.checks import check_run
from m3router.router.stages.evaluating import evaluate_stage
from m3router.router.stages.learning import train_stage
from m3router.router.stages.tuning import Search, tune_stage
from m3router.router.tracking import trackers as module
from m3router.router.tracking.mlflow import MlflowTracker
from m3router.router.tracking.tracker import Place
from m3router.router.tracking.trackers import TRACKERS, open_trackers
from tests.router.conftest import make_world

LOGISTIC = {"estimator": "logistic", "ablations": False}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    world, run = make_world(160), Run(tmp_path_factory.mktemp("trained") / "receipts")
    world.log.write(run.log_folder)
    world.features.write(run.features_folder)
    train_stage(run, **LOGISTIC)
    return run.root


@pytest.fixture
def run(trained, tmp_path):
    return Run(Path(shutil.copytree(trained, tmp_path / "receipts")))


@dataclass
class Kept:
    """What a tracker holds of one of its runs."""

    settings: dict[str, Any]
    metrics: dict[str, dict[int, float]]
    texts: dict[str, str]
    figures: int


def _of_tensorboard(run: Run, stage: str) -> Kept:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = (run.root / "tensorboard").glob(f"{stage}-*")
    events = EventAccumulator(str(folder))
    events.Reload()
    tags = events.Tags()
    metrics = {
        name: {one.step: one.value for one in events.Scalars(name)} for name in tags["scalars"]
    }
    texts = {
        name: events.Tensors(name)[0].tensor_proto.string_val[0].decode()
        for name in tags["tensors"]
    }
    settings = {"all": texts["settings/text_summary"]}
    return Kept(settings, metrics, texts, len(tags["images"]))


def _of_mlflow(run: Run, stage: str) -> Kept:
    import mlflow

    client = mlflow.MlflowClient()
    (experiment,) = (one for one in client.search_experiments() if one.name == "m3router")
    runs = client.search_runs([experiment.experiment_id])
    (found,) = (one for one in runs if one.info.run_name == f"receipts-{stage}")
    assert found.info.status == "FINISHED"
    metrics = {
        name: {one.step: one.value for one in client.get_metric_history(found.info.run_id, name)}
        for name in found.data.metrics
    }
    files = {one.path for one in client.list_artifacts(found.info.run_id)}
    uri = f"runs:/{found.info.run_id}/"
    texts = {name: mlflow.artifacts.load_text(uri + name) for name in files if ".txt" in name}
    return Kept(found.data.params, metrics, texts, sum(".png" in name for name in files))


def _of_trackio(run: Run, stage: str) -> Kept:
    from trackio.sqlite_storage import SQLiteStorage
    from trackio.utils import MEDIA_DIR

    rows = SQLiteStorage.get_logs("m3router", f"receipts-{stage}")
    metrics: dict[str, dict[int, float]] = {}
    texts = {}
    for row in rows:
        for name, value in row.items():
            if isinstance(value, int | float):
                metrics.setdefault(name, {})[row["step"]] = value
            elif isinstance(value, dict):
                texts[name] = str(value)
    settings = SQLiteStorage.get_run_config("m3router", f"receipts-{stage}") or {}
    return Kept(settings, metrics, texts, len(list(MEDIA_DIR.rglob("*.png"))))


def _of_wandb(run: Run, stage: str) -> Kept:
    import json

    from wandb.proto import wandb_internal_pb2

    def values(items: Any) -> dict[str, Any]:
        return {one.key or one.nested_key[0]: json.loads(one.value_json) for one in items}

    settings: dict[str, Any] = {}
    history: dict[str, dict[int, float]] = {}
    summary: dict[str, Any] = {}
    until = time.monotonic() + 60
    folder: Path | None = None
    records: list[Any] = []
    while not any(one.HasField("exit") for one in records):  # a process of its own writes them
        assert time.monotonic() < until, f"wandb kept no whole run of {stage}"
        for folder in run.root.parent.glob("wandb/offline-run-*"):
            records = _records(next(folder.glob("*.wandb")), wandb_internal_pb2.Record)
            if any(one.run.display_name == f"receipts-{stage}" for one in records):
                break
    for record in records:
        settings |= values(record.config.update)
        summary |= values(record.summary.update)
        step = values(record.history.item)
        for name, value in step.items():
            history.setdefault(name, {})[step["_step"]] = value
    metrics = {name: {0: one} for name, one in summary.items() if isinstance(one, int | float)}
    metrics |= history
    texts = {name: one for name, one in summary.items() if isinstance(one, str)}
    assert folder
    return Kept(settings, metrics, texts, len(list(folder.rglob("*.png"))))


def _records(file: Path, kind: Any) -> list[Any]:
    """The records of a file of wandb's, which are in LevelDB's log format."""
    raw, place, parts, found = file.read_bytes(), 7, b"", []
    while place + 7 <= len(raw):
        length, form = int.from_bytes(raw[place + 4 : place + 6], "little"), raw[place + 6]
        parts += raw[place + 7 : place + 7 + length]
        if form in (1, 4):  # whole, or the last part
            found.append(kind.FromString(parts))
            parts = b""
        place += 7 + length
        left = 32768 - place % 32768
        place += left if left < 7 else 0
    return found


READ: dict[str, Callable[[Run, str], Kept]] = {
    "mlflow": _of_mlflow,
    "tensorboard": _of_tensorboard,
    "trackio": _of_trackio,
    "wandb": _of_wandb,
}


@pytest.fixture(params=sorted(TRACKERS))
def tracker(request, tmp_path, monkeypatch):
    """A tracker that keeps everything in a temporary folder."""
    for name, value in {
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(tmp_path),
        "WANDB_SILENT": "true",
        "WANDB_DATA_DIR": str(tmp_path / "data"),
        "WANDB_CACHE_DIR": str(tmp_path / "cache"),
        "WANDB_CONFIG_DIR": str(tmp_path / "config"),
        "TRACKIO_DIR": str(tmp_path / "trackio"),
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("MLFLOW_EXPERIMENT_NAME", "WANDB_PROJECT", "TRACKIO_SPACE_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    pytest.importorskip(request.param)
    return request.param


def test_what_trackers_are_told(tracker, run, capsys):
    train_stage(run, **LOGISTIC, log_to=[tracker])
    kept = READ[tracker](run, "train")
    losses = [one["log_loss"] for one in run.router().metadata["tuned"]]
    assert list(kept.metrics["router/log_loss"].values()) == pytest.approx(losses)
    assert "router/calibration_error/after/576" in kept.metrics
    assert "logistic" in str(kept.settings) and "examples" in str(kept.settings)

    wanted = Search(trials=3, estimators=["logistic"], folds=1)
    found, _, _ = tune_stage(run, wanted, log_to=tracker)
    kept = READ[tracker](run, "tune")
    assert sorted(kept.metrics["mean of both"]) == [0, 1, 2]
    best = list(kept.metrics["best"].values())
    assert best == sorted(best) and best[-1] == pytest.approx(
        max(sum(row["values"]) / 2 for row in found["trials"])
    )

    document = evaluate_stage(run, draws=10, budgets=[100], log_to=[tracker, tracker])
    kept = READ[tracker](run, "evaluate")
    (row,) = (one for one in document["rows"] if one["name"] == "budget 100")
    name = next(one for one in kept.metrics if "budget" in one and one.endswith("accuracy"))
    assert list(kept.metrics[name].values()) == pytest.approx([row["accuracy"]["value"]])
    assert list(kept.metrics[f"{name}/low"].values()) == pytest.approx([row["accuracy"]["low"]])
    assert document["verdict"]["text"][:40] in str(kept.texts)
    assert kept.figures == 1
    assert all(check.ok for check in check_run(run))
    assert capsys.readouterr().out == "", "results are printed there"
    private = set(Run(run.root).log().frame["question"])
    assert not any(one in str(kept) for one in private)


class Broken:
    """A tracker whose server goes away."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def settings(self, values: Any) -> None:
        """Keeps them."""

    def metrics(self, values: Any, *, step: int | None = None) -> None:
        raise ConnectionError("the server went away\nand a long story")

    def close(self, *, failed: bool) -> None:
        raise ConnectionError("still away")


def _down(place: Place) -> Any:
    raise OSError("no route")


@pytest.mark.parametrize(("adapter", "said"), [("Broken", "went away"), ("_down", "no route")])
def test_a_tracker_that_fails_costs_no_work(run, monkeypatch, caplog, adapter, said):
    monkeypatch.setitem(TRACKERS, "mlflow", f"{__name__}:{adapter}")
    monkeypatch.setattr(module, "_installed", lambda name: True)
    (run.arm() / "manifest.json").unlink()
    with caplog.at_level(logging.WARNING):
        train_stage(run, **LOGISTIC, log_to="mlflow")
    assert run.router().estimator_name == "logistic"
    (line,) = caplog.messages
    assert line.startswith("mlflow") and said in line and "\n" not in line


def test_a_tracker_that_is_not_there_is_an_error_before_the_work(run, monkeypatch):
    monkeypatch.setitem(TRACKERS, "nowhere", "m3router.nowhere:Tracker")
    before = (run.arm() / "manifest.json").read_bytes()
    with pytest.raises(DataError, match=r"pip install 'm3router\[nowhere\]'"):
        train_stage(run, **LOGISTIC, log_to=["nowhere"])
    with pytest.raises(DataError, match="Did you mean 'tensorboard'"):
        train_stage(run, **LOGISTIC, log_to=["tensorbord"])
    assert (run.arm() / "manifest.json").read_bytes() == before


def test_a_stage_that_is_refused_leaves_no_folder(tmp_path):
    pytest.importorskip("tensorboard")
    with pytest.raises(DataError):
        train_stage(Run(tmp_path / "typo"), log_to="tensorboard")
    assert not (tmp_path / "typo").exists()


def test_a_folder_that_a_tracker_made_is_not_its_package(tmp_path, monkeypatch):
    (tmp_path / "nowhere").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(TRACKERS, "nowhere", "m3router.nowhere:Tracker")
    with pytest.raises(DataError, match="is not installed"), open_trackers("nowhere", PLACE):
        pass


PLACE = Place(run="a", stage="train", folder=Path("a"))


def test_names_that_mlflow_refuses_stay_apart():
    tracker = MlflowTracker.__new__(MlflowTracker)
    tracker._names = {}
    given = ["a/low@2", "a/low×2", "a//b", "a/../b", "a/" + "x" * 300, "a/" + "x" * 301, "a/low@2"]
    taken = [tracker._name(one) for one in given]
    assert taken[0] == taken[-1] == "a/low_2" and taken[1] == "a/low_2-2"
    assert taken[2:4] == ["a/_/b", "a/_/b-2"]
    assert len(set(taken)) == len(given) - 1 and max(map(len, taken)) <= 250


def test_an_interrupted_stage_ends_the_run_as_failed(monkeypatch):
    ended = []

    class Ended(Broken):
        def close(self, *, failed: bool) -> None:
            ended.append(failed)

    monkeypatch.setitem(TRACKERS, "mlflow", "m3router:none")
    monkeypatch.setattr(module, "_installed", lambda name: True)
    monkeypatch.setattr(module, "load_entry", lambda *given, **named: Ended)
    with pytest.raises(KeyboardInterrupt), open_trackers("mlflow", PLACE):
        raise KeyboardInterrupt
    assert ended == [True]

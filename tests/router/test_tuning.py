"""The search as a whole, on run folders."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import optuna
import pytest

from m3router.data.errors import DataError, MismatchError
from m3router.data.splits.split import SPLITS, split_by_group
from m3router.router.estimators.base import Range
from m3router.router.estimators.logistic import LogisticEstimator
from m3router.router.features.table import FeatureTable
from m3router.router.runs.run import Run
from m3router.router.stages.evaluating import evaluate_stage
from m3router.router.stages.learning import calibrate_stage, train_stage
from m3router.router.stages.splitting import Splitting
from m3router.router.stages.tuning import Search, tune_stage, tuned_setting, tuning_folder
from m3router.router.training.scale_router import ScaleRouter
from m3router.router.tuning.spaces import draw
from m3router.router.tuning.store import open_study
from m3router.router.tuning.workers import fail_dead, this_worker
from tests.children import child

TRIALS = 11


def write_run(folder: Path, log, features) -> Run:
    run = Run(folder)
    log.write(run.log_folder)
    features.write(run.features_folder)
    return run


def searched(run: Run, trials: int = TRIALS, **options):
    wanted = Search(trials=trials, **{"estimators": ("logistic",), **options})
    return tune_stage(run, wanted)[0]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small world with a block of noise, and its run folder, tuned."""
    from tests.router.conftest import World, log_of, make_world

    full = make_world(n=160, seed=1)
    log = log_of(full.log.scores[:, ::2], groups=list(full.log.groups))
    noise = np.random.default_rng(0).standard_normal((160, 4))
    features = FeatureTable(ids=log.ids, blocks={**full.features.blocks, "noise": noise})
    world = World(log, features, split_by_group(log.groups))
    run = write_run(tmp_path_factory.mktemp("tuning") / "run", world.log, world.features)
    searched(run)
    return world, run


@pytest.fixture
def tuned(small, tmp_path):
    """A copy of it."""
    return Run(Path(shutil.copytree(small[1].root, tmp_path / "run")))


def fresh(small, folder) -> Run:
    return write_run(folder, small[0].log, small[0].features)


def document(run: Run) -> dict:
    return json.loads((tuning_folder(run) / "study.json").read_text())


def test_the_files_say_what_was_found(tuned):
    found = document(tuned)
    assert len(found["trials"]) == TRIALS
    with (tuning_folder(tuned) / "tuning.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["trial"]) for row in rows] == list(range(TRIALS))
    for name in ("front.png", "front.svg", "split.json", "journal.log"):
        assert (tuning_folder(tuned) / name).stat().st_size > 0
    complete = {row["number"]: row for row in found["trials"] if row["state"] == "complete"}
    assert found["trials"][0]["hyperparameters"] == {"C": 3e-3}  # the default comes first
    # Pareto set and choice, worked out the slow way
    front = [
        number
        for number, row in complete.items()
        if not any(
            all(a >= b for a, b in zip(other["values"], row["values"], strict=True))
            and other["values"] != row["values"]
            for other in complete.values()
        )
    ]
    assert found["pareto"] == front
    best = max(front, key=lambda number: sum(complete[number]["values"]))
    assert found["chosen"] == best
    assert sum(complete[best]["values"]) >= sum(complete[0]["values"])


def test_a_trial_is_pruned_exactly_when_the_rule_says_so(tuned):
    journal = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tuning_folder(tuned) / "journal.log"))
    )
    trials = optuna.load_study(study_name="default", storage=journal).trials
    for trial in trials:
        earlier = [other.user_attrs["rung"] for other in trials[: trial.number]]
        curve = np.array(trial.user_attrs["rung"])
        behind = curve - (np.median(earlier, axis=0) if earlier else curve)
        prune = len(earlier) >= 8 and bool((behind <= 1e-9).all() and (behind < -1e-9).any())
        assert (trial.state.name == "PRUNED") == prune


@pytest.mark.parametrize(
    ("earlier", "state"),
    [([1.0] * 8, "PRUNED"), ([1.0] * 6, "COMPLETE"), ([0.0] * 5 + [1.0] * 4, "COMPLETE")],
)
def test_what_earlier_trials_dominate_is_pruned(tuned, earlier, state):
    study = open_study(
        "journal",
        name="rigged",
        journal=tuning_folder(tuned) / "journal.log",
        made_from=document(tuned)["made_from"],
        seed=0,
    )
    for level in earlier:
        rung = {"rung": [level] * 33}
        study.add_trial(
            optuna.trial.create_trial(state=optuna.trial.TrialState.PRUNED, user_attrs=rung)
        )
    searched(tuned, trials=len(earlier) + 2, study="rigged")  # the default, then a drawn one
    assert study.trials[0].state.name == "COMPLETE"  # nothing was earlier
    assert study.trials[-1].state.name == state
    if state == "PRUNED":
        with pytest.raises(DataError, match=f"no completed trial {len(earlier) + 1}"):
            tuned_setting(tuned, trial=len(earlier) + 1)


def test_calibrate_and_test_are_never_touched(small, tmp_path, build_log):
    """Poison: other answers, costs and features there give the same files, byte for byte."""
    world, clean = small
    scores, costs = world.log.scores.copy(), world.log.costs.copy()
    blocks = {name: block.copy() for name, block in world.features.blocks.items()}
    for part in (world.split.calibrate, world.split.test):
        scores[part] = 1 - scores[part]
        costs[part] *= 17
        for block in blocks.values():
            block[part] = 1e6
    log = build_log(scores, groups=list(world.log.groups), costs=costs)
    table = FeatureTable(ids=world.features.ids, blocks=blocks, metadata=world.features.metadata)
    dirty = write_run(tmp_path / "dirty", log, table)
    searched(dirty)
    for name in ("study.json", "split.json", "front.svg"):
        assert (tuning_folder(dirty) / name).read_bytes() == (
            tuning_folder(clean) / name
        ).read_bytes()
    routers = []
    for run in (dirty, Run(Path(shutil.copytree(clean.root, tmp_path / "clean")))):
        train_stage(run, tuned=tuned_setting(run))
        routers.append({path.name: path.read_bytes() for path in sorted(run.arm().iterdir())})
        del routers[-1]["manifest.json"]  # it names the hashes of whole files
    assert routers[0] == routers[1]


def test_poison_in_fit_or_tune_is_noticed(small, tmp_path, build_log):
    """So that the test above can fail."""
    world, clean = small
    for part in ("fit", "tune"):
        scores = world.log.scores.copy()
        scores[world.split.part(part)[:10]] = 0.0
        log = build_log(scores, groups=list(world.log.groups))
        dirty = write_run(tmp_path / part, log, world.features)
        assert searched(dirty, trials=1)["trials"][0] != document(clean)["trials"][0]


def test_an_interrupted_search_goes_on_as_if_it_had_not_been(small, tmp_path):
    run = fresh(small, tmp_path / "run")
    for trials in (1, 6, TRIALS):
        assert len(searched(run, trials=trials)["trials"]) == trials
    expected = (tuning_folder(small[1]) / "study.json").read_bytes()
    assert (tuning_folder(run) / "study.json").read_bytes() == expected


def test_a_study_of_something_else_is_refused(tuned, small, build_log):
    world = small[0]
    with pytest.raises(MismatchError, match=r"seed 0 there, 1 here"):
        tune_stage(tuned, Search(trials=20, estimators=("logistic",)), seed=1)
    with pytest.raises(MismatchError, match=r"estimators .*'logistic'.*there.*'lightgbm'"):
        searched(tuned, estimators=("lightgbm",))
    shares = Splitting(shares=(0.4, 0.2, 0.2, 0.2))
    with pytest.raises(MismatchError, match="split"):
        tune_stage(tuned, Search(trials=20, estimators=("logistic",)), splitting=shares)
    scores = world.log.scores.copy()
    scores[world.split.fit[0]] = 1 - scores[world.split.fit[0]]
    build_log(scores, groups=list(world.log.groups)).write(tuned.log_folder)
    with pytest.raises(MismatchError, match="log .* there, .* here.*--study"):
        searched(tuned)
    with pytest.raises(MismatchError, match="made from another log"):
        tuned_setting(tuned)
    searched(tuned, trials=1, study="another")  # lies beside it
    assert tuned_setting(tuned).record["study"] == "another"


def test_changed_features_are_refused(tuned, small):
    features = small[0].features
    blocks = {name: block * 2 for name, block in features.blocks.items()}
    dataclasses.replace(features, blocks=blocks).write(tuned.features_folder)
    with pytest.raises(MismatchError, match="features"):
        searched(tuned)
    with pytest.raises(MismatchError, match="features"):
        tuned_setting(tuned)


def test_training_takes_the_chosen_setting(tuned):
    found = document(tuned)
    train_stage(tuned, tuned=tuned_setting(tuned))
    router = ScaleRouter.read(tuned.arm())
    chosen = found["trials"][found["chosen"]]
    assert router.metadata["hyperparameters"]["C"] == chosen["hyperparameters"]["C"]
    assert list(router.blocks) == chosen["blocks"]
    assert router.metadata["split"] == found["made_from"]["split"]
    record = router.metadata["tuning"]
    assert (record["trial"], record["chosen"]) == (found["chosen"], True)
    assert record["sha256"] == found["sha256"]
    assert len(router.metadata["tuned"]) == 1
    stored = ScaleRouter.read(tuned.arm("image-only"))
    assert stored.metadata["hyperparameters"]["C"] == chosen["hyperparameters"]["C"]


def test_another_trial_can_be_asked_for(tuned):
    found = document(tuned)
    other = next(
        row["number"]
        for row in found["trials"]
        if row["state"] == "complete" and row["number"] != found["chosen"]
    )
    setting = tuned_setting(tuned, trial=other)
    assert setting.hyperparameters == found["trials"][other]["hyperparameters"]
    assert setting.record["chosen"] is False
    with pytest.raises(DataError, match="no completed trial 99"):
        tuned_setting(tuned, trial=99)


def test_an_edited_study_is_refused(tuned):
    path = tuning_folder(tuned) / "study.json"
    path.write_text(path.read_text().replace('"chosen": ', '"chosen": 1'))
    with pytest.raises(DataError, match="does not match its own SHA-256"):
        tuned_setting(tuned)
    path.unlink()
    with pytest.raises(DataError, match="Run `m3router tune` first"):
        tuned_setting(tuned)


def test_bad_settings_fail_alone_with_their_cause(small, tmp_path, monkeypatch):
    space = {"C": Range(low=-1.0, high=1.0, start=3e-3)}
    monkeypatch.setattr(LogisticEstimator, "SPACE", space)
    found = searched(fresh(small, tmp_path / "run"), trials=8)
    failed = [row for row in found["trials"] if row["state"] == "failed"]
    assert failed
    assert len(found["trials"]) == 8
    for row in failed:
        assert row["hyperparameters"]["C"] < 0
        assert "'C' parameter" in row["cause"]
    with (tmp_path / "run/tuning/tuning.csv").open() as file:
        assert sum("'C' parameter" in row["cause"] for row in csv.DictReader(file)) == len(failed)


def test_a_study_without_a_completed_trial_says_why(small, tmp_path, monkeypatch):
    monkeypatch.setattr(LogisticEstimator, "SPACE", {"c": Range(low=0.5, high=2.0, start=1.0)})
    with pytest.raises(
        DataError, match="No trial .* was completed.*hyper-parameter of LogisticEstimator 'c'"
    ):
        searched(fresh(small, tmp_path / "run"), trials=2)


def test_no_time_gives_no_trial(small, tmp_path):
    with pytest.raises(DataError, match="more trials or time"):
        searched(fresh(small, tmp_path / "run"), timeout=0.0)


def test_a_trial_whose_process_is_gone_does_not_block(tuned):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    made_from = document(tuned)["made_from"]
    journal = tuning_folder(tuned) / "journal.log"
    study = open_study("journal", name="default", journal=journal, made_from=made_from, seed=0)
    lost, elsewhere = study.ask(), study.ask()
    lost.set_user_attr("worker", this_worker() | {"pid": gone.pid})
    name, chosen, settings = draw(lost, estimators=("logistic",), blocks=made_from["blocks"])
    lost.set_user_attr("hyperparameters", settings)
    elsewhere.set_user_attr("worker", this_worker() | {"host": "far", "began": 0.0})
    with journal.open("ab") as file:
        file.write(b'{"op_code":8,"worker')  # killed while it wrote
    found = searched(tuned, trials=TRIALS + 2)
    rows = {row["number"]: row for row in found["trials"]}
    assert rows[lost.number]["cause"] == "its process ended"
    again = [row for row in rows.values() if row["hyperparameters"] == settings]
    assert [row["state"] for row in again] in (["failed", "complete"], ["failed", "pruned"])
    assert {row["estimator"] for row in again} == {name}
    assert [row["blocks"] for row in again] == [chosen, chosen]
    assert elsewhere.number not in rows  # not known to be dead, but not waited for
    states = [row["state"] for row in rows.values()]
    assert states.count("complete") + states.count("pruned") == TRIALS + 2


def test_a_damaged_journal_is_refused(tuned):
    path = tuning_folder(tuned) / "journal.log"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3][:9] + b"\n"
    path.write_bytes(b"".join(lines))
    with pytest.raises(DataError, match=r"journal.log is damaged"):
        searched(tuned)


@pytest.mark.parametrize("what", ["values", "curve", "hyperparameters"])
def test_a_changed_trial_is_refused(tuned, what):
    path = tuning_folder(tuned) / "journal.log"
    lines = path.read_text().splitlines()
    for place in range(len(lines) - 1, -1, -1):
        entry = json.loads(lines[place])
        if what == "values" and entry.get("values"):
            entry["values"] = [0.99, 0.99]
            break
        found = entry.get("user_attr", {}).get(what)
        if found is not None:
            changed = [0.99, *found[1:]] if what == "curve" else {**found, "C": 5.0}
            entry["user_attr"] = {what: changed}
            break
    lines[place] = json.dumps(entry)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"Trial \d+ of the tuning study is damaged or was changed"):
        searched(tuned, trials=TRIALS + 1)


def test_a_database_keeps_a_study_too(small, tmp_path):
    run = fresh(small, tmp_path / "run")
    storage = f"sqlite:///{tmp_path}/tuning.db"
    searched(run, trials=2, storage=storage)
    found = searched(run, trials=4, storage=storage)
    expected = document(small[1])["trials"][:4]
    assert found["trials"] == expected
    assert not (tuning_folder(run) / "journal.log").exists()


@pytest.mark.parametrize("storage", ["tuning.db", "oracle+none://me:secret@host/x", "sqlite://%"])
def test_a_bad_storage_is_refused_without_its_password(tuned, storage):
    with pytest.raises(DataError, match="--storage|A storage is") as caught:
        searched(tuned, storage=storage)
    assert "secret" not in str(caught.value)


def test_unknown_estimators_get_a_suggestion(tuned):
    with pytest.raises(DataError, match="Did you mean 'logistic'"):
        searched(tuned, estimators=("logistik",))
    with pytest.raises(DataError, match="at least one estimator"):
        searched(tuned, estimators=())


WORKER = """
import sys
from pathlib import Path
from m3router.router.runs.run import Run
from m3router.router.stages.tuning import Search, tune_stage
run = Run(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
_, counts, stopped = tune_stage(run, Search(trials=int(sys.argv[2]), estimators=("logistic",)))
print(counts.finished, stopped)
"""


@pytest.fixture
def start() -> Iterator[Callable[[Run, int], subprocess.Popen[str]]]:
    with contextlib.ExitStack() as started:

        def begin(run, trials):
            worker = child(
                [sys.executable, "-c", WORKER, str(run.root), str(trials)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=Path(__file__).resolve().parents[2],
            )
            process = started.enter_context(worker)
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            return process

        yield begin


def test_two_processes_share_a_study(small, tmp_path, start):
    run = fresh(small, tmp_path / "run")
    worker = start(run, 10)
    worker.stdin.write("\n")
    worker.stdin.flush()
    searched(run, trials=10)  # this process is the other one
    output, errors = worker.communicate(timeout=120)
    assert worker.returncode == 0, errors
    assert output.endswith("False\n")
    found = document(run)
    numbers = [row["number"] for row in found["trials"]]
    assert numbers == list(range(len(numbers)))
    assert 10 <= len(numbers) <= 11
    drawn = [row["hyperparameters"]["C"] for row in found["trials"]]
    assert len(set(drawn)) == len(drawn)  # with one seed, yet nothing is tried twice
    journal = (tuning_folder(run) / "journal.log").read_text()
    tokens = {line.split('"token":"')[1][:16] for line in journal.splitlines() if '"token"' in line}
    assert len(tokens) == 2


def test_sigterm_keeps_what_was_done(small, tmp_path, start):
    run = fresh(small, tmp_path / "run")
    worker = start(run, 5000)
    worker.stdin.write("\n")
    worker.stdin.flush()
    journal = tuning_folder(run) / "journal.log"
    while not (journal.is_file() and journal.read_text().count('"log_loss"') > 1):
        assert worker.poll() is None
    worker.terminate()
    output, errors = worker.communicate(timeout=60)
    assert worker.returncode == 0, errors
    finished, stopped = output.split()
    assert stopped == "True"
    done = [row for row in document(run)["trials"] if row["state"] != "failed"]
    assert len(done) == int(finished) >= 2
    interrupted = [row for row in document(run)["trials"] if row["state"] == "failed"]
    assert all(row["cause"] == "it was interrupted" for row in interrupted)
    more = searched(run, trials=int(finished) + 1)["trials"]
    assert more[: len(done)] == done
    if interrupted:  # not when the signal came between two trials
        assert more[-1]["hyperparameters"] == interrupted[-1]["hyperparameters"]


def test_another_split_invalidates_policies_and_evaluation(tuned):
    quick = {"estimator": "knn", "ablations": False}
    train_stage(tuned, **quick)
    calibrate_stage(tuned, budget=100)
    evaluate_stage(tuned, draws=20)
    shares = Splitting(shares=(0.15, 0.05, 0.1, 0.7))
    router = train_stage(tuned, splitting=shares, **quick)
    log = tuned.log()
    sizes = [len(tuned.split(log).part(name)) for name in SPLITS]
    assert sizes == [24, 8, 16, 112]
    assert router.metadata["split"] == tuned.split(log).fingerprint
    with pytest.raises(MismatchError, match="default"):
        evaluate_stage(tuned, draws=20)
    with pytest.raises(MismatchError, match="The split was made again after the run was evaluated"):
        tuned.verify(tuned.evaluation_folder, "evaluate")
    calibrate_stage(tuned, budget=100)
    assert evaluate_stage(tuned, draws=20)["n"]["test"] == 112


def test_a_given_split_is_trained_and_tuned_on(small, tmp_path):
    world = small[0]
    run = fresh(small, tmp_path / "run")
    groups = sorted(set(world.log.groups))
    path = tmp_path / "parts.csv"
    parts = ["train" if place < 24 else "test" for place in range(len(groups))]
    lines = [f"{group},{part}" for group, part in zip(groups, parts, strict=True)]
    path.write_text("\n".join(["group,split", *lines]))
    train_stage(run, splitting=Splitting(file=path), estimator="knn", ablations=False)
    split = run.split(run.log())
    assert set(world.log.groups[split.test]) == set(groups[24:])
    found = searched(run, trials=2)  # takes the run's own split
    assert found["made_from"]["split"] == split.fingerprint
    assert tuned_setting(run).split.fingerprint == split.fingerprint


def test_what_kills_its_process_twice_is_not_tried_a_third_time(small, tmp_path):
    made_from = {"estimators": ["logistic"], "blocks": ["image"]}
    study = open_study(
        "journal", name="x", journal=tmp_path / "journal.log", made_from=made_from, seed=0
    )
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    drawn = []
    for _ in range(3):
        trial = study.ask()
        trial.set_user_attr("worker", this_worker() | {"pid": gone.pid})
        drawn.append(draw(trial, estimators=("logistic",), blocks=("image",))[2])
        fail_dead(study)
        fail_dead(study)  # as another process would
    assert drawn[0] == drawn[1] != drawn[2]
    assert {trial.state.name for trial in study.trials} == {"FAIL", "WAITING"}

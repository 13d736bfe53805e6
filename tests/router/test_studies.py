from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3router.data.errors import DataError
from m3router.data.log.oracle_log import OracleLog
from m3router.router.evaluation.studies.cells import Cells
from m3router.router.evaluation.studies.learning_curve import nested_rows
from m3router.router.evaluation.studies.summary import answer, by_share, enough_labels
from m3router.router.runs.run import Run
from m3router.router.stages.evaluating import evaluate_stage
from m3router.router.stages.learning import calibrate_stage, train_stage
from m3router.router.stages.reporting import report_stage
from m3router.router.stages.studies import learning_curve_stage, leave_one_out_stage


def estimate(value, half=0.01):
    return {"value": value, "low": value - half, "high": value + half}


def cells_of(gains: dict[float, list[float]]) -> list[dict]:
    return [
        {"share": share, "seed": seed, "n": 1000 * share, "pictures": 100 * share}
        | {"aiq": estimate(0.8 + gain), "gain": estimate(gain), "saved": estimate(0.5)}
        for share, values in gains.items()
        for seed, gain in enumerate(values)
    ]


def test_shares_are_means_over_seeds_with_the_widest_values():
    first, whole = by_share(cells_of({1.0: [0.1], 0.25: [0.02, 0.04, 0.06]}))
    assert (first["share"], first["seeds"], first["n"], whole["n"]) == (0.25, 3, 250.0, 1000.0)
    assert first["gain"]["value"] == pytest.approx(0.04)
    assert (first["gain"]["least"], first["gain"]["most"]) == (0.02, 0.06)
    assert first["gain"]["high"] == pytest.approx(0.05)


def test_enough_is_the_smallest_share_from_which_on_all_have_it():
    rows = by_share(cells_of({0.1: [0.095], 0.2: [0.06], 0.5: [0.091], 1.0: [0.1]}))
    goals = {goal["part"]: goal["n"] for goal in enough_labels(rows)["goals"]}
    assert goals == {0.5: 100, 0.8: 500, 0.9: 500, 0.95: 1000}
    document = {"enough": enough_labels(rows), "n": {"fit": 1000}}
    assert "100 for 50 %, 500 for 80 %, 500 for 90 %" in answer(document)
    assert "more labels would help" in answer(document)


def test_without_a_clear_gain_there_is_no_answer():
    rows = by_share(cells_of({0.5: [0.004], 1.0: [0.005]}))
    enough = enough_labels(rows)
    assert not enough["clear"]
    assert {goal["n"] for goal in enough["goals"]} == {None}
    assert "not clearly better" in answer({"enough": enough, "n": {"fit": 10}})


@given(
    shares=st.lists(st.floats(0.01, 1), min_size=2, max_size=4, unique=True),
    seed=st.integers(0, 9),
)
def test_shares_are_nested_and_keep_images_whole(shares, seed):
    groups = np.repeat(np.arange(40).astype(str), 3)
    rows = np.arange(30, 120)
    last: set[int] = set()
    for share in sorted(shares):
        kept = nested_rows(groups, rows, share=share, seed=seed)
        images = set(groups[kept].tolist())
        assert len(images) == max(1, round(share * 30))
        assert len(kept) == 3 * len(images)
        assert last <= set(kept.tolist()) <= set(rows.tolist())
        last = set(kept.tolist())


def test_cells_are_kept_bound_and_made_again_when_damaged(tmp_path, caplog):
    made = []

    def make():
        made.append(1)
        return {"value": len(made)}

    cells = Cells(folder=tmp_path, bound={"log": "a"})
    key = {"share": 0.5, "seed": 1}
    assert cells.get(key, make) == cells.get(key, make) == {"value": 1}
    assert cells.get({"share": 0.5, "seed": 2}, make) == {"value": 2}
    other = Cells(folder=tmp_path, bound={"log": "b"})
    assert other.kept(key) is None
    assert other.get(key, make) == {"value": 3}
    assert cells.kept(key) is None  # the log is another one now
    cells.path(key).write_text('{"schema": 1, "key"')
    assert cells.get(key, make) == {"value": 4}
    assert "cut short" in caplog.text


def test_a_cell_with_one_digit_changed_is_told_and_made_again(tmp_path, caplog):
    cells = Cells(folder=tmp_path, bound={"log": "a"})
    key = {"share": 0.5, "seed": 1}
    cells.get(key, lambda: {"value": 0.25})
    path = cells.path(key)
    path.write_text(path.read_text().replace("0.25", "0.26"))
    assert cells.get(key, lambda: {"value": 0.25}) == {"value": 0.25}
    assert "edited" in caplog.text


@pytest.fixture(scope="module")
def made(world, tmp_path_factory):
    """A trained run; not to be changed."""
    run = Run(tmp_path_factory.mktemp("made") / "run")
    frame = world.log.frame
    frame["dataset"] = np.where(np.arange(len(frame)) // 5 % 3 == 0, "few $ & <b>", "many")
    OracleLog(
        frame, options=world.log.options, cost_unit="visual tokens", metadata={"model": "x"}
    ).write(run.log_folder)
    world.features.write(run.features_folder)
    train_stage(run, estimator="lightgbm", ablations=False)
    return run


@pytest.fixture
def trained(made, tmp_path):
    """A copy of it."""
    return Run(Path(shutil.copytree(made.root, tmp_path / "run")))


@pytest.fixture(scope="module")
def left_out(made, tmp_path_factory):
    """Another copy, with its values left out, and what that gave; not to be changed."""
    run = Run(Path(shutil.copytree(made.root, tmp_path_factory.mktemp("left-out") / "run")))
    return run, leave_one_out_stage(run, draws=30)


def test_a_learning_curve_goes_on_where_it_stopped(trained):
    options = {"shares": (0.1, 0.5), "seeds": 2, "draws": 30}
    cells = trained.root / "learning-curve/cells"

    def stop_after_two(done, total, note):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learning_curve_stage(trained, **options, progress=stop_after_two)
    kept = {path: path.stat().st_mtime_ns for path in cells.iterdir()}
    assert len(kept) == 2
    told = []
    document = learning_curve_stage(
        trained, **options, progress=lambda done, total, note: told.append((done, total))
    )
    assert told == [(done, 5) for done in range(6)]
    assert len(list(cells.iterdir())) == 5
    assert {path: path.stat().st_mtime_ns for path in kept} == kept  # not made again
    assert [row["share"] for row in document["shares"]] == [0.1, 0.5, 1.0]
    n = [row["n"] for row in document["shares"]]
    assert n == sorted(n)
    assert n[-1] == document["n"]["fit"]
    again = learning_curve_stage(trained, **options)
    assert again == document
    folder = trained.root / "learning-curve"
    with (folder / "learning-curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row, truth in zip(rows, document["shares"], strict=True):
        assert float(row["aiq"]) == truth["aiq"]["value"]
    for name in ("learning-curve.png", "learning-curve.svg", "learning-curve.tex", "cells.csv"):
        assert (folder / name).stat().st_size > 100


def test_the_whole_share_is_the_runs_own_router(trained):
    document = learning_curve_stage(trained, shares=(0.25,), seeds=1, draws=30)
    calibrate_stage(trained, budget=36)
    evaluated = evaluate_stage(trained, draws=30)
    assert document["cells"][-1]["aiq"]["value"] == evaluated["metrics"]["aiq"]["value"]
    assert document["fixed"]["value"] == evaluated["metrics"]["aiq_fixed"]["value"]


def test_shares_must_be_shares(trained):
    with pytest.raises(DataError, match=r"\(0, 1\].*\[1.5\]"):
        learning_curve_stage(trained, shares=(0.5, 1.5))


def test_what_is_left_out_is_in_no_part_that_is_learned_from(trained, left_out):
    """Poisoning what is left out, except in the test split, changes nothing for it."""
    clean = {one["without"]: one for one in left_out[1]["cells"]}
    log = trained.log()
    test = {log.ids[row] for row in trained.split(log).test}
    frame = log.frame
    learned = ~frame["example_id"].isin(test) & (frame["dataset"] == "many")
    frame.loc[learned, "score"] = 1 - frame.loc[learned, "score"]
    OracleLog(frame, options=log.options, cost_unit=log.cost_unit, metadata=log.metadata).write(
        trained.log_folder
    )
    train_stage(trained, estimator="lightgbm", ablations=False)
    poisoned = {one["without"]: one for one in leave_one_out_stage(trained, draws=30)["cells"]}
    for number in ("n", "aiq", "aiq_fixed", "gain", "told_99", "best_fixed"):
        assert poisoned["many"][number] == clean["many"][number], number
    assert poisoned["many"]["in_domain"] != clean["many"]["in_domain"]
    assert poisoned["few $ & <b>"]["aiq"] != clean["few $ & <b>"]["aiq"]


def test_left_out_values_are_tested_on_their_own_test_questions(left_out):
    run, document = left_out
    cells = {cell["without"]: cell for cell in document["cells"]}
    log, split = run.log(), run.split(run.log())
    for name, cell in cells.items():
        inside = split.test[log.datasets[split.test].astype(str) == name]
        assert cell["n"] == len(inside)
        option = log.options.index(cell["best_fixed"]["option"])
        assert cell["best_fixed"]["accuracy"]["value"] == pytest.approx(
            log.scores[inside, option].mean()
        )
    folder = run.root / "leave-one-out"
    with (folder / "leave-one-out.csv").open() as file:
        assert [row["without"] for row in csv.DictReader(file)] == ["few $ & <b>", "many"]
    assert r"few \$ \& \textless{}b\textgreater{}" in (folder / "leave-one-out.tex").read_text()


def test_in_one_world_nothing_is_lost_by_leaving_a_part_out(left_out):
    """Both datasets are drawn alike: a router of one serves the other."""
    for cell in left_out[1]["cells"]:
        assert cell["gain"]["value"] > 0
        assert abs(cell["in_domain"]["value"]) < 0.05
        assert cell["lookup"]["value"] < 0  # mean scores know nothing of the question


def test_a_column_must_have_few_values_one_per_example(trained):
    for by, message in (
        ("nowhere", "Unknown column of the log 'nowhere'"),
        ("scale", "'scale' differs between the options"),
        ("question", "2 to 50 values, but 'question' has 1"),
        ("example_id", "2 to 50 values, but 'example_id' has 600"),
    ):
        with pytest.raises(DataError, match=message):
            leave_one_out_stage(trained, by=by)


def test_a_value_that_is_only_in_some_parts_is_skipped_with_a_reason(trained):
    log = trained.log()
    rare = log.ids[trained.split(log).test[0]]
    frame = log.frame
    frame.loc[frame["example_id"] == rare, "dataset"] = "rare"
    OracleLog(frame, options=log.options, cost_unit=log.cost_unit, metadata=log.metadata).write(
        trained.log_folder
    )
    train_stage(trained, estimator="lightgbm", ablations=False)
    document = leave_one_out_stage(trained, draws=20)
    cell = next(cell for cell in document["cells"] if cell["without"] == "rare")
    assert cell["skipped"].startswith("It is missing")
    assert document["macro"]["gain"] is not None


def test_the_report_shows_studies_of_this_router_and_says_which_are_of_another(left_out, tmp_path):
    trained = Run(Path(shutil.copytree(left_out[0].root, tmp_path / "run")))
    calibrate_stage(trained, budget=36)
    learning_curve_stage(trained, shares=(0.25,), seeds=1, draws=20)
    evaluate_stage(trained, draws=20)
    page = report_stage(trained).read_text(encoding="utf-8")
    assert "How many labels are enough" in page
    assert "Trained and calibrated without one dataset" in page
    train_stage(trained, estimator="knn", ablations=False)
    calibrate_stage(trained, budget=36)
    evaluate_stage(trained, draws=20)
    page = report_stage(trained).read_text(encoding="utf-8")
    assert "Trained and calibrated without one dataset" not in page
    assert "Run `m3router study learning-curve " in page
    manifest = json.loads((trained.report_folder / "manifest.json").read_text())
    assert set(manifest["inputs"]) == {"evaluation"}

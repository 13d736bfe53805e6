"""Probabilities of examples that the router was fitted on."""

from __future__ import annotations

import numpy as np
import pytest

from m3router.data.errors import DataError
from m3router.router.hub import load_router, save_router
from m3router.router.runs.calibration_data import predictions
from m3router.router.runs.run import Run
from m3router.router.stages.learning import train_stage
from m3router.router.training.fit import train_router
from m3router.router.training.held_out import FILE, HeldOut


@pytest.fixture(scope="module")
def trained(world):
    return train_router(world.log, world.features, world.split)


def test_the_tune_part_is_judged_by_what_has_not_seen_it(world, trained):
    """Fitted probabilities look better there than on new questions, held-out ones do not."""
    error = {}
    every = np.arange(len(world.log))
    own = predictions(trained, world.features, world.log, every)
    fitted = trained.predict(world.features)
    for part in ("fit", "tune", "test"):
        rows = world.split.part(part)
        scores = world.log.scores[rows]
        error[part] = [np.square(p[rows] - scores).mean() for p in (own, fitted)]
    learned = np.concatenate([world.split.fit, world.split.tune])
    assert set(trained.held_out.ids) == {world.log.ids[row] for row in learned}
    assert error["test"][0] == error["test"][1]
    assert error["fit"][1] < 0.93 * error["fit"][0]
    assert error["fit"][0] > 0.85 * error["test"][0]  # parts of 60 to 300 questions differ by luck


def test_it_stays_with_the_run(world, trained, tmp_path):
    run = Run(tmp_path)
    world.log.write(run.log_folder)
    world.features.write(run.features_folder)
    train_stage(run, ablations=False)
    again = run.router()
    assert (run.arm() / FILE).is_file()
    assert set(again.held_out.ids) == set(trained.held_out.ids)
    save_router(again, tmp_path / "copy")
    assert not (tmp_path / "copy" / "router" / FILE).exists()
    assert load_router(tmp_path / "copy").held_out is None
    assert load_router(tmp_path / "copy").fingerprint == again.fingerprint
    (run.arm() / FILE).write_bytes(b"other")
    with pytest.raises(DataError):
        run.router()
    train_stage(run, estimator="logistic", ablations=False)
    assert run.router().held_out is None  # it is not fitted on the tune split


def test_what_is_not_held_out_is_left_alone(tmp_path):
    held = HeldOut(ids=("a", "b"), p=np.array([[0.1, 0.2], [0.3, 0.4]]))
    p = np.full((3, 2), 0.9)
    np.testing.assert_array_equal(
        held.put_into(p, ["b", "x", "a"]), [[0.3, 0.4], [0.9, 0.9], [0.1, 0.2]]
    )
    assert held.put_into(p, ["x", "y", "z"]) is p
    held.write(tmp_path)
    again = HeldOut.read(tmp_path)
    assert again.ids == held.ids
    np.testing.assert_array_equal(again.p, held.p)
    assert HeldOut.read(tmp_path / "nowhere") is None
    (tmp_path / FILE).write_bytes(b"PAR1")
    with pytest.raises(DataError, match="Train the router again"):
        HeldOut.read(tmp_path)

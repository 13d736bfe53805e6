"""The comparison on images that tuning never read."""

from __future__ import annotations

import numpy as np

from experiments.tuning.gain import judged, trained
from m3router.router.tuning.objective import budgets, curve, halves
from m3router.router.tuning.setting import Tuned
from tests.router.conftest import make_world


def test_curves_are_those_of_the_rows_and_draws_are_paired():
    world = make_world(n=600)
    setting = Tuned(
        estimator="logistic",
        blocks=("question",),
        hyperparameters={"C": 0.1},
        split=world.split,
        seed=0,
        gaps="error",
        rule="first_correct",
        record={},
    )
    routers = trained(world.log, world.features, setting, ["logistic"])
    assert list(routers) == ["logistic, defaults", "tuned"]
    assert routers["tuned"].metadata["hyperparameters"]["C"] == 0.1
    rows, at = world.split.calibrate, budgets(world.log.costs)
    found = judged({**routers, "again": routers["tuned"]}, world.log, world.features, rows, at=at)
    for name, router in routers.items():
        p = router.predict(world.features)[rows]
        costs, scores = world.log.costs[rows], world.log.scores[rows]
        low, high = halves(curve(p, costs, scores, at=at, blocks=[]))
        np.testing.assert_allclose(found[name][0], (low, high, (low + high) / 2))
    np.testing.assert_array_equal(found["again"], found["tuned"])
    assert found["tuned"][1:].std() > 0
    better = found["logistic, defaults"] - found["tuned"]  # it reads the image too
    assert np.quantile(better[1:, 2], 0.025) > 0

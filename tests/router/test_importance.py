from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3router.router.evaluation.permutation_importance import (
    Examples,
    by_image,
    importance,
    permuted_rows,
    strongest,
)
from m3router.router.runs.run import Run
from m3router.router.stages.importance import importance_stage
from m3router.router.stages.learning import train_stage


@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=12), seed=st.integers(0, 99))
def test_what_a_image_shares_moves_between_images(sizes, seed):
    groups = np.repeat(np.arange(len(sizes)).astype(str), sizes)
    values = np.repeat(np.arange(len(sizes), dtype=float), sizes)[:, None]
    rows = permuted_rows(values, groups, np.random.default_rng(seed))
    moved = values[rows, 0]
    owners = {g: set(moved[groups == g]) for g in groups}
    assert all(len(one) == 1 for one in owners.values())  # still one value per image
    assert sorted(v for one in owners.values() for v in one) == list(range(len(sizes)))


def test_what_differs_within_a_image_moves_between_questions():
    values = np.arange(6.0)[:, None]
    groups = np.array(["a", "a", "a", "b", "b", "c"])
    assert not by_image(values, groups)
    rows = permuted_rows(values, groups, np.random.default_rng(0))
    assert sorted(rows) == list(range(6))


def world_of_two(n: int = 400) -> Examples:
    """The first feature says whether the expensive option is needed; the second says nothing."""
    generator = np.random.default_rng(0)
    need = np.arange(n) % 2 == 0
    X = np.stack([need.astype(float), generator.standard_normal(n)], axis=1)
    scores = np.stack([~need, np.ones(n, dtype=bool)], axis=1).astype(float)
    costs = np.tile([1.0, 9.0], (n, 1))
    groups = np.arange(n).astype(str)
    return Examples(X=X, scores=scores, costs=costs, behind=costs, groups=groups)


def predict(X):
    return np.stack([1 - 0.9 * X[:, 0], np.full(len(X), 0.95)], axis=1)


def test_the_drop_is_what_is_lost_without_the_feature():
    found = importance(
        predict,
        world_of_two(),
        {"need": np.array([0]), "noise": np.array([1]), "both": np.array([0, 1])},
        repeats=4,
        draws=100,
    )
    need, noise = (found["parts"][name]["drop"] for name in ("need", "noise"))
    assert noise == {"value": 0.0, "low": 0.0, "high": 0.0}
    # Over costs 1 to 9 the curve rises up to 5, where half are sent to the expensive option, then
    # stays: from 1/2 to 1 when the right half is sent, to 3/4 when any half is.
    assert need["value"] == pytest.approx((3 / 4 + 1) / 2 - (5 / 8 + 3 / 4) / 2, abs=0.02)
    assert need["low"] > 0.15
    assert found["parts"]["both"]["drop"]["value"] == pytest.approx(need["value"], abs=0.02)
    assert found["aiq"]["value"] == pytest.approx(7 / 8)


def test_permutations_are_seeded_and_inputs_stay_as_they_were():
    examples = world_of_two(60)
    before = examples.X.copy()
    parts = {"need": np.array([0])}
    one, same, other = (
        importance(predict, examples, parts, repeats=2, draws=20, seed=seed) for seed in (0, 0, 1)
    )
    assert one == same != other
    assert np.array_equal(examples.X, before)


def test_the_strongest_features_come_first_and_useless_ones_not_at_all():
    assert strongest(np.array([0.0, 3.0, 1.0, 0.0]), count=3).tolist() == [1, 2]
    assert strongest(np.array([1.0, 3.0, 2.0]), count=2).tolist() == [1, 2]


@pytest.mark.parametrize("estimator", ["logistic", "lightgbm"])
def test_a_runs_blocks_matter_and_its_strong_features_are_those_that_decide(
    estimator, world, tmp_path
):
    run = Run(tmp_path)
    world.log.write(run.log_folder)
    world.features.write(run.features_folder)
    train_stage(run, estimator=estimator, ablations=False)
    document = importance_stage(run, repeats=3, draws=50)
    assert document["part"] == "calibrate"
    assert set(document["blocks"]) == {"image", "question"}
    assert document["blocks"]["image"]["by_picture"]
    assert not document["blocks"]["question"]["by_picture"]
    assert document["blocks"]["image"]["drop"]["low"] > 0
    assert {"image[0]", "question[0]"} <= set(list(document["features"])[:3])
    assert document["features"]["question[0]"]["columns"] == 1
    stored = json.loads(((run.root / "importance") / "importance.json").read_text())
    assert stored == document
    assert importance_stage(run, repeats=3, draws=50, reuse=True) == document


def test_the_test_part_is_not_looked_at(world, tmp_path):
    run = Run(tmp_path)
    frame = world.log.frame
    test = {world.log.ids[row] for row in world.split.test}
    world.log.write(run.log_folder)
    world.features.write(run.features_folder)
    train_stage(run, ablations=False)
    clean = importance_stage(run, repeats=2, draws=20)
    poisoned = frame.copy()
    poisoned.loc[poisoned["example_id"].isin(test), "score"] = 0.0
    other = Run(tmp_path / "other")
    type(world.log)(
        poisoned,
        options=world.log.options,
        cost_unit=world.log.cost_unit,
        metadata=world.log.metadata,
    ).write(other.log_folder)
    world.features.write(other.features_folder)
    train_stage(other, ablations=False)
    assert importance_stage(other, repeats=2, draws=20) == clean

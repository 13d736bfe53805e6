from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from m3router.data.errors import DataError, MismatchError, NotLearnableError
from m3router.data.splits.split import split_by_group
from m3router.router.estimators import DEFAULT, ESTIMATORS
from m3router.router.estimators.base import log_loss
from m3router.router.features.table import FeatureTable
from m3router.router.runs.run import Run
from m3router.router.stages.learning import train_stage
from m3router.router.training.fit import train_router

# What keeps a fit short: that members are averaged is shown in tests/contracts.
ALONE = {"mlp": {"members": 1}, "rank": {"members": 1}}
# And where it matters little how well it is fitted: no networks, no search.
QUICK = ALONE | {"blend": {"networks": False}, "logistic": {"C": 3e-3}}


@pytest.fixture(scope="module")
def trained(world):
    """Estimator, and block if not all -> the router that the world makes of it, trained once."""

    @cache
    def of(name, block=None, *, quick=False):
        return train_router(
            world.log,
            world.features,
            world.split,
            estimator=name,
            blocks=[block] if block else None,
            hyperparameters=(QUICK if quick else ALONE).get(name),
        )

    return of


def features_for(log, width=2):
    generator = np.random.default_rng(0)
    return FeatureTable(ids=log.ids, blocks={"image": generator.random((len(log.ids), width))})


@pytest.mark.parametrize("estimator", sorted(ESTIMATORS))
def test_joint_router_beats_its_halves_and_a_constant(world, trained, estimator):
    test = world.split.test
    scores = world.log.scores[test]
    routers = [trained(estimator, block, quick=True) for block in (None, "image", "question")]
    joint, *halves = [log_loss(scores, one.predict(world.features)[test]) for one in routers]
    constant = np.tile(world.log.scores[world.split.fit].mean(axis=0), (len(test), 1))
    assert joint < min(halves) < log_loss(scores, constant)


@pytest.mark.parametrize("estimator", sorted(ESTIMATORS))
def test_calibrate_and_test_are_never_touched(world, trained, build_log, estimator):
    """Poison: other answers, costs and features there give the same router, byte for byte."""
    scores, costs = world.log.scores.copy(), world.log.costs.copy()
    blocks = {name: block.copy() for name, block in world.features.blocks.items()}
    for part in (world.split.calibrate, world.split.test):
        scores[part] = 1 - scores[part]
        costs[part] *= 17
        for block in blocks.values():
            block[part] = 1e6
    poisoned = build_log(scores, groups=list(world.log.groups), costs=costs)
    table = FeatureTable(ids=world.features.ids, blocks=blocks, metadata=world.features.metadata)
    settings = {"estimator": estimator, "hyperparameters": ALONE.get(estimator)}
    dirty = train_router(poisoned, table, world.split, **settings)
    assert dirty.fingerprint == trained(estimator).fingerprint


def test_held_out_log_loss_chooses_the_hyper_parameters(trained):
    router = trained("logistic")
    trials = router.metadata["tuned"]
    assert len({trial["hyperparameters"]["C"] for trial in trials}) == len(trials) > 3
    best = min(trials, key=lambda trial: trial["log_loss"])
    assert router.metadata["hyperparameters"] == best["hyperparameters"]


def test_penalties_are_chosen_on_more_than_a_tiny_tune_part(world, build_log):
    """Other answers in a tune split of 60 questions change the penalty by one step at most."""
    chosen = []
    for seed in range(3):
        scores = world.log.scores.copy()
        tune = world.split.tune
        scores[tune] = scores[np.random.default_rng(seed).permutation(tune)]
        log = build_log(scores, groups=list(world.log.groups), costs=world.log.costs)
        router = train_router(log, world.features, world.split, estimator="logistic")
        chosen.append(router.metadata["hyperparameters"]["C"])
    assert max(chosen) <= 11 * min(chosen)


def test_the_default_says_what_it_is_made_of(trained):
    router = trained(DEFAULT)
    assert router.estimator_name == "blend"
    for shares in router.metadata["members"].values():
        assert sum(shares.values()) == pytest.approx(1.0)
        assert set(shares) == {"mean", "ridge", "neighbours", "lookup", "networks"}


def test_hyperparameters_name_the_one_candidate(world):
    settings = {"estimator": "logistic", "hyperparameters": {"C": 0.02}}
    router = train_router(world.log, world.features, world.split, **settings)
    assert [trial["hyperparameters"]["C"] for trial in router.metadata["tuned"]] == [0.02]
    assert router.metadata["hyperparameters"] == {"C": 0.02, "max_iter": 1000}
    settings["hyperparameters"] = router.metadata["hyperparameters"]
    again = train_router(world.log, world.features, world.split, **settings)
    assert again.fingerprint == router.fingerprint


def test_hyperparameters_are_completed_by_seed_and_widths(world):
    small = {"members": 1, "epochs": 2, "rank": 4, "hidden": 8}
    settings = {"estimator": "mlp", "hyperparameters": small, "seed": 7}
    router = train_router(world.log, world.features, world.split, **settings)
    assert router.metadata["hyperparameters"]["seed"] == 7
    assert router.estimator.widths == (6, 6)
    assert {"widths", "threads"}.isdisjoint(router.metadata["hyperparameters"])
    swapped = train_router(world.log, world.features, world.split, blocks=["question"], **settings)
    assert swapped.estimator.widths == (6,)


def test_unknown_hyperparameters_are_refused(world):
    with pytest.raises(DataError, match="BoostedEstimator 'num_leafs'. Did you mean 'num_leaves'"):
        train_router(
            world.log,
            world.features,
            world.split,
            estimator="lightgbm",
            hyperparameters={"num_leafs": 3},
        )


def test_threads_are_those_of_the_machine_not_of_the_router(world):
    few = {"rounds": 5}
    routers = [
        train_router(
            world.log,
            world.features,
            world.split,
            estimator="lightgbm",
            hyperparameters=few,
            threads=threads,
        )
        for threads in (1, 2)
    ]
    assert [router.estimator.threads for router in routers] == [1, 2]
    assert routers[0].fingerprint == routers[1].fingerprint


def test_the_calibration_is_chosen_on_tune_and_reported(world):
    tune = world.split.tune
    # trees that grow without end are far too sure of themselves
    router = train_router(
        world.log,
        world.features,
        world.split,
        estimator="lightgbm",
        hyperparameters={"rounds": 100, "patience": 100, "learning_rate": 0.5, "min_leaf": 2},
    )
    report = router.metadata["calibration"]
    losses = report["log_loss"]
    assert router.calibration.method == report["method"]
    assert losses[report["method"]] <= losses["none"]  # 60 questions do not clearly ask for more
    raw = router.estimator.predict(world.features.matrix())[tune]
    assert report["log_loss"]["none"] == pytest.approx(log_loss(world.log.scores[tune], raw))
    assert len(report["ece"]["before"]["by_option"]) == len(router.options)
    np.testing.assert_array_equal(
        router.predict(world.features)[tune], router.calibration.apply(raw)
    )


def test_features_in_a_file_give_the_same_router(world, trained, monkeypatch):
    expected = trained("lightgbm")
    monkeypatch.setattr("m3router.router.features.mapped.LIMIT", 1)
    found = train_router(world.log, world.features, world.split, estimator="lightgbm")
    assert found.fingerprint == expected.fingerprint


def test_metadata_says_where_it_comes_from(world):
    settings = {"estimator": "knn", "blocks": ["question"], "seed": 5}
    router = train_router(world.log, world.features, world.split, **settings)
    assert router.options == world.log.options
    assert router.cost_unit == "visual tokens"
    assert dict(router.blocks) == {"question": 6}
    assert router.metadata["log"] == {"model": "simulated"}
    assert router.metadata["features"] == {"source": "simulated"}
    assert router.metadata["split"] == world.split.fingerprint
    assert router.metadata["n"] == {"fit": len(world.split.fit), "tune": len(world.split.tune)}
    assert router.metadata["seed"] == 5


def test_the_order_of_the_features_does_not_matter(world, trained):
    shuffled = world.features.align(tuple(reversed(world.features.ids)))
    settings = {"estimator": DEFAULT, "hyperparameters": QUICK[DEFAULT]}
    again = train_router(world.log, shuffled, world.split, **settings)
    assert again.fingerprint == trained(DEFAULT, quick=True).fingerprint


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.ones((20, 3)), "every option .1, 9, 36. is right. The cheapest one, 1, suffices"),
        (np.zeros((20, 3)), "every option .* is wrong. Check the model"),
        (np.tile([[1.0], [0.0]], (10, 3)), "all options .* have the same score"),
    ],
)
def test_logs_without_a_lesson_are_refused(build_log, scores, message):
    log = build_log(scores)
    with pytest.raises(NotLearnableError, match=message):
        train_router(log, features_for(log), split_by_group(log.groups))


def test_an_empty_part_is_refused(build_log):
    scores = np.tile([0.0, 1.0], (20, 1))
    split = split_by_group([f"g{i}" for i in range(20)])
    scores[split.tune] = np.nan
    log = build_log(scores)
    with pytest.raises(
        NotLearnableError, match="complete examples of 20 in the log is in the 'tune' split"
    ):
        train_router(log, features_for(log), split, gaps="drop")


def test_missing_features_name_both_sides(world):
    some = world.features.align(world.features.ids[10:])
    with pytest.raises(MismatchError, match=r"600 complete examples, of which 10.*table of 590"):
        train_router(world.log, some, world.split)


def test_an_unknown_block_or_estimator_is_refused(world):
    with pytest.raises(MismatchError, match="peek"):
        train_router(world.log, world.features, world.split, blocks=["peek"])
    with pytest.raises(DataError, match="Did you mean 'lightgbm'"):
        train_router(world.log, world.features, world.split, estimator="lightgmb")


def test_gaps_are_refused_or_dropped(world, build_log):
    scores = world.log.scores.copy()
    gaps = np.concatenate([world.split.fit[:7], world.split.test[:2]])
    scores[gaps, 1] = np.nan
    log = build_log(scores, groups=list(world.log.groups))
    with pytest.raises(DataError, match="9 gaps in 9 of 600 examples.*--gaps drop"):
        train_router(log, world.features, world.split)
    # an example that failed needs no features either
    kept = [name for row, name in enumerate(log.ids) if row not in set(gaps)]
    table = world.features.align(kept)
    router = train_router(log, table, world.split, gaps="drop", estimator="knn")
    assert router.metadata["n"]["fit"] == len(world.split.fit) - 7


def test_a_split_of_another_log_is_refused(world, build_log):
    log = build_log(world.log.scores[:100])
    with pytest.raises(DataError, match="only 100 rows"):
        train_router(log, world.features, world.split)


def test_an_option_that_is_never_right_is_no_obstacle(build_log):
    generator = np.random.default_rng(3)
    scores = (generator.random((80, 3)) < 0.5).astype(float)
    scores[:, 0] = 0.0
    log = build_log(scores)
    for estimator in ("lightgbm", "logistic"):
        router = train_router(
            log,
            features_for(log),
            split_by_group(log.groups),
            estimator=estimator,
            hyperparameters=QUICK.get(estimator),
        )
        assert np.all(router.predict(features_for(log))[:, 0] < 0.05)


@pytest.mark.parametrize(
    ("score", "told"), [(0.0, "Option 1 scores 0"), (1.0, "Option 1 scores 1")]
)
def test_an_option_that_never_varies_is_told(build_log, caplog, tmp_path, score, told):
    scores = (np.random.default_rng(3).random((80, 3)) < 0.5).astype(float)
    scores[:, 0] = score
    log = build_log(scores)
    run = Run(tmp_path)
    log.write(run.log_folder)
    features_for(log).write(run.features_folder)
    train_stage(run, estimator="knn")
    assert f"Option 1 scores {score:g} on all" in caplog.text
    assert caplog.text.count("scores") == 1

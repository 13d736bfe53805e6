"""The contract of every search space; a new estimator is covered by its line in ESTIMATORS."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from optuna.samplers import RandomSampler
from optuna.trial import FixedTrial

from m3router.router.estimators import ESTIMATORS, estimator_class
from m3router.router.tuning.spaces import block_choices, drawn, searchable, start


def problem(n=60, d=4, k=3):
    generator = np.random.default_rng(0)
    X = generator.standard_normal((n, d)).astype(np.float32)
    return X, (generator.random((n, k)) < 1 / (1 + np.exp(-2 * X[:, :1]))).astype(float)


def made(name, settings):
    return estimator_class(name).configured(settings, seed=3, widths=(2, 2))


def test_every_estimator_has_a_space():
    assert set(searchable()) == set(ESTIMATORS)


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_the_start_lies_in_the_space_and_fits(name):
    settings = drawn(FixedTrial(start(name)), name)
    assert len(settings) == len(start(name)) > 0
    X, Y = problem()
    p = made(name, settings).fit(X, Y).predict(X)
    assert p.shape == Y.shape


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_whatever_is_drawn_constructs(name):
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    found = set()
    for _ in range(20):
        trial = study.ask()
        settings = drawn(trial, name)
        estimator = made(name, settings)
        assert isinstance(estimator, estimator_class(name))
        kept = vars(estimator)
        assert {key: kept[key] for key in settings} == settings
        assert all(parameter.startswith(f"{name}.") for parameter in trial.params)
        found.add(repr(settings))
    assert len(found) > 10


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_the_start_is_what_training_would_try(name):
    settings = drawn(FixedTrial(start(name)), name)
    tried = estimator_class(name).candidates(seed=3, widths=(2, 2))
    assert vars(made(name, settings)) in [vars(one) for one in tried]


@pytest.mark.parametrize("count", range(1, 8))
def test_block_choices_are_distinct_and_begin_with_all(count):
    names = [f"b{i}" for i in range(count)]
    choices = [choice.split("+") for choice in block_choices(names)]
    assert choices[0] == names
    assert len({tuple(choice) for choice in choices}) == len(choices)
    assert all([name] in choices for name in names)
    assert len(choices) == (2**count - 1 if count <= 4 else 2 * count + 1)

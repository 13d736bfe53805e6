"""The default estimator, and what it is made of."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

from m3router.router.estimators.base import bent
from m3router.router.estimators.blended import BlendedEstimator
from m3router.router.estimators.components import Components
from m3router.router.estimators.ridge import PENALTIES, RidgePath
from m3router.router.estimators.stacking import Mixture


def rows(n=200, d=8, k=3, seed=0):
    """Features (n, d) and scores (n, k), the difference of which lies in one feature."""
    generator = np.random.default_rng(seed)
    X = generator.standard_normal((n, d)).astype(np.float32)
    level = 1 / (1 + np.exp(-X[:, :1]))
    truth = np.clip(level * 0.6 + 0.2 + 0.15 * X[:, 1:2] * np.linspace(-1, 1, k), 0, 1)
    return X, (generator.random((n, k)) < truth).astype(float)


@pytest.mark.parametrize("standardise", [False, True])
def test_components_are_those_of_scikit_learn(standardise):
    X, _ = rows(d=5)
    X = X * np.array([1, 2, 3, 4, 5])
    found = Components.fit(X, (2, 3), standardise=standardise, most=3, seed=0)
    Z = X - X.mean(axis=0)
    if standardise:
        Z = Z / Z.std(axis=0)
    for block in (slice(0, 2), slice(2, 5)):
        Z[:, block] /= np.sqrt(np.square(Z[:, block]).sum(axis=1).mean())
    wanted = PCA(n_components=3).fit_transform(Z)
    np.testing.assert_allclose(np.abs(found.project(X)), np.abs(wanted), atol=1e-6)


def test_components_of_more_features_than_examples(monkeypatch):
    """By the smaller side where one is small, by random directions where both are large."""
    X, _ = rows(n=60, d=90)
    exact = Components.fit(X, (90,), standardise=True, most=20, seed=0).project(X)
    for most in (70, 30):
        monkeypatch.setattr("m3router.router.estimators.components.EXACT", most)
        other = Components.fit(X, (90,), standardise=True, most=20, seed=0).project(X)
        np.testing.assert_allclose(np.abs(other[:, :8]), np.abs(exact[:, :8]), atol=0.02)


def test_ridge_regressions_are_those_of_scikit_learn():
    X, Y = rows()
    weights = np.random.default_rng(1).random(len(X)) + 0.5
    path = RidgePath.fit(X.astype(float), Y, weights)
    for penalty, found in zip(PENALTIES, path.predict(X), strict=True):
        model = Ridge(alpha=penalty * weights.sum()).fit(X, Y, sample_weight=weights)
        np.testing.assert_allclose(found, model.predict(X), atol=1e-6)
    shares = np.linspace(0, 1, len(PENALTIES))
    inside, bias = path.mixed(shares)
    np.testing.assert_allclose(
        X @ inside + bias, np.tensordot(shares, path.predict(X), axes=1), atol=1e-9
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 4), st.integers(1, 4))
def test_no_other_weights_fit_better(seed, members, options):
    generator = np.random.default_rng(seed)
    parts, Y = generator.random((members, 30, options)), generator.random((30, options))
    weights = generator.random(30) + 0.1
    found = Mixture.fit(parts, Y, weights)

    def errors(mixture):
        error = mixture.apply(parts) - Y
        level = error.mean(axis=1, keepdims=True)
        return weights @ np.square(level), weights @ np.square(error - level).sum(axis=1)

    level, spread = errors(found)
    for shares in (found.level, found.spread):
        assert np.all(shares >= 0)
        assert shares.sum() == pytest.approx(1.0)
    for corner in itertools.product([0.0, 0.5, 1.0], repeat=members):
        if sum(corner) == 1.0:
            other = np.array(corner)
            a, b = errors(Mixture(level=other, spread=other))
            assert level <= a + 1e-7
            assert spread <= b + 1e-7


@given(st.lists(st.floats(-2, 3), min_size=2, max_size=20))
def test_bending_keeps_the_order_and_what_is_inside(values):
    estimates = np.sort(np.array(values))
    found = bent(estimates)
    assert np.all((found > 0) & (found < 1))
    assert np.all(np.diff(found) >= 0)
    inside = (estimates >= 0.02) & (estimates <= 0.98)
    np.testing.assert_array_equal(found[inside], estimates[inside])


def test_no_group_is_judged_by_what_saw_it():
    """Held-out estimates are like those of a model without the group, and noise stays noise."""
    X, Y = rows()
    groups = np.repeat(np.arange(50), 4)
    held = BlendedEstimator(networks=False).fit_groups(X, Y, groups=groups)
    alone = np.zeros_like(held)
    for group in range(50):
        others = groups != group
        model = Ridge(alpha=0.05 * others.sum()).fit(X[others], Y[others])
        alone[~others] = model.predict(X[~others])
    # an overfitted model would be near the scores; this one is near a model that never saw them
    assert np.abs(held - alone).mean() < 0.5 * np.abs(held - Y).mean()
    noise = np.random.default_rng(3).random(Y.shape).round()
    held = BlendedEstimator(networks=False).fit_groups(X, noise, groups=groups)
    assert np.square(held - noise).mean() > 0.24  # noise cannot be foretold


def test_nothing_to_learn_gives_the_means():
    X, _ = rows(n=150)
    Y = (np.random.default_rng(5).random((150, 3)) < [0.3, 0.5, 0.7]).astype(float)
    p = BlendedEstimator(networks=False).fit(X, Y).predict(rows(n=500, seed=9)[0])
    assert np.abs(p - Y.mean(axis=0)).mean() < 0.05


def test_a_dataset_that_shows_in_the_features_is_recognised():
    """Where scores depend on the dataset alone, the lookup carries the mixture."""
    generator = np.random.default_rng(0)
    kinds = generator.integers(0, 6, 400)
    X = (np.eye(6)[kinds] + 0.05 * generator.standard_normal((400, 6))).astype(np.float32)
    means = generator.random((6, 2))
    Y = (generator.random((400, 2)) < means[kinds]).astype(float)
    blend = BlendedEstimator(networks=False)
    blend.fit_groups(X, Y, groups=np.arange(400), datasets=np.array(list("abcdef"))[kinds])
    assert np.abs(blend.predict(X) - means[kinds]).mean() < 0.08
    blind = BlendedEstimator(networks=False)
    blind.fit_groups(X, Y, groups=np.arange(400))
    assert len(blind.parts_.datasets.names) == 1


@pytest.mark.parametrize("n", [1, 2, 3, 7, 30])
def test_a_handful_of_examples(n):
    X, Y = rows(n=n)
    Y[0] = 1 - Y[0]
    for groups in (np.arange(n), np.zeros(n)):
        blend = BlendedEstimator(networks=n == 3, rank=4, hidden=8)
        held = blend.fit_groups(X, Y, groups=groups, datasets=np.arange(n).astype(str))
        p = blend.predict(rows(n=20, seed=4)[0])
        assert np.all((p > 0) & (p < 1))
        assert np.all((held > 0) & (held < 1))


def test_datasets_that_are_told_are_features():
    """Even where the features say nothing; unknown names count as what is recognised."""
    generator = np.random.default_rng(0)
    kinds = np.array(list("abc"))[generator.integers(0, 3, 400)]
    means = {"a": [0.2, 0.9], "b": [0.8, 0.9], "c": [0.5, 0.5]}
    truth = np.array([means[kind] for kind in kinds])
    Y = (generator.random((400, 2)) < truth).astype(float)
    for X in (np.ones((400, 2), np.float32), generator.random((400, 2)).astype(np.float32)):
        blend = BlendedEstimator(rank=4, hidden=8)
        blend.fit_groups(X, Y, groups=np.arange(400), datasets=kinds, told=True)
        assert np.abs(blend.predict_told(X, kinds) - truth).mean() < 0.12
        apart = [np.abs(blend.predict_told(X, kinds) - truth).mean()]
        apart.append(np.abs(blend.predict(X) - truth).mean())
        assert apart[0] < 0.7 * apart[1]
        unknown = blend.predict_told(X, np.array(["x"] * 400))
        np.testing.assert_array_equal(unknown, blend.predict(X))
        again = BlendedEstimator.restore(blend.dump())
        np.testing.assert_array_equal(again.predict_told(X, kinds), blend.predict_told(X, kinds))

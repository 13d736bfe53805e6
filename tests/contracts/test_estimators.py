"""The contract of every estimator; a new one is covered by its line in ESTIMATORS."""

from __future__ import annotations

import numpy as np
import pytest

from data.errors import DataError, MismatchError
from router.artefacts import read_files, write_files
from router.estimators import ESTIMATORS, estimator_class
from router.estimators.base import Validation, log_loss


@pytest.fixture(params=sorted(ESTIMATORS))
def name(request):
    return request.param


def make(name):
    return estimator_class(name)()


def problem(n=400, d=6, k=3, *, seed=0):
    """X (N, D), Y (N, K) of zeros and ones, and the true probabilities (N, K)."""
    generator = np.random.default_rng(seed)
    X = generator.standard_normal((n, d)).astype(np.float32)
    truth = 1 / (1 + np.exp(-(3 * X[:, :1] + np.linspace(-2, 2, k))))
    return X, (generator.random((n, k)) < truth).astype(float), truth


def test_learns_better_than_a_constant(name):
    X, Y, _ = problem(seed=1)
    held_X, held_Y, _ = problem(seed=2)
    validation = Validation(X=held_X, Y=held_Y)
    fitted = make(name).fit(X, Y, validation=validation)
    test_X, test_Y, _ = problem(seed=3)
    constant = np.tile(Y.mean(axis=0), (len(test_Y), 1))
    assert log_loss(test_Y, fitted.predict(test_X)) < 0.9 * log_loss(test_Y, constant)


@pytest.mark.parametrize("k", range(2, 10))
def test_any_number_of_options(name, k):
    X, Y, _ = problem(n=120, k=k)
    p = make(name).fit(X, Y).predict(X)
    assert p.shape == (120, k)
    assert p.dtype == np.float64
    assert np.all((p >= 0) & (p <= 1))


def test_one_row_equals_the_batch(name):
    X, Y, _ = problem()
    fitted = make(name).fit(X, Y)
    for i in (0, 7, 399):
        np.testing.assert_allclose(fitted.predict_one(X[i]), fitted.predict(X)[i], rtol=1e-12)


def test_save_and_load_are_bit_equal(name, tmp_path):
    X, Y, _ = problem()
    Y[:, 1] = 1.0  # a constant column must survive too
    fitted = make(name).fit(X, Y)
    hashes = write_files(tmp_path, fitted.dump())
    again = type(fitted).restore(read_files(tmp_path, hashes))
    np.testing.assert_array_equal(again.predict(X), fitted.predict(X))
    np.testing.assert_array_equal(again.predict_one(X[3]), fitted.predict_one(X[3]))
    assert again.dump() == fitted.dump()


def test_equal_fits_give_equal_bytes(name):
    X, Y, _ = problem()
    assert make(name).fit(X, Y).dump() == make(name).fit(X, Y).dump()


def test_damaged_files_are_refused_before_loading(name, tmp_path):
    X, Y, _ = problem(n=100)
    hashes = write_files(tmp_path, make(name).fit(X, Y).dump())
    for file in hashes:
        path = tmp_path / file
        content = path.read_bytes()
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        for damaged in (flipped, content[:-1], content + b" ", b""):
            path.write_bytes(damaged)
            with pytest.raises(DataError, match="cut short or edited"):
                read_files(tmp_path, hashes)
        path.unlink()
        with pytest.raises(DataError, match="Cannot read"):
            read_files(tmp_path, hashes)
        path.write_bytes(content)


def test_restore_refuses_other_files(name):
    with pytest.raises(DataError):
        estimator_class(name).restore({})


def test_soft_labels_mean_their_share_of_right_and_wrong(name):
    X, _, truth = problem(n=1500, seed=4)
    hard = (np.random.default_rng(5).random(truth.shape) < truth).astype(float)
    soft_p = make(name).fit(X, truth).predict(X)
    hard_p = make(name).fit(X, hard).predict(X)
    # noiseless labels lead closer to the truth than one draw of them
    assert np.abs(soft_p - truth).mean() < np.abs(hard_p - truth).mean()


def test_a_weight_of_two_is_an_example_twice():
    X, Y, _ = problem(n=80)
    weights = np.where(np.arange(80) % 3 == 0, 2.0, 1.0)
    repeated = np.repeat(np.arange(80), weights.astype(int))
    # standardisation is not weighted, so the columns are brought to the same moments first
    X = np.sign(X).astype(np.float32)
    weighted = make("logistic").fit(X, Y, weights=weights)
    doubled = make("logistic").fit(X[repeated], Y[repeated])
    assert np.abs(weighted.predict(X) - doubled.predict(X)).mean() < 0.02


def test_weights_count(name):
    X, Y, _ = problem(n=300)
    favour = np.where(Y[:, 0] > 0, 10.0, 1.0)
    plain = make(name).fit(X, Y).predict(X)[:, 0].mean()
    assert make(name).fit(X, Y, weights=favour).predict(X)[:, 0].mean() > plain + 0.05


def test_a_constant_option_gets_a_constant_probability(name):
    X, Y, _ = problem(n=99)
    Y[:, 0], Y[:, 2] = 0.0, 1.0
    p = make(name).fit(X, Y).predict(X)
    np.testing.assert_allclose(p[:, 0], 0.5 / 100)
    np.testing.assert_allclose(p[:, 2], 99.5 / 100)
    assert p[:, 1].std() > 0.05


def test_all_options_constant(name):
    X, _, _ = problem(n=9)
    p = make(name).fit(X, np.zeros((9, 4))).predict(X)
    np.testing.assert_allclose(p, 0.05)


def test_one_sample(name):
    p = make(name).fit(np.ones((1, 3)), np.array([[1.0, 0.0, 0.4]])).predict(np.ones((1, 3)))
    np.testing.assert_allclose(p, [[0.75, 0.25, 0.45]])


def test_a_constant_feature_changes_nothing(name):
    X, Y, _ = problem()
    wide = np.column_stack([X, np.full(len(X), 0.1, dtype=np.float32)])
    p = make(name).fit(wide, Y).predict(wide)
    assert np.all(np.isfinite(p))
    shifted = wide.copy()
    shifted[:, -1] = 5.0
    np.testing.assert_allclose(make(name).fit(wide, Y).predict(shifted), p)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_refused(name, bad):
    X, Y, _ = problem(n=60)
    fitted = make(name).fit(X, Y)
    broken = X.copy()
    broken[5, 2] = bad
    with pytest.raises(DataError, match="row 5, column 2"):
        make(name).fit(broken, Y)
    with pytest.raises(DataError, match="row 5, column 2"):
        fitted.predict(broken)
    with pytest.raises(DataError, match="column 2"):
        fitted.predict_one(broken[5])


@pytest.mark.parametrize("bad", [-0.1, 1.1, np.nan])
def test_scores_outside_the_range_are_refused(name, bad):
    X, Y, _ = problem(n=60)
    Y[4, 1] = bad
    with pytest.raises(DataError, match="row 4, option 1"):
        make(name).fit(X, Y)


@pytest.mark.parametrize(
    ("X", "Y"),
    [
        (np.zeros((0, 2)), np.zeros((0, 3))),
        (np.zeros((2, 0)), np.zeros((2, 3))),
        (np.zeros((2, 2)), np.zeros((3, 3))),
        (np.zeros(2), np.zeros((2, 3))),
    ],
)
def test_misshapen_input_is_refused(name, X, Y):
    with pytest.raises(DataError, match="A fit needs"):
        make(name).fit(X, Y)


@pytest.mark.parametrize("weights", [np.ones(3), np.zeros(60), np.full(60, np.nan)])
def test_bad_weights_are_refused(name, weights):
    X, Y, _ = problem(n=60)
    with pytest.raises(DataError, match="Weights"):
        make(name).fit(X, Y, weights=weights)


def test_another_width_names_both(name):
    X, Y, _ = problem(n=60)
    fitted = make(name).fit(X, Y)
    with pytest.raises(MismatchError, match="6 features, but got 5"):
        fitted.predict(X[:, :5])
    with pytest.raises(MismatchError, match="6 features, but got 5"):
        fitted.predict_one(X[0, :5])


def test_predicting_before_fitting_is_refused(name):
    with pytest.raises(DataError, match="not fitted"):
        make(name).predict(np.zeros((1, 2)))


def test_candidates_are_unfitted_and_fit(name):
    X, Y, _ = problem(n=60)
    candidates = estimator_class(name).candidates(seed=3, widths=(6,))
    assert candidates
    for candidate in candidates[:2]:
        with pytest.raises(DataError, match="not fitted"):
            candidate.dump()
        assert candidate.fit(X, Y).predict(X).shape == Y.shape


def test_early_stopping_does_not_overfit():
    X, Y, _ = problem(n=150, d=30, seed=6)
    held_X, held_Y, _ = problem(n=150, d=30, seed=7)
    stopped = make("lightgbm").fit(X, Y, validation=Validation(X=held_X, Y=held_Y))
    full = make("lightgbm").fit(X, Y)
    assert log_loss(held_Y, stopped.predict(held_X)) < log_loss(held_Y, full.predict(held_X))


def test_logistic_equals_the_optimum_of_its_loss():
    """Independent reference: the gradient of the penalised cross-entropy vanishes."""
    X, _, truth = problem(n=200, seed=8)
    fitted = estimator_class("logistic")(C=0.5).fit(X, truth)
    mean, spread = X.astype(float).mean(axis=0), X.astype(float).std(axis=0)
    standardised = (X - mean) / spread
    w = fitted.coef_ * spread[:, None]
    error = fitted.predict(X) - truth
    np.testing.assert_allclose(0.5 * standardised.T @ error + w, 0, atol=0.02)
    np.testing.assert_allclose(error.sum(axis=0), 0, atol=0.05)


def test_unknown_estimator_suggests_a_name():
    with pytest.raises(DataError, match="Did you mean 'logistic'"):
        estimator_class("logistik")

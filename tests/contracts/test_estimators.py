"""The contract of every estimator; a new one is covered by its line in ESTIMATORS."""

from __future__ import annotations

import functools
import inspect

import numpy as np
import pytest

from m3router.data.errors import DataError, MismatchError
from m3router.router.estimators import ESTIMATORS, estimator_class
from m3router.router.estimators.base import Validation, log_loss
from m3router.router.sealed_files import read_files, write_files


@pytest.fixture(params=sorted(ESTIMATORS))
def name(request):
    return request.param


# Small networks, and little seen: what the contract asks does not depend on their size.
QUICK = {
    "blend": {"rank": 8, "hidden": 16, "learning_rate": 4e-3},
    "mlp": {"rank": 8, "hidden": 16, "members": 2, "epochs": 3, "learning_rate": 4e-3},
    "rank": {"rank": 8, "hidden": 16, "members": 2, "epochs": 3, "learning_rate": 4e-3},
}
LEARNS = {"epochs": 12}
"""For a test of how well something is learned; the number is the default."""


def make(name, **settings):
    kind = estimator_class(name)
    known = inspect.signature(kind).parameters
    given = {key: value for key, value in settings.items() if key in known}
    return kind(**{**QUICK.get(name, {}), **given})


def problem(n=400, d=6, k=3, *, seed=0):
    """X (N, D), Y (N, K) of zeros and ones, and the true probabilities (N, K)."""
    generator = np.random.default_rng(seed)
    X = generator.standard_normal((n, d)).astype(np.float32)
    truth = 1 / (1 + np.exp(-(3 * X[:, :1] + np.linspace(-2, 2, k))))
    return X, (generator.random((n, k)) < truth).astype(float), truth


@functools.cache
def learned(name, n=48):
    """A problem's X (N, D) and Y (N, K), and what was fitted to them; for tests that only look."""
    X, Y, _ = problem(n=n)
    X.setflags(write=False)
    Y.setflags(write=False)
    return X, Y, make(name).fit(X, Y)


def test_learns_better_than_a_constant(name):
    X, Y, _ = problem(n=200, seed=1)
    held_X, held_Y, _ = problem(n=100, seed=2)
    validation = Validation(X=held_X, Y=held_Y)
    fitted = make(name, **LEARNS).fit(X, Y, validation=validation)
    test_X, test_Y, _ = problem(seed=3)
    constant = np.tile(Y.mean(axis=0), (len(test_Y), 1))
    assert log_loss(test_Y, fitted.predict(test_X)) < 0.9 * log_loss(test_Y, constant)


@pytest.mark.parametrize("k", [1, 2, 9])
def test_any_number_of_options(name, k):
    X, Y, _ = problem(n=48, k=k)
    p = make(name).fit(X, Y).predict(X)
    assert p.shape == (48, k)
    assert p.dtype == np.float64
    assert np.all((p >= 0) & (p <= 1))


def test_one_row_equals_the_batch(name):
    X, _, fitted = learned(name)
    for i in (0, 7, 47):
        np.testing.assert_allclose(fitted.predict_one(X[i]), fitted.predict(X)[i], rtol=1e-12)


def test_save_and_load_are_bit_equal(name, tmp_path):
    X, Y, _ = problem(n=48)
    Y[:, 1] = 1.0  # a constant column must survive too
    fitted = make(name).fit(X, Y)
    hashes = write_files(tmp_path, fitted.dump())
    again = type(fitted).restore(read_files(tmp_path, hashes))
    np.testing.assert_array_equal(again.predict(X), fitted.predict(X))
    np.testing.assert_array_equal(again.predict_one(X[3]), fitted.predict_one(X[3]))
    assert again.dump() == fitted.dump()


def test_equal_fits_give_equal_bytes(name):
    X, Y, fitted = learned(name)
    assert make(name).fit(X, Y).dump() == fitted.dump()


def test_damaged_files_are_refused_before_loading(name, tmp_path):
    hashes = write_files(tmp_path, learned(name)[2].dump())
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
    X, _, truth = problem(n=200, seed=4)
    hard = (np.random.default_rng(5).random(truth.shape) < truth).astype(float)
    soft_p = make(name, **LEARNS).fit(X, truth).predict(X)
    hard_p = make(name, **LEARNS).fit(X, hard).predict(X)
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
    X, Y, fitted = learned(name)
    favour = np.where(Y[:, 0] > 0, 10.0, 1.0)
    plain = fitted.predict(X)[:, 0].mean()
    assert make(name).fit(X, Y, weights=favour).predict(X)[:, 0].mean() > plain + 0.05


def test_a_constant_option_gets_a_constant_probability(name):
    X, Y, _ = problem(n=99)
    Y[:, 0], Y[:, 2] = 0.0, 1.0
    p = make(name, **LEARNS).fit(X, Y).predict(X)
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
    X, Y, _ = problem(n=48)
    wide = np.column_stack([X, np.full(len(X), 0.1, dtype=np.float32)])
    fitted = make(name).fit(wide, Y)
    p = fitted.predict(wide)
    assert np.all(np.isfinite(p))
    shifted = wide.copy()
    shifted[:, -1] = 5.0
    np.testing.assert_allclose(fitted.predict(shifted), p)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_refused(name, bad):
    X, Y, fitted = learned(name)
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
    X, _, fitted = learned(name)
    with pytest.raises(MismatchError, match="6 features, but got 5"):
        fitted.predict(X[:, :5])
    with pytest.raises(MismatchError, match="6 features, but got 5"):
        fitted.predict_one(X[0, :5])


def test_predicting_before_fitting_is_refused(name):
    with pytest.raises(DataError, match="not fitted"):
        make(name).predict(np.zeros((1, 2)))


def test_candidates_are_unfitted_and_fit(name):
    X, Y, _ = problem(n=48)
    candidates = estimator_class(name).candidates(seed=3, widths=(6,))
    assert candidates
    for candidate in candidates[:2]:
        with pytest.raises(DataError, match="not fitted"):
            candidate.dump()
        assert candidate.fit(X, Y).predict(X).shape == Y.shape


def test_the_constructor_only_stores(name):
    kind = estimator_class(name)
    known = inspect.signature(kind).parameters
    assert all(one.kind is one.KEYWORD_ONLY for one in known.values())
    given = {key: object() for key in known}  # anything at all: it is not looked at
    assert vars(kind(**given)) == given
    defaults = vars(kind())
    assert defaults == {key: one.default for key, one in known.items()}
    assert vars(kind(**defaults)) == defaults


def test_fit_gives_itself_and_forgets_what_it_saw_before(name):
    X, Y, fresh = learned(name)
    other, others, _ = problem(n=50, d=4, k=2, seed=9)
    estimator = make(name)
    before = dict(vars(estimator))
    assert estimator.fit(other, others) is estimator
    assert estimator.fit(X, Y).dump() == fresh.dump()
    assert {key: value for key, value in vars(estimator).items() if key in before} == before


def test_input_is_not_changed(name):
    X, Y, _ = problem(n=48)
    weights = np.linspace(0.5, 1.5, 48)
    copies = [one.copy() for one in (X, Y, weights)]
    for one in (X, Y, weights):
        one.setflags(write=False)
    fitted = make(name).fit(X, Y, weights=weights, validation=Validation(X=X, Y=Y))
    fitted.predict(X)
    fitted.predict_one(X[0])
    for one, copy in zip((X, Y, weights), copies, strict=True):
        np.testing.assert_array_equal(one, copy)


def test_float32_and_float64_agree(name):
    X, Y, narrow = learned(name)
    wide = make(name).fit(X.astype(np.float64), Y)
    np.testing.assert_allclose(narrow.predict(X), wide.predict(X), atol=1e-5)
    np.testing.assert_allclose(narrow.predict(X), narrow.predict(X.astype(np.float64)), atol=1e-6)
    integers = np.arange(48)[:, None] % 7
    as_integers = make(name).fit(integers, Y).predict(integers)
    as_floats = make(name).fit(integers.astype(float), Y).predict(integers.astype(float))
    np.testing.assert_array_equal(as_integers, as_floats)


def test_how_the_features_lie_in_memory_does_not_matter(name, tmp_path):
    X, Y, first = learned(name)
    expected = first.dump()
    columns_first = np.asfortranarray(X)
    strided = np.repeat(X, 2, axis=0)[::2]
    mapped = np.memmap(tmp_path / "X", dtype=np.float32, mode="w+", shape=X.shape)
    mapped[:] = X
    for same in (columns_first, strided, mapped):
        fitted = make(name).fit(same, Y)
        assert fitted.dump() == expected
        np.testing.assert_allclose(fitted.predict(same), fitted.predict(X), rtol=1e-12)


def test_the_order_of_the_rows_hardly_matters(name):
    X, Y, _ = problem(n=120, k=2)
    order = np.random.default_rng(5).permutation(120)
    straight = make(name, **LEARNS).fit(X, Y)
    shuffled = make(name, **LEARNS).fit(X[order], Y[order])
    apart = np.abs(straight.predict(X) - shuffled.predict(X)).mean()
    # networks see other batches then, the others only round otherwise
    assert apart < (0.06 if name in QUICK else 1e-3)


def test_seeds_draw_and_leave_the_generators_of_others_alone(name):
    import torch

    X, Y, _ = problem(n=48)
    torch.manual_seed(3)
    np.random.seed(3)
    expected = torch.rand(3), np.random.rand(3)
    torch.manual_seed(3)
    np.random.seed(3)
    first = make(name, seed=1).fit(X, Y).dump()
    found = torch.rand(3), np.random.rand(3)
    assert torch.equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
    assert (make(name, seed=2).fit(X, Y).dump() == first) == (name in ("logistic", "knn"))


def test_an_option_that_is_never_right(name):
    X, Y, _ = problem(n=48)
    Y[:, 1] = 0.0
    p = make(name).fit(X, Y, validation=Validation(X=X[:30], Y=Y[:30])).predict(X)
    np.testing.assert_allclose(p[:, 1], 0.5 / 49)


@pytest.mark.parametrize("part", ["fit", "validation"])
def test_an_option_that_only_looks_constant_in_one_part(name, part):
    X, Y, _ = problem(n=48)
    held_X, held_Y, _ = problem(n=40, seed=1)
    (Y if part == "fit" else held_Y)[:, 1] = 1.0
    p = make(name).fit(X, Y, validation=Validation(X=held_X, Y=held_Y)).predict(held_X)
    assert np.all((p > 0) & (p < 1))


def test_far_away_features_keep_probabilities_in_range(name):
    X, _, fitted = learned(name)
    p = fitted.predict(1e20 * X)
    assert np.all((p >= 0) & (p <= 1))


@pytest.mark.parametrize("name", sorted(set(ESTIMATORS) - {"logistic"}))
def test_learns_what_only_two_blocks_together_tell(name):
    """Each block alone says nothing; an additive model is no better than a constant."""
    generator = np.random.default_rng(0)
    X = generator.standard_normal((1200, 4)).astype(np.float32)
    need = 3 * np.sign(X[:, 0] * X[:, 2])
    truth = 1 / (1 + np.exp(-(need[:, None] + np.array([-1.0, 0.0, 1.0]))))
    Y = (generator.random(truth.shape) < truth).astype(float)
    fit, held, test = slice(0, 600), slice(600, 800), slice(800, None)
    validation = Validation(X=X[held], Y=Y[held])
    settings = {"widths": (2, 2), "k": 30, "epochs": 40, "patience": 40, "dropout": 0.0}
    settings["feature_fraction"] = 1.0  # a tree that sees one feature knows no product
    fitted = make(name, **settings).fit(X[fit], Y[fit], validation=validation)
    constant = log_loss(Y[test], np.tile(Y[fit].mean(axis=0), (400, 1)))
    assert log_loss(Y[test], fitted.predict(X[test])) < 0.85 * constant
    additive = make("logistic").fit(X[fit], Y[fit]).predict(X[test])
    assert log_loss(Y[test], additive) > 0.97 * constant


@pytest.mark.parametrize("name", ["knn", "mlp", "rank"])
def test_widths_must_be_those_of_the_features(name):
    X, Y, _ = problem(n=60)
    for widths in ((2, 3), (6, 0), (7, -1), ()):
        with pytest.raises(MismatchError, match="sum to the 6 features"):
            make(name, widths=widths).fit(X, Y)
    assert make(name, widths=(1, 2, 3)).fit(X, Y).predict(X).shape == Y.shape


@pytest.mark.parametrize("name", sorted(set(ESTIMATORS) - {"logistic"}))
def test_a_bad_validation_set_is_refused(name):
    X, Y, _ = problem(n=60)
    with pytest.raises(MismatchError, match="6 features, but got 5"):
        make(name).fit(X, Y, validation=Validation(X=X[:, :5], Y=Y))
    with pytest.raises(DataError, match="row 3, column 1"):
        broken = X.copy()
        broken[3, 1] = np.nan
        make(name).fit(X, Y, validation=Validation(X=broken, Y=Y))


def test_restored_files_that_do_not_fit_each_other_are_refused():
    X, Y, _ = problem(n=60)
    narrow, wide = make("mlp").fit(X, Y).dump(), make("mlp").fit(X[:, :4], Y).dump()
    mixed = {**narrow, "mlp.safetensors": wide["mlp.safetensors"]}
    with pytest.raises(DataError, match="bilinear network"):
        estimator_class("mlp").restore(mixed)
    for content in (b"", b"[]", b"{}", b"\xff"):
        with pytest.raises(DataError):
            estimator_class("mlp").restore({**narrow, "mlp.json": content})


def test_nearest_neighbours_equal_a_plain_search():
    """Independent reference: loops over examples, with the documented weights."""
    X, Y, _ = problem(n=80, d=3)
    fitted = estimator_class("knn")(k=10, components=3, prior=2.0).fit(X, Y)
    Z = (X - X.mean(axis=0)) / X.std(axis=0) / np.sqrt(3)  # directions only turn distances
    base = (Y.sum(axis=0) + 0.5) / 81
    for i in (0, 17, 63):
        squared = [float(np.sum((Z[i] - other) ** 2)) for other in Z]
        reach = sorted(squared)[9]
        weight = [max(0.0, 1 - one / reach) for one in squared]
        found = (sum(w * y for w, y in zip(weight, Y, strict=True)) + 2 * base) / (sum(weight) + 2)
        np.testing.assert_allclose(fitted.predict_one(X[i]), found, atol=1e-4)


def test_nearest_neighbours_take_all_of_equal_examples():
    X = np.repeat(np.array([[0.0], [1.0]]), 50, axis=0)
    Y = np.concatenate([np.arange(50) % 5 == 0, np.arange(50) % 2 == 0])[:, None].astype(float)
    p = estimator_class("knn")(k=3, prior=1e-9).fit(X, Y).predict(X)
    np.testing.assert_allclose(p[[0, 99], 0], [0.2, 0.5], atol=1e-6)


def test_nearest_neighbours_refuse_more_than_they_may_keep():
    X, Y, _ = problem(n=60)
    with pytest.raises(DataError, match="60 are more than the 59 of `most`. Raise `most`"):
        estimator_class("knn")(most=59).fit(X, Y)
    for bad in ({"metric": "manhattan"}, {"k": 0}, {"prior": 0.0}, {"components": 0}):
        with pytest.raises(DataError, match=next(iter(bad))):
            estimator_class("knn")(**bad).fit(X, Y)


@pytest.mark.parametrize("name", ["mlp", "rank"])
@pytest.mark.parametrize(
    "bad", [{"rank": 0}, {"epochs": 0}, {"dropout": 1.0}, {"learning_rate": 0.0}, {"members": 0}]
)
def test_networks_refuse_settings_that_make_no_sense(name, bad):
    X, Y, _ = problem(n=60)
    with pytest.raises(DataError, match=f"{next(iter(bad))} is"):
        make(name, **{**QUICK[name], **bad}).fit(X, Y)


def test_the_pairwise_loss_is_that_of_its_definition():
    import torch

    from m3router.router.estimators.bilinear_fitting import pairwise

    u, y = np.array([0.3, -1.2, 2.0]), np.array([1.0, 0.0, 0.7])
    utilities, scores = [*u, 0.0], [*y, 0.5]
    pairs = [  # j right and k wrong, over ordered pairs; the mean is over unordered ones
        2 * scores[j] * (1 - scores[k]) * np.log1p(np.exp(utilities[k] - utilities[j]))
        for j in range(4)
        for k in range(4)
        if j != k
    ]
    found = pairwise(torch.tensor(u)[None], torch.tensor(y)[None])
    np.testing.assert_allclose(found.numpy(), [np.mean(pairs)])


def test_trees_see_no_more_examples_than_asked():
    X, Y, _ = problem(n=400)
    few = estimator_class("lightgbm")(tree_rows=100, rounds=20).fit(X, Y)
    all_of_them = estimator_class("lightgbm")(tree_rows=400, rounds=20).fit(X, Y)
    default = estimator_class("lightgbm")(rounds=20).fit(X, Y)
    assert few.dump() != all_of_them.dump() == default.dump()


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

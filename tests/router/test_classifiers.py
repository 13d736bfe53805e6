"""A scikit-learn classifier of the user's as a router's estimator, in memory."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from m3router.data.errors import DataError, MismatchError
from m3router.data.log.parts import part_rows
from m3router.data.splits.split import SPLITS
from m3router.router.cascade.learning import learn_cascade
from m3router.router.cascade.rule import Cascade
from m3router.router.estimators.base import log_loss
from m3router.router.estimators.classifier import ClassifierEstimator
from m3router.router.estimators.mlp import MlpEstimator
from m3router.router.evaluation.escalation import tune_answers
from m3router.router.evaluation.evaluate import Settings, evaluate
from m3router.router.evaluation.methods import Known
from m3router.router.hub import save_router
from m3router.router.policies.fitting import for_budget
from m3router.router.policies.policy import Binding
from m3router.router.training.fit import train_router
from m3router.router.training.scale_router import ScaleRouter
from tests.router.answered import answered_world
from tests.router.conftest import log_of

CLASSIFIERS = {
    "forest": RandomForestClassifier(n_estimators=40, min_samples_leaf=5),
    "boosting": HistGradientBoostingClassifier(max_iter=20),
    "bayes": GaussianNB(),
    "neighbours": KNeighborsClassifier(25),
    "pipeline": make_pipeline(StandardScaler(), LogisticRegression()),
    "search": GridSearchCV(LogisticRegression(), {"C": [0.3, 1.0]}, cv=3),
    "several outputs": MultiOutputClassifier(LogisticRegression()),
    "chain": ClassifierChain(LogisticRegression(), random_state=0),
    "pipeline of several": make_pipeline(StandardScaler(), MultiOutputClassifier(GaussianNB())),
}


class Guess:
    """An object that scikit-learn knows nothing of: the share of right answers."""

    def fit(self, X, y):
        self.share = float(np.mean(y))

    def predict_proba(self, X):
        return np.tile([1 - self.share, self.share], (len(X), 1))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_it_learns_and_says_what_it_is(world, name):
    classifier = CLASSIFIERS[name]
    before = set(vars(classifier))
    router = train_router(world.log, world.features, world.split, estimator=classifier)
    assert set(vars(classifier)) == before  # clones were fitted
    test = world.split.test
    scores = world.log.scores[test]
    constant = np.tile(world.log.scores[world.split.fit].mean(axis=0), (len(test), 1))
    p = router.predict(world.features)
    assert log_loss(scores, p[test]) < log_loss(scores, constant)
    row = {block: values[test[0]] for block, values in world.features.blocks.items()}
    np.testing.assert_allclose(router.predict_one(row), p[test[0]], rtol=1e-12)
    assert router.estimator_name == type(classifier).__name__
    assert router.metadata["hyperparameters"]["classifier"] == type(classifier).__name__
    with pytest.raises(MismatchError, match="12 features, but got 5"):
        router.estimator.predict(np.zeros((1, 5)))


def test_one_clone_per_option_is_what_scikit_learn_gives(world):
    router = train_router(world.log, world.features, world.split, estimator=GaussianNB())
    fit, X = world.split.fit, world.features.matrix()
    for option, y in enumerate(world.log.scores.T):
        alone = GaussianNB().fit(X[fit], y[fit])
        found = router.estimator.predict(X)[:, option]
        np.testing.assert_allclose(found, alone.predict_proba(X.astype(float))[:, 1], rtol=1e-12)


def test_the_seed_is_for_what_draws(world):
    def trained(seed, **settings):
        forest = RandomForestClassifier(n_estimators=5, **settings)
        return train_router(world.log, world.features, world.split, estimator=forest, seed=seed)

    assert trained(1).fingerprint == trained(1).fingerprint != trained(2).fingerprint
    p = trained(1, random_state=7).estimator.predict(world.features.matrix())
    np.testing.assert_array_equal(
        p, trained(2, random_state=7).estimator.predict(world.features.matrix())
    )


def test_it_is_evaluated_decides_and_escalates_in_memory():
    world = answered_world(600)
    router = train_router(
        world.log, world.features, world.split, estimator=CLASSIFIERS["forest"], seed=0
    )
    p = router.predict(world.features)
    binding = Binding(
        options=router.options,
        cost_unit=router.cost_unit,
        router=router.fingerprint,
        split=world.split.fingerprint,
    )
    inside = world.split.calibrate
    policy = for_budget(p[inside], world.log.costs[inside], budget=100.0, binding=binding)
    policy.check_fits(options=router.options, router=router.fingerprint)
    rows = {part: part_rows(world.log, world.split, part, gaps="error") for part in SPLITS}
    learned = learn_cascade(tune_answers(Known.of(world.log, rows), p, reads=()))
    cascade = Cascade(binding=binding, rule=learned.rule(5e-4), price=5e-4)
    cascade.check_fits(options=router.options, router=router.fingerprint)
    result = evaluate(
        world.log,
        p,
        split=world.split,
        policies={"budget": policy},
        features=world.features,
        reads={"router": tuple(router.blocks)},
        cascades={"cascade": cascade},
        settings=Settings(draws=50),
    )
    assert result["metrics"]["aiq"]["value"] > 0.5
    assert "cascade" in [row["name"] for row in result["escalation"]["rows"]]
    assert [row["name"] for row in result["rows"] if row["kind"] == "router"] == ["budget"]


def test_saving_is_refused_and_leaves_nothing(world, tmp_path):
    router = train_router(world.log, world.features, world.split, estimator=GaussianNB())
    with pytest.raises(DataError, match="GaussianNB cannot be saved.*pickle.*in memory"):
        save_router(router, tmp_path)
    with pytest.raises(DataError, match="cannot be saved"):
        router.write(tmp_path)
    assert not list(tmp_path.rglob("*.json"))
    with pytest.raises(DataError, match="nothing to read"):
        ClassifierEstimator.restore({})
    assert isinstance(router, ScaleRouter)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (RandomForestClassifier, "RandomForestClassifier is a class. Write RandomForestClassifier"),
        (LinearSVC(), "LinearSVC has no predict_proba.*CalibratedClassifierCV"),
        (SVC(), "SVC has no predict_proba"),
        (Ridge(), "Ridge has no predict_proba"),
        (3, "int has no fit and no predict_proba"),
        (MlpEstimator(), "own estimators: give its name"),
    ],
)
def test_what_is_no_classifier_is_refused(world, given, message):
    with pytest.raises(DataError, match=message):
        train_router(world.log, world.features, world.split, estimator=given)


def test_settings_belong_to_the_object(world):
    with pytest.raises(DataError, match="set those of GaussianNB where you make it"):
        train_router(
            world.log,
            world.features,
            world.split,
            estimator=GaussianNB(),
            hyperparameters={"var_smoothing": 1e-3},
        )


@pytest.mark.parametrize("name", ["forest", "chain", "several outputs"])
def test_an_option_of_one_class_keeps_its_share(world, name):
    scores = world.log.scores.copy()
    scores[:, 0], scores[:, 2] = 0.0, 1.0
    log = log_of(scores, groups=list(world.log.groups))
    router = train_router(log, world.features, world.split, estimator=CLASSIFIERS[name])
    n = len(world.split.fit)
    p = router.estimator.predict(world.features.matrix())
    np.testing.assert_allclose(p[:, 0], 0.5 / (n + 1))
    np.testing.assert_allclose(p[:, 2], (n + 0.5) / (n + 1))
    assert p[:, 1].std() > 0.02


@pytest.mark.parametrize("name", ["chain", "several outputs"])
def test_one_varying_option_of_a_classifier_of_several(name):
    X = np.random.default_rng(0).standard_normal((80, 3))
    Y = np.stack([np.zeros(80), X[:, 0] > 0], axis=1)
    p = ClassifierEstimator(classifier=CLASSIFIERS[name]).fit(X, Y).predict(X)
    assert np.corrcoef(p[:, 1], Y[:, 1])[0, 1] > 0.8


@pytest.mark.parametrize("name", ["forest", "pipeline", "search", "several outputs"])
def test_scores_between_0_and_1_count_as_their_share(name):
    """Like the same example that many times right and that many times wrong."""
    X = np.random.default_rng(0).integers(0, 3, (200, 2)).astype(float)
    truth = (1 + X) / 4
    p = ClassifierEstimator(classifier=CLASSIFIERS[name]).fit(X, truth).predict(X)
    assert np.abs(p - truth).max() < 0.08


def test_scores_between_0_and_1_need_weights():
    X, Y = np.arange(40.0)[:, None], np.linspace(0, 1, 40)[:, None]
    with pytest.raises(DataError, match="KNeighborsClassifier takes no sample_weight"):
        ClassifierEstimator(classifier=KNeighborsClassifier()).fit(X, Y)
    with pytest.raises(DataError, match="Guess takes no sample_weight"):
        ClassifierEstimator(classifier=Guess()).fit(X, Y)


def test_weights_are_given_on():
    X = np.random.default_rng(0).permutation(100)[:, None] % 10.0
    Y = (np.arange(100) < 50).astype(float)[:, None]
    weights = np.where(Y[:, 0] > 0, 3.0, 1.0)
    bayes = ClassifierEstimator(classifier=GaussianNB()).fit(X, Y, weights=weights)
    plain = ClassifierEstimator(classifier=GaussianNB()).fit(X, Y)
    assert bayes.predict(X).mean() == pytest.approx(0.75, abs=0.05)
    assert plain.predict(X).mean() == pytest.approx(0.5, abs=0.05)


def test_any_object_will_do(world):
    router = train_router(world.log, world.features, world.split, estimator=Guess())
    p = router.estimator.predict(world.features.matrix())
    np.testing.assert_allclose(p[0], world.log.scores[world.split.fit].mean(axis=0))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda n: np.full(n, 0.5), r"shape \(40, 2\).*it gave \[\(40,\)\]"),
        (lambda n: np.full((n, 3), 0.3), r"it gave \[\(40, 3\)\]"),
        (lambda n: np.full((n, 2), 1.5), "Bad gave numbers outside"),
        (lambda n: np.full((n, 2), np.nan), "Bad gave numbers outside"),
    ],
)
def test_bad_probabilities_are_refused(answer, message):
    class Bad(Guess):
        def predict_proba(self, X):
            return answer(len(X))

    X, Y = np.arange(40.0)[:, None], (np.arange(40.0)[:, None] > 20).astype(float)
    with pytest.raises(DataError, match=message):
        ClassifierEstimator(classifier=Bad()).fit(X, Y)


def test_what_fails_inside_says_where():
    X, Y = np.arange(40.0)[:, None], np.zeros((40, 2))
    Y[3, 1] = 1.0  # one example cannot be in each of three folds
    with pytest.raises(DataError, match="GridSearchCV cannot be fitted to option 1 on 40 examples"):
        ClassifierEstimator(
            classifier=GridSearchCV(LogisticRegression(), {"C": [1.0]}, error_score="raise")
        ).fit(X, Y)

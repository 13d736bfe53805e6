"""A new estimator is one file and one line in `ESTIMATORS`: a toy in a temporary folder."""

from __future__ import annotations

import numpy as np
import pytest

from m3router.router import estimators
from m3router.router.features.table import FeatureTable
from m3router.router.hub.repository import router_files
from m3router.router.runs.run import Run
from m3router.router.stages.importance import importance_stage
from m3router.router.stages.learning import train_stage
from m3router.router.stages.tuning import Search, tune_stage, tuned_setting
from m3router.router.tuning.spaces import searchable
from tests.router.conftest import log_of, make_world

FILE = '''
import json
from dataclasses import dataclass

import numpy as np

from m3router.router.estimators.base import (
    FeatureImportance, Range, SufficiencyEstimator, check_fit, read_header
)


@dataclass(kw_only=True, eq=False)
class ToyEstimator(SufficiencyEstimator):
    """The mean score on either side of a threshold of one feature."""

    feature: int = 0

    FILES = ("toy.json",)
    SPACE = {"feature": Range(low=0, high=3)}

    def fit(self, X, Y, *, weights=None, validation=None):
        X, Y, weights = check_fit(X, Y, weights)
        self.n_features_ = X.shape[1]
        self.at_ = float(np.median(X[:, self.feature]))
        above = X[:, self.feature] > self.at_
        self.means_ = np.stack([(Y[side].sum(axis=0) + 1) / (side.sum() + 2)
                                for side in (~above, above)])
        self.read_ = self.feature
        return self

    def feature_importance(self, X):
        gain = np.zeros(X.shape[1])
        gain[self.read_] = 1.0
        return FeatureImportance(measure="being read", values=gain)

    def dump(self):
        self._check_fitted()
        fitted = [self.n_features_, self.at_, self.read_, self.means_.tolist()]
        return {"toy.json": json.dumps({"fitted": fitted}).encode()}

    @classmethod
    def restore(cls, files):
        toy = cls()
        toy.n_features_, toy.at_, toy.read_, means = read_header(files, "toy.json")["fitted"]
        toy.means_ = np.array(means)
        return toy

    def _predict(self, X):
        return self.means_[(X[:, self.read_] > self.at_).astype(int)]
'''


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The file, where Python finds it, and the line."""
    (tmp_path / "toy_estimator.py").write_text(FILE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(estimators.ESTIMATORS, "toy", "toy_estimator:ToyEstimator")


@pytest.fixture
def run(tmp_path):
    full = make_world(n=160, seed=1)
    log = log_of(full.log.scores[:, ::2], groups=list(full.log.groups))
    run = Run(tmp_path / "run")
    log.write(run.log_folder)
    FeatureTable(ids=log.ids, blocks=full.features.blocks).write(run.features_folder)
    return run


def test_it_trains_saves_loads_and_weighs_its_features(toy, run):
    trained = train_stage(run, estimator="toy")
    again = run.router()
    assert again.estimator_name == "toy" and again.fingerprint == trained.fingerprint
    features = run.features(run.log())
    np.testing.assert_array_equal(again.predict(features), trained.predict(features))
    assert (run.arm() / "toy.json").is_file()
    assert "toy.json" in router_files()  # what the hub takes and gives
    found = importance_stage(run, repeats=1, draws=20)
    assert found["weighed_by"] == "being read"
    assert list(found["features"]) == ["image[0]"]


def test_it_is_tuned(toy, run):
    assert "toy" in searchable()
    tune_stage(run, Search(trials=3, estimators=("toy",), folds=2))
    setting = tuned_setting(run)
    assert setting.estimator == "toy" and 0 <= setting.hyperparameters["feature"] <= 3
    router = train_stage(run, tuned=setting)
    assert router.metadata["hyperparameters"] == setting.hyperparameters

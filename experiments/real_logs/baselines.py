"""What a router must not lose to: a few lines of scikit-learn each, on the router's features.

Each is given features, scores and datasets, the rows to learn from and the rows to judge, and
says how likely each option is right there.

Notation for shapes: N examples, D features, K options.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

NEIGHBOURS = 50
PRIOR = 10.0
"""Examples that the mean over all datasets counts for in the mean of each."""

Baseline = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""(X (N, D), scores (N, K), datasets (N,), rows to learn from, rows to judge) -> (n, K)."""


def mixing(
    X: np.ndarray, Y: np.ndarray, of: np.ndarray, learn: np.ndarray, judge: np.ndarray
) -> np.ndarray:
    """The same probabilities for everything; its curve goes from one fixed option to another."""
    return np.tile(Y[learn].mean(axis=0), (len(judge), 1))


def logistic(
    X: np.ndarray, Y: np.ndarray, of: np.ndarray, learn: np.ndarray, judge: np.ndarray
) -> np.ndarray:
    """A logistic regression for each option, everything at its default."""
    p = np.tile(Y[learn].mean(axis=0), (len(judge), 1))
    for k in range(Y.shape[1]):
        right = Y[learn, k] > 0.5
        if right.any() and not right.all():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                model = LogisticRegression(max_iter=2000).fit(X[learn], right)
            p[:, k] = model.predict_proba(X[judge])[:, 1]
    return p


def logistic_with_dataset(
    X: np.ndarray, Y: np.ndarray, of: np.ndarray, learn: np.ndarray, judge: np.ndarray
) -> np.ndarray:
    """The same, told which dataset each question is from, which the router is not."""
    known = (of[:, None] == np.unique(of[learn])).astype(X.dtype)
    return logistic(np.hstack([X, known]), Y, of, learn, judge)


def standardised(
    X: np.ndarray, Y: np.ndarray, of: np.ndarray, learn: np.ndarray, judge: np.ndarray
) -> np.ndarray:
    """A logistic regression for each option, on standardised features."""
    return logistic(StandardScaler().fit(X[learn]).transform(X), Y, of, learn, judge)


def neighbours(
    X: np.ndarray, Y: np.ndarray, of: np.ndarray, learn: np.ndarray, judge: np.ndarray
) -> np.ndarray:
    """The mean scores of the nearest 50 questions."""
    near = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(learn))).fit(X[learn])
    found = near.kneighbors(X[judge], return_distance=False)
    return np.asarray(Y[learn][found].mean(axis=1))


def lookup(
    X: np.ndarray, Y: np.ndarray, of: np.ndarray, learn: np.ndarray, judge: np.ndarray
) -> np.ndarray:
    """The mean scores of the question's dataset, which the router is not told."""
    overall = Y[learn].mean(axis=0)
    p = np.tile(overall, (len(judge), 1))
    for name in np.unique(of[judge]):
        own = Y[learn][of[learn] == name]
        p[of[judge] == name] = (own.sum(axis=0) + PRIOR * overall) / (len(own) + PRIOR)
    return p


MIXING = "mixing"
BASELINES: dict[str, Baseline] = {
    MIXING: mixing,
    "logistic regression": logistic,
    "logistic, standardised": standardised,
    "logistic with dataset": logistic_with_dataset,
    "nearest 50": neighbours,
    "dataset lookup": lookup,
}
"""Name -> what it estimates."""

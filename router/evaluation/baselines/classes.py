"""A classifier of options, for the published rules that learn "the right scale" as a class.

Notation for shapes: N examples, n rows, D features, K options.
"""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from m3router.data.errors import NotLearnableError
from m3router.router.evaluation.methods import Known

MOST = 20_000
"""Examples that are fitted on at most, drawn at random: enough for a linear model."""
PENALTIES = (1e-4, 1e-3, 1e-2)
STEPS = 100
"""Most L-BFGS steps: a late stop is one more penalty, and the tune split decides about those."""

Labels = npt.NDArray[np.intp]


def class_probabilities(known: Known, labels: Labels) -> npt.NDArray[np.float64]:
    """Probability of each option being the right class, (N, K); NaN outside calibrate and test.

    A multinomial logistic regression on the router's standardised features, fitted on the fit
    split, with the penalty of the least cross-entropy on the tune split.

    Args:
        known: what may be known.
        labels: (N,) option of each example; only read in fit and tune.

    Raises:
        NotLearnableError: without features, or when fit or tune is empty.
    """
    features = known.need_features()
    fit, tune = sampled(known.rows["fit"]), known.rows["tune"]
    if not len(fit) or not len(tune):
        raise NotLearnableError("the fit and tune splits have no complete example")
    used = np.concatenate([known.rows["calibrate"], known.rows["test"]])
    p = np.full(known.scores.shape, np.nan)
    p[used] = 0.0
    present = np.unique(labels[fit])
    if len(present) == 1:  # one class everywhere: nothing to fit
        p[used, present[0]] = 1.0
        return p
    X = np.asarray(features(fit), dtype=np.float32)
    mean, spread = X.mean(axis=0), X.std(axis=0)
    scale = np.where(spread > 1e-7, 1 / np.where(spread > 1e-7, spread, 1.0), 0.0)
    held = (np.asarray(features(tune), dtype=np.float32) - mean) * scale
    with threadpool_limits(limits=1, user_api="blas"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # stopped early, on purpose
        models = [
            LogisticRegression(C=C, max_iter=STEPS, tol=1e-3).fit((X - mean) * scale, labels[fit])
            for C in PENALTIES
        ]
        losses = [
            _cross_entropy(model.predict_proba(held), present, labels[tune], len(known.options))
            for model in models
        ]
        best = models[int(np.argmin(losses))]
        for part in np.array_split(used, max(1, len(used) // 10_000)):
            rows = (np.asarray(features(part), dtype=np.float32) - mean) * scale
            p[np.ix_(part, present)] = best.predict_proba(rows)
    return p


def sampled(rows: Labels, *, most: int = MOST) -> Labels:
    """At most so many of the rows, ascending, always the same ones."""
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(0).choice(rows, most, replace=False))


def _cross_entropy(found: np.ndarray, present: Labels, labels: Labels, options: int) -> float:
    """Mean -log p of the labels, in nats; classes that were not fitted have p = 0, floored."""
    p = np.zeros((len(found), options))
    p[:, present] = found
    return float(-np.mean(np.log(np.maximum(p[np.arange(len(p)), labels], 1e-7))))

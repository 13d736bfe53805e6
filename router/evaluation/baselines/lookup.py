"""A table of mean scores, by dataset or by type of question, in place of a router.

Its means are calibrated as the router's probabilities are.

Notation for shapes: N examples, K options, T classes.
"""

from __future__ import annotations

import numpy as np

from m3router.data.errors import NotLearnableError
from m3router.router.estimators.base import Floats
from m3router.router.evaluation.baselines.probability_calibration import calibrated
from m3router.router.evaluation.baselines.question_type import question_types
from m3router.router.evaluation.methods import Known, Priced, Rows

PRIOR = 10.0
"""Examples that the mean over all classes counts for in each class."""


def by_dataset(known: Known) -> Priced:
    """Mean scores of the example's dataset."""
    return Priced(
        about="Mean scores of the example's dataset in the fit and tune splits, as probabilities.",
        p=_means(known, known.datasets),
        costs=known.costs,
    )


def by_question_type(known: Known) -> Priced:
    """Mean scores of the question's type, as `evaluation.baselines.question_type` reads it."""
    return Priced(
        about="Mean scores of the question's type, read from its words, in fit and tune.",
        p=_means(known, question_types(known.questions)),
        costs=known.costs,
    )


def _means(known: Known, classes: np.ndarray) -> Floats:
    """Mean scores (N, K) of each example's class, drawn towards the mean over all.

    (sum of the class + PRIOR * overall mean) / (size of the class + PRIOR), in fit and tune;
    calibrated by what the fit split alone says about the tune split.
    """
    rows = known.learnt
    if not len(rows):
        raise NotLearnableError("the fit and tune splits have no complete example")
    _, member = np.unique(classes, return_inverse=True)
    member = member.reshape(-1)
    tune, fit = known.rows["tune"], known.rows["fit"]
    means = _table(known, member, rows)
    if not (len(fit) and len(tune)):
        return means
    return calibrated(known, _table(known, member, fit)[tune], means)


def _table(known: Known, member: np.ndarray, rows: Rows) -> Floats:
    """Means (N, K) of each example's class, learned from some rows."""
    size = np.bincount(member[rows], minlength=member.max() + 1)[:, None]  # (T, 1)
    total = np.zeros((len(size), known.scores.shape[1]))
    np.add.at(total, member[rows], known.scores[rows])
    overall = known.scores[rows].mean(axis=0)
    means: Floats = np.clip((total + PRIOR * overall) / (size + PRIOR), 0.0, 1.0)
    return means[member]

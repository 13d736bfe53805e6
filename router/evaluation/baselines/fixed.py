"""One option for everything, or for each dataset, chosen where it is not measured."""

from __future__ import annotations

import numpy as np

from m3router.data.errors import NotLearnableError
from m3router.router.evaluation.methods import Chosen, Known
from m3router.router.metrics.choices import best_fixed


def overall(known: Known) -> Chosen:
    """The option with the highest mean score in fit and tune; ties go to the cheaper one."""
    best = _best(known, np.ones(len(known.scores), dtype=bool))
    return Chosen(
        about="The single best option of the fit and tune splits.",
        choice=np.full(len(known.scores), best, dtype=np.intp),
        options=len(known.options),
    )


def by_dataset(known: Known) -> Chosen:
    """The best option of each dataset in fit and tune; elsewhere the best overall."""
    choice = np.full(
        len(known.scores), _best(known, np.ones(len(known.scores), dtype=bool)), dtype=np.intp
    )
    for dataset in np.unique(known.datasets[known.learnt]):
        inside = known.datasets == dataset
        choice[inside] = _best(known, inside)
    return Chosen(
        about="The best option of each dataset in the fit and tune splits.",
        choice=choice,
        options=len(known.options),
    )


def _best(known: Known, inside: np.ndarray) -> int:
    rows = known.learnt[inside[known.learnt]]
    if not len(rows):
        raise NotLearnableError("the fit and tune splits have no complete example")
    return best_fixed(known.scores[rows], known.costs[rows])

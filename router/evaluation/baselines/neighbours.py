"""The k nearest neighbours in the router's own features: what few routers beat.

"Rethinking Predictive Modeling for LLM Routing" (Li, arXiv 2505.12601) finds that simple nearest
neighbours match or beat most routers; so it is always in the table.
"""

from __future__ import annotations

import numpy as np

from m3router.data.errors import NotLearnableError
from m3router.router.estimators import estimator_class
from m3router.router.estimators.base import Floats, Validation
from m3router.router.evaluation.baselines.classes import sampled
from m3router.router.evaluation.baselines.probability_calibration import calibrated
from m3router.router.evaluation.methods import Known, Priced
from m3router.router.metrics.hull import aiq
from m3router.router.policies.price_sweep import sweep

ESTIMATOR = "knn"


def fit(known: Known) -> Priced:
    """Fit on the fit split, choosing the number of neighbours by the curve on the tune split.

    Raises:
        NotLearnableError: without features, or when fit or tune is empty.
    """
    features = known.need_features()
    fit, tune = sampled(known.rows["fit"]), known.rows["tune"]
    if not len(fit) or not len(tune):
        raise NotLearnableError("the fit and tune splits have no complete example")
    X, held = features(fit), features(tune)
    validation = Validation(X=held, Y=known.scores[tune])
    candidates = estimator_class(ESTIMATOR).candidates(seed=0, widths=tuple(known.blocks.values()))
    fitted = [one.fit(X, known.scores[fit], validation=validation) for one in candidates]
    areas = [_area(one.predict(held), known.costs[tune], known.scores[tune]) for one in fitted]
    best = fitted[int(np.argmax(areas))]
    used = np.concatenate([known.rows["calibrate"], known.rows["test"]])
    p = np.full(known.scores.shape, np.nan)
    p[used] = best.predict(features(used))
    p = calibrated(known, best.predict(held), p)
    return Priced(
        about="Mean scores of the nearest examples of the fit split in the router's features.",
        p=p,
        costs=known.costs,
        reads=tuple(known.blocks),
    )


def _area(p: Floats, costs: Floats, scores: Floats) -> float:
    """AIQ of the curve, over the range of the options' mean costs."""
    steps = sweep(p, costs, scores=scores)
    low, high = float(costs.mean(axis=0).min()), float(costs.mean(axis=0).max())
    if not low < high:
        return float(steps.accuracy[0])
    return aiq(steps.cost, steps.accuracy, low=low, high=high)

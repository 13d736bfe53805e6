"""The router's own probability calibration, for baselines that estimate probabilities."""

from __future__ import annotations

import numpy as np

from m3router.router.estimators.base import Floats
from m3router.router.evaluation.methods import Known
from m3router.router.training.probability_calibration import choose_calibration


def calibrated(known: Known, held_out: Floats, p: Floats) -> Floats:
    """Probabilities calibrated as those of the router are, so that prices mean the same.

    Args:
        known: its tune split is what the calibration is chosen and fitted on.
        held_out: (T, K) probabilities of the tune split, learned without it.
        p: (N, K) probabilities to correct; NaN where they are not asked for.

    Returns:
        (N, K), NaN where `p` is.
    """
    tune = known.rows["tune"]
    if not len(tune):
        return p
    calibration, _ = choose_calibration(
        np.clip(held_out, 0.0, 1.0), known.scores[tune], groups=known.groups[tune]
    )
    corrected = p.copy()
    asked = np.isfinite(p).all(axis=1)
    corrected[asked] = calibration.apply(p[asked])
    return corrected

"""How far probabilities were off: the one calibration error, of training, evaluation and reports.

Notation for shapes: N examples, K options, B bins.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import erf

from m3router.data.errors import DataError
from m3router.router.metrics.choices import Array, Floats

BINS = 15


def calibration_errors(p: Floats, scores: Floats, *, bins: int = BINS) -> dict[str, Any]:
    """`expected_calibration_error` "overall" (mean over options) and "by_option" (K,)."""
    p, scores = checked(p, scores)
    by_option = [
        expected_calibration_error(p[:, k], scores[:, k], bins=bins) for k in range(p.shape[1])
    ]
    return {"overall": float(np.mean(by_option)), "by_option": by_option}


def expected_calibration_error(p: Floats, scores: Floats, *, bins: int = BINS) -> float:
    """Mean absolute difference between probability and score over bins of equal mass, debiased.

    With g_b = mean(p) - mean(score) in bin b, w_b its share and s_b the standard error of g_b,

        ECE = max(0, sum_b w_b (2 |g_b| - E|G_b|)),  G_b ~ Normal(g_b, s_b),

    the plug-in sum_b w_b |g_b| less its bias as estimated by resampling (Kumar et al., Verified
    Uncertainty Calibration, NeurIPS 2019, arXiv 1909.10155, for norms other than 2), with the
    mean of the folded normal distribution in closed form in place of draws. Bins of equal mass
    are the less biased ones (Roelofs et al., AISTATS 2022, arXiv 2012.08668). Equal
    probabilities are never torn apart, so that there may be fewer bins.

    NOTE: for probabilities that are right some bias upwards remains, six tenths of the plug-in's.

    Args:
        p: (N,) in [0, 1].
        scores: (N,) in [0, 1].
        bins: B, most bins.

    Raises:
        DataError: when the input is empty, misshapen or outside [0, 1], or `bins` below 1.
    """
    p, scores = checked(np.asarray(p)[..., None], np.asarray(scores)[..., None])
    if bins < 1:
        raise DataError(f"The calibration error needs at least 1 bin, not {bins}.")
    order = np.argsort(p[:, 0], kind="stable")
    ranked, gaps = p[order, 0], (p - scores)[order, 0]
    # A run of equal probabilities belongs to the bin that its first member falls into.
    first = np.searchsorted(ranked, ranked, side="left")
    names = first * bins // len(ranked)
    total = 0.0
    for name in np.unique(names):
        inside = gaps[names == name]
        gap = abs(inside.mean())
        error = inside.std(ddof=1) / np.sqrt(len(inside)) if len(inside) > 1 else 0.0
        total += len(inside) / len(gaps) * (2 * gap - _folded_mean(gap, error))
    return float(max(0.0, total))


def _folded_mean(mean: float, deviation: float) -> float:
    """E|G| for G ~ Normal(mean, deviation)."""
    if deviation <= 0:
        return abs(mean)
    ratio = mean / deviation
    tail = deviation * np.sqrt(2 / np.pi) * np.exp(-(ratio**2) / 2)
    return float(tail + mean * erf(ratio / np.sqrt(2)))


def checked(p: Floats, scores: Floats) -> tuple[Array, Array]:
    """Probabilities and scores (N, K) as float64.

    Raises:
        DataError: when they are empty, misshapen or outside [0, 1].
    """
    found: Array = np.asarray(p, dtype=np.float64)
    truth: Array = np.asarray(scores, dtype=np.float64)
    if truth.shape != found.shape or not np.all((truth >= 0) & (truth <= 1)):
        raise DataError(
            f"Calibration needs scores of shape {found.shape} in [0, 1] without gaps; they have "
            f"shape {truth.shape}."
        )
    if found.ndim != 2 or 0 in found.shape:
        raise DataError(f"Probabilities must be (N, K), neither empty, but have {found.shape}.")
    wrong = np.argwhere(~((found >= 0) & (found <= 1)))
    if len(wrong):
        row, k = wrong[0]
        value = found[row, k]
        raise DataError(f"Probabilities must lie in [0, 1]; row {row}, option {k} has {value}.")
    return found, truth

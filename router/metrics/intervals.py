"""Intervals for means of clustered data that still hold with few images, or with no spread at all.

A bootstrap knows only what it saw: two right answers of two give it "100 (100 to 100)", and with
five images its percentiles are too narrow. So:

- Means of values that cannot leave a range (accuracies, costs, regret, AIQ) have an interval after
  Korn and Graubard (Survey Methodology 24, 1998): that of a share of so many examples as the spread
  between images says, with Student's t for the number of images. For the share it is Jeffreys'
  (Brown, Cai and DasGupta, Statistical Science 16, 2001), as Clopper and Pearson's would hold the
  truth too often. Where nothing varies, every image counts as one draw of right or wrong, and the
  interval is exact.
- Paired differences have the same on [-1, 1]. Where fewer than `FEW` images differ at all, gains
  and losses get an interval each, and the two are put together (MOVER; Zou and Donner, Statistics
  in Medicine 27, 2008). So do costs above and below their median, where either are those of fewer
  than `FEW` images: a few questions at the most expensive option make a mean that is far from
      normal.
- Anything else (differences of areas, shares of a gap, savings) has the bootstrap's percentiles,
  stretched about the value: by t for the number of images instead of the normal quantile, and by
  the jackknife's standard error instead of the bootstrap's, which is too small with few clusters
  (MacKinnon, Nielsen and Webb, Journal of Applied Econometrics 38, 2023).

How often each covers the truth is simulated in `experiments/intervals`.

Notation for shapes: G images ("groups"), B draws; values may have any leading shape.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv, ndtri, stdtrit

Array = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating]
Interval = tuple[float | None, float | None]

FEW = 10
"""Images that differ, below which a paired difference is judged by gains and losses apart."""
LEAST_FOR_CURVES = 20
"""Images below which numbers of whole curves have no interval: none that we know covers."""
NONE: Interval = (None, None)
SPREADLESS = 1e-12  # relative to the range: spread below this is rounding


def jackknife_variance(left_out: Array) -> Array:
    """Variance of a statistic from its values (G, ...) with one image left out at a time.

    (G - 1) / G times the sum of squared distances to their mean (Efron and Stein, 1981).
    """
    groups = len(left_out)
    spread = left_out - left_out.mean(axis=0)
    return np.asarray((groups - 1) / groups * (spread**2).sum(axis=0))


def mean_interval(
    mean: Array | float,
    variance: Array | float,
    *,
    bounds: tuple[float, float],
    groups: int,
    most: float = np.inf,
    level: float = 0.95,
) -> tuple[Array, Array]:
    """Interval of means of values within `bounds`, after Korn and Graubard; see the module.

    Args:
        mean: of the examples, any shape.
        variance: of the mean, between images; the same shape.
        bounds: least and largest value that an example can have; where they are one, there is
            nothing to be unsure of.
        groups: images, at least 2.
        most: the effective number of examples is at most this. Give the number of examples for
            values that are right or wrong, where more is only chance.
        level: of the interval.

    Returns:
        Lower and upper ends, in the shape of `mean`.
    """
    low, high = bounds
    width = high - low
    if not width > 0:  # every example has that value
        known = np.asarray(mean, dtype=np.float64)
        return known, known
    share = np.clip((np.asarray(mean, dtype=np.float64) - low) / width, 0.0, 1.0)
    spread = np.asarray(variance, dtype=np.float64) / width**2
    tail = (1 - level) / 2
    seen = spread > SPREADLESS**2
    effective = np.divide(share * (1 - share), spread, out=np.full_like(share, groups), where=seen)
    # Student's t for so many images, against what an interval of that many examples would take.
    fewer = (ndtri(1 - tail) / stdtrit(groups - 1, 1 - tail)) ** 2
    effective = np.where(seen, np.minimum(effective * fewer, most), groups)
    hits = share * effective
    misses = effective - hits
    # The quantiles of beta, normal and t: scipy.stats' `ppf` has the same numbers, far slower.
    with np.errstate(invalid="ignore"):
        lower = np.where(hits > 1e-9, betaincinv(hits + 0.5, misses + 0.5, tail), 0.0)
        upper = np.where(misses > 1e-9, betaincinv(hits + 0.5, misses + 0.5, 1 - tail), 1.0)
    # Between the bounds but without spread, a binomial says too much: every image was the same, so
    # at most 1 - tail^(1 / G) of all images are not.
    other = 1 - tail ** (1 / groups)
    lower = np.where(seen, lower, share * (1 - other))
    upper = np.where(seen, upper, share + (1 - share) * other)
    return low + width * lower, low + width * upper


def difference_interval(
    gain: tuple[float, float],
    loss: tuple[float, float],
    variance: float,
    *,
    differing: int,
    groups: int,
    examples: int,
    level: float = 0.95,
) -> tuple[float, float]:
    """Interval of a mean paired difference of values in [0, 1].

    Args:
        gain: mean and variance of the differences' positive part.
        loss: mean and variance of their negative part, turned positive.
        variance: of the mean difference.
        differing: images on which anything differs.
        groups: images, at least 2.
        examples: questions.
        level: of the interval.
    """
    if differing >= FEW:
        value = gain[0] - loss[0]
        ends = mean_interval(value, variance, bounds=(-1.0, 1.0), groups=groups, level=level)
        return float(ends[0]), float(ends[1])
    return apart(gain, loss, reach=(1.0, 1.0), groups=groups, examples=examples, level=level)


def apart(
    above: tuple[float, float],
    below: tuple[float, float],
    *,
    reach: tuple[float, float],
    groups: int,
    examples: int,
    level: float = 0.95,
) -> tuple[float, float]:
    """Interval of the mean of values around a centre, from those above and below it apart.

    What few examples add counts like the share of so many examples, which is exact for them.

    Args:
        above: mean and variance of how far values are above the centre, 0 elsewhere.
        below: the same below it.
        reach: how far an example can be above and below.
        groups: images, at least 2.
        examples: questions.
        level: of the interval.

    Returns:
        Its ends, less the centre.
    """
    each = []
    for (mean, variance), most in zip((above, below), reach, strict=True):
        if most <= 0:
            each.append((0.0, 0.0))
            continue
        ends = mean_interval(
            mean, variance, bounds=(0.0, most), groups=groups, most=examples, level=level
        )
        each.append((float(ends[0]), float(ends[1])))
    (up_low, up_high), (down_low, down_high) = each
    value = above[0] - below[0]
    low = value - float(np.hypot(above[0] - up_low, down_high - below[0]))
    high = value + float(np.hypot(up_high - above[0], below[0] - down_low))
    return max(low, -reach[1]), min(high, reach[0])


def percentile_interval(samples: Floats, *, level: float = 0.95) -> Interval:
    """Percentile interval of (B,) samples; None for an end that is undefined.

    A draw in which the statistic is undefined (NaN) counts as lower than every other, so a few
    of them take the lower end away, and many take both.
    """
    ranked = np.sort(np.where(np.isnan(samples), -np.inf, samples))
    tail = round((1 - level) / 2, 12)  # 0.025, not 0.02500000000000002: the rank is exact
    low, high = (float(np.quantile(ranked, q, method="inverted_cdf")) for q in (tail, 1 - tail))
    return (low if np.isfinite(low) else None), (high if np.isfinite(high) else None)


def stretched_interval(
    value: float, samples: Array, left_out: Array, *, level: float = 0.95
) -> Interval:
    """The percentiles of bootstrap draws, stretched about the value to hold with few images.

    Args:
        value: of the statistic.
        samples: (B,) its values in the draws.
        left_out: (G,) its values with one image left out at a time.
        level: of the interval.
    """
    low, high = percentile_interval(samples, level=level)
    if low is None or high is None or not np.isfinite(left_out).all():
        return low, high
    groups = len(left_out)
    z, wider = ndtri((1 + level) / 2), stdtrit(groups - 1, (1 + level) / 2)
    drawn = float(np.std(samples))
    if drawn <= 0:
        return low, high
    factor = max(1.0, wider * float(np.sqrt(jackknife_variance(left_out))) / (z * drawn))
    return float(value - (value - low) * factor), float(value + (high - value) * factor)

"""APGR and CPT: how much of the way from a weak end to a strong end few strong calls go.

Notation for shapes: n examples, S shares of calls, B draws (any leading shape, also none).

RouteLLM (Ong et al., arXiv 2406.18665, section 3). A router scores each example by how much it
calls for the strong end; a threshold sends those at or above it there. With the share s of strong
calls and the accuracy A(s),

    PGR(s) = (A(s) - A_weak) / (A_strong - A_weak)
    APGR   = the integral of PGR over s in [0, 1]
    CPT(x) = the least s with PGR(s) >= x.

The published code (lm-sys/RouteLLM, routellm/evals/benchmarks.py and evaluate.py) takes the
thresholds at the deciles of the router's score, all at or above each of them, none at the last;
the area by the trapezoidal rule; and CPT by linear interpolation between points. So do we. A
router that calls at random has APGR 0.5.

NOTE: with tied scores the deciles coincide; equal thresholds are taken once (the published code
fails there), so that between two points a tie is broken at random. Those at the highest score are
a point too, which without ties is one example.

NOTE: CPT is the first crossing of the level; the published code interpolates as if the accuracies
rose, which is the same where they do.

Both are meaningless unless the strong end is better: they are undefined here unless its accuracy
is higher and the paired interval of the difference excludes 0, and unless it costs more.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from m3router.router.metrics.choices import Array, Floats

POINTS = 11
LEVELS = {"cpt_50": 0.5, "cpt_80": 0.8}


def strong_calls(calls: Floats, *, points: int = POINTS) -> npt.NDArray[np.bool_]:
    """Who is sent to the strong end, (n, S), from nobody to everybody.

    Args:
        calls: (n,) the larger, the rather.
        points: thresholds; one more share than that, fewer for tied scores.
    """
    calls = np.asarray(calls, dtype=np.float64)
    thresholds = np.unique(np.quantile(calls, np.linspace(0, 1, points)))[::-1]
    nobody = np.zeros((len(calls), 1), dtype=bool)
    return np.hstack([nobody, calls[:, None] >= thresholds[None, :]])


def apgr(calls: Array, accuracy: Array) -> Array:
    """APGR (B,) from shares of strong calls and accuracies, both (B, S) from 0 to 1.

    NaN where both ends are equally accurate.
    """
    calls, accuracy = np.asarray(calls, np.float64), np.asarray(accuracy, np.float64)
    area = np.trapezoid(accuracy, calls, axis=-1)
    weak, strong = accuracy[..., 0], accuracy[..., -1]
    gap = strong - weak
    return np.divide(area - weak, gap, out=np.full_like(gap, np.nan), where=gap != 0)


def cpt(calls: Array, accuracy: Array, *, level: float) -> Array:
    """Least share (B,) of strong calls with PGR of at least `level` in (0, 1].

    NaN where the strong end is not better.
    """
    calls, accuracy = np.asarray(calls, np.float64), np.asarray(accuracy, np.float64)
    weak, strong = accuracy[..., 0], accuracy[..., -1]
    target = (weak + level * (strong - weak))[..., None]
    before, after = accuracy[..., :-1], accuracy[..., 1:]
    crossing = (before < target) & (after >= target)
    first = np.argmax(crossing, axis=-1)[..., None]
    a0, a1 = (np.take_along_axis(side, first, axis=-1) for side in (before, after))
    s0 = np.take_along_axis(calls[..., :-1], first, axis=-1)
    s1 = np.take_along_axis(calls[..., 1:], first, axis=-1)
    share = np.divide(target - a0, a1 - a0, out=np.zeros_like(a0), where=a1 > a0)
    found = s0 + share * (s1 - s0)
    return np.where(crossing.any(axis=-1) & (strong > weak), found[..., 0], np.nan)


def why_undefined(
    weak: str,
    strong: str,
    *,
    difference: float | None,
    low: float | None,
    more: float = float("inf"),
) -> str | None:
    """Why APGR and CPT are undefined; None where they are defined.

    Args:
        weak: name of the weak end.
        strong: name of the strong end.
        difference: accuracy of the strong end less that of the weak one.
        low: lower end of its paired interval.
        more: what the strong end costs more; where that is nothing, calls need not be spared.
    """
    if not more > 0:
        return f"undefined: {strong} does not cost more than {weak}"
    if difference is None or difference <= 0:
        return f"undefined: {strong} is not more accurate than {weak}"
    if low is None or low <= 0:
        return f"undefined: {strong} is not clearly more accurate than {weak} on these examples"
    return None

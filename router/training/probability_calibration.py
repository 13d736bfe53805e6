"""Calibration: estimated probabilities made to mean what they say.

Notation for shapes: N examples, K options.

A policy compares probabilities of different options with a price, so they must be right as
numbers, not only in their order. Each option is corrected by a function of its own probability,
strictly increasing, fitted on examples that the estimator was not fitted on.

What decides is the difference of two options' probabilities. Corrected one by one, options can
change which questions gain most from a more expensive one; with few examples that costs more than
the correction gives. So "joint" keeps that order, and a method that does not is only taken where
the examples clearly speak for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression, minimize_scalar
from scipy.special import expit, logit

from m3router.data.errors import DataError
from m3router.data.splits.folds import group_folds
from m3router.router.estimators.base import Floats, bent, log_loss
from m3router.router.metrics.calibration_error import calibration_errors, checked

NONE, JOINT, TEMPERATURE, ISOTONIC = "none", "joint", "temperature", "isotonic"
METHODS = (NONE, JOINT, TEMPERATURE, ISOTONIC)
"""From the simplest to the most flexible."""
FOLDS = 5
BLEND = 0.02
"""Share of the uncorrected probability in the isotonic one, where that alone would be flat."""
HOTTEST = 10.0
"""Bound of the temperature and of the common slope, upwards and, inverted, downwards."""

Array = npt.NDArray[np.float64]
Groups = Sequence[str] | npt.NDArray[Any]
Knots = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A strictly increasing correction of each option's probability.

    Attributes:
        method: "none", "joint", "temperature" or "isotonic".
        lines: for each option, a slope and an offset of its probability; the slopes of options
            that were corrected are the same. Empty for other methods.
        temperatures: (K,) what each option's log-odds are divided by; empty for other methods.
        knots: for each option, probabilities and what they become, both ascending, with straight
            lines between; empty for other methods.
    """

    method: str = NONE
    lines: tuple[tuple[float, float], ...] = ()
    temperatures: tuple[float, ...] = ()
    knots: tuple[Knots, ...] = ()

    def __post_init__(self) -> None:
        """Check that the entries are those of the method.

        Raises:
            DataError: when they are not, or not of a correction that increases.
        """
        filled = {
            NONE: (),
            JOINT: self.lines,
            TEMPERATURE: self.temperatures,
            ISOTONIC: self.knots,
        }
        if self.method not in filled:
            raise DataError(f"A calibration is one of {METHODS}, not {self.method!r}.")
        for name, entries in filled.items():
            if bool(entries) != (name == self.method != NONE):
                raise DataError(f"A calibration by {self.method!r} must have its entries alone.")
        if not all(0 < one < np.inf for one in self.temperatures):
            raise DataError(f"Temperatures must be positive, not {self.temperatures}.")
        if not all(0 < slope < np.inf and np.isfinite(offset) for slope, offset in self.lines):
            raise DataError(f"Lines must rise, with finite offsets, not {self.lines}.")
        for before, after in self.knots:
            if len(before) < 2 or len(before) != len(after) or not _ascend(before, after):
                raise DataError(
                    "The knots of a calibration must be two or more ascending pairs in [0, 1]."
                )

    def apply(self, p: Floats) -> Array:
        """Corrected probabilities of p (N, K) or (K,); each entry depends on itself alone.

        Raises:
            DataError: when K is not the number of options it was fitted for.
        """
        p = _float64(p)
        if self.method == NONE:
            return p
        fitted = self.lines or self.temperatures or self.knots
        if p.shape[-1] != len(fitted):
            raise DataError(f"The calibration is for {len(fitted)} options, but got {p.shape[-1]}.")
        if self.method == JOINT:
            slope, offset = np.asarray(self.lines).T
            moved = (slope != 1) | (offset != 0)
            return np.where(moved, bent(slope * p + offset), p)
        if self.method == TEMPERATURE:
            with np.errstate(divide="ignore"):  # certain stays certain
                warmed: Array = expit(logit(p) / np.asarray(self.temperatures))
            return warmed
        columns = [np.interp(p[..., k], *knots) for k, knots in enumerate(self.knots)]
        return np.stack(columns, axis=-1)

    def payload(self) -> dict[str, Any]:
        """The calibration, JSON-able."""
        return asdict(self)

    @classmethod
    def of_payload(cls, payload: Mapping[str, Any]) -> Self:
        """Rebuild what `payload` gave.

        Raises:
            DataError: when it is not a calibration.
        """
        try:
            return cls(
                method=payload["method"],
                lines=tuple((float(a), float(b)) for a, b in payload.get("lines", ())),
                temperatures=tuple(map(float, payload["temperatures"])),
                knots=tuple(
                    (tuple(map(float, before)), tuple(map(float, after)))
                    for before, after in payload["knots"]
                ),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"This does not describe a calibration: {error!r}.") from error


def fit_calibration(p: Floats, scores: Floats, *, method: str) -> Calibration:
    """Fit one method on p and scores, both (N, K).

    "joint" makes offset_k + slope * p_k of each option's probability, by least squares, with one
    slope for all: differences between two options keep their order. "temperature" divides each
    option's log-odds by the number of least log-loss (Guo et al.,
    ICML 2017, arXiv 1706.04599, per option since options are not classes that exclude each
    other). "isotonic" is isotonic regression (Zadrozny and Elkan, KDD 2002) with straight lines
    between the centres of its steps (centred isotonic regression; Oron and Flournoy, 2017).

    NOTE: the steps alone would give many examples one and the same probability. A policy could
    then not tell them apart: its mean cost would jump as the price moves, past the budget that
    was asked for. Lines between the centres, with `BLEND` of the uncorrected probability, keep
    every order that the estimator found.

    An option whose scores or probabilities are all equal is left as it is.

    Raises:
        DataError: for an unknown method, or input that is misshapen or outside [0, 1].
    """
    p, scores = checked(p, scores)
    if method == NONE:
        return Calibration()
    if method == JOINT:
        return Calibration(method=method, lines=_lines(p, scores))
    if method == TEMPERATURE:
        warm = [_temperature(p[:, k], scores[:, k]) for k in range(p.shape[1])]
        return Calibration(method=method, temperatures=tuple(warm))
    if method == ISOTONIC:
        knots = [_knots(p[:, k], scores[:, k]) for k in range(p.shape[1])]
        return Calibration(method=method, knots=tuple(knots))
    raise DataError(f"A calibration is one of {METHODS}, not {method!r}.")


def cross_fitted(
    p: Floats, scores: Floats, *, groups: Groups, method: str, folds: int = FOLDS
) -> Array:
    """Corrected probabilities (N, K), each from a fit without the example's own group.

    Raises:
        DataError: see `fit_calibration`; also when `groups` is not (N,).
    """
    p, scores = checked(p, scores)
    if len(groups) != len(p):
        raise DataError(f"Calibration needs one group per example: {len(p)}, not {len(groups)}.")
    fold = group_folds(groups, folds, seed=0)
    corrected = p.copy()
    for one in np.unique(fold):
        inside = fold == one
        if not inside.all():
            fitted = fit_calibration(p[~inside], scores[~inside], method=method)
            corrected[inside] = fitted.apply(p[inside])
    return corrected


def choose_calibration(
    p: Floats, scores: Floats, *, groups: Groups
) -> tuple[Calibration, dict[str, Any]]:
    """The simplest method that no other is clearly better than, fitted on everything.

    Methods are compared on examples that they were not fitted on. A more flexible one replaces a
    simpler one where its log-loss is lower by more than one standard error of the difference, and
    the squared error of the differences between options is not higher.

    Args:
        p: (N, K), estimated for examples that the estimator was not fitted on.
        scores: (N, K) in [0, 1].
        groups: (N,); no group is split between the folds.

    Returns:
        The calibration, and JSON-able "method", "n" (examples), "log_loss" by method
        (cross-fitted, nats) and "ece" "before" and "after" (cross-fitted), each "overall" and
        "by_option".

    Raises:
        DataError: see `cross_fitted`.
    """
    tried = {one: cross_fitted(p, scores, groups=groups, method=one) for one in METHODS}
    scores = _float64(scores)
    losses = {one: _losses(scores, corrected) for one, corrected in tried.items()}
    apart = {one: _apart(corrected - scores) for one, corrected in tried.items()}
    method = NONE
    for other in METHODS[1:]:
        gain, error = _mean_by_group(losses[method] - losses[other], groups)
        if gain > error and apart[other] <= apart[method]:
            method = other
    report = {
        "method": method,
        "n": len(scores),
        "log_loss": {one: float(values.mean()) for one, values in losses.items()},
        "ece": {
            "before": calibration_errors(tried[NONE], scores),
            "after": calibration_errors(tried[method], scores),
        },
    }
    return fit_calibration(p, scores, method=method), report


def _losses(scores: Array, p: Array) -> Array:
    """Cross-entropy (N,) of each example, in nats per cell; its mean is `log_loss`."""
    q = np.clip(p, 1e-7, 1 - 1e-7)
    losses: Array = -np.mean(scores * np.log(q) + (1 - scores) * np.log1p(-q), axis=1)
    return losses


def _apart(errors: Array) -> float:
    """Mean squared error of the differences between options, of errors (N, K)."""
    return float(np.square(errors - errors.mean(axis=1, keepdims=True)).mean())


def _mean_by_group(values: Array, groups: Groups) -> tuple[float, float]:
    """The mean of values (N,), and its standard error over groups."""
    _, member = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    mean = float(values.mean())
    sums = np.bincount(member.reshape(-1), weights=values - mean)
    n = len(sums)
    if n < 2:
        return mean, float("inf")
    return mean, float(np.sqrt(n / (n - 1) * np.square(sums).sum()) / len(values))


def _lines(p: Array, scores: Array) -> tuple[tuple[float, float], ...]:
    """Slope and offset for each option; those without a lesson stay as they are."""
    taught = (np.ptp(p, axis=0) > 0) & (np.ptp(scores, axis=0) > 0)
    if not taught.any():
        return ((1.0, 0.0),) * p.shape[1]
    centre, right = p.mean(axis=0), scores.mean(axis=0)
    inside = p - centre
    together = float((inside * (scores - right))[:, taught].sum())
    slope = together / max(float(np.square(inside[:, taught]).sum()), 1e-300)
    slope = float(np.clip(slope, 1 / HOTTEST, HOTTEST))
    offsets = right - slope * centre
    return tuple(
        (slope, float(offset)) if own else (1.0, 0.0)
        for own, offset in zip(taught, offsets, strict=True)
    )


def _temperature(p: Floats, scores: Floats) -> float:
    if np.ptp(p) == 0 or np.ptp(scores) == 0:
        return 1.0
    odds = logit(np.clip(p, 1e-7, 1 - 1e-7))

    def loss(log_temperature: float) -> float:
        return log_loss(scores, expit(odds * np.exp(-log_temperature)))

    bound = np.log(HOTTEST)
    return float(np.exp(minimize_scalar(loss, bounds=(-bound, bound), method="bounded").x))


def _knots(p: Floats, scores: Floats) -> Knots:
    if np.ptp(p) == 0 or np.ptp(scores) == 0:
        return (0.0, 1.0), (0.0, 1.0)
    # To nine digits: knots that lie closer could not ascend in floating point.
    values, place, count = np.unique(np.round(p, 9), return_inverse=True, return_counts=True)
    means = np.bincount(place, weights=scores) / count
    edges = isotonic_regression(means, weights=count).blocks
    mass = np.add.reduceat(count, edges[:-1])
    centres = np.add.reduceat(count * values, edges[:-1]) / mass
    # One example's worth of the uncorrected probability: no step is certain of its few examples.
    steps = (np.add.reduceat(count * means, edges[:-1]) + centres) / (mass + 1)
    steps = np.maximum.accumulate(steps)
    inside = (centres > 0) & (centres < 1)
    before = np.concatenate([[0.0], centres[inside], [1.0]])
    after = np.concatenate([[steps[0]], steps[inside], [steps[-1]]])
    blended = (1 - BLEND) * after + BLEND * before
    return tuple(before.tolist()), tuple(blended.tolist())


def _ascend(before: Sequence[float], after: Sequence[float]) -> bool:
    x, y = np.asarray(before), np.asarray(after)
    inside = np.all((x >= 0) & (x <= 1) & (y >= 0) & (y <= 1))
    return bool(inside and np.all(np.diff(x) > 0) and np.all(np.diff(y) > 0))


def _float64(values: Floats) -> Array:
    array: Array = np.asarray(values, dtype=np.float64)
    return array

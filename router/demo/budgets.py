"""Policies for other budgets than the run's own, made when a visitor asks for one."""

from __future__ import annotations

import logging
from functools import lru_cache
from pathlib import Path

from m3router.data.errors import DataError, M3RouterError
from m3router.router.metrics.choices import taken
from m3router.router.policies.policy import Policy
from m3router.router.runs.calibration_data import CalibrationData
from m3router.router.runs.run import Run

_KEPT = 64  # budgets whose policies are kept
_log = logging.getLogger(__name__)


class Budgets:
    """Makes policies from a run's calibration split.

    Attributes:
        calibration: What they are made from; None where there is nothing.
        why_none: Why there is nothing, in words that name no file; else "".
    """

    def __init__(self, calibration: CalibrationData | None = None, *, why_none: str = "") -> None:
        self.calibration = calibration
        self.why_none = why_none
        self.policy = lru_cache(maxsize=_KEPT)(self._made)

    @classmethod
    def of(cls, run: Path) -> Budgets:
        """Those of a run folder; none where its log, features or split are gone."""
        try:
            return cls(CalibrationData.read(Run(run)))
        except M3RouterError as error:
            _log.warning("No budgets in the demo: %s", error)
            return cls(why_none="this run holds no complete data to make policies from")

    def limits(self) -> tuple[float, float] | None:
        """The least mean cost, and the one above which nothing changes; None without any."""
        if self.calibration is None:
            return None
        part = self.calibration.calibrate
        paid = part.costs if part.paid is None else part.paid
        least = taken(paid, part.costs.argmin(axis=1)).mean()
        return float(least), float(self.calibration.policy(price=0.0).calibration["mean_cost"])

    def _made(self, budget: float) -> Policy:
        if self.calibration is None:
            raise DataError(f"No budget can be set: {self.why_none}.")
        return self.calibration.policy(budget=budget)

"""A stage that reads two runs: is one router better than the other?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from m3router.data.errors import DataError, MismatchError
from m3router.data.log.oracle_log import OracleLog
from m3router.data.log.parts import part_rows
from m3router.data.splits.split import Split
from m3router.router.evaluation.evaluate import default_budgets, different_budgets
from m3router.router.evaluation.paired_comparison import (
    Difference,
    Questions,
    Side,
    compare_routers,
)
from m3router.router.policies.policy import Policy
from m3router.router.runs.calibration_data import labelled
from m3router.router.runs.run import OpenRun, Run


@dataclass(frozen=True, kw_only=True)
class PairedComparison:
    """Router A against router B.

    Attributes:
        names: the two run folders.
        differences: what was compared.
        n: test questions.
        n_groups: their images.
        draws: of the bootstrap and of the permutation test.
    """

    names: tuple[str, str]
    differences: list[Difference]
    n: int
    n_groups: int
    draws: int

    def to_dict(self) -> dict[str, Any]:
        """As a JSON-able mapping."""
        return {
            "a": self.names[0],
            "b": self.names[1],
            "n": {"test": self.n, "test_groups": self.n_groups},
            "draws": self.draws,
            "differences": [one.to_dict() for one in self.differences],
        }


def compare_runs(
    a: Run,
    b: Run,
    *,
    budgets: Sequence[float] | None = None,
    policies: Sequence[str] | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> PairedComparison:
    """Compare the routers of two runs on the test questions that they share.

    Args:
        a: a run with a trained router.
        b: another with the same log and split.
        budgets: mean costs at which accuracies are compared; None for 1/16, 1/4 and 1/2 of the
            finest option's.
        policies: names of policies that both runs have; None for all that were told the same.
        draws: of the bootstrap and of the permutation test.
        seed: of both.

    Raises:
        DataError: when a part of a run or a policy is missing, no question is shared, or a budget
            is negative or not finite.
        MismatchError: when the runs have other logs or splits.
    """
    strange = [budget for budget in budgets or () if not 0 <= budget < math.inf]
    if strange:
        raise DataError(
            f"A budget must be finite and at least 0, got {strange[0]}: it is a mean cost."
        )
    a, b = a.opened(), b.opened()
    log, split = _same_questions(a, b)
    rows = {
        part: np.intersect1d(_rows(a, log, split, part), _rows(b, log, split, part))
        for part in ("calibrate", "test")
    }
    if not len(rows["test"]):
        raise DataError(f"{a.root} and {b.root} share no complete test question.")
    test = rows["test"]
    questions = Questions(
        scores=log.scores[test],
        costs=log.costs[test],
        groups=log.groups[test].astype(str),
        cost_unit=log.cost_unit,
    )
    differences = compare_routers(
        _side(a, log, test),
        _side(b, log, test),
        questions,
        budgets=different_budgets(budgets)
        if budgets
        else default_budgets(log.costs[rows["calibrate"]]),
        policies=_common_policies(a, b, split, policies),
        draws=draws,
        seed=seed,
    )
    return PairedComparison(
        names=(str(a.root), str(b.root)),
        differences=differences,
        n=len(test),
        n_groups=len(np.unique(questions.groups)),
        draws=draws,
    )


def _same_questions(a: OpenRun, b: OpenRun) -> tuple[OracleLog, Split]:
    """The log and split of both runs."""
    log = a.log()
    b.log()
    ours, theirs = (run.sha256(run.inputs("log")["log"]) for run in (a, b))
    if ours != theirs:
        raise MismatchError(
            f"Two routers can be compared on the same log only: {a.root} and {b.root} have "
            "different logs. Train both on one log (`m3router train --out` makes a second run of "
            f"the same log). (SHA-256 {ours[:12]} and {theirs[:12]})"
        )
    split, other = a.split(log), b.split(log)
    if split.fingerprint != other.fingerprint:
        raise MismatchError(
            "Two routers can be compared on the same split only, or one has learned what the "
            f"other is tested on: {a.root} was split with seed {split.seed}, {b.root} with seed "
            f"{other.seed}. Train both with one --seed. (Fingerprints {split.fingerprint[:12]} and "
            f"{other.fingerprint[:12]})"
        )
    return log, split


def _rows(run: OpenRun, log: OracleLog, split: Split, part: str) -> np.ndarray:
    return part_rows(log, split, part, gaps=run.router().metadata["gaps"])


def _side(run: OpenRun, log: OracleLog, rows: np.ndarray) -> Side:
    part = labelled(run.router(), run.features(log), log, rows)
    return Side(p=part.p, costs=part.costs, paid=part.paid)


def _common_policies(
    a: Run, b: Run, split: Split, wanted: Sequence[str] | None
) -> dict[str, tuple[Policy, Policy]]:
    ours, theirs = (run.policies(run.router(), split) for run in (a, b))
    if wanted is None:
        names = [n for n in ours if n in theirs and dict(ours[n].knob) == dict(theirs[n].knob)]
        return {name: (ours[name], theirs[name]) for name in names}
    for name in wanted:
        for run, known in ((a, ours), (b, theirs)):
            if name not in known:
                run.need_policy(name)
        if dict(ours[name].knob) != dict(theirs[name].knob):
            raise MismatchError(
                f"The policy {name!r} was told {dict(ours[name].knob)} in {a.root}, but "
                f"{dict(theirs[name].knob)} in {b.root}: a difference would not come from the "
                "routers. Calibrate both alike, or name other policies."
            )
    return {name: (ours[name], theirs[name]) for name in wanted}

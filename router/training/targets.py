"""What "this option suffices" means when a router is trained: a rule, not a fact.

Notation for shapes: N examples, K options.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from m3router.data.errors import DataError
from m3router.data.log.checks import ASKED
from m3router.data.log.oracle_log import OracleLog
from m3router.data.registry import unknown_name

Targets = npt.NDArray[np.float64]
DEFAULT = "first_correct"


def _first_correct(log: OracleLog) -> Targets:
    return log.scores


def _stable(log: OracleLog) -> Targets:
    return np.minimum.accumulate(log.scores[:, ::-1], axis=1)[:, ::-1]


def _matches_full(log: OracleLog) -> Targets:
    answers = log.frame["answer"]
    if answers.isna().any():
        raise DataError(
            "The rule 'matches_full' compares answers with the finest option's, but "
            f"{int(answers.isna().sum())} of {len(answers)} rows of the log have none. Use "
            "'first_correct' or 'stable', or import a log with answers."
        )
    said = answers.str.strip().str.casefold().to_numpy().reshape(len(log), len(log.options))
    return (said == said[:, -1:]).astype(np.float64)


def _reached(log: OracleLog) -> Targets:
    return np.fmax.accumulate(log.scores, axis=1)


RULES: dict[str, Callable[[OracleLog], Targets]] = {
    "first_correct": _first_correct,
    "stable": _stable,
    "matches_full": _matches_full,
    "reached": _reached,
}

MEANING = {
    "first_correct": "an option suffices when its own answer is right",
    "stable": "an option suffices when its answer and those of all finer options are right",
    "matches_full": "an option suffices when it answers as the finest option does",
    "reached": "an option suffices when its answer or that of a coarser option is right",
}
KNOWN_FROM_FIRST_RIGHT = ("reached",)
"""Rules that need no answers of options finer than the first right one."""


def apply_rule(log: OracleLog, rule: str) -> OracleLog:
    """The log with "suffices", in [0, 1], in place of the scores; for training only.

    Examples with a gap keep their scores: what is done about them is decided elsewhere.

    Args:
        log: what every option answered.
        rule: a name in `RULES`.

    Raises:
        DataError: for an unknown rule, `matches_full` on a log without answers, or a rule that
            needs answers of all options on a log whose finer options were not asked.
    """
    if rule not in RULES:
        raise DataError(unknown_name("rule", rule, RULES))
    usable = log.complete
    if rule in KNOWN_FROM_FIRST_RIGHT:
        usable = (np.isfinite(log.scores) | log.unknown).all(axis=1)
    else:
        log.require_known()
    if rule == DEFAULT or not usable.any():
        return log
    whole = log.select(usable)
    frame = log.frame
    inside = frame["example_id"].isin(whole.ids)
    frame.loc[inside, "score"] = RULES[rule](whole).ravel()
    metadata = {name: value for name, value in log.metadata.items() if name != ASKED}
    return OracleLog(
        frame,
        options=log.options,
        cost_unit=log.cost_unit,
        metadata={**metadata, "rule": rule},
    )

"""What "this option suffices" means when a router is trained: a rule, not a fact.

Notation for shapes: N examples, K options.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from data.errors import DataError
from data.oracle_log import OracleLog
from data.registry import unknown_name

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


RULES: dict[str, Callable[[OracleLog], Targets]] = {
    "first_correct": _first_correct,
    "stable": _stable,
    "matches_full": _matches_full,
}

MEANING = {
    "first_correct": "an option suffices when its own answer is right",
    "stable": "an option suffices when its answer and those of all finer options are right",
    "matches_full": "an option suffices when it answers as the finest option does",
}


def apply_rule(log: OracleLog, rule: str) -> OracleLog:
    """The log with "suffices", in [0, 1], in place of the scores; for training only.

    Examples with a gap keep their scores: what is done about them is decided elsewhere.

    Args:
        log: what every option answered.
        rule: a name in `RULES`.

    Raises:
        DataError: for an unknown rule, or `matches_full` on a log without answers.
    """
    if rule not in RULES:
        raise DataError(unknown_name("rule", rule, RULES))
    if rule == DEFAULT or not log.complete.any():
        return log
    whole = log.drop_gaps()
    frame = log.frame
    inside = frame["example_id"].isin(whole.ids)
    frame.loc[inside, "score"] = RULES[rule](whole).ravel()
    return OracleLog(
        frame,
        options=log.options,
        cost_unit=log.cost_unit,
        metadata={**log.metadata, "rule": rule},
    )

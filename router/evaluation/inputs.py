"""What an evaluation reads of a log: its parts, its answers, and the features of its rows.

Notation for shapes: N examples of the log, n of one part, K options.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from m3router.data.errors import DataError, MismatchError
from m3router.data.log.oracle_log import OracleLog
from m3router.router.estimators.base import Floats
from m3router.router.evaluation.methods import Part
from m3router.router.evaluation.usage import LogUsage
from m3router.router.features.table import FeatureTable
from m3router.router.metrics.oracles import answer_codes


def features_of(
    log: OracleLog, features: FeatureTable | None, blocks: Sequence[str] | None
) -> dict[str, Any]:
    """What `Known.of` wants to know about features."""
    if features is None:
        return {}
    names = list(features.blocks) if blocks is None else list(blocks)
    place = {name: row for row, name in enumerate(features.ids)}
    position = np.array([place.get(name, -1) for name in log.ids], dtype=np.intp)

    def of(rows: np.ndarray) -> Floats:
        where = position[rows]
        if (where < 0).any():
            missing = log.ids[int(rows[int(np.argmax(where < 0))])]
            raise MismatchError(
                f"The example {missing!r} of the oracle log is not in the feature table of "
                f"{len(features)} examples. Compute features for the examples that were labelled."
            )
        return np.concatenate([features.blocks[name][where] for name in names], axis=1)

    return {"features": of, "blocks": {name: features.widths[name] for name in names}}


def part_of(
    log: OracleLog,
    rows: np.ndarray,
    name: str,
    *,
    gflops: Floats | None,
    usage: LogUsage | None = None,
) -> Part:
    """The complete rows (n,) of one part of the split, with gflops (N, K) where they are known.

    Raises:
        DataError: when there are none, or a GFLOP of theirs is not finite.
        MismatchError: when `gflops` belong to another log.
    """
    if not len(rows):
        raise DataError(
            f"The {name!r} split has no complete example out of {len(log.ids)} in "
            "the log; nothing can be evaluated. Label more questions, or split them again."
        )
    if usage is not None:
        check_shape("the tower's GFLOPs", usage.tower, log)
    if gflops is not None:
        check_shape("gflops", gflops, log)
        if not np.all(np.isfinite(np.asarray(gflops)[rows])):
            raise DataError(f"GFLOPs must be finite for all complete examples of {name!r}.")
    return Part(
        rows=rows,
        scores=log.scores[rows],
        costs=log.costs[rows],
        gflops=None if gflops is None else np.asarray(gflops, dtype=np.float64)[rows],
        groups=log.groups[rows],
        chance=log.chance[rows],
        said=_said(log, rows),
        usage=None if usage is None else usage.part(rows),
    )


def _said(log: OracleLog, rows: np.ndarray) -> np.ndarray | None:
    """Codes (n, K) of the answers, as the rule `matches_full` reads them; None where one lacks."""
    answers = log.laid_out("answer")[rows]
    if answers.dtype != object:
        return None
    codes = answer_codes(answers)
    return None if (codes < 0).any() else codes


def check_shape(what: str, values: Floats, log: OracleLog) -> None:
    """Refuse values that are not (N, K) of this log.

    Raises:
        MismatchError: naming both shapes.
    """
    if np.shape(values) != log.scores.shape:
        raise MismatchError(
            f"The oracle log has {log.scores.shape[0]} examples and {log.scores.shape[1]} "
            f"options, but {what} have shape {np.shape(values)}. Compute them for this log."
        )

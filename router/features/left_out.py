"""Examples that have answers but no features: their image can no longer be read, for one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from data.log.checks import SCHEMA
from data.log.oracle_log import OracleLog
from data.manifest import MANIFEST, read_manifest
from router.features.table import STAGE

LEFT_OUT = "left_out"
"""Key of a feature manifest's parameters, which old ones lack: example id -> why it has none."""


def with_errors(log: OracleLog, causes: Mapping[str, str]) -> OracleLog:
    """A log in which some examples have error records in place of answers.

    Args:
        log: Any log.
        causes: Example id -> cause; ids that the log lacks, and rows that have an error already,
            are left as they are.
    """
    frame = log.frame
    lost = frame["example_id"].isin(list(causes)) & frame["error"].isna()
    if not lost.any():
        return log
    for field in SCHEMA:
        if field.nullable:
            frame.loc[lost, field.name] = None if pa.types.is_string(field.type) else float("nan")
    frame.loc[lost, "error"] = frame.loc[lost, "example_id"].map(causes)
    return OracleLog(frame, options=log.options, cost_unit=log.cost_unit, metadata=log.metadata)


def without_featureless(log: OracleLog, folder: Path) -> OracleLog:
    """A log in which examples that could get no features are gaps, with the cause.

    Args:
        log: The log that the features were made for.
        folder: The features' folder; one without features changes nothing.
    """
    if not (folder / MANIFEST).is_file():
        return log
    causes = read_manifest(folder, stage=STAGE)["params"].get(LEFT_OUT, {})
    return with_errors(log, causes) if causes else log

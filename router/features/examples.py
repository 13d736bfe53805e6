"""Examples, as far as features depend on them, and those that can get no features.

An image that can no longer be read, for one, leaves answers without features.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from m3router.data.log.checks import SCHEMA
from m3router.data.log.oracle_log import OracleLog
from m3router.data.manifest import MANIFEST, read_manifest
from m3router.data.plain_files import is_there
from m3router.router.features.table import STAGE, FeatureTable

EXAMPLES = "asked_sha256"
"""Key of a table's metadata: see :func:`examples_key`."""
LEFT_OUT = "left_out"
"""Key of a feature manifest's parameters, which old ones lack: example id -> why it has none."""


@dataclass(frozen=True)
class FeatureInput:
    """An example, as far as features depend on it.

    Attributes:
        id: Its id.
        image: Path of its image, empty where there is none.
        question: What is asked.
    """

    id: str
    image: str
    question: str


def feature_inputs(log: OracleLog) -> list[FeatureInput]:
    """The examples of a log, in its order."""
    columns = zip(log.ids, log.images.tolist(), log.questions.tolist(), strict=True)
    return [FeatureInput(*map(str, one)) for one in columns]


def examples_key(asked: Iterable[FeatureInput]) -> str:
    """SHA-256 of ids, images' names and questions, in order; 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for one in asked:
        digest.update(json.dumps([one.id, one.image, one.question]).encode() + b"\n")
    return digest.hexdigest()


def of_same_examples(table: FeatureTable, log: OracleLog) -> bool:
    """Whether a table's examples have the ids, images' names and questions that a log's have.

    A table that does not tell what it was computed for passes: ids are compared where it is used.
    """
    recorded = table.metadata.get(EXAMPLES)
    if recorded is None:
        return True
    asked = {one.id: one for one in feature_inputs(log)}
    return set(table.ids) <= asked.keys() and (
        examples_key(asked[name] for name in table.ids) == recorded
    )


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
    if not is_there(folder / MANIFEST):
        return log
    causes = read_manifest(folder, stage=STAGE)["params"].get(LEFT_OUT, {})
    return with_errors(log, causes) if causes else log

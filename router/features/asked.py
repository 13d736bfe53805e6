"""Examples, as far as features depend on them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from data.log.oracle_log import OracleLog
from router.features.table import FeatureTable

EXAMPLES = "asked_sha256"
"""Key of a table's metadata: see :func:`examples_key`."""


@dataclass(frozen=True)
class Asked:
    """An example, as far as features depend on it.

    Attributes:
        id: Its id.
        image: Path of its picture, empty where there is none.
        question: What is asked.
    """

    id: str
    image: str
    question: str


def asked_in(log: OracleLog) -> list[Asked]:
    """The examples of a log, in its order."""
    columns = zip(log.ids, log.images.tolist(), log.questions.tolist(), strict=True)
    return [Asked(*map(str, one)) for one in columns]


def examples_key(asked: Iterable[Asked]) -> str:
    """SHA-256 of ids, pictures' names and questions, in order; 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for one in asked:
        digest.update(json.dumps([one.id, one.image, one.question]).encode() + b"\n")
    return digest.hexdigest()


def of_same_examples(table: FeatureTable, log: OracleLog) -> bool:
    """Whether a table's examples have the ids, pictures' names and questions that a log's have.

    A table that does not tell what it was computed for passes: ids are compared where it is used.
    """
    recorded = table.metadata.get(EXAMPLES)
    if recorded is None:
        return True
    asked = {one.id: one for one in asked_in(log)}
    return set(table.ids) <= asked.keys() and (
        examples_key(asked[name] for name in table.ids) == recorded
    )

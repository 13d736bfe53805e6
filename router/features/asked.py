"""Examples, as far as features depend on them."""

from __future__ import annotations

from dataclasses import dataclass

from data.oracle_log import OracleLog


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

"""From vectors of pictures and examples to a table of all examples."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from data.errors import DataError
from data.log.oracle_log import OracleLog
from router.features.asked import EXAMPLES, Asked, examples_key
from router.features.earlier import BLOCKS, Earlier, block_facts
from router.features.featurizer import Featurizer, source_of
from router.features.store import Vector, VectorStore
from router.features.table import FeatureTable
from router.features.tiers import TIERS

Progress = Callable[[int, int, str], None]
"""Called with (done, in all, of what)."""
CHUNK_QUESTIONS = 512


def unit_of(featurizer: Featurizer, name: str, one: Asked, digest: str) -> tuple[str, str] | None:
    """Which vector of the store an example's row of a tier needs, and its key; None for none."""
    if TIERS[name].of_peek is not None:
        return one.id, featurizer.example_key(one.image, digest, one.question)
    if name in featurizer.by_picture:
        return one.image, featurizer.picture_key(name, one.image, digest)
    return None


class _Stored:
    """The stored vectors of one tier that are wanted, as rows of one array.

    Args:
        wanted: Unit -> key under which it must have been kept, in the order of the rows.
    """

    def __init__(self, wanted: Mapping[str, str]) -> None:
        self.wanted = wanted
        self.slots: dict[str, int] = {}
        self._order = {unit: row for row, unit in enumerate(wanted)}
        self._values = np.zeros((0, 0), dtype=np.float32)
        self._ms: list[float] = []
        self._flops: list[float] = []

    @classmethod
    def of(
        cls, name: str, featurizer: Featurizer, asked: Sequence[Asked], digests: Mapping[str, str]
    ) -> _Stored:
        """What these examples want."""
        units = (unit_of(featurizer, name, one, digests.get(one.image, "")) for one in asked)
        return cls(dict(unit for unit in units if unit is not None))

    def take(self, vector: Vector) -> None:
        """Keep a vector, if it is one of those."""
        if self.wanted.get(vector.unit) != vector.key:
            return
        if not len(self._values):
            self._values = np.zeros((len(self.wanted), len(vector.values)), dtype=np.float32)
        row = self._order[vector.unit]
        self._values[row] = vector.values
        self.slots[vector.unit] = row
        self._ms.append(vector.ms)
        self._flops.append(vector.flops)

    def matrix(self, units: Sequence[str]) -> np.ndarray:
        """Their rows, (N, d); the array itself where it is just that."""
        rows = np.array([self.slots[unit] for unit in units], dtype=np.intp)
        if np.array_equal(rows, np.arange(len(self._values))):
            return self._values
        return self._values[rows]

    @property
    def ms(self) -> float:
        """Milliseconds for one of them, on average."""
        return float(np.mean(self._ms)) if self._ms else 0.0

    @property
    def flops(self) -> float:
        """Operations of the language model for one of them, on average."""
        return float(np.mean(self._flops)) if self._flops else 0.0


class Assembler:
    """Joins what is stored, what an earlier table holds and what questions give.

    Attributes:
        costs: Of the table made last: name of a block -> what it took, as measured; see
            :func:`router.features.earlier.measured_costs`.

    Args:
        featurizer: What makes the blocks.
        asked: All examples.
        digests: Image path -> SHA-256 of its file.
        store: What pictures and peeks gave.
        earlier: The table that is there.
    """

    def __init__(
        self,
        featurizer: Featurizer,
        asked: Sequence[Asked],
        digests: Mapping[str, str],
        store: VectorStore,
        earlier: Earlier,
    ) -> None:
        self.featurizer = featurizer
        self.asked = asked
        self.digests = digests
        self.earlier = earlier
        self.costs: dict[str, dict[str, float]] = {}
        self._question_ms: dict[str, float] = {}
        self._stored = {
            name: _Stored.of(name, featurizer, fresh, digests)
            for name in featurizer.tiers
            for fresh in [[one for one in asked if not earlier.covers(name, one.id)]]
        }
        for vector in store.read():
            if vector.tier in self._stored:
                self._stored[vector.tier].take(vector)

    def table(self, log: OracleLog, progress: Progress | None = None) -> FeatureTable:
        """The table of all examples of which everything is known.

        Raises:
            DataError: If there is none.
            MismatchError: If blocks that stay do not belong to the examples.
        """
        by_id = {one.id: one for one in self.asked}
        sha256 = log.metadata.get("examples_sha256")
        others = self.earlier.others(self.featurizer, by_id, self.digests, sha256)
        rows = [one for one in self.asked if self._is_known(one, others)]
        if not rows:
            raise DataError("no picture could be read, so there are no features to write")
        ids = [row.id for row in rows]
        blocks = {name: self.earlier.rows(name, ids) for name in others}
        facts = {name: self.earlier.facts(name) for name in others}
        self.costs = {name: self.earlier.cost(name) for name in others}
        for name in self.featurizer.tiers:
            blocks[name] = self._block(name, rows, progress)
            made_of = block_facts(self.featurizer, name, rows, self.digests)
            facts[name] = made_of
            self.costs[name] = self._cost(name, rows)
        order = [
            *(name for name in TIERS if name in blocks),
            *(b for b in blocks if b not in TIERS),
        ]
        return FeatureTable(
            ids=tuple(ids),
            blocks={name: blocks[name] for name in order},
            metadata=self._metadata(log, others)
            | {EXAMPLES: examples_key(rows)}
            | {BLOCKS: {name: facts[name] for name in order}},
        )

    def _is_known(self, one: Asked, others: Sequence[str]) -> bool:
        if others and not self.earlier.has_row(one.id):
            return False
        return all(
            self.earlier.covers(name, one.id) or self._has(name, one)
            for name in self.featurizer.tiers
        )

    def _has(self, name: str, one: Asked) -> bool:
        unit = unit_of(self.featurizer, name, one, "")
        return unit is None or unit[0] in self._stored[name].slots

    def _block(self, name: str, rows: Sequence[Asked], progress: Progress | None) -> np.ndarray:
        taken = [place for place, one in enumerate(rows) if self.earlier.covers(name, one.id)]
        fresh = [place for place, one in enumerate(rows) if not self.earlier.covers(name, one.id)]
        if not taken:
            return self._fresh(name, rows, progress)
        parts = [self.earlier.rows(name, [rows[place].id for place in taken])]
        if fresh:
            parts.append(self._fresh(name, [rows[place] for place in fresh], progress))
        block = np.empty((len(rows), parts[0].shape[1]), dtype=np.float32)
        block[taken + fresh] = np.concatenate(parts)
        return block

    def _fresh(self, name: str, rows: Sequence[Asked], progress: Progress | None) -> np.ndarray:
        units = [unit_of(self.featurizer, name, one, "") for one in rows]
        columns = [self._stored[name].matrix([unit[0] for unit in units if unit is not None])]
        tier = TIERS[name]
        if tier.encoded or tier.of_questions:
            texts = list(dict.fromkeys(one.question for one in rows))
            place = {text: number for number, text in enumerate(texts)}
            vectors = self._of_questions(name, texts, progress)
            columns.append(vectors[[place[one.question] for one in rows]])
        wide = [part for part in columns if part.shape[1]]
        return wide[0] if len(wide) == 1 else np.concatenate(wide, axis=1)

    def _of_questions(
        self, name: str, texts: Sequence[str], progress: Progress | None
    ) -> np.ndarray:
        parts = []
        began = time.perf_counter()
        for start in range(0, len(texts), CHUNK_QUESTIONS):
            parts.append(self.featurizer.of_questions(name, texts[start : start + CHUNK_QUESTIONS]))
            if progress and TIERS[name].encoded:
                progress(min(start + CHUNK_QUESTIONS, len(texts)), len(texts), "questions")
        self._question_ms[name] = (time.perf_counter() - began) * 1000 / len(texts)
        return np.concatenate(parts)

    def _cost(self, name: str, rows: Sequence[Asked]) -> dict[str, float]:
        """What the tier took, as measured where it was computed."""
        if all(self.earlier.covers(name, row.id) for row in rows):
            return self.earlier.cost(name)
        stored = self._stored[name]
        cost = {"milliseconds_per_example": stored.ms + self._question_ms.get(name, 0.0)}
        if name in self.featurizer.by_picture:
            pictures = len({row.image for row in rows})
            lost = stored.ms * (1 - pictures / len(rows))  # shared by a picture's questions
            cost["milliseconds_per_example"] -= lost
            cost["milliseconds_per_picture"] = stored.ms
        if stored.flops:
            cost["flops_per_example"] = stored.flops
        return {key: round(value, 4) for key, value in cost.items()}

    def _metadata(self, log: OracleLog, others: Sequence[str]) -> dict[str, Any]:
        """What concerns the table as a whole."""
        featurizer = self.featurizer
        told = dict(self.earlier.table.metadata) if others and self.earlier.table else {}
        told |= {"examples_sha256": log.metadata.get("examples_sha256")}
        if featurizer.model is not None:
            told |= {
                "source": source_of(featurizer.model),
                "grid": list(featurizer.model.grid.names),
                "visual": log.metadata.get("visual", {}),
            }
        if featurizer.pictures:
            told |= {"frames": featurizer.frames}
        if featurizer.questions is not None:
            told |= {"question_encoder": featurizer.questions.name}
        return told

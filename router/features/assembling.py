"""From vectors of pictures and examples to a table of all examples."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from data.errors import DataError
from data.oracle_log import OracleLog
from router.features.asked import Asked
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


class Assembler:
    """Joins what is stored, what an earlier table holds and what questions give.

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
        self._question_ms: dict[str, float] = {}
        self._wanted = {
            (name, unit[0]): unit[1]
            for name in featurizer.tiers
            for one in asked
            if not earlier.covers(name, one.id)
            for unit in [unit_of(featurizer, name, one, digests.get(one.image, ""))]
            if unit is not None
        }
        self._found: dict[tuple[str, str], Vector] = {
            (one.tier, one.unit): one
            for one in store.read()
            if self._wanted.get((one.tier, one.unit)) == one.key
        }

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
        for name in self.featurizer.tiers:
            blocks[name] = self._block(name, rows, progress)
            made_of = block_facts(self.featurizer, name, rows, self.digests)
            facts[name] = made_of | {"cost": self._cost(name, rows)}
        order = [
            *(name for name in TIERS if name in blocks),
            *(b for b in blocks if b not in TIERS),
        ]
        return FeatureTable(
            ids=tuple(ids),
            blocks={name: blocks[name] for name in order},
            metadata=self._metadata(log, others) | {BLOCKS: {name: facts[name] for name in order}},
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
        return unit is None or (name, unit[0]) in self._found

    def _block(self, name: str, rows: Sequence[Asked], progress: Progress | None) -> np.ndarray:
        taken = [place for place, one in enumerate(rows) if self.earlier.covers(name, one.id)]
        fresh = [place for place, one in enumerate(rows) if not self.earlier.covers(name, one.id)]
        parts = []
        if taken:
            parts.append(self.earlier.rows(name, [rows[place].id for place in taken]))
        if fresh:
            parts.append(self._fresh(name, [rows[place] for place in fresh], progress))
        block = np.empty((len(rows), parts[0].shape[1]), dtype=np.float32)
        block[taken + fresh] = np.concatenate(parts)
        return block

    def _fresh(self, name: str, rows: Sequence[Asked], progress: Progress | None) -> np.ndarray:
        columns = []
        units = [unit_of(self.featurizer, name, one, "") for one in rows]
        if units[0] is not None:
            columns.append(np.stack([self._found[name, u[0]].values for u in units if u]))
        tier = TIERS[name]
        if tier.encoded or tier.of_questions:
            texts = list(dict.fromkeys(one.question for one in rows))
            place = {text: number for number, text in enumerate(texts)}
            vectors = self._of_questions(name, texts, progress)
            columns.append(vectors[[place[one.question] for one in rows]])
        return np.concatenate(columns, axis=1)

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
            return dict(self.earlier.facts(name).get("cost", {}))
        found = [one for (tier, _), one in self._found.items() if tier == name]
        ms = float(np.mean([one.ms for one in found])) if found else 0.0
        cost = {"milliseconds_per_example": ms + self._question_ms.get(name, 0.0)}
        if name in self.featurizer.by_picture:
            pictures = len({row.image for row in rows})
            asked = cost["milliseconds_per_example"] - ms
            cost["milliseconds_per_picture"] = ms
            cost["milliseconds_per_example"] = asked + ms * pictures / len(rows)
        if any(one.flops for one in found):
            cost["flops_per_example"] = float(np.mean([one.flops for one in found]))
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

"""Feature tables: in the labelling pass, in a pass of their own, or for logs of other tools.

`FeatureCollector` keeps the vectors of images and examples as they are made; `Assembler` joins
them, what an earlier table holds and what questions give to a table of all examples.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from m3router.data.errors import DataError, ImageError
from m3router.data.log.oracle_log import OracleLog
from m3router.data.media_files import file_digest, file_in
from m3router.data.videos import open_media
from m3router.m3core.encoders import encoder_flops
from m3router.m3core.labelling import Encoded
from m3router.m3core.matryoshka.base import Request, VisualEncoding
from m3router.m3core.matryoshka.batching import limits_for, peek_in_batches
from m3router.router.features.earlier import BLOCKS, MEASURED, Earlier, block_facts
from m3router.router.features.examples import EXAMPLES, LEFT_OUT, FeatureInput, examples_key
from m3router.router.features.featurizer import Featurizer, source_of
from m3router.router.features.groups import FEATURE_GROUPS, PEEK
from m3router.router.features.store import Vector, VectorStore
from m3router.router.features.table import FeatureTable

Progress = Callable[[int, int, str], None]
"""Called with (done, in all, of what)."""
CHUNK_IMAGES = 16
CHUNK_QUESTIONS = 512


class FeatureCollector:
    """Keeps what images and prefills give to the feature groups; survives interruption.

    Used as ``on_encoded`` of :func:`m3router.m3core.labelling.label`; a context manager.

    Args:
        folder: The features' folder; holds a store of its own beside the table.
        featurizer: What is made, with which model.
        asked: The examples.
        images: Folder that image paths start from; None where there are no images.
        rank: Number of this process among those that label together.
    """

    def __init__(
        self,
        folder: Path,
        featurizer: Featurizer,
        asked: Sequence[FeatureInput],
        *,
        images: Path | None = None,
        rank: int = 0,
    ) -> None:
        self.folder = folder
        self.featurizer = featurizer
        self.asked = list(asked)
        self.images = images
        self.causes: dict[str, str] = {}
        self._digests: dict[str, str] = {}
        self._by_id = {one.id: one for one in self.asked}
        self._earlier = Earlier(folder)
        self._store = VectorStore(folder, rank=rank)
        if self._earlier.has_keys:
            self._earlier.check(featurizer, self._by_id, self._all_digests())

    def __enter__(self) -> FeatureCollector:
        """Give the collector itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the store."""
        self._store.close()

    def __call__(self, encoded: Encoded) -> None:
        """Keep what these (image path, encoding) pairs give."""
        self._keep({name: None for name, _ in encoded}, dict(encoded))

    def collect(self, names: Iterable[str] | None = None, progress: Progress | None = None) -> None:
        """Encode the images of which something is missing.

        What cannot be read is named in :attr:`causes`: image path, or example id, to cause.

        Args:
            names: Image paths; all by default.
            progress: Called with images done.
        """
        self._store.refresh()
        given = (one.image for one in self.asked) if names is None else names
        wanted = list(dict.fromkeys(given)) if self.featurizer.images else []
        missing = [name for name in wanted if self._missing(name)]
        for start in range(0, len(missing), CHUNK_IMAGES):
            images: dict[str, Image.Image | None] = {}
            for name in missing[start : start + CHUNK_IMAGES]:
                try:
                    images[name] = self._open(name)
                except ImageError as error:
                    self.causes[name] = str(error)
            self._keep(images, self._encode(images))
            if progress:
                done = len(wanted) - len(missing) + start + CHUNK_IMAGES
                progress(min(done, len(wanted)), len(wanted), "images")

    def left_out(self, log: OracleLog) -> dict[str, str]:
        """Answered examples of a log that can get no features: id -> cause.

        Args:
            log: Of the examples that were collected.
        """
        failed = set(log.errors()["example_id"])
        causes = {
            one.id: self.causes.get(one.id) or self.causes.get(one.image, "")
            for one in self.asked
            if one.id not in failed
        }
        return {name: f"No features: {cause}" for name, cause in causes.items() if cause}

    def finish(self, log: OracleLog, progress: Progress | None = None) -> FeatureTable:
        """Write the table of all examples of the log whose features are all known.

        Raises:
            DataError: If there is no such example.
        """
        assembler = Assembler(
            self.featurizer, self.asked, self._all_digests(), self._store, self._earlier
        )
        table = assembler.table(log, progress)
        params = {MEASURED: assembler.costs, LEFT_OUT: self.left_out(log)}
        table.write(self.folder, params=params)
        return table

    def _all_digests(self) -> dict[str, str]:
        if self.images is None:
            return {}
        return {name: self._digest(name) for name in self._by_image}

    @cached_property
    def _by_image(self) -> dict[str, list[FeatureInput]]:
        found: dict[str, list[FeatureInput]] = {}
        for one in self.asked:
            found.setdefault(one.image, []).append(one)
        return found

    def _missing(self, name: str) -> bool:
        """Whether an image, or a question about it, lacks a vector."""
        return bool(self._tiers_missing(name) or self._unpeeked(name))

    def _tiers_missing(self, name: str) -> list[str]:
        asked = self._by_image.get(name, ())
        return [
            feature_group
            for feature_group in self.featurizer.by_image
            if any(self._lacks(feature_group, one) for one in asked)
        ]

    def _unpeeked(self, name: str) -> list[FeatureInput]:
        asked = self._by_image.get(name, ()) if self.featurizer.peeks else ()
        return [one for one in asked if self._lacks(PEEK, one)]

    def _lacks(self, feature_group: str, one: FeatureInput) -> bool:
        unit = unit_of(self.featurizer, feature_group, one, self._digest(one.image))
        if unit is None or self._earlier.covers(feature_group, one.id):
            return False
        return not self._store.has(feature_group, *unit)

    def _digest(self, name: str) -> str:
        """SHA-256 of an image's file, empty where it cannot be read."""
        if name not in self._digests:
            try:
                self._digests[name] = file_digest(file_in(self.images or Path(), name))
            except ImageError:  # said where its features are to be made, if they are
                self._digests[name] = ""
        return self._digests[name]

    def _open(self, name: str) -> Image.Image:
        path = file_in(self.images or Path(), name)
        return open_media(path, frames=self.featurizer.frames)

    def _encode(self, images: dict[str, Image.Image | None]) -> dict[str, VisualEncoding]:
        feature_groups = (FEATURE_GROUPS[name] for name in self.featurizer.feature_groups)
        if self.featurizer.model is None or not images:
            return {}
        if not any(
            feature_group.of_encoding or feature_group.of_peek for feature_group in feature_groups
        ):
            return {}
        encodings = self.featurizer.model.encode([p for p in images.values() if p is not None])
        return dict(zip(images, encodings, strict=True))

    def _keep(
        self, images: dict[str, Image.Image | None], encodings: dict[str, VisualEncoding]
    ) -> None:
        vectors = []
        for name, image in images.items():
            try:
                vectors += self._by_tier(name, image, encodings.get(name))
            except ImageError as error:  # gone since it was encoded; the others go on
                self.causes[name] = str(error)
        self._store.add(vectors + self._peeked(encodings))

    def _by_tier(
        self, name: str, image: Image.Image | None, encoding: VisualEncoding | None
    ) -> list[Vector]:
        """The vectors of an image that are missing.

        Raises:
            ImageError: It must be looked at, and can no longer be read.
        """
        vectors = []
        for feature_group in self._tiers_missing(name):
            if FEATURE_GROUPS[feature_group].of_image is not None and image is None:
                image = self._open(name)
            began = time.perf_counter()
            values = self.featurizer.of_image(feature_group, image, encoding)
            ms = (time.perf_counter() - began) * 1000
            key = self.featurizer.image_key(feature_group, name, self._digest(name))
            vectors.append(
                Vector(feature_group=feature_group, unit=name, key=key, values=values, ms=ms)
            )
        return vectors

    def _peeked(self, encodings: dict[str, VisualEncoding]) -> list[Vector]:
        asked = [one for name in encodings for one in self._unpeeked(name)]
        if not asked:
            return []
        model = self.featurizer.answerer
        scale, kept, requests = model.grid.scales[0], [], []
        for one in asked:
            encoding = encodings[one.image]
            try:
                model.prompt_length(one.question, encoding.tokens(scale))
            except DataError as error:
                self.causes[one.id] = str(error)
                continue
            kept.append(one)
            requests.append(Request(encoding=encoding, question=one.question, scale=scale))
        vectors = []
        began = time.perf_counter()
        for batch in peek_in_batches(model, requests, limits_for(model)):
            found = [self.featurizer.of_peek(PEEK, peek) for peek in batch.answers]
            ms = (time.perf_counter() - began) * 1000 / len(batch.indices)
            if batch.error:
                self.causes |= {kept[place].id: batch.error for place in batch.indices}
            for place, values, peek in zip(batch.indices, found, batch.answers, strict=False):
                one = kept[place]
                key = self.featurizer.example_key(one.image, self._digest(one.image), one.question)
                flops = model.shape.answer_flops(peek.visual_tokens + peek.text_tokens, 1)
                vectors.append(
                    Vector(
                        feature_group=PEEK, unit=one.id, key=key, values=values, ms=ms, flops=flops
                    )
                )
            began = time.perf_counter()
        return vectors


def unit_of(
    featurizer: Featurizer, name: str, one: FeatureInput, digest: str
) -> tuple[str, str] | None:
    """Which vector of the store an example's row of a group needs, and its key; None for none."""
    if FEATURE_GROUPS[name].of_peek is not None:
        return one.id, featurizer.example_key(one.image, digest, one.question)
    if name in featurizer.by_image:
        return one.image, featurizer.image_key(name, one.image, digest)
    return None


class _Stored:
    """The stored vectors of one feature group that are wanted, as rows of one array.

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
        cls,
        name: str,
        featurizer: Featurizer,
        asked: Sequence[FeatureInput],
        digests: Mapping[str, str],
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
            :func:`m3router.router.features.earlier.measured_costs`.

    Args:
        featurizer: What makes the blocks.
        asked: All examples.
        digests: Image path -> SHA-256 of its file.
        store: What images and peeks gave.
        earlier: The table that is there.
    """

    def __init__(
        self,
        featurizer: Featurizer,
        asked: Sequence[FeatureInput],
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
            for name in featurizer.feature_groups
            for fresh in [[one for one in asked if not earlier.covers(name, one.id)]]
        }
        for vector in store.read():
            if vector.feature_group in self._stored:
                self._stored[vector.feature_group].take(vector)

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
            raise DataError("no image could be read, so there are no features to write")
        ids = [row.id for row in rows]
        blocks = {name: self.earlier.rows(name, ids) for name in others}
        facts = {name: self.earlier.facts(name) for name in others}
        self.costs = {name: self.earlier.cost(name) for name in others}
        for name in self.featurizer.feature_groups:
            blocks[name] = self._block(name, rows, progress)
            made_of = block_facts(self.featurizer, name, rows, self.digests)
            facts[name] = made_of
            self.costs[name] = self._cost(name, rows)
        order = [
            *(name for name in FEATURE_GROUPS if name in blocks),
            *(b for b in blocks if b not in FEATURE_GROUPS),
        ]
        return FeatureTable(
            ids=tuple(ids),
            blocks={name: blocks[name] for name in order},
            metadata=self._metadata(log, others)
            | {EXAMPLES: examples_key(rows)}
            | {BLOCKS: {name: facts[name] for name in order}},
        )

    def _is_known(self, one: FeatureInput, others: Sequence[str]) -> bool:
        if others and not self.earlier.has_row(one.id):
            return False
        return all(
            self.earlier.covers(name, one.id) or self._has(name, one)
            for name in self.featurizer.feature_groups
        )

    def _has(self, name: str, one: FeatureInput) -> bool:
        unit = unit_of(self.featurizer, name, one, "")
        return unit is None or unit[0] in self._stored[name].slots

    def _block(
        self, name: str, rows: Sequence[FeatureInput], progress: Progress | None
    ) -> np.ndarray:
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

    def _fresh(
        self, name: str, rows: Sequence[FeatureInput], progress: Progress | None
    ) -> np.ndarray:
        units = [unit_of(self.featurizer, name, one, "") for one in rows]
        columns = [self._stored[name].matrix([unit[0] for unit in units if unit is not None])]
        feature_group = FEATURE_GROUPS[name]
        if feature_group.encoded or feature_group.of_questions:
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
            if progress and FEATURE_GROUPS[name].encoded:
                progress(min(start + CHUNK_QUESTIONS, len(texts)), len(texts), "questions")
        self._question_ms[name] = (time.perf_counter() - began) * 1000 / len(texts)
        return np.concatenate(parts)

    def _cost(self, name: str, rows: Sequence[FeatureInput]) -> dict[str, float]:
        """What the feature group took, as measured where it was computed."""
        if all(self.earlier.covers(name, row.id) for row in rows):
            return self.earlier.cost(name)
        stored = self._stored[name]
        cost = {"milliseconds_per_example": stored.ms + self._question_ms.get(name, 0.0)}
        if name in self.featurizer.by_image:
            images = len({row.image for row in rows})
            lost = stored.ms * (1 - images / len(rows))  # shared by an image's questions
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
            answers = featurizer.model.revision == log.metadata.get("revision")
            flops = None if answers else encoder_flops(featurizer.model)
            if flops is not None:  # of the model that answers, every answer pays for it
                told["encoder_flops"] = flops
        if featurizer.images:
            told |= {"frames": featurizer.frames}
        if featurizer.questions is not None:
            told |= {"question_encoder": featurizer.questions.name}
        return told

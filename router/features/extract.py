"""Feature tables: in the labelling pass, in a pass of their own, or for logs of other tools."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from PIL import Image

from data.errors import DataError, ImageError
from data.log.oracle_log import OracleLog
from data.media_files import file_digest, file_in
from data.videos import open_picture
from m3core.batching import limits_for, peek_in_batches
from m3core.labelling import Encoded
from m3core.models.base import Request, VisualEncoding
from router.features.asked import Asked
from router.features.assembling import Assembler, Progress, unit_of
from router.features.earlier import MEASURED, Earlier
from router.features.featurizer import Featurizer
from router.features.left_out import LEFT_OUT
from router.features.store import Vector, VectorStore
from router.features.table import FeatureTable
from router.features.tiers import PEEK, TIERS

CHUNK_IMAGES = 16


class FeatureCollector:
    """Keeps what pictures and prefills give to the tiers; survives interruption.

    Used as ``on_encoded`` of :func:`m3core.labelling.label`; a context manager.

    Args:
        folder: The features' folder; holds a store of its own beside the table.
        featurizer: What is made, with which model.
        asked: The examples.
        images: Folder that image paths start from; None where there are no pictures.
        rank: Number of this process among those that label together.
    """

    def __init__(
        self,
        folder: Path,
        featurizer: Featurizer,
        asked: Sequence[Asked],
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
        """Encode the pictures of which something is missing.

        What cannot be read is named in :attr:`causes`: image path, or example id, to cause.

        Args:
            names: Image paths; all by default.
            progress: Called with pictures done.
        """
        self._store.refresh()
        given = (one.image for one in self.asked) if names is None else names
        wanted = list(dict.fromkeys(given)) if self.featurizer.pictures else []
        missing = [name for name in wanted if self._missing(name)]
        for start in range(0, len(missing), CHUNK_IMAGES):
            pictures: dict[str, Image.Image | None] = {}
            for name in missing[start : start + CHUNK_IMAGES]:
                try:
                    pictures[name] = self._open(name)
                except ImageError as error:
                    self.causes[name] = str(error)
            self._keep(pictures, self._encode(pictures))
            if progress:
                done = len(wanted) - len(missing) + start + CHUNK_IMAGES
                progress(min(done, len(wanted)), len(wanted), "pictures")

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
        return {name: self._digest(name) for name in self._by_picture}

    @cached_property
    def _by_picture(self) -> dict[str, list[Asked]]:
        found: dict[str, list[Asked]] = {}
        for one in self.asked:
            found.setdefault(one.image, []).append(one)
        return found

    def _missing(self, name: str) -> bool:
        """Whether a picture, or a question about it, lacks a vector."""
        return bool(self._tiers_missing(name) or self._unpeeked(name))

    def _tiers_missing(self, name: str) -> list[str]:
        asked = self._by_picture.get(name, ())
        return [
            tier
            for tier in self.featurizer.by_picture
            if any(self._lacks(tier, one) for one in asked)
        ]

    def _unpeeked(self, name: str) -> list[Asked]:
        asked = self._by_picture.get(name, ()) if self.featurizer.peeks else ()
        return [one for one in asked if self._lacks(PEEK, one)]

    def _lacks(self, tier: str, one: Asked) -> bool:
        unit = unit_of(self.featurizer, tier, one, self._digest(one.image))
        if unit is None or self._earlier.covers(tier, one.id):
            return False
        return not self._store.has(tier, *unit)

    def _digest(self, name: str) -> str:
        """SHA-256 of a picture's file, empty where it cannot be read."""
        if name not in self._digests:
            try:
                self._digests[name] = file_digest(file_in(self.images or Path(), name))
            except ImageError:  # said where its features are to be made, if they are
                self._digests[name] = ""
        return self._digests[name]

    def _open(self, name: str) -> Image.Image:
        path = file_in(self.images or Path(), name)
        return open_picture(path, frames=self.featurizer.frames)

    def _encode(self, pictures: dict[str, Image.Image | None]) -> dict[str, VisualEncoding]:
        tiers = (TIERS[name] for name in self.featurizer.tiers)
        if self.featurizer.model is None or not pictures:
            return {}
        if not any(tier.of_encoding or tier.of_peek for tier in tiers):
            return {}
        encodings = self.featurizer.model.encode([p for p in pictures.values() if p is not None])
        return dict(zip(pictures, encodings, strict=True))

    def _keep(
        self, pictures: dict[str, Image.Image | None], encodings: dict[str, VisualEncoding]
    ) -> None:
        vectors = []
        for name, picture in pictures.items():
            try:
                vectors += self._by_tier(name, picture, encodings.get(name))
            except ImageError as error:  # gone since it was encoded; the others go on
                self.causes[name] = str(error)
        self._store.add(vectors + self._peeked(encodings))

    def _by_tier(
        self, name: str, picture: Image.Image | None, encoding: VisualEncoding | None
    ) -> list[Vector]:
        """The vectors of a picture that are missing.

        Raises:
            ImageError: It must be looked at, and can no longer be read.
        """
        vectors = []
        for tier in self._tiers_missing(name):
            if TIERS[tier].of_picture is not None and picture is None:
                picture = self._open(name)
            began = time.perf_counter()
            values = self.featurizer.of_picture(tier, picture, encoding)
            ms = (time.perf_counter() - began) * 1000
            key = self.featurizer.picture_key(tier, name, self._digest(name))
            vectors.append(Vector(tier=tier, unit=name, key=key, values=values, ms=ms))
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
                    Vector(tier=PEEK, unit=one.id, key=key, values=values, ms=ms, flops=flops)
                )
            began = time.perf_counter()
        return vectors

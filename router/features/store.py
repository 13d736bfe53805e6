"""Vectors of images and examples while they are computed: kept durably, each under its key.

A vector's key says what it was made of. One that is kept under another key than is asked for now
counts as not there, and a newer one takes its place.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from m3router.data.log.journal import Journal

FOLDER = "vectors"


@dataclass(frozen=True, kw_only=True)
class Vector:
    """What one image, or one example, gave to a feature group.

    Attributes:
        feature_group: Name of the feature group.
        unit: Path of the image, or id of the example.
        key: What the vector was made of; see :func:`key_of`.
        values: float32 (d,).
        ms: Milliseconds that it took, its share of its batch.
        flops: Operations of the language model for it.
    """

    feature_group: str
    unit: str
    key: str
    values: np.ndarray
    ms: float
    flops: float = 0.0


class VectorStore:
    """An open store; a context manager. Several processes may each open one in the same folder.

    Args:
        folder: The features' folder.
        rank: Number of this process; the first must open its store before the others do.
    """

    def __init__(self, folder: Path, *, rank: int = 0) -> None:
        self._journal = Journal.open(folder / FOLDER, {"what": "vectors of features"}, rank=rank)
        self._keys: dict[tuple[str, str], str] = {}
        self.refresh()

    def __enter__(self) -> VectorStore:
        """Give the store itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Let other processes have it."""
        self._journal.close()

    def refresh(self) -> None:
        """Take note of what other processes have kept."""
        self._keys = {
            (row["scale"], row["example_id"]): row["key"] for row in self._journal.read_rows()
        }

    def has(self, feature_group: str, unit: str, key: str) -> bool:
        """Whether a vector is there under this very key."""
        return self._keys.get((feature_group, unit)) == key

    def add(self, vectors: Iterable[Vector]) -> None:
        """Keep vectors; they survive a crash from here on.

        Raises:
            DataError: The disk is full; nothing that was there is lost.
        """
        vectors = list(vectors)
        self._journal.append([_row(one) for one in vectors])
        self._keys.update({(one.feature_group, one.unit): one.key for one in vectors})

    def read(self) -> Iterator[Vector]:
        """The newest vector of every feature group and unit, those of all processes."""
        for row in self._journal.read_rows():
            yield Vector(
                feature_group=row["scale"],
                unit=row["example_id"],
                key=row["key"],
                values=np.frombuffer(base64.b64decode(row["vector"]), dtype="<f4"),
                ms=row["ms"],
                flops=row["flops"],
            )


def key_of(*parts: Any) -> str:
    """SHA-256 of JSON values, 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _row(vector: Vector) -> dict[str, Any]:
    return {
        "example_id": vector.unit,
        "scale": vector.feature_group,
        "key": vector.key,
        "ms": round(vector.ms, 4),
        "flops": vector.flops,
        "vector": base64.b64encode(vector.values.astype("<f4").tobytes()).decode("ascii"),
    }

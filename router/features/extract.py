"""Feature tables: in the labelling pass, in a pass of their own, or for logs of other tools."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from data.errors import DataError, ImageError, MismatchError
from data.journal import Journal
from data.oracle_log import OracleLog
from data.videos import FRAMES, open_picture
from m3core.encoders import ImageEncoder
from m3core.labelling import Encoded
from m3core.models.base import MultiScaleModel
from router.features import image as image_block
from router.features.question import QuestionEncoder
from router.features.table import FeatureTable

CHUNK_IMAGES = 16

Progress = Callable[[int, int], None]
"""Called with (pictures done, pictures in all)."""


class FeatureCollector:
    """Keeps the image features of every picture that a run encodes; survives interruption.

    Used as ``on_encoded`` of :func:`m3core.labelling.label`; a context manager.

    Args:
        folder: The features' folder; holds a journal of its own until :meth:`finish`.
        model: The model or encoder whose encodings come.
        frames: Frames of a video's collage; see :mod:`data.videos`.
        rank: Number of this process among those that label together.
    """

    def __init__(
        self,
        folder: Path,
        model: MultiScaleModel | ImageEncoder,
        *,
        frames: int = FRAMES,
        rank: int = 0,
    ) -> None:
        self.folder = folder
        self.model = model
        self.frames = frames
        metadata = {"source": source_of(model), "what": "image features"}
        self._journal = Journal.open(folder, metadata, rank=rank)

    def __enter__(self) -> FeatureCollector:
        """Give the collector itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the journal."""
        self._journal.close()

    def __call__(self, encoded: Encoded) -> None:
        """Keep the features of these (image path, encoding) pairs."""
        self._journal.append(
            [
                {"example_id": name, "scale": "image", "vector": _pack(features)}
                for name, encoding in encoded
                for features in [image_block.image_features(encoding, self.model.grid)]
            ]
        )

    @property
    def known(self) -> dict[str, np.ndarray]:
        """Image path to feature vector, for every picture so far."""
        return {row["example_id"]: _unpack(row["vector"]) for row in self._journal.read_rows()}

    def encode_missing(
        self, names: Iterable[str], images: Path, progress: Progress | None = None
    ) -> dict[str, str]:
        """Encode the pictures that are not known yet.

        Returns:
            Image path to cause, for pictures that cannot be read.
        """
        known = self.known
        wanted = list(dict.fromkeys(names))
        missing, causes = [name for name in wanted if name not in known], {}
        for start in range(0, len(missing), CHUNK_IMAGES):
            pictures = {}
            for name in missing[start : start + CHUNK_IMAGES]:
                try:
                    pictures[name] = open_picture(images / name, frames=self.frames)
                except ImageError as error:
                    causes[name] = str(error)
            if pictures:
                encodings = self.model.encode(list(pictures.values()))
                self(list(zip(pictures, encodings, strict=True)))
            if progress:
                done = len(wanted) - len(missing) + start + CHUNK_IMAGES
                progress(min(done, len(wanted)), len(wanted))
        return causes

    def finish(self, log: OracleLog, questions: QuestionEncoder) -> FeatureTable:
        """Write the table of all examples of the log whose picture is known.

        Raises:
            DataError: If no picture is known.
        """
        known = self.known
        kept = [row for row, image in enumerate(log.images.tolist()) if image in known]
        if not kept:
            raise DataError("no picture could be read, so there are no features to write")
        asked = [str(log.questions[row]) for row in kept]
        texts = list(dict.fromkeys(asked))
        vectors = dict(zip(texts, questions.encode(texts), strict=True))
        table = FeatureTable(
            ids=tuple(log.ids[row] for row in kept),
            blocks={
                "image": np.stack([known[str(log.images[row])] for row in kept]),
                "question": np.stack([vectors[text] for text in asked]),
            },
            metadata={
                "source": source_of(self.model),
                "image_features": image_block.VERSION,
                "question_encoder": questions.name,
                "grid": list(self.model.grid.names),
                "visual": log.metadata.get("visual", {}),
                "frames": self.frames,
                "examples_sha256": log.metadata.get("examples_sha256"),
            },
        )
        table.write(self.folder)
        return table


def source_of(model: MultiScaleModel | ImageEncoder) -> str:
    """What computed the features; routers refuse features of another source."""
    return f"{model.name}@{model.revision[:16]}"


def check_source(router_source: str, model: MultiScaleModel) -> None:
    """Refuse a router that was trained on another model's features.

    Raises:
        MismatchError: Naming both sides.
    """
    if router_source != source_of(model):
        raise MismatchError(
            f"the router was trained on features of {router_source}, but the model is "
            f"{source_of(model)}; label and train with this model, or load the other one"
        )


def _pack(vector: np.ndarray) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")


def _unpack(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype="<f4")

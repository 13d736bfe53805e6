"""Feature tables for examples: in the labelling pass, in a pass of their own, or without an LMM."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import HashingVectorizer

from data.errors import DataError, ImageError, MismatchError
from data.examples import Example, fingerprint
from data.images import MAX_PIXELS, open_image
from data.journal import Journal
from data.oracle_log import OracleLog
from m3core.encoders import ImageEncoder
from m3core.labelling import Encoded
from m3core.models.base import MultiScaleModel
from router.features import image as image_block
from router.features import question as question_block
from router.features.table import FeatureTable

CHUNK_IMAGES = 16
HASHED_WORDS = 128

Progress = Callable[[int, int], None]
"""Called with (pictures done, pictures in all)."""


class FeatureCollector:
    """Keeps the image features of every picture that a run encodes; survives interruption.

    Used as ``on_encoded`` of :func:`m3core.labelling.label`; a context manager.

    Args:
        folder: The features' folder; holds a journal of its own until :meth:`finish`.
        model: The model or encoder whose encodings come.
    """

    def __init__(self, folder: Path, model: MultiScaleModel | ImageEncoder) -> None:
        self.folder = folder
        self.model = model
        self._journal = Journal.open(folder, {"source": source_of(model), "what": "image features"})

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
        return {row["example_id"]: _unpack(row["vector"]) for row in self._journal.rows}

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
                    pictures[name] = open_image(images / name, max_pixels=MAX_PIXELS)
                except ImageError as error:
                    causes[name] = str(error)
            if pictures:
                encodings = self.model.encode(list(pictures.values()))
                self(list(zip(pictures, encodings, strict=True)))
            if progress:
                done = len(wanted) - len(missing) + start + CHUNK_IMAGES
                progress(min(done, len(wanted)), len(wanted))
        return causes

    def finish(self, examples: Sequence[Example], model: MultiScaleModel) -> FeatureTable:
        """Write the table of all examples whose picture is known.

        Raises:
            DataError: If no picture is known.
        """
        known = self.known
        kept = [example for example in examples if example.image in known]
        if not kept:
            raise DataError("no picture could be read, so there are no features to write")
        questions = {e.question: e.question for e in kept}
        vectors = {text: question_block.question_features(text, model) for text in questions}
        table = FeatureTable(
            ids=tuple(example.id for example in kept),
            blocks={
                "image": np.stack([known[example.image] for example in kept]),
                "question": np.stack([vectors[example.question] for example in kept]),
            },
            metadata=_metadata(model, question_block.VERSION)
            | {"examples_sha256": fingerprint(examples)},
        )
        table.write(self.folder)
        return table


def featurize(
    examples: Sequence[Example],
    *,
    images: Path,
    model: MultiScaleModel,
    folder: Path,
    progress: Progress | None = None,
) -> tuple[FeatureTable, dict[str, str]]:
    """Compute features without labelling.

    Returns:
        The table, and image path to cause for pictures that cannot be read.
    """
    with FeatureCollector(folder, model) as collector:
        causes = collector.encode_missing((e.image for e in examples), images, progress)
        return collector.finish(examples, model), causes


def featurize_with_encoder(
    log: OracleLog,
    *,
    images: Path,
    encoder: ImageEncoder,
    folder: Path,
    progress: Progress | None = None,
) -> tuple[FeatureTable, dict[str, str]]:
    """Compute features for any log with an image encoder and hashed words; no LMM is needed.

    Returns:
        The table, and image path to cause for pictures that cannot be read.

    Raises:
        DataError: If no picture can be read.
    """
    with FeatureCollector(folder, encoder) as collector:
        causes = collector.encode_missing((str(name) for name in log.images), images, progress)
        known = collector.known
    kept = [row for row, name in enumerate(log.images) if str(name) in known]
    if not kept:
        raise DataError(f"none of the log's pictures could be read under {images}")
    table = FeatureTable(
        ids=tuple(log.ids[row] for row in kept),
        blocks={
            "image": np.stack([known[str(log.images[row])] for row in kept]),
            "question": hashed_words([str(log.questions[row]) for row in kept]),
        },
        metadata=_metadata(encoder, f"hashed-words-{HASHED_WORDS}"),
    )
    table.write(folder)
    return table, causes


def hashed_words(questions: Sequence[str]) -> np.ndarray:
    """Words and pairs of words, hashed: float32 (N, HASHED_WORDS), rows of length 1."""
    vectorizer = HashingVectorizer(n_features=HASHED_WORDS, ngram_range=(1, 2))
    return vectorizer.transform(list(questions)).toarray().astype(np.float32)


def routing_blocks(
    model: MultiScaleModel, features: np.ndarray, question: str
) -> dict[str, np.ndarray]:
    """The blocks of one request, as a router trained on :meth:`FeatureCollector.finish` reads them.

    Args:
        model: The model.
        features: The picture's :func:`router.features.image.image_features`.
        question: The question.
    """
    return {"image": features, "question": question_block.question_features(question, model)}


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


def _metadata(model: MultiScaleModel | ImageEncoder, question_version: str) -> dict[str, Any]:
    return {
        "source": source_of(model),
        "image": image_block.VERSION,
        "question": question_version,
        "grid": list(model.grid.names),
    }


def _pack(vector: np.ndarray) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")


def _unpack(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype="<f4")

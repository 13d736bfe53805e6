"""What a question's words say about the detail it asks for, whatever the image.

Three encoders behind one protocol: the language model's own input embeddings (the default), a
sentence encoder, or hashed words, which need no model at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from sklearn.feature_extraction.text import HashingVectorizer

from m3router.data.errors import DataError, ModelError
from m3router.data.registry import unknown_name
from m3router.m3core.checkpoints import revision_of
from m3router.m3core.matryoshka.base import MultiScaleModel

VERSION = "question-1"
HASHED_WORDS = 128
MODEL = "model"
HASHED = "hashed"
SENTENCE = "sentence:"


class QuestionEncoder(Protocol):
    """Turns questions into vectors.

    Attributes:
        name: What :func:`question_encoder` takes to make the same encoder again.
        revision: Hash of what decides its vectors; empty where the name says it all.
    """

    name: str
    revision: str

    def encode(self, questions: Sequence[str]) -> np.ndarray:
        """Vectors of the questions, float32 (N, d)."""
        ...


class ModelQuestions:
    """The language model's own input embeddings.

    A question's vector is the mean and the largest value of each channel over its tokens, and
    the logarithm of the number of tokens: length 2 D + 1.

    Args:
        model: Whose embeddings.
    """

    name = MODEL

    def __init__(self, model: MultiScaleModel) -> None:
        self.model = model
        self.revision = model.revision

    def encode(self, questions: Sequence[str]) -> np.ndarray:
        """The questions (N) as vectors, float32 (N, d)."""
        rows = []
        for question in questions:
            tokens = self.model.embed_question(question)
            rows.append(np.concatenate([tokens.mean(0), tokens.max(0), [np.log(len(tokens))]]))
        return np.stack(rows).astype(np.float32)


class HashedQuestions:
    """Words and pairs of words, hashed to ``HASHED_WORDS`` numbers; rows of length 1."""

    name = HASHED
    revision = ""

    def encode(self, questions: Sequence[str]) -> np.ndarray:
        """The questions (N) as vectors, float32 (N, d)."""
        vectorizer = HashingVectorizer(n_features=HASHED_WORDS, ngram_range=(1, 2))
        return vectorizer.transform(list(questions)).toarray().astype(np.float32)


class SentenceQuestions:
    """A sentence-transformers model.

    Args:
        path: Its folder or hub id.

    Raises:
        ModelError: If the package is not installed or the model cannot be loaded.
    """

    def __init__(self, path: str) -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise ModelError(
                "a sentence encoder needs the package sentence-transformers: "
                'pip install "m3router[sentence]"'
            ) from error
        try:
            self._model = SentenceTransformer(path, device="cpu")
        except (OSError, ValueError) as error:
            raise ModelError(f"the sentence encoder {path!r} cannot be loaded: {error}") from error
        self.name = f"{SENTENCE}{path}"
        self.revision = revision_of(Path(path)) if Path(path).is_dir() else ""

    def encode(self, questions: Sequence[str]) -> np.ndarray:
        """The questions (N) as vectors, float32 (N, d)."""
        rows = self._model.encode(list(questions), show_progress_bar=False)
        return np.asarray(rows, dtype=np.float32)


def question_encoder(name: str, model: MultiScaleModel | None = None) -> QuestionEncoder:
    """Make a question encoder.

    Args:
        name: ``model``, ``hashed``, or ``sentence:`` followed by a folder or hub id.
        model: The multi-scale model, for ``model``.

    Raises:
        DataError: If the name is unknown, or ``model`` is asked for without a model.
        ModelError: If a sentence encoder cannot be loaded.
    """
    if name == HASHED:
        return HashedQuestions()
    if name == MODEL and model is not None:
        return ModelQuestions(model)
    if name.startswith(SENTENCE):
        return SentenceQuestions(name.removeprefix(SENTENCE))
    if name == MODEL:
        raise DataError("the question encoder 'model' needs a multi-scale model; use 'hashed'")
    known = (MODEL, HASHED, f"{SENTENCE}FOLDER_OR_HUB_ID")
    raise DataError(unknown_name("question encoder", name, known))

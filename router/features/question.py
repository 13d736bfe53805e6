"""What a question's words say about the detail it asks for, whatever the picture."""

from __future__ import annotations

import numpy as np

from m3core.models.base import MultiScaleModel

VERSION = "question-1"


def question_features(question: str, model: MultiScaleModel) -> np.ndarray:
    """Features of one question from the language model's own input embeddings.

    Returns:
        float32 vector of length 2 D + 1: the mean and the largest value of each channel over
        the question's tokens, and the logarithm of the number of tokens.
    """
    rows = model.embed_question(question)
    return np.concatenate([rows.mean(0), rows.max(0), [np.log(len(rows))]]).astype(np.float32)

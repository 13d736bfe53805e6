"""The feature groups: one literal table, name of the block -> how it is made.

A block is made of parts: what an image gives once for all questions about it, what a question
gives whatever the image, and what both give together. Logs and live requests are featurised by
the same functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from m3router.data.errors import DataError
from m3router.data.registry import unknown_name
from m3router.m3core.matryoshka.base import Peek, VisualEncoding
from m3router.m3core.matryoshka.scales import ScaleGrid
from m3router.router.features import cheap, image, peek, question, size


@dataclass(frozen=True, kw_only=True)
class FeatureGroup:
    """How a block is made; the parts that are not None stand side by side, in this order.

    Attributes:
        version: Changes when the same input would give other numbers.
        of_encoding: From an encoded image.
        of_image: From an RGB image.
        of_questions: From questions, for each a row.
        encoded: Whether a question encoder makes the block.
        of_peek: From the coarsest scale's prefill.
    """

    version: str
    of_encoding: Callable[[VisualEncoding, ScaleGrid], np.ndarray] | None = None
    of_image: Callable[[Image.Image], np.ndarray] | None = None
    of_questions: Callable[[Sequence[str]], np.ndarray] | None = None
    encoded: bool = False
    of_peek: Callable[[Peek], np.ndarray] | None = None


IMAGE, QUESTION, SIZE, CHEAP, PEEK = "image", "question", "size", "cheap", "peek"

FEATURE_GROUPS: dict[str, FeatureGroup] = {
    IMAGE: FeatureGroup(version=image.VERSION, of_encoding=image.image_features),
    QUESTION: FeatureGroup(version=question.VERSION, encoded=True),
    SIZE: FeatureGroup(version=size.VERSION, of_image=size.size_features),
    CHEAP: FeatureGroup(
        version=cheap.VERSION, of_image=cheap.image_cues, of_questions=cheap.question_cues
    ),
    PEEK: FeatureGroup(version=peek.VERSION, of_peek=peek.peek_features),
}
"""Name -> how."""

USUAL = (IMAGE, QUESTION)
"""What is computed unless others are asked for: on the shipped model the others did not pay. Cheap
cues open every image again, and a peek is a call of the model for every question."""

WITHOUT_ENCODER = (QUESTION, SIZE, CHEAP)
"""What is computed for a model that encodes nothing for the router, unless an encoder is given."""

USUAL_BEFORE = (IMAGE, QUESTION, SIZE)
"""The same for routers that decide before the model that answers sees the image: there, what an
option costs depends on the image's size."""


def check_feature_groups(names: Iterable[str]) -> tuple[str, ...]:
    """The names in the order of `FEATURE_GROUPS`, each once.

    Raises:
        DataError: When one is unknown, or there is none.
    """
    asked = set(names)
    for name in sorted(asked - set(FEATURE_GROUPS)):
        raise DataError(unknown_name("feature group", name, FEATURE_GROUPS))
    if not asked:
        raise DataError(f"no feature group was named; choose among {', '.join(FEATURE_GROUPS)}")
    return tuple(name for name in FEATURE_GROUPS if name in asked)

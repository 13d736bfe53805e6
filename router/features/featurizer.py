"""What features are made with, and of; the same for logs, labelling passes and live requests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from m3router.data.errors import DataError, MismatchError
from m3router.data.videos import FRAMES, is_video
from m3router.m3core.encoders import ImageEncoder
from m3router.m3core.matryoshka.base import MultiScaleModel, Peek, VisualEncoding
from m3router.m3core.threads import one_thread
from m3router.router.features.groups import (
    CHEAP,
    FEATURE_GROUPS,
    IMAGE,
    PEEK,
    QUESTION,
    SIZE,
    check_feature_groups,
)
from m3router.router.features.question import MODEL, QuestionEncoder, question_encoder
from m3router.router.features.store import key_of


@dataclass(frozen=True, kw_only=True)
class Featurizer:
    """Makes the blocks of chosen feature groups.

    Attributes:
        feature_groups: Names in `m3router.router.features.groups.FEATURE_GROUPS`.
        model: The model or image encoder; None where no feature group looks at what it makes.
        questions: The question encoder; None where the feature group "question" is not asked for.
        images: Whether there are images; without them the feature group "cheap" is made of
            questions alone, which makes it narrower.
        frames: Frames of a video's collage.

    Raises:
        DataError: When a feature group is unknown, or what it needs is not there.
    """

    feature_groups: tuple[str, ...]
    model: MultiScaleModel | ImageEncoder | None = None
    questions: QuestionEncoder | None = None
    images: bool = True
    frames: int = FRAMES

    def __post_init__(self) -> None:
        """Check that every feature group can be made."""
        object.__setattr__(self, "feature_groups", check_feature_groups(self.feature_groups))
        if IMAGE in self.feature_groups and self.model is None:
            raise DataError(
                "The feature group 'image' needs a model or image encoder. Give one, or choose "
                "other feature groups, such as question and cheap."
            )
        if PEEK in self.feature_groups and not isinstance(self.model, MultiScaleModel):
            raise DataError(
                "The feature group 'peek' is the prefill of the model that answers; an image "
                "encoder has none. Give that model, or choose other feature groups, such as image, "
                "question and cheap."
            )
        if SIZE in self.feature_groups and not self.images:
            raise DataError(
                "The feature group 'size' needs images. Give their folder, or choose other "
                "feature groups, such as question and cheap."
            )
        if QUESTION in self.feature_groups and self.questions is None:
            raise DataError(
                "The feature group 'question' needs a question encoder, such as 'hashed'."
            )

    @property
    def by_image(self) -> tuple[str, ...]:
        """Feature groups that have a part for each image."""
        return tuple(
            name
            for name in self.feature_groups
            if FEATURE_GROUPS[name].of_encoding or (FEATURE_GROUPS[name].of_image and self.images)
        )

    @property
    def peeks(self) -> bool:
        """Whether the feature group "peek" is among them."""
        return PEEK in self.feature_groups

    @property
    def answerer(self) -> MultiScaleModel:
        """The model, where it answers.

        Raises:
            MismatchError: When there is none.
        """
        if not isinstance(self.model, MultiScaleModel):
            raise MismatchError("an image encoder answers nothing; load the model itself")
        return self.model

    def of_image(
        self, name: str, image: Image.Image | None, encoding: VisualEncoding | None
    ) -> np.ndarray:
        """The part of a group that an image gives, float32 (d,); d is 0 where it gives none."""
        feature_group = FEATURE_GROUPS[name]
        if (
            feature_group.of_encoding is not None
            and encoding is not None
            and self.model is not None
        ):
            with one_thread():
                return feature_group.of_encoding(encoding, self.model.grid)
        if feature_group.of_image is not None and self.images and image is not None:
            return feature_group.of_image(image)
        return np.zeros(0, dtype=np.float32)

    def of_questions(self, name: str, questions: Sequence[str]) -> np.ndarray:
        """The part of a group that questions give, float32 (N, d); d is 0 where they give none."""
        feature_group = FEATURE_GROUPS[name]
        if feature_group.encoded and self.questions is not None:
            return self.questions.encode(questions)
        if feature_group.of_questions is not None:
            return feature_group.of_questions(questions)
        return np.zeros((len(questions), 0), dtype=np.float32)

    def of_peek(self, name: str, peek: Peek | None) -> np.ndarray:
        """The part of a group that a peek gives, float32 (d,); d is 0 where it gives none."""
        of_peek = FEATURE_GROUPS[name].of_peek
        return np.zeros(0, dtype=np.float32) if of_peek is None or peek is None else of_peek(peek)

    def blocks(
        self,
        images: Sequence[Image.Image | None],
        encodings: Sequence[VisualEncoding | None],
        questions: Sequence[str],
    ) -> list[dict[str, np.ndarray]]:
        """The blocks of examples, without "peek": for each one feature group -> float32 (d,).

        Args:
            images: The image of each; what is the same object is looked at once. None where no
                feature group looks at it.
            encodings: Its encoding; likewise.
            questions: What is asked of it.
        """
        seen: dict[int, dict[str, np.ndarray]] = {}
        for image, encoding in zip(images, encodings, strict=True):
            if id(image) not in seen:
                seen[id(image)] = self.parts(image, encoding)
        return self.joined([seen[id(image)] for image in images], questions)

    def parts(
        self, image: Image.Image | None, encoding: VisualEncoding | None
    ) -> dict[str, np.ndarray]:
        """What an image gives, whatever is asked: feature group -> float32 (d,), see `of_image`."""
        return {name: self.of_image(name, image, encoding) for name in self._unpeeked}

    def joined(
        self, parts: Sequence[Mapping[str, np.ndarray]], questions: Sequence[str]
    ) -> list[dict[str, np.ndarray]]:
        """The blocks of examples, see `blocks`.

        Args:
            parts: What the image of each gives, see `parts`.
            questions: What is asked of it.
        """
        asked = {name: self.of_questions(name, questions) for name in self._unpeeked}
        return [
            {name: np.concatenate([own[name], asked[name][row]]) for name in self._unpeeked}
            for row, own in enumerate(parts)
        ]

    @property
    def _unpeeked(self) -> list[str]:
        return [name for name in self.feature_groups if FEATURE_GROUPS[name].of_peek is None]

    def made_with(self, name: str) -> dict[str, Any]:
        """Everything that a feature group's numbers depend on, but for the examples themselves."""
        feature_group = FEATURE_GROUPS[name]
        found: dict[str, Any] = {"version": feature_group.version}
        if (
            feature_group.of_encoding
            or feature_group.of_peek
            or (feature_group.encoded and self._encoder == MODEL)
        ):
            found |= {"model": source_of(self.model), "settings": settings_of(self.model)}
        if feature_group.encoded and self.questions is not None:
            found |= {"encoder": self.questions.name, "encoder_revision": self.questions.revision}
        if name == CHEAP:
            found |= {"pictures": self.images}
        return found

    def image_key(self, name: str, image: str, digest: str) -> str:
        """What an image's vector is kept under; `digest` is the SHA-256 of its file."""
        frames = self.frames if is_video(image) else None
        return key_of(self.made_with(name), digest, frames)

    def example_key(self, image: str, digest: str, question: str) -> str:
        """What an example's peek is kept under."""
        return key_of(self.image_key(PEEK, image, digest), question)

    @property
    def _encoder(self) -> str | None:
        return None if self.questions is None else self.questions.name


def source_of(model: MultiScaleModel | ImageEncoder | None) -> str:
    """What computed the features; routers refuse features of another source."""
    return "none" if model is None else f"{model.name}@{model.revision[:16]}"


def settings_of(model: MultiScaleModel | ImageEncoder | None) -> dict[str, Any]:
    """How a model is used: what its numbers depend on beside its revision."""
    if not isinstance(model, MultiScaleModel):
        return {}
    return {
        "visual": dict(model.visual),
        "dtype": model.dtype,
        "prompt": model.prompt,
        "grid": list(model.grid.names),
    }


def check_source(router_source: str, model: MultiScaleModel) -> None:
    """Refuse a router that was trained on another model's features.

    Raises:
        MismatchError: Naming both sides.
    """
    if router_source != source_of(model):
        raise MismatchError(
            "the router was trained on features of another model, or of another version of it; "
            f"label and train with this model, or load the other one ({router_source}, not "
            f"{source_of(model)})"
        )


def live_featurizer(
    model: MultiScaleModel | ImageEncoder | None,
    blocks: Iterable[str],
    features: Mapping[str, Any],
) -> Featurizer:
    """What makes a router's features for live requests, as they were made for its log.

    Args:
        model: The model or image encoder that made the log's features; None where none did.
        blocks: Names of the blocks that the router reads.
        features: Metadata of the table that it was trained on.

    Raises:
        DataError: When a block is not a feature group, and so cannot be made here.
        MismatchError: When a feature group has changed since.
    """
    names = check_feature_groups(blocks)
    facts = features.get("blocks", {})
    for name in names:
        trained, now = (
            facts.get(name, {}).get("version", FEATURE_GROUPS[name].version),
            FEATURE_GROUPS[name].version,
        )
        if trained != now:
            raise MismatchError(
                f"The router was trained on the features {trained!r}, but this version makes "
                f"{now!r}. Compute the features again and train on them (m3router featurize)."
            )
    encoder = str(features.get("question_encoder", MODEL))
    answering = model if isinstance(model, MultiScaleModel) else None
    return Featurizer(
        feature_groups=names,
        model=model,
        questions=question_encoder(encoder, answering) if QUESTION in names else None,
        images=facts.get(CHEAP, {}).get("made_with", {}).get("pictures", True),
        frames=int(features.get("frames", FRAMES)),
    )

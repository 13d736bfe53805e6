"""LLaVA-1.5-type models through stock Hugging Face classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from transformers import BaseImageProcessor, LlavaForConditionalGeneration, PreTrainedTokenizerBase

from m3router.m3core.cost.operations import ModelShape
from m3router.m3core.matryoshka.answering import AnsweringModel
from m3router.m3core.matryoshka.base import (
    ANSWER_TOKENS,
    GridEncoding,
    VisualEncoding,
    revision_with,
)
from m3router.m3core.matryoshka.models.parts import project, tower_tokens
from m3router.m3core.matryoshka.pooling import AVERAGE, check_pooling
from m3router.m3core.matryoshka.preprocessing import PAD, Preparer, aspect_note
from m3router.m3core.matryoshka.prompts import PromptTemplate
from m3router.m3core.matryoshka.scales import ScaleGrid


class LlavaM3(AnsweringModel):
    """A LLaVA whose visual tokens are pooled after the projector.

    Args:
        model: The loaded model, in evaluation mode.
        tokenizer: Its tokenizer.
        image_processor: Resizes and normalises.
        template: Prompt template.
        grid: Scales; the finest one must be the tower's whole grid.
        name: How the user called the model.
        revision: Hash of its files.
        max_new_tokens: Longest answer.
        pooling: How coarser scales are made, a name in
            :data:`m3router.m3core.matryoshka.pooling.POOLINGS`.
        aspect: How images are made square, one of
            :data:`m3router.m3core.matryoshka.preprocessing.ASPECTS`.

    Raises:
        MismatchError: If there is no such pooling.
    """

    def __init__(
        self,
        *,
        model: LlavaForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase,
        image_processor: BaseImageProcessor,
        template: PromptTemplate,
        grid: ScaleGrid,
        name: str,
        revision: str,
        max_new_tokens: int = ANSWER_TOKENS,
        pooling: str = AVERAGE,
        aspect: str = PAD,
    ) -> None:
        visual = {"pooling": check_pooling(pooling)}
        super().__init__(
            model=model,
            tokenizer=tokenizer,
            template=template,
            grid=grid,
            shape=ModelShape.of(model.config),
            visual=visual | aspect_note(aspect),
            name=name,
            revision=revision_with(revision, {} if pooling == AVERAGE else visual),
            max_new_tokens=max_new_tokens,
        )
        self.image_processor = image_processor
        self.aspect = aspect
        self.prepare = Preparer(image_processor, model.config.vision_config.image_size, aspect)
        self.pooling = pooling

    @torch.inference_mode()
    def encode(self, images: Sequence[Image.Image | torch.Tensor]) -> list[VisualEncoding]:
        """Run tower and projector once for each image; see :class:`MultiScaleModel`."""
        if not images:
            return []
        pixels = torch.stack([self.prepared(image) for image in images])
        pixels = pixels.to(self.model.device, self.model.dtype)
        features = project(self.model, tower_tokens(self.model, pixels))
        return [GridEncoding(features=one, pooling=self.pooling) for one in features]

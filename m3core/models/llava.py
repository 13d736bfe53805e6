"""LLaVA-1.5-type models through stock Hugging Face classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from transformers import BaseImageProcessor, LlavaForConditionalGeneration, PreTrainedTokenizerBase

from m3core.cost import ModelShape
from m3core.models.answering import Answering
from m3core.models.base import Answer, GridEncoding, Request, VisualEncoding, revision_with
from m3core.models.parts import project, tower_tokens
from m3core.pooling import AVERAGE, check_pooling
from m3core.prompts import PromptTemplate
from m3core.scales import ScaleGrid


def pad_to_square(image: Image.Image, mean: Sequence[float]) -> Image.Image:
    """Centre an image on a square of the mean colour (LLaVA ``mm_utils.expand2square``).

    Args:
        image: An RGB image.
        mean: The image processor's mean, three values in [0, 1].
    """
    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    square = Image.new("RGB", (side, side), tuple(int(value * 255) for value in mean))
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square


class LlavaM3:
    """A LLaVA whose visual tokens are pooled after the projector.

    Args:
        model: The loaded model, in evaluation mode.
        tokenizer: Its tokenizer.
        image_processor: Resizes and normalises; padding to a square happens before it.
        template: Prompt template.
        grid: Scales; the finest one must be the tower's whole grid.
        name: How the user called the model.
        revision: Hash of its files.
        max_new_tokens: Longest answer.
        pooling: How coarser scales are made, a name in :data:`m3core.pooling.POOLINGS`.

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
        max_new_tokens: int = 16,
        pooling: str = AVERAGE,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.template = template
        self.grid = grid
        self.name = name
        self.pooling = check_pooling(pooling)
        self.visual = {"pooling": pooling}
        self.revision = revision_with(revision, {} if pooling == AVERAGE else self.visual)
        self.prompt = template.name
        self.shape = ModelShape.of(model.config)
        self.dtype = str(model.dtype).removeprefix("torch.")
        self.answering = Answering(
            model=model, tokenizer=tokenizer, template=template, max_new_tokens=max_new_tokens
        )

    @torch.inference_mode()
    def encode(self, images: Sequence[Image.Image]) -> list[VisualEncoding]:
        """Run tower and projector once for each image; see :class:`MultiScaleModel`."""
        squares = [pad_to_square(image, self.image_processor.image_mean) for image in images]
        side = self.model.config.vision_config.image_size
        pixels = self.image_processor(
            squares,
            size={"height": side, "width": side},
            do_center_crop=False,
            return_tensors="pt",
        )["pixel_values"]
        pixels = pixels.to(self.model.device, self.model.dtype)
        features = project(self.model, tower_tokens(self.model, pixels))
        return [GridEncoding(features=one, pooling=self.pooling) for one in features]

    def prompt_length(self, question: str, visual_tokens: int) -> int:
        """Prompt tokens of a question; see :class:`MultiScaleModel`."""
        return self.answering.prompt_length(question, visual_tokens)

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """Answer all requests in one left-padded batch; see :class:`MultiScaleModel`."""
        return self.answering.answer(
            [one.question for one in requests],
            [one.encoding.at(self.grid.check(one.scale)) for one in requests],
        )

    def embed_question(self, question: str) -> np.ndarray:
        """Input embeddings of a question; see :class:`MultiScaleModel`."""
        return self.answering.embed_question(question)

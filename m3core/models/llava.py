"""LLaVA-1.5-type models through stock Hugging Face classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from transformers import BaseImageProcessor, LlavaForConditionalGeneration, PreTrainedTokenizerBase

from data.errors import DataError
from m3core.cost import ModelShape
from m3core.models.base import Answer, Request, VisualEncoding
from m3core.models.parts import project, tower_tokens
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
    """A LLaVA whose visual tokens are average-pooled after the projector.

    Args:
        model: The loaded model, in evaluation mode.
        tokenizer: Its tokenizer.
        image_processor: Resizes and normalises; padding to a square happens before it.
        template: Prompt template.
        grid: Scales; the finest one must be the tower's whole grid.
        name: How the user called the model.
        revision: Hash of its files.
        max_new_tokens: Longest answer.
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
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.template = template
        self.grid = grid
        self.name = name
        self.revision = revision
        self.max_new_tokens = max_new_tokens
        self.prompt = template.name
        self.shape = ModelShape.of(model.config)
        self.dtype = str(model.dtype).removeprefix("torch.")
        self._before = self._ids(template.before, first=True)

    def _ids(self, text: str, *, first: bool = False) -> list[int]:
        # A question that spells "<image>" or "</s>" is text: it must not become that token.
        ids = (
            self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            if text
            else []
        )
        return [self.tokenizer.bos_token_id, *ids] if first else list(ids)

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
        return [VisualEncoding(features=one) for one in features]

    def prompt_length(self, question: str, scale: int) -> int:
        """Prompt tokens of a request; see :class:`MultiScaleModel`."""
        text = len(self._before) + len(self._ids(self.template.text_after(question)))
        total = text + self.grid.check(scale)
        limit = self.model.config.text_config.max_position_embeddings
        if total + self.max_new_tokens > limit:
            raise DataError(
                f"the question does not fit: {text} text tokens, {scale} visual tokens and up to "
                f"{self.max_new_tokens} answer tokens exceed the model's context of {limit}; "
                "shorten the question or choose a coarser scale"
            )
        return total

    @torch.inference_mode()
    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """Answer all requests in one left-padded batch; see :class:`MultiScaleModel`."""
        if not requests:
            return []
        lengths = [self.prompt_length(one.question, one.scale) for one in requests]
        embed = self.model.get_input_embeddings()
        device, width = self.model.device, max(lengths)
        inputs = torch.zeros(len(requests), width, embed.embedding_dim, device=device).to(
            self.model.dtype
        )
        mask = torch.zeros(len(requests), width, dtype=torch.long, device=device)
        before = embed(torch.tensor(self._before, device=device))
        for row, (request, length) in enumerate(zip(requests, lengths, strict=True)):
            after = torch.tensor(
                self._ids(self.template.text_after(request.question)), device=device
            )
            parts = [before, request.encoding.at(request.scale).to(device), embed(after)]
            inputs[row, width - length :] = torch.cat(parts)
            mask[row, width - length :] = 1
        output = self.model.generate(
            inputs_embeds=inputs,
            attention_mask=mask,
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            pad_token_id=self.tokenizer.pad_token_id,
            return_dict_in_generate=True,
            output_logits=True,
        )
        logprobs = torch.stack(output.logits).float().log_softmax(-1)  # (steps, batch, vocabulary)
        return self._read(requests, lengths, output.sequences, logprobs)

    def _read(
        self,
        requests: Sequence[Request],
        lengths: list[int],
        sequences: torch.Tensor,
        logprobs: torch.Tensor,
    ) -> list[Answer]:
        chosen = logprobs.gather(2, sequences.T[..., None])[..., 0].T  # (batch, steps)
        ended = sequences == self.tokenizer.eos_token_id
        counts = torch.where(ended.any(1), ended.long().argmax(1) + 1, sequences.shape[1])
        answers = []
        for row, (request, length, count) in enumerate(
            zip(requests, lengths, counts.tolist(), strict=True)
        ):
            text = self.tokenizer.decode(sequences[row, :count], skip_special_tokens=True)
            answers.append(
                Answer(
                    text=text.strip(),
                    logprob=float(chosen[row, :count].sum()),
                    confidence=float(chosen[row, 0].exp()),
                    answer_tokens=count,
                    visual_tokens=request.scale,
                    text_tokens=length - request.scale,
                )
            )
        return answers

    @torch.inference_mode()
    def embed_question(self, question: str) -> np.ndarray:
        """Input embeddings of a question; see :class:`MultiScaleModel`."""
        self.template.text_after(question)  # refuses an empty question
        ids = torch.tensor(self._ids(question.strip()), device=self.model.device)
        return self.model.get_input_embeddings()(ids).float().cpu().numpy()

"""What every LLaVA family shares: prompts, left-padded batches, generation, reading answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from data.errors import DataError
from m3core.cost import ModelShape
from m3core.models.base import Answer, Request, VisualEncoding
from m3core.prompts import PromptTemplate
from m3core.scales import ScaleGrid


class AnsweringModel(ABC):
    """A language model that reads visual tokens between the two texts of a template.

    A family adds :meth:`encode`, and :meth:`check_scale` where more scales than those of its
    grid can be asked for.

    Args:
        model: Takes ``inputs_embeds`` and generates; in evaluation mode.
        tokenizer: Its tokenizer.
        template: Prompt template.
        grid: Scales.
        shape: Sizes, for the cost model.
        visual: How visual tokens are made; see :class:`MultiScaleModel`.
        name: How the user called the model.
        revision: Hash of its files.
        max_new_tokens: Longest answer.
        context: Longest prompt and answer together; None takes the model's positions.
    """

    def __init__(
        self,
        *,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        template: PromptTemplate,
        grid: ScaleGrid,
        shape: ModelShape,
        visual: Mapping[str, str],
        name: str,
        revision: str,
        max_new_tokens: int = 16,
        context: int | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.template = template
        self.grid = grid
        self.shape = shape
        self.visual: Mapping[str, str] = dict(visual)
        self.name = name
        self.revision = revision
        self.max_new_tokens = max_new_tokens
        self.context = context or model.config.get_text_config().max_position_embeddings
        self.prompt = template.name
        self.dtype = str(model.dtype).removeprefix("torch.")
        self._before = self._ids(template.before, first=True)

    @abstractmethod
    def encode(self, images: Sequence[Image.Image]) -> list[VisualEncoding]:
        """Run tower and connector once for each image; see :class:`MultiScaleModel`."""

    def check_scale(self, scale: int) -> int:
        """Return a scale that the model can be asked at.

        Raises:
            MismatchError: If the model has no such scale.
        """
        return self.grid.check(scale)

    def _ids(self, text: str, *, first: bool = False) -> list[int]:
        # A question that spells "<image>" or "</s>" is text: it must not become that token.
        ids = (
            self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            if text
            else []
        )
        return [self.tokenizer.bos_token_id, *ids] if first else list(ids)

    def prompt_length(self, question: str, visual_tokens: int) -> int:
        """Prompt tokens of a question; see :class:`MultiScaleModel`."""
        text = len(self._before) + len(self._ids(self.template.text_after(question)))
        if text + visual_tokens + self.max_new_tokens > self.context:
            raise DataError(
                f"the question does not fit: {text} text tokens, {visual_tokens} visual tokens "
                f"and up to {self.max_new_tokens} answer tokens exceed the model's context of "
                f"{self.context}; shorten the question or choose a coarser scale"
            )
        return text + visual_tokens

    def embed_prompt(self, request: Request) -> torch.Tensor:
        """The input embeddings of one request, (prompt tokens, D).

        Raises:
            MismatchError: If the model has no such scale.
            DataError: If the question is empty or does not fit the context.
        """
        visual = request.encoding.at(self.check_scale(request.scale))
        self.prompt_length(request.question, len(visual))
        after = self._ids(self.template.text_after(request.question))
        embed, device = self.model.get_input_embeddings(), self.model.device
        parts = [
            embed(torch.tensor(self._before, device=device)),
            visual.to(device),
            embed(torch.tensor(after, device=device)),
        ]
        return torch.cat(parts).to(self.model.dtype)

    @torch.inference_mode()
    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """Answer all requests in one left-padded batch; see :class:`MultiScaleModel`."""
        if not requests:
            return []
        rows = [self.embed_prompt(request) for request in requests]
        lengths = [len(row) for row in rows]
        ones = [torch.ones(length, dtype=torch.long, device=rows[0].device) for length in lengths]
        tokenizer = self.tokenizer
        ended = tokenizer.eos_token_id
        output = self.model.generate(
            inputs_embeds=pad_sequence(rows, batch_first=True, padding_side="left"),
            attention_mask=pad_sequence(ones, batch_first=True, padding_side="left"),
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            pad_token_id=ended if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
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
            visual = request.encoding.tokens(request.scale)
            answers.append(
                Answer(
                    text=text.strip(),
                    logprob=float(chosen[row, :count].sum()),
                    confidence=float(chosen[row, 0].exp()),
                    answer_tokens=count,
                    visual_tokens=visual,
                    text_tokens=length - visual,
                )
            )
        return answers

    @torch.inference_mode()
    def embed_question(self, question: str) -> np.ndarray:
        """Input embeddings of a question; see :class:`MultiScaleModel`."""
        self.template.text_after(question)  # refuses an empty question
        ids = torch.tensor(self._ids(question.strip()), device=self.model.device)
        return self.model.get_input_embeddings()(ids).float().cpu().numpy()

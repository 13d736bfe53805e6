"""Prompt, generate and read answers: the part that LLaVA-type models share.

Whatever a model makes of a picture, the language model receives a row of visual tokens between
two pieces of text; rows of any length go into one left-padded batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from data.errors import DataError
from m3core.models.base import Answer
from m3core.prompts import PromptTemplate


class Answering:
    """A language model behind a prompt template.

    Args:
        model: A stock Hugging Face LLaVA of any family, in evaluation mode.
        tokenizer: Its tokenizer.
        template: Prompt template.
        max_new_tokens: Longest answer.
    """

    def __init__(
        self,
        *,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        template: PromptTemplate,
        max_new_tokens: int,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.template = template
        self.max_new_tokens = max_new_tokens
        self._before = [tokenizer.bos_token_id, *self._ids(template.before)]

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []

    def prompt_length(self, question: str, visual_tokens: int) -> int:
        """Prompt tokens of a question with so many visual ones.

        Raises:
            DataError: If the question is empty or does not fit the context.
        """
        text = len(self._before) + len(self._ids(self.template.text_after(question)))
        limit = self.model.config.text_config.max_position_embeddings
        if text + visual_tokens + self.max_new_tokens > limit:
            raise DataError(
                f"the question does not fit: {text} text tokens, {visual_tokens} visual tokens "
                f"and up to {self.max_new_tokens} answer tokens exceed the model's context of "
                f"{limit}; shorten the question or choose a coarser scale"
            )
        return text + visual_tokens

    @torch.inference_mode()
    def answer(self, questions: Sequence[str], visual: Sequence[torch.Tensor]) -> list[Answer]:
        """Answer all questions in one left-padded batch.

        Args:
            questions: N questions.
            visual: Their visual tokens, N tensors (tokens, D) of any length.

        Raises:
            DataError: If a question is empty or does not fit the context.
        """
        if not questions:
            return []
        lengths = [
            self.prompt_length(question, len(tokens))
            for question, tokens in zip(questions, visual, strict=True)
        ]
        inputs, mask = self._inputs(questions, visual, lengths)
        output = self.model.generate(
            inputs_embeds=inputs,
            attention_mask=mask,
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            pad_token_id=self.tokenizer.pad_token_id,
            return_dict_in_generate=True,
            output_logits=True,
        )
        logprobs = torch.stack(output.logits).float().log_softmax(-1)  # (steps, N, vocabulary)
        prompts = [
            (len(tokens), length - len(tokens))
            for tokens, length in zip(visual, lengths, strict=True)
        ]
        return self._read(prompts, output.sequences, logprobs)

    def _inputs(
        self, questions: Sequence[str], visual: Sequence[torch.Tensor], lengths: list[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Left-padded embeddings (N, longest, D) and their mask (N, longest)."""
        embed = self.model.get_input_embeddings()
        device, width = self.model.device, max(lengths)
        shape = (len(questions), width)
        inputs = torch.zeros(*shape, embed.embedding_dim, device=device, dtype=self.model.dtype)
        mask = torch.zeros(*shape, dtype=torch.long, device=device)
        before = embed(torch.tensor(self._before, device=device))
        for row, (question, tokens, length) in enumerate(
            zip(questions, visual, lengths, strict=True)
        ):
            after = torch.tensor(self._ids(self.template.text_after(question)), device=device)
            inputs[row, width - length :] = torch.cat([before, tokens, embed(after)])
            mask[row, width - length :] = 1
        return inputs, mask

    def _read(
        self,
        prompts: Sequence[tuple[int, int]],
        sequences: torch.Tensor,
        logprobs: torch.Tensor,
    ) -> list[Answer]:
        """Answers from generated ids (N, steps); prompts hold (visual, text) token counts."""
        chosen = logprobs.gather(2, sequences.T[..., None])[..., 0].T  # (N, steps)
        ended = sequences == self.tokenizer.eos_token_id
        counts = torch.where(ended.any(1), ended.long().argmax(1) + 1, sequences.shape[1])
        answers = []
        for row, ((visual_tokens, text_tokens), count) in enumerate(
            zip(prompts, counts.tolist(), strict=True)
        ):
            text = self.tokenizer.decode(sequences[row, :count], skip_special_tokens=True)
            answers.append(
                Answer(
                    text=text.strip(),
                    logprob=float(chosen[row, :count].sum()),
                    confidence=float(chosen[row, 0].exp()),
                    answer_tokens=count,
                    visual_tokens=visual_tokens,
                    text_tokens=text_tokens,
                )
            )
        return answers

    @torch.inference_mode()
    def embed_question(self, question: str) -> np.ndarray:
        """Input embeddings of a question, (tokens, D), float32.

        Raises:
            DataError: If the question is empty.
        """
        self.template.text_after(question)  # refuses an empty question
        ids = torch.tensor(self._ids(question.strip()), device=self.model.device)
        return self.model.get_input_embeddings()(ids).float().cpu().numpy()

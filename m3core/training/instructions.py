"""Conversations in LLaVA's format as batches for the Matryoshka objective.

Only answers and their end-of-sequence tokens carry loss, as in LLaVA's ``preprocess_v1``
(haotian-liu/LLaVA, ``llava/train/train.py``): the system prompt stands once, every answer is
followed by the end-of-sequence token, and the next question stands directly behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from m3router.data.errors import DataError, MismatchError
from m3router.data.images import open_image
from m3router.data.media_files import file_in
from m3router.data.sources.instructions import Conversation
from m3router.m3core.checkpoints.families.table import trainable_of
from m3router.m3core.matryoshka.answering import AnsweringModel
from m3router.m3core.matryoshka.prompts import PromptTemplate
from m3router.m3core.training.objective import MatryoshkaBatch, pack

Turns = list[tuple[list[int], list[int]]]


class ConversationText:
    """Turns conversations into (prompt ids, answer ids) pairs.

    Args:
        tokenizer: The language model's tokenizer.
        template: The prompt to train for.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: PromptTemplate) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.before = [tokenizer.bos_token_id, *self._ids(template.before)]

    def _ids(self, text: str) -> list[int]:
        # As at inference: a text that spells "<image>" or "</s>" does not become that token.
        if not text:
            return []
        ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return list(ids)

    def _continued(self, text: str) -> list[int]:
        """Ids of a text behind a special token.

        A ``legacy`` tokenizer of transformers 4 puts a blank in front of it, others do not.
        """
        if self.tokenizer.init_kwargs.get("legacy"):
            return self._ids(text)
        line = self._ids("\n")
        return self._ids("\n" + text)[len(line) :]

    def __call__(self, conversation: Conversation) -> Turns:
        """The pairs of a conversation; the first prompt begins behind the image.

        Without an image it begins with everything, the beginning-of-sequence token included.

        Raises:
            MismatchError: If the template has no words for it, or the tokenizer joins the end of
                a prompt with the beginning of an answer.
        """
        turns: Turns = []
        end = [self.tokenizer.eos_token_id]
        for place, (question, answer) in enumerate(conversation.turns):
            text = self._prompt(conversation, place, question)
            encode = self._continued if place else self._ids
            prompt, whole = encode(text), encode(f"{text} {answer}")
            if whole[: len(prompt)] != prompt:
                raise MismatchError(
                    f"conversation {conversation.id!r}, answer {place + 1}: the tokenizer joins "
                    f"the end of the prompt with the answer {answer[:20]!r}, so that the prompt "
                    f"of {self.template.name!r} cannot be learned; use another template"
                )
            first = [self.tokenizer.bos_token_id] if not place and not conversation.image else []
            turns.append((first + prompt, whole[len(prompt) :] + end))
        return turns

    def _prompt(self, conversation: Conversation, place: int, question: str) -> str:
        template = self.template
        if place == 0 and conversation.image is not None:
            return template.text_after(question)
        what, words = ("several turns", template.again) if place else ("no image", template.alone)
        if words is None:
            raise MismatchError(
                f"conversation {conversation.id!r} has {what}, for which the prompt template "
                f"{template.name!r} has no words; leave it out, or train a model whose template "
                "has them, such as 'vicuna-1'"
            )
        return words.format(question=question)


def shortened(turns: Turns, room: int) -> Turns:
    """Cut a conversation to a number of tokens, as LLaVA cuts at ``model_max_length``.

    An answer may be cut; a turn of which no answer token would be left goes.
    """
    kept: Turns = []
    for prompt, answer in turns:
        room -= len(prompt)
        if room <= 0:
            break
        kept.append((prompt, answer[:room]))
        room -= len(answer)
    return kept


class InstructionBatches:
    """Batches of conversations by number, each epoch in an order of its own.

    Every row is one conversation; what exceeds the model's context is cut. A batch depends on
    its number and the seed alone.

    Args:
        model: Gives tokenizer, template, image processor and context.
        conversations: What to learn.
        images: Folder of their images.
        batch: Conversations in a batch.
        finest: Visual tokens of the finest scale in training, which take their part of the
            context.
        seed: Of the order.

    Raises:
        DataError: If there are fewer conversations than one batch takes.
    """

    def __init__(
        self,
        model: AnsweringModel,
        conversations: Sequence[Conversation],
        *,
        images: Path,
        batch: int,
        finest: int,
        seed: int = 0,
    ) -> None:
        if not 1 <= batch <= len(conversations):
            raise DataError(
                f"a batch of {batch} cannot be drawn from {len(conversations)} conversations; "
                f"choose a batch from 1 to {len(conversations)}"
            )
        self.conversations = conversations
        self.images = images
        self.batch = batch
        self.seed = seed
        self.text = ConversationText(model.tokenizer, model.template)
        self._pad = model.tokenizer.pad_token_id or 0
        self._side: int = trainable_of(model).tower.config.image_size
        self._prepare = model.prepare
        self._room = {False: model.context - len(self.text.before) - finest, True: model.context}
        self._epoch: tuple[int, np.ndarray] = (-1, np.empty(0, dtype=np.int64))

    def rows(self, number: int) -> list[int]:
        """Which conversations are in a batch; within an epoch none comes twice."""
        chosen = []
        for place in range(number * self.batch, (number + 1) * self.batch):
            epoch, index = divmod(place, len(self.conversations))
            if self._epoch[0] != epoch:
                order = np.random.default_rng((self.seed, epoch)).permutation(
                    len(self.conversations)
                )
                self._epoch = (epoch, order)
            chosen.append(int(self._epoch[1][index]))
        return chosen

    def __call__(self, number: int) -> MatryoshkaBatch:
        """The batch of that number.

        Raises:
            ImageError: If an image cannot be read.
            DataError: If a question alone does not fit the context.
            MismatchError: If the template has no words for a conversation.
        """
        chosen = [self.conversations[row] for row in self.rows(number)]
        blind = [one.image is None for one in chosen]
        turns = [self._turns(one) for one in chosen]
        return MatryoshkaBatch(
            images=self._pixels(chosen),
            text=pack(
                turns, before=self.text.before, pad=self._pad, conversations=True, blind=blind
            ),
        )

    def _turns(self, conversation: Conversation) -> Turns:
        room = self._room[conversation.image is None]
        turns = shortened(self.text(conversation), room)
        if not turns:
            raise DataError(
                f"conversation {conversation.id!r}: its first question leaves no room for an "
                f"answer within the {room} text tokens of the model's context; leave it out"
            )
        return turns

    def _pixels(self, chosen: Sequence[Conversation]) -> torch.Tensor:
        """Images as pixels, zeros where there is none, (B, 3, side, side)."""
        pixels = torch.zeros(len(chosen), 3, self._side, self._side)
        seen = [place for place, one in enumerate(chosen) if one.image is not None]
        if seen:
            names = [str(chosen[place].image) for place in seen]
            images = [open_image(file_in(self.images, name)) for name in names]
            pixels[seen] = torch.stack([self._prepare(image) for image in images])
        return pixels

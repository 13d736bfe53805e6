"""Answers of one model that grow by a token a step, in a batch that questions join and leave."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from m3router.m3core.matryoshka.base import Answer
from m3router.m3core.matryoshka.decoding import Decoded, DecodingState

_BROKEN = "\N{REPLACEMENT CHARACTER}"


@dataclass(kw_only=True, eq=False)
class TokenAnswer:
    """One answer of a model, an ``IncrementalAnswer`` of ``m3router.m3core.matryoshka.base``.

    Attributes:
        decoded: Tokens so far.
        visual_tokens: Tokens that the language model received from the image.
        text_tokens: All other prompt tokens.
        tokenizer: Of the model.
        ends: Ids that end an answer.
    """

    decoded: Decoded
    visual_tokens: int
    text_tokens: int
    tokenizer: PreTrainedTokenizerBase
    ends: Collection[int]

    @property
    def ended(self) -> bool:
        """Whether nothing follows any more."""
        return self.decoded.ended

    def give_up(self) -> None:
        """Let the answer leave its batch."""
        self.decoded.ended = True

    @property
    def whole(self) -> bool:
        """Whether the model itself ended it."""
        return is_whole(self.decoded, self.ends)

    def settled(self) -> str:
        """The text so far that no later token can change."""
        return self.so_far().rstrip()

    def so_far(self) -> str:
        """The same with blanks at its end, which are not part of an answer that ends there."""
        text: str = self.tokenizer.decode(self.decoded.tokens, skip_special_tokens=True)
        return text.lstrip().rstrip(_BROKEN)  # a character may need several tokens

    def answer(self) -> Answer:
        """The answer as it stands."""
        return answer_of(
            text_of(self.tokenizer, self.decoded),
            self.decoded,
            visual=self.visual_tokens,
            text_tokens=self.text_tokens,
            ends=self.ends,
        )


class TokenAnswers:
    """A batch of them, :class:`m3router.m3core.matryoshka.base.IncrementalAnswers`.

    Args:
        decoding: What grows.
        rows: An answer for each of its rows.
    """

    def __init__(self, decoding: DecodingState, rows: list[TokenAnswer]) -> None:
        self.rows = rows
        self._decoding = decoding

    def step(self) -> None:
        """One more token for each row that has not ended."""
        self._decoding.step()
        self.rows = [row for row in self.rows if not row.ended]

    def join(self, other: TokenAnswers) -> None:
        """Take in another batch, which is used up."""
        self._decoding.join(other._decoding)
        self.rows = self.rows + other.rows


def text_of(tokenizer: PreTrainedTokenizerBase, decoded: Decoded) -> str:
    """The text of generated tokens, stripped."""
    text: str = tokenizer.decode(decoded.tokens, skip_special_tokens=True)
    return text.strip()


def is_whole(decoded: Decoded, ends: Collection[int]) -> bool:
    """Whether an answer's last token is one that ends answers."""
    return bool(decoded.tokens) and decoded.tokens[-1] in ends


def answer_of(
    text: str, decoded: Decoded, *, visual: int, text_tokens: int, ends: Collection[int]
) -> Answer:
    """An answer from its tokens.

    Args:
        text: What they say.
        decoded: At least one token.
        visual: Visual tokens of the prompt.
        text_tokens: All others.
        ends: Ids that end an answer.
    """
    return Answer(
        text=text,
        logprob=sum(decoded.logprobs),
        confidence=math.exp(decoded.logprobs[0]),
        answer_tokens=len(decoded.tokens),
        visual_tokens=visual,
        text_tokens=text_tokens,
        cut=not is_whole(decoded, ends),
    )

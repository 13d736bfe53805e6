"""Puts an answer together from what a server says piece by piece."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from m3router.m3core.matryoshka.base import Answer, Request
from m3router.router.serve.backends.backend import UnavailableError
from m3router.router.serve.backends.vllm.protocol import Heard


@dataclass(kw_only=True)
class StreamAccumulator:
    """An answer that is being said.

    Attributes:
        raw: Its text so far, as it came.
        sent: How many characters of the stripped text were passed on.
        logprobs: Of its tokens.
        prompt_tokens: Tokens that the server read.
        answer_tokens: Tokens that it answered with.
        reason: Why it ended.
    """

    raw: str = ""
    sent: int = 0
    logprobs: list[float] = field(default_factory=list)
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    reason: str | None = None

    def hear(self, heard: Heard) -> str:
        """Take in a piece; gives the text that is new, without spaces at the answer's ends.

        Spaces wait for what follows them.
        """
        self.raw += heard.text
        self.logprobs += heard.logprobs
        self.reason = heard.reason or self.reason
        if heard.prompt_tokens is not None:
            self.prompt_tokens, self.answer_tokens = heard.prompt_tokens, heard.answer_tokens
        text = self.raw.strip()
        new, self.sent = text[self.sent :], len(text)
        return new

    def check(self, prompt_tokens: int) -> None:
        """Refuse an answer to another prompt, or one that is told in part.

        Args:
            prompt_tokens: As many as the model here would have read.

        Raises:
            UnavailableError: If the server read another number, or does not say how likely each
                token was.
        """
        if self.prompt_tokens != prompt_tokens:
            raise UnavailableError(
                f"the vLLM server read {self.prompt_tokens} prompt tokens where the model has "
                f"{prompt_tokens}; start it with this project's chat template "
                "(m3router.router.serve.backends.vllm.prompt.chat_template) and the model's own "
                "folder"
            )
        if not self.logprobs or len(self.logprobs) != self.answer_tokens:
            raise UnavailableError(
                f"the vLLM server returned {len(self.logprobs)} log-probabilities for "
                f"{self.answer_tokens} tokens; each must have one"
            )
        if self.reason not in ("stop", "length"):
            raise UnavailableError(f"the vLLM server ended an answer for {self.reason!r}")

    def answer(self, request: Request) -> Answer:
        """The whole answer to a request, after :meth:`check`."""
        visual = request.encoding.tokens(request.scale)
        return Answer(
            text=self.raw.strip(),
            logprob=sum(self.logprobs),
            confidence=math.exp(self.logprobs[0]),
            answer_tokens=len(self.logprobs),
            visual_tokens=visual,
            text_tokens=(self.prompt_tokens or 0) - visual,
            cut=self.reason == "length",
        )

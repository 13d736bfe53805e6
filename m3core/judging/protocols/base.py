"""What a protocol is: prompts, how a reply becomes a score, and what the benchmark reports."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from m3router.data.errors import DataError

MOST_LETTERS = 20_000
"""Longer replies are not read: no protocol asks for so much."""
PLACES = ("question", "reference", "answer", "context")
"""What a prompt may hold in braces."""

_PLACE = re.compile("|".join(rf"\{{{name}\}}" for name in PLACES))
_NUMBER = re.compile(r"[+-]?(\d{1,15}(\.\d{0,15})?|\.\d{1,15})")


@dataclass(frozen=True, kw_only=True)
class JudgeRequest:
    """One answer to be judged.

    Attributes:
        question: As the model was asked.
        references: The reference answers, at least one.
        answer: What the model answered; may be empty.
        context: What the judge, who sees no image, is told of it, such as a caption; else empty.
    """

    question: str
    references: tuple[str, ...]
    answer: str
    context: str = ""


@dataclass(frozen=True, kw_only=True)
class Grade:
    """What a reply says.

    Attributes:
        score: In [0, 1]; what the log keeps.
        numbers: The protocol's own numbers, from which it computes what it publishes.
    """

    score: float
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a benchmark is judged.

    Attributes:
        name: A key of :data:`m3router.m3core.judging.protocols.table.PROTOCOLS`.
        source: Where it is published: repository, file, commit and licence of the text.
        judge: The model that published numbers were judged by.
        system: The system message; empty for none.
        prompt: The user's message, with the places :data:`PLACES` in braces.
        again: Added to the user's message where the first reply could not be read; empty for not
            asking again.
        question: Turns the question of a log into what the judge is shown.
        reference: Turns reference answers into one text.
        parse: Reads a reply; None where it cannot be read.
        summary: What the benchmark publishes of one option, from the data set and the numbers of
            each verdict; see :func:`published`.
        max_tokens: Tokens of the longest reply.
        needs_context: Whether the judge must be told what the image shows.
        deviations: How this differs from what is published, a sentence each.
    """

    name: str
    source: str
    judge: str
    prompt: str
    parse: Callable[[str], Grade | None]
    summary: Callable[[Sequence[tuple[str, Mapping[str, float]]]], dict[str, float]]
    max_tokens: int
    system: str = ""
    again: str = ""
    question: Callable[[str], str] = str
    reference: Callable[[Sequence[str]], str] = " or ".join
    needs_context: bool = False
    deviations: tuple[str, ...] = ()

    @property
    def prompt_sha256(self) -> str:
        """SHA-256 of all that the judge is told besides the answer, 64 hexadecimal digits."""
        told = json.dumps([self.system, self.prompt, self.again]).encode("ascii")
        return hashlib.sha256(told).hexdigest()

    def messages(self, request: JudgeRequest, *, again: bool = False) -> list[dict[str, str]]:
        """The messages of a chat, which is the same for the same request."""
        values = {
            "{question}": self.question(request.question),
            "{reference}": self.reference(request.references),
            "{answer}": request.answer,
            "{context}": request.context,
        }
        # In one pass, so that a place that stands in an answer is left as it is.
        told = _PLACE.sub(lambda place: values[place[0]], self.prompt)
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": told + (self.again if again else "")}]

    def with_prompt(self, text: str) -> Protocol:
        """The protocol with another user's message; replies are read as before.

        Raises:
            DataError: It has no place for the answer, or none for a reference.
        """
        missing = [name for name in ("reference", "answer") if f"{{{name}}}" not in text]
        if missing:
            raise DataError(
                f"A judge's prompt needs {{{missing[0]}}}, in braces, where the {missing[0]} is to "
                f"stand. It may hold {', '.join(f'{{{name}}}' for name in PLACES)}."
            )
        said = "The user's message is another one than the published."
        return replace(self, prompt=text, deviations=(*self.deviations, said))


def number_in(text: str) -> float | None:
    """Read a plain decimal number; None where the text is anything else.

    >>> [number_in(text) for text in ("0.5", "-1", "1e3", "nan", "1_0")]
    [0.5, -1.0, None, None, None]
    """
    return float(text) if text.isascii() and _NUMBER.fullmatch(text) else None


def mean(values: Sequence[float]) -> float:
    """The mean of at least one number."""
    return sum(values) / len(values)

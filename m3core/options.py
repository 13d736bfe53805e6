"""Models that can be asked the same question at several options: the words and the protocol.

An *option* is one way to ask: a scale of a Matryoshka model, a visual budget, a resolution, another
model. It has a name and a rank; what it costs is measured for every question (:class:`Usage`),
because budgets are upper bounds, small images tie, and crops depend on an image's shape.

Every model of this project satisfies :class:`OptionModel`: Matryoshka models
(:mod:`m3router.m3core.matryoshka`, which have a faster way of their own), current vision-language
models by visual budget (:mod:`m3router.m3core.vlm`), endpoints (:mod:`m3router.m3core.endpoint`)
and any Python function (:mod:`m3router.m3core.functions`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol, runtime_checkable

from PIL import Image

from m3router.data.errors import MismatchError
from m3router.data.registry import unknown_name

Source = Literal["counted", "reported", "derived"]
"""Where a number of image tokens comes from: counted in the prompt that was built here, reported by
a server, or derived as the difference to a request without the image."""


EMPTY_QUESTION = "the question is empty; ask something"
SPEC = "spec"
"""Key of a log's metadata: from what its model can be made again, see :class:`OptionModel`."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """One way to ask a model.

    Attributes:
        name: What logs, policies and users call it.
        rank: Its place from the coarsest, 0, to the finest; what an option costs for an image is
            in :class:`Usage`, and may order two options the other way round.
    """

    name: str
    rank: int


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What one answer cost; None where it is not known.

    Attributes:
        cost: In the model's ``cost_unit``.
        image_tokens: All tokens that stand for the image in the prompt, markers included.
        image_tokens_from: Where ``image_tokens`` comes from.
        prompt_tokens: The whole prompt, those of the image included.
        cached_tokens: Those of the prompt that a server had read before.
        answer_tokens: Tokens of the answer, its end included.
        tower_flops: Floating-point operations of vision tower and connector for this image.
        language_flops: Those of the language model, its prefill included.
        seconds: Wall-clock time of the answer; what a batch took is shared equally.
        attempts: Requests that were sent for it, at least 1.
        pixels: Width times height of the image as it was sent or shown to the tower.
        price: Money, in the unit of the prices that were given.
    """

    cost: float | None = None
    image_tokens: int | None = None
    image_tokens_from: Source | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    answer_tokens: int | None = None
    tower_flops: float | None = None
    language_flops: float | None = None
    seconds: float | None = None
    attempts: int | None = None
    pixels: int | None = None
    price: float | None = None


def total_usage(usages: Iterable[Usage]) -> Usage:
    """What several answers cost together; what is not known of one is not known of all.

    >>> total_usage([Usage(cost=1.0, image_tokens=64), Usage(cost=2.0)]).cost
    3.0
    """
    several = list(usages)
    if len(several) == 1:
        return several[0]
    totals: dict[str, Any] = {}
    for name in (field.name for field in fields(Usage)):
        values = [getattr(one, name) for one in several]
        if name == "image_tokens_from":
            totals[name] = values[0] if len(set(values)) == 1 else None
        else:
            totals[name] = None if None in values else sum(values)
    return Usage(**totals)


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """One question about one image at one option; equal only to itself.

    Attributes:
        image: RGB. Requests with the same object share what a model can share between them.
        question: What is asked, not empty.
        option: Name of one of the model's options.
        max_new_tokens: Tokens of the longest answer, at least 1; None for the model's own limit.
    """

    image: Image.Image
    question: str
    option: str
    max_new_tokens: int | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What was answered.

    Attributes:
        text: The answer, stripped.
        usage: What it cost.
        confidence: Probability of the answer's first token, in [0, 1]; None where unknown.
        logprob: Sum of the natural-log probabilities of the answer's tokens; None where unknown.
        cut: Whether its longest length ended it, and not the model; None where unknown.
    """

    text: str
    usage: Usage
    confidence: float | None = None
    logprob: float | None = None
    cut: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a request has no answer; becomes an error record, never a wrong answer.

    Attributes:
        message: What happened and what to do, one sentence or two.
        usage: What it cost all the same; None where nothing did.
    """

    message: str
    usage: Usage | None = None


@runtime_checkable
class OptionModel(Protocol):
    """A frozen model that answers at several options.

    What fails for one request is a :class:`Failure`; what fails for all of them (a wrong key, no
    such model) is raised as :class:`m3router.data.errors.ModelError`.

    Attributes:
        name: How the user called it.
        revision: Hash of all that decides its answers; logs of different revisions never mix.
        max_new_tokens: Tokens of its longest answer, where a request names no other limit.
        options: Coarsest first, at least two for a router.
        cost_unit: What ``Usage.cost`` counts, such as ``"image tokens"``.
        provenance: What made the answers, for the log: backend, versions, prompt, how images were
            encoded, number format; JSON values, no secrets.
        spec: From which :func:`m3router.m3core.opening.reopen` makes the same model again; JSON
            values with the key ``kind``, no secrets.
    """

    name: str
    revision: str
    max_new_tokens: int

    @property
    def options(self) -> tuple[Option, ...]:
        """Coarsest first."""
        ...

    @property
    def cost_unit(self) -> str:
        """What ``Usage.cost`` counts."""
        ...

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What made the answers."""
        ...

    @property
    def spec(self) -> Mapping[str, Any]:
        """How to make the same model again."""
        ...

    def count(self, image: Image.Image, option: str) -> Usage:
        """What is known of a cost before anything is asked, without running the model.

        Raises:
            MismatchError: If there is no such option.
        """
        ...

    def answer(self, requests: Sequence[Request]) -> list[Answer | Failure]:
        """Answer requests, in their order; images, options and questions may be mixed.

        Raises:
            MismatchError: If there is no such option.
            ModelError: If nothing can be asked any more.
        """
        ...


@runtime_checkable
class StreamingOptionModel(OptionModel, Protocol):
    """A model that answers many requests at once, each when it is ready: a server's client."""

    def answer_each(
        self, requests: Iterable[Request]
    ) -> Iterator[tuple[Request, Answer | Failure]]:
        """Answer requests in any order, as the answers come.

        Requests are taken from the iterable only when there is room for another one in flight, so
        whoever wants to stop ends the iterable, and receives what is still in flight.

        Raises:
            ModelError: If nothing can be asked any more; what was in flight was given before.
        """
        ...


def options_named(names: Iterable[str]) -> tuple[Option, ...]:
    """Options in their order from the coarsest.

    >>> options_named(["low", "high"])
    (Option(name='low', rank=0), Option(name='high', rank=1))

    Raises:
        MismatchError: If there is none, or a name is empty or comes twice.
    """
    listed = list(names)
    if not listed:
        raise MismatchError("a model needs at least one option, got none")
    for name in listed:
        if not name or name != name.strip():
            raise MismatchError(f"an option's name must be a text without outer spaces: {name!r}")
    if len(set(listed)) < len(listed):
        twice = next(name for name in listed if listed.count(name) > 1)
        raise MismatchError(f"the option {twice!r} is there twice: give each another name")
    return tuple(Option(name=name, rank=rank) for rank, name in enumerate(listed))


def check_option(model: OptionModel, name: str) -> Option:
    """The model's option of this name.

    Raises:
        MismatchError: Naming the nearest and the known ones.
    """
    known = {option.name: option for option in model.options}
    if name not in known:
        raise MismatchError(unknown_name("option", name, known))
    return known[name]

"""Group requests into batches that compute little twice and hold little padding."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import torch

from m3router.data.errors import DataError
from m3router.m3core.cost.operations import Numbers
from m3router.m3core.matryoshka.base import Answer, MultiScaleModel, Peek, Request

BATCH_TOKENS = 8_192
BATCH_REQUESTS = 64
MOST_REQUESTS = 1024
"""On a GPU."""
PADDING_SHARE = 0.1
"""A batch is closed rather than let padding be more than this share of what it computes..."""
CALL = 1_024
"""...or more than this: a batch of its own costs about as much as so many tokens of prefill
(embedded model, two cores: four calls of the model)."""

KEPT_FREE = 64
"""Most positions kept free for an answer: few are as long as they may be."""

Result = TypeVar("Result")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Need:
    """What a request adds to a batch.

    Attributes:
        prefix: What stands before its question, as numbers of image and scale; requests of one
            batch share it.
        shared: Tokens of that prefix.
        own: Tokens of the question.
        answer: Tokens kept free for the answer.
    """

    prefix: tuple[int, int]
    shared: int
    own: int
    answer: int = 0


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a batch computes.

    Attributes:
        requests: How many.
        used: Positions of prefixes and questions, without padding.
    """

    requests: int = 0
    used: int = 0
    prefixes: frozenset[tuple[int, int]] = frozenset()
    shared: int = 0
    own: int = 0
    answer: int = 0

    def plus(self, need: Need) -> Load:
        """The load with one more request."""
        fresh = need.prefix not in self.prefixes
        return Load(
            requests=self.requests + 1,
            used=self.used + need.own + (need.shared if fresh else 0),
            prefixes=self.prefixes | {need.prefix},
            shared=max(self.shared, need.shared),
            own=max(self.own, need.own),
            answer=max(self.answer, need.answer),
        )

    @property
    def padded(self) -> int:
        """Positions computed, padding included."""
        return len(self.prefixes) * self.shared + self.requests * self.own

    @property
    def held(self) -> int:
        """Positions whose keys and values are kept at once."""
        return self.requests * (self.shared + self.own + self.answer)


@dataclass(kw_only=True)
class Limits:
    """How much a batch may hold; made smaller when memory runs out.

    Attributes:
        tokens: Positions computed in one call.
        requests: Requests.
        held: Positions whose keys and values are kept at once.
    """

    tokens: int = BATCH_TOKENS
    requests: int = BATCH_REQUESTS
    held: int = 8 * BATCH_TOKENS

    def allow(self, load: Load) -> bool:
        """Whether a batch may be like this."""
        within = load.padded <= self.tokens and load.held <= self.held
        padding = load.padded - load.used
        dense = padding <= max(PADDING_SHARE * load.padded, CALL)
        return within and load.requests <= self.requests and dense

    def shrink(self, load: Load) -> None:
        """From now on allow half of what did not fit into memory."""
        self.tokens = max(1, min(self.tokens, load.padded // 2))
        self.held = max(1, min(self.held, load.held // 2))


def limits_for(model: MultiScaleModel, *, tokens: int | None = None) -> Limits:
    """What a batch of a model may hold on its device.

    On a GPU, keys and values may take half of the memory that is free; a quarter of it is for
    what one call computes. Where that is too much, batches shrink by themselves.

    Args:
        model: The loaded model.
        tokens: Most positions computed in one call; None for what fits.
    """
    limits = Limits()
    device = getattr(getattr(model, "model", None), "device", torch.device("cpu"))
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        numbers = Numbers(dtype=model.dtype)
        cache = model.shape.text.cache_bytes(1, numbers)
        limits = Limits(
            tokens=max(1, int(free / 4 / model.shape.activation_bytes(1, numbers))),
            held=max(1, int(free / 2 / cache)),
            requests=MOST_REQUESTS,
        )
    return limits if tokens is None else replace(limits, tokens=tokens)


def batches(needs: Sequence[Need], limits: Limits) -> list[list[int]]:
    """Split requests into batches.

    For prefixes of each length two orders are tried and the cheaper one is taken: questions sorted
    by their length, which saves padding, and questions of one image together, which saves
    prefixes. At coarse scales prefixes are shorter than questions, at fine ones longer.

    Args:
        needs: What each request needs.
        limits: What a batch may hold; a request that is larger has a batch of its own.

    Returns:
        Indices into ``needs``, shortest prefixes first; each index exactly once.
    """
    groups: dict[int, list[int]] = {}
    for index in sorted(range(len(needs)), key=lambda i: (needs[i].shared, needs[i].own, i)):
        groups.setdefault(needs[index].shared, []).append(index)
    order: list[int] = []
    for by_length in groups.values():
        by_prefix = sorted(by_length, key=lambda i: (needs[i].prefix, needs[i].own, i))
        costs = [_cost(_cut(one, needs, limits), needs) for one in (by_length, by_prefix)]
        order += by_length if costs[0] <= costs[1] else by_prefix
    return list(_cut(order, needs, limits))


def _cost(plan: Iterable[Sequence[int]], needs: Sequence[Need]) -> int:
    """Tokens that a plan computes, its calls included."""
    return sum(load_of(batch, needs).padded + CALL for batch in plan)


def load_of(batch: Iterable[int], needs: Sequence[Need]) -> Load:
    """What the requests of these indices compute together."""
    load = Load()
    for index in batch:
        load = load.plus(needs[index])
    return load


def _cut(order: Sequence[int], needs: Sequence[Need], limits: Limits) -> Iterator[list[int]]:
    batch: list[int] = []
    load = Load()
    for index in order:
        more = load.plus(needs[index])
        if batch and not limits.allow(more):
            yield batch
            batch, more = [], Load().plus(needs[index])
        batch.append(index)
        load = more
    if batch:
        yield batch


def needs_of(model: MultiScaleModel, requests: Sequence[Request]) -> list[Need]:
    """What requests need. Images are numbered as they appear, so that equal runs batch equally.

    Raises:
        MismatchError: If the model has no such scale.
        DataError: If a question is empty or does not fit the context.
    """
    numbers: dict[int, int] = {}
    needs = []
    for request in requests:
        visual = request.encoding.tokens(model.check_scale(request.scale))
        length = model.prompt_length(request.question, visual)
        number = numbers.setdefault(id(request.encoding), len(numbers))
        kept = min(KEPT_FREE, request.max_new_tokens or model.max_new_tokens)
        prefix = (number, request.scale)
        needs.append(Need(prefix=prefix, shared=visual, own=length - visual, answer=kept))
    return needs


@dataclass(frozen=True, kw_only=True)
class Batch(Generic[Result]):
    """A batch that was tried.

    Attributes:
        indices: Which requests.
        load: What it computed.
        answers: What the model said, or its peeks, in the order of ``indices``.
        error: Why there are no answers.
    """

    indices: list[int]
    load: Load
    answers: list[Result]
    error: str | None = None


def answer_in_batches(
    model: MultiScaleModel, requests: Sequence[Request], limits: Limits
) -> Iterator[Batch[Answer]]:
    """Answer any number of requests, whatever fits into memory at once.

    Where memory runs out, ``limits`` are made smaller and what is not yet answered is split anew;
    a request that does not even fit alone has an error instead of an answer.

    Args:
        model: The model.
        requests: In any order.
        limits: What a batch may hold.

    Raises:
        MismatchError: If the model has no such scale.
        DataError: If a question is empty or does not fit the context.
    """
    needs = needs_of(model, requests)
    return in_batches(needs, lambda batch: model.answer([requests[i] for i in batch]), limits)


def peek_in_batches(
    model: MultiScaleModel, requests: Sequence[Request], limits: Limits
) -> Iterator[Batch[Peek]]:
    """Peek at any number of requests; see :func:`answer_in_batches`.

    What a batch of peeks holds is freed when the caller lets go of it, so finish what is to be
    answered from there before the next batch.
    """
    needs = needs_of(model, requests)
    return in_batches(needs, lambda batch: model.peek([requests[i] for i in batch]), limits)


def in_batches(
    needs: Sequence[Need], ask: Callable[[list[int]], list[Result]], limits: Limits
) -> Iterator[Batch[Result]]:
    """Ask batch after batch; smaller ones where memory runs out.

    Args:
        needs: What each request needs.
        ask: From indices into ``needs`` to their results, in the same order.
        limits: What a batch may hold; made smaller when memory runs out.

    Yields:
        Batches, each index in exactly one; a request that does not fit into memory alone has an
        error.
    """
    waiting: list[list[int]] = batches(needs, limits)
    while waiting:
        batch = waiting.pop(0)
        load = load_of(batch, needs)
        try:
            found = ask(batch)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if len(batch) == 1:
                text = f"out of memory with this request alone ({load.padded} tokens)"
                yield Batch(indices=batch, load=load, answers=[], error=text)
                continue
            limits.shrink(load)
            left = sorted(index for part in [batch, *waiting] for index in part)
        else:
            yield Batch(indices=batch, load=load, answers=found)
            continue
        # Outside the handler: the traceback would keep the failed batch's tensors alive.
        logger.warning("out of memory at %d tokens; going on with %d", load.padded, limits.tokens)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        again = batches([needs[index] for index in left], limits)
        waiting = [[left[place] for place in part] for part in again]


def answer_all(
    model: MultiScaleModel, requests: Sequence[Request], limits: Limits | None = None
) -> list[Answer]:
    """Answer any number of requests, in the order of the requests.

    Raises:
        MismatchError: If the model has no such scale.
        DataError: If a question is empty or does not fit the context, or a request alone does
            not fit into memory.
    """
    answers: dict[int, Answer] = {}
    for batch in answer_in_batches(model, requests, limits or Limits()):
        if batch.error:
            raise DataError(f"{batch.error}; choose a coarser scale or a smaller number format")
        answers.update(zip(batch.indices, batch.answers, strict=True))
    return [answers[index] for index in range(len(requests))]


def out_of_memory(error: BaseException) -> bool:
    """Whether a GPU's or this machine's memory was too small."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return "can't allocate memory" in str(error)  # what PyTorch says on a CPU

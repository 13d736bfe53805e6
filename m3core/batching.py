"""Group requests so that batches hold little padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from m3core.models.base import Answer, MultiScaleModel, Request

BATCH_TOKENS = 8_192
BATCH_REQUESTS = 64
SPLIT_TOKENS = 512
"""A batch is closed rather than let a longer request pad the others by more than this in all.

One more call of the model costs about as much as this many tokens of prefill (embedded model,
two cores; larger models are less sensitive, as their calls' fixed share is smaller).
"""

FULL_TOKENS = 2_048
"""From this many tokens on, a batch takes only requests of its own length.

Without padding no mask is needed, and attention without a mask is a quarter faster.
"""


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Split requests into batches of similar length.

    Args:
        lengths: Prompt tokens of each request.

    Yields:
        Indices into ``lengths``, shortest first; each index exactly once. Requests that share a
        batch take at most ``BATCH_TOKENS`` padded tokens together and are at most
        ``BATCH_REQUESTS``; a request that is longer by itself has a batch of its own.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda one: (lengths[one], one)):
        length = lengths[index]
        if batch and (
            (len(batch) + 1) * length > BATCH_TOKENS
            or len(batch) * (length - lengths[batch[-1]]) > SPLIT_TOKENS
            or (length > lengths[batch[-1]] and len(batch) * length > FULL_TOKENS)
            or len(batch) == BATCH_REQUESTS
        ):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def answer_all(model: MultiScaleModel, requests: Sequence[Request]) -> list[Answer]:
    """Answer any number of requests, batched by length; in the order of the requests.

    Raises:
        MismatchError: If the model has no such scale.
        DataError: If a question is empty or does not fit the context.
    """
    lengths = [
        model.prompt_length(one.question, one.encoding.tokens(model.check_scale(one.scale)))
        for one in requests
    ]
    answers: dict[int, Answer] = {}
    for batch in batches(lengths):
        for index, answer in zip(
            batch, model.answer([requests[index] for index in batch]), strict=True
        ):
            answers[index] = answer
    return [answers[index] for index in range(len(requests))]

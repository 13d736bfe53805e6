"""What holds of the peeks of every family."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest

from m3router.m3core.matryoshka.base import Request


@contextmanager
def positions_read(model):
    """Collects (rows, positions) of every forward pass of the language model."""
    read = []
    first = model.model.get_decoder().layers[0]
    hook = first.register_forward_pre_hook(lambda _, args: read.append(tuple(args[0].shape[:2])))
    try:
        yield read
    finally:
        hook.remove()


def check_peeks(model, images, questions):
    """Finished peeks are the model's answers, batches do not matter, and no prompt is read twice.

    Args:
        model: A family of LLaVA models.
        images: Some images.
        questions: Each is asked of each of them.
    """
    coarsest = model.grid.scales[0]
    requests = [
        Request(encoding=encoding, question=question, scale=coarsest)
        for encoding in model.encode(images)
        for question in questions
    ]
    answers = model.answer(requests)
    with positions_read(model) as reading:
        peeks = model.peek(requests)
    with positions_read(model) as decoding:
        finished = model.finish(peeks)
    assert finished == answers  # to the last bit: the same batch
    assert sum(rows * length for rows, length in reading) > len(requests)
    assert {length for _, length in decoding} <= {1}
    assert len(decoding) == max(answer.answer_tokens for answer in answers) - 1

    some = list(range(len(requests) - 1, -1, -2))
    for _ in range(2):  # a peek can be finished again
        again = model.finish([peeks[place] for place in some])
        assert [one.text for one in again] == [answers[place].text for place in some]
        assert [one.answer_tokens for one in again] == [answers[p].answer_tokens for p in some]
        for one, place in zip(again, some, strict=True):
            assert one.logprob == pytest.approx(answers[place].logprob, abs=1e-3)

    alone = [model.peek([request])[0] for request in requests]
    for one, peek, answer in zip(alone, peeks, answers, strict=True):
        np.testing.assert_allclose(one.middle, peek.middle, atol=2e-3, rtol=1e-3)
        np.testing.assert_allclose(one.last, peek.last, atol=2e-3, rtol=1e-3)
        np.testing.assert_allclose(one.top_logprobs, peek.top_logprobs, atol=1e-3)
        assert one.entropy == pytest.approx(peek.entropy, abs=1e-3)
        assert np.exp(peek.top_logprobs[0]) == pytest.approx(answer.confidence, rel=1e-4)
        assert (peek.visual_tokens, peek.text_tokens) == (answer.visual_tokens, answer.text_tokens)
    mixed = model.finish([alone[0], peeks[1], alone[2]])  # of several batches
    assert [one.text for one in mixed] == [answer.text for answer in answers[:3]]

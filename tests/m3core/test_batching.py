from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from m3router.data.errors import DataError
from m3router.m3core.matryoshka.base import Request
from m3router.m3core.matryoshka.batching import (
    CALL,
    PADDING_SHARE,
    Limits,
    Need,
    answer_all,
    answer_in_batches,
    batches,
    load_of,
)
from m3router.m3core.matryoshka.models.fake import FakeModel

SHARED = {1: 1, 2: 37, 3: 37, 4: 577, 5: 577, 6: 601, 7: 20_000}
NEEDS = st.lists(
    st.builds(
        lambda image, own: Need(prefix=(image, 0), shared=SHARED[image], own=own),
        st.sampled_from(sorted(SHARED)),
        st.integers(1, 300),
    ),
    max_size=150,
)
LIMITS = st.builds(
    Limits,
    tokens=st.integers(1, 20_000),
    requests=st.integers(1, 64),
    held=st.integers(1, 100_000),
)


def counted(batch, needs):
    """Padded and used positions of a batch, counted the slow way."""
    prefixes = {needs[i].prefix: needs[i].shared for i in batch}
    padded = len(prefixes) * max(prefixes.values()) + len(batch) * max(needs[i].own for i in batch)
    return padded, sum(prefixes.values()) + sum(needs[i].own for i in batch)


@given(NEEDS, LIMITS)
def test_every_request_is_in_exactly_one_batch_within_the_limits(needs, limits):
    found = batches(needs, limits)
    assert sorted(index for batch in found for index in batch) == list(range(len(needs)))
    for batch in found:
        padded, used = counted(batch, needs)
        load = load_of(batch, needs)
        assert (load.padded, load.used, load.requests) == (padded, used, len(batch))
        assert len(batch) == 1 or (
            padded <= limits.tokens
            and len(batch) <= limits.requests
            and load.held <= limits.held
            and padded - used <= max(CALL, PADDING_SHARE * padded)
        )


def test_questions_about_a_image_share_its_tokens_where_these_are_many():
    lengths = [10, 30, 50]
    fine = [Need(prefix=(p, 576), shared=577, own=own) for own in lengths for p in range(40)]
    for batch in batches(fine, Limits()):
        images = {fine[i].prefix for i in batch}
        assert len(batch) == 3 * len(images)  # no image is computed twice


@pytest.mark.parametrize("per_image", [1, 3, 12])
def test_padding_stays_under_a_tenth_of_what_a_chunk_computes(per_image):
    random = np.random.default_rng(per_image)
    needs = [
        Need(prefix=(image, scale), shared=scale, own=int(own))
        for image in range(16)
        for own in random.integers(8, 17, per_image)
        for scale in (1, 9, 36, 144, 576)
    ]
    loads = [counted(batch, needs) for batch in batches(needs, Limits())]
    padded, used = (sum(column) for column in zip(*loads, strict=True))
    assert padded - used < 0.1 * padded


@given(NEEDS)
def test_the_cheaper_of_both_orders_is_taken(needs):
    def cost(plan):
        return sum(counted(batch, needs)[0] + CALL for batch in plan)

    alone = [[index] for index in range(len(needs))]
    assert cost(batches(needs, Limits())) <= cost(alone)


def requests(model, count=40):
    images = [Image.new("RGB", (8, 8), (5 * n, 0, 0)) for n in range(4)]
    encodings = model.encode(images)
    return [
        Request(encoding=encodings[n % 4], question="Why? " * (1 + n % 7), scale=scale)
        for n in range(count)
        for scale in (576, 1, 144)
    ]


def test_answers_come_in_the_order_of_the_requests():
    model = FakeModel()
    asked = requests(model)
    assert answer_all(model, asked) == [model.answer([one])[0] for one in asked]
    assert answer_all(model, []) == []


def test_batches_do_not_depend_on_where_encodings_lie_in_memory():
    model = FakeModel()
    image = Image.new("RGB", (8, 8))
    encodings = [model.encode([image])[0] for _ in range(20)]
    plans = []
    for order in (encodings, encodings[::-1]):
        asked = [
            Request(encoding=one, question="Why? " * (1 + number), scale=576)
            for one in order
            for number in range(4)
        ]
        plans.append([batch.indices for batch in answer_in_batches(model, asked, Limits())])
    assert plans[0] == plans[1]


class Small(FakeModel):
    """A device whose memory holds so many positions; it fails as CUDA or as a CPU does."""

    def __init__(self, room: int, error: Exception) -> None:
        super().__init__()
        self.room = room
        self.error = error
        self.asked: list[Request] = []
        self.failures = 0

    def answer(self, requests):
        needs = [
            Need(
                prefix=(id(one.encoding), one.scale),
                shared=one.scale,
                own=self.prompt_length(one.question, 0),
            )
            for one in requests
        ]
        if load_of(range(len(needs)), needs).padded > self.room:
            self.failures += 1
            raise self.error
        self.asked += requests
        return super().answer(requests)


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
]


@pytest.mark.parametrize("error", ERRORS, ids=["cuda", "cpu", "python"])
def test_when_memory_runs_out_batches_shrink_and_nothing_is_lost_or_done_twice(error):
    model, limits = Small(700, error), Limits()
    asked = requests(model)
    assert answer_all(model, asked, limits) == [FakeModel().answer([one])[0] for one in asked]
    assert sorted(map(id, model.asked)) == sorted(map(id, asked))
    assert 0 < model.failures <= 5 and limits.tokens <= 700
    model.failures = 0
    answer_all(model, asked, limits)
    assert model.failures == 0  # what was learned about the device is kept


def test_a_request_that_does_not_fit_alone_is_an_error_of_its_own():
    model = Small(300, ERRORS[0])
    asked = requests(model)
    failed = [
        index
        for batch in answer_in_batches(model, asked, Limits())
        if batch.error
        for index in batch.indices
    ]
    assert {asked[index].scale for index in failed} == {576}
    assert len(failed) == 40
    with pytest.raises(DataError, match="out of memory with this request alone .*coarser scale"):
        answer_all(model, asked)


def test_other_failures_are_not_taken_for_a_lack_of_memory():
    model = Small(0, RuntimeError("device-side assert triggered"))
    with pytest.raises(RuntimeError, match="device-side assert"):
        answer_all(model, requests(model))

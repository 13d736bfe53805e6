from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from m3core.batching import BATCH_REQUESTS, BATCH_TOKENS, SPLIT_TOKENS, answer_all, batches
from m3core.models.base import Request
from m3core.models.fake import FakeModel


@given(st.lists(st.integers(1, 20_000), max_size=200))
def test_every_request_is_in_exactly_one_batch_within_the_limits(lengths):
    found = list(batches(lengths))
    assert sorted(index for batch in found for index in batch) == list(range(len(lengths)))
    for batch in found:
        longest = max(lengths[index] for index in batch)
        assert len(batch) <= BATCH_REQUESTS
        assert len(batch) == 1 or len(batch) * longest <= BATCH_TOKENS
        padding = sum(longest - lengths[index] for index in batch)
        assert padding <= len(batch) * SPLIT_TOKENS


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=60))
def test_batches_do_not_depend_on_the_order_of_requests(lengths):
    split = [sorted(lengths[index] for index in batch) for batch in batches(lengths)]
    backwards = lengths[::-1]
    assert split == [sorted(backwards[i] for i in batch) for batch in batches(backwards)]


def test_coarse_and_fine_requests_do_not_share_a_batch():
    assert list(batches([600, 12, 600, 12, 13])) == [[1, 3, 4], [0, 2]]


def test_answers_come_in_the_order_of_the_requests():
    from PIL import Image

    model = FakeModel()
    (encoding,) = model.encode([Image.new("RGB", (8, 8))])
    scales = [576, 1, 144, 1, 36]
    requests = [Request(encoding=encoding, question="Why?", scale=scale) for scale in scales]
    assert [answer.visual_tokens for answer in answer_all(model, requests)] == scales
    assert answer_all(model, []) == []

from __future__ import annotations

import pytest
import torch

from experiments.benchmarks.mqt import in_turns, plain, sliced
from m3router.m3core.matryoshka.models.query_abstractor import QueryAbstractor
from m3router.m3core.matryoshka.scales import MQT_SCALES
from tests.m3core.layouts import shaken


@pytest.mark.parametrize("batch", [1, 3])
def test_the_plain_layer_gives_what_the_fast_one_gives(batch):
    layer = shaken(QueryAbstractor(width=32, output=48), seed=4)
    patches = torch.randn(batch, 576, 32, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        fast = sliced(layer(patches))
        for tokens, ours in zip(MQT_SCALES, fast, strict=True):
            assert ours.shape == (batch, tokens, 48)
            torch.testing.assert_close(ours, plain(layer, patches, tokens), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(ours, layer(patches, tokens), rtol=1e-5, atol=1e-5)


def test_both_ways_run_equally_often_in_turns():
    calls = []
    result = in_turns(lambda: calls.append("published"), lambda: calls.append("ours"), 3)
    assert calls == ["published", "ours"] * 4
    assert result["times_faster"] == result["published_ms"] / result["ours_ms"]

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from m3router.data.errors import MismatchError
from m3router.m3core.matryoshka.pooling import average_pool
from m3router.m3core.matryoshka.scales import M3_SCALES, ScaleGrid


def block_means(tokens: np.ndarray, target: int) -> np.ndarray:
    """Independent reference: means of square blocks, written as loops."""
    side = int(round(len(tokens) ** 0.5))
    grid = tokens.reshape(side, side, -1)
    step = side // target
    rows = [
        grid[r * step : (r + 1) * step, c * step : (c + 1) * step].mean((0, 1))
        for r in range(target)
        for c in range(target)
    ]
    return np.stack(rows)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**16), scale=st.sampled_from(M3_SCALES))
def test_average_pool_is_the_mean_of_blocks_in_raster_order(seed, scale):
    tokens = np.random.default_rng(seed).normal(size=(576, 5))
    pooled = average_pool(torch.tensor(tokens), scale).numpy()
    np.testing.assert_allclose(pooled, block_means(tokens, int(scale**0.5)), atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**16), coarse=st.integers(0, 4), fine=st.integers(0, 4))
def test_pooling_is_nested(seed, coarse, fine):
    coarse, fine = sorted((M3_SCALES[coarse], M3_SCALES[fine]))
    tokens = torch.randn(2, 576, 3, generator=torch.Generator().manual_seed(seed)).double()
    directly = average_pool(tokens, coarse)
    by_way_of_fine = average_pool(average_pool(tokens, fine), coarse)
    torch.testing.assert_close(directly, by_way_of_fine)


def test_the_finest_scale_is_untouched():
    tokens = torch.randn(3, 576, 4)
    assert torch.equal(average_pool(tokens, 576), tokens)


@pytest.mark.parametrize("scale", [0, -1, 2, 25, 100, 577])
def test_a_scale_that_does_not_nest_is_refused(scale):
    with pytest.raises(MismatchError, match=f"{scale} tokens do not nest in a 24 x 24 grid"):
        average_pool(torch.zeros(576, 2), scale)


def test_tokens_that_form_no_square_are_refused():
    with pytest.raises(MismatchError, match="575 tokens, which form no square grid"):
        average_pool(torch.zeros(575, 2), 1)


def test_grid_never_replaces_a_scale_by_another():
    grid = ScaleGrid()
    assert grid.check(144) == 144
    with pytest.raises(MismatchError, match="scale 100 is not in this model's grid.*1, 9, 36"):
        grid.check(100)


@pytest.mark.parametrize(
    ("scales", "side", "message"),
    [
        ((1, 100, 576), 24, "scale 100 does not nest"),
        ((9, 1, 576), 24, "must ascend"),
        ((1, 1, 576), 24, "must ascend"),
        ((), 24, "must ascend"),
        ((0, 576), 24, "scale 0 does not nest"),
        ((1, 9), 24, "whole grid of 576"),
    ],
)
def test_an_impossible_grid_is_refused(scales, side, message):
    with pytest.raises(MismatchError, match=message):
        ScaleGrid(scales=scales, side=side)

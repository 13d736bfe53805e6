"""Anyres against Hugging Face's code, and its merges against slow loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import LlavaNextImageProcessorPil
from transformers.image_processing_utils import select_best_resolution
from transformers.models.llava_next.modeling_llava_next import unpad_image

from m3router.data.errors import MismatchError
from m3router.m3core.matryoshka.models.anyres import (
    MERGES,
    SPATIAL_UNPAD,
    CropGrid,
    choose_grid,
    crop_grids,
    cut_views,
    merge_views,
    merged_length,
    parse_grid,
    unpadded,
)
from m3router.m3core.matryoshka.pooling import POOLINGS, pool
from tests.m3core.slow import slow_merge, slow_pool

PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
"""Those of LLaVA-NeXT and of transformers' default configuration, (height, width)."""

SIZES = st.tuples(st.integers(1, 3000), st.integers(1, 3000))
GRIDS = st.builds(CropGrid, st.integers(1, 4), st.integers(1, 4))


@pytest.mark.parametrize(
    ("size", "pinpoints", "counts"),
    [
        # (height, width); the first two rows are counts of the authors' code
        ((480, 640), PINPOINTS, {1: 7, 9: 37, 36: 166, 144: 594, 576: 2340}),
        ((336, 336), PINPOINTS, {1: 4, 9: 24, 36: 78, 144: 300, 576: 1176}),
        # By hand: 3 x 3 crops of 12 x 12 tokens without padding: 144 + 36 * 37.
        ((500, 500), [[1008, 1008]], {144: 144 + 36 * 37}),
        # The same numbers read as (width, height): a tall grid, of which one row of 2 is padding
        # that a margin of (2 - 1) // 2 = 0 leaves in.
        ((336, 336), [pair[::-1] for pair in PINPOINTS], {1: 1 + 2 * 2}),
    ],
)
def test_token_counts(size, pinpoints, counts):
    grids = crop_grids(pinpoints, 336)
    grid = choose_grid(size, grids, 336)
    assert {n: merged_length(size, grid, n, SPATIAL_UNPAD) for n in counts} == counts


@settings(deadline=None)
@given(size=SIZES, picked=st.permutations(PINPOINTS), extra=st.booleans())
def test_the_grid_is_the_one_hugging_face_chooses(size, picked, extra):
    pinpoints = [*picked, [1008, 1008]] if extra else picked
    grid = choose_grid(size, crop_grids(pinpoints, 336), 336)
    assert (grid.rows * 336, grid.columns * 336) == select_best_resolution(size, pinpoints)


@settings(deadline=None)
@given(size=SIZES, cells=st.tuples(st.integers(1, 72), st.integers(1, 72)))
def test_unpadding_is_hugging_faces_but_for_its_rounding(size, cells):
    rows, columns = unpadded(size, cells)
    numbers = torch.arange(cells[0] * cells[1]).reshape(1, *cells)
    theirs = unpad_image(numbers, size)[0]
    ours = numbers[0, rows, columns]
    if ours.shape != theirs.shape:  # only where a product misses a whole number by a hair
        height, width = size
        inside = [height * (cells[1] / width), width * (cells[0] / height)]
        assert any(int(one) != int(round(one, 7)) for one in inside)
    else:
        assert torch.equal(ours, theirs)


def test_unpadding_does_not_round():
    """Where height * (48 / width) misses a whole number by a hair, the authors' int() counts."""
    found = [
        (height, width)
        for height in range(1, 120)
        for width in range(1, 120)
        for value in [height * (48 / width)]
        if width > height and int(value) != int(round(value, 7))
    ]
    assert found  # such sizes exist
    for height, width in found:
        rows, _ = unpadded((height, width), (48, 48))
        margin = (48 - int(height * (48 / width))) // 2
        assert rows == slice(margin, 48 - margin)


@settings(max_examples=150, deadline=None)
@given(
    size=SIZES,
    grid=GRIDS,
    scale=st.sampled_from((1, 4, 9, 36)),
    merge=st.sampled_from(MERGES),
    pooling=st.sampled_from(sorted(POOLINGS)),
    seed=st.integers(0, 2**16),
)
def test_the_merge_is_that_of_slow_loops(size, grid, scale, merge, pooling, seed):
    random = np.random.default_rng(seed)
    crops = random.normal(size=(1 + grid.rows * grid.columns, 36, 3))
    newline = random.normal(size=3)
    merged = merge_views(
        pool(torch.tensor(crops), scale, pooling),
        size=size,
        grid=grid,
        newline=torch.tensor(newline),
        merge=merge,
    )
    small = np.stack([slow_pool(crop, scale, pooling) for crop in crops])
    slow = slow_merge(small, size=size, grid=grid, newline=newline, merge=merge)
    np.testing.assert_allclose(merged.numpy(), np.stack(slow), atol=1e-12)
    assert merged_length(size, grid, scale, merge) == len(slow)


@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(1, 900), st.integers(1, 900)),
    seed=st.integers(0, 99),
    large=st.booleans(),
)
def test_views_are_those_of_hugging_faces_processor(size, seed, large):
    side = 48
    pinpoints = [[3 * side, 3 * side]] if large else [[a // 7, b // 7] for a, b in PINPOINTS]
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)
    image = Image.fromarray(pixels)
    grid = choose_grid(size, crop_grids(pinpoints, side), side)
    processor = LlavaNextImageProcessorPil(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_grid_pinpoints=pinpoints,
        do_normalize=False,
        do_rescale=False,
    )
    theirs = processor(image, return_tensors="np")["pixel_values"][0]
    ours = np.stack([np.asarray(view) for view in cut_views(image, grid, side)])
    np.testing.assert_array_equal(ours.transpose(0, 3, 1, 2), theirs)


def test_a_very_long_image_may_show_only_its_base():
    """2 x 2 crops of one token each: 0.02 rows of tokens are image, the rest is padding."""
    assert merged_length((10, 1000), CropGrid(2, 2), 1, SPATIAL_UNPAD) == 1
    views = torch.arange(5.0).reshape(5, 1, 1)
    merged = merge_views(
        views, size=(10, 1000), grid=CropGrid(2, 2), newline=torch.ones(1), merge=SPATIAL_UNPAD
    )
    assert merged.tolist() == [[0.0]]


@pytest.mark.parametrize("text", ["", "2", "2x", "x2", "0x2", "2x2x2", "two", "-1x2", "2 x 2"])
def test_what_is_no_grid_is_refused(text):
    with pytest.raises(MismatchError, match="is not a grid of crops"):
        parse_grid(text)


def test_pinpoints_that_are_no_whole_crops_are_refused():
    with pytest.raises(MismatchError, match="resolution 336 x 500 in image_grid_pinpoints"):
        crop_grids([[336, 336], [336, 500]], 336)
    with pytest.raises(MismatchError, match="lists no resolution"):
        crop_grids([], 336)

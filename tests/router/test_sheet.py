from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from m3router.router.visualize import contact_sheet as module
from m3router.router.visualize.contact_sheet import HEIGHT, WIDEST, Panel, sheet, wrap

COLOURS = [(200, 10 * number, 90) for number in range(12)]
LONG = "a very long answer that goes on and on " * 5


def panels(count: int, *, width: int = 384, text: str = "3") -> list[Panel]:
    return [
        Panel(image=Image.new("RGB", (width, HEIGHT), colour), title="t", note="n", text=text)
        for colour in COLOURS[:count]
    ]


@given(text=st.text(max_size=400), width=st.integers(1, 500))
def test_lines_fit_and_lose_nothing_but_white_space(text, width):
    font = module.letters(18, False)
    lines = wrap(text, 18, width)
    assert all(len(line) == 1 or font.getlength(line) <= width for line in lines if line != "…")
    assert len(lines) <= 8
    kept, whole = "".join("".join(lines).split()), "".join(text.split())
    assert kept == whole or (len(lines) == 8 and whole.startswith(kept.removesuffix("…")))


def test_words_stay_whole_where_they_can():
    assert wrap("one two three", 18, 1000) == ["one two three"]
    assert " ".join(wrap(LONG, 18, 300)) == LONG.strip()
    assert wrap("", 18, 100) == []
    cut = wrap(LONG * 9, 18, 300)
    assert len(cut) == 8 and cut[-1].endswith("…")


@pytest.mark.parametrize(("count", "width"), [(1, 384), (5, 384), (8, 384), (12, 384), (5, 1500)])
@pytest.mark.parametrize("text", ["3", LONG, ""])
def test_no_image_is_covered_and_no_text_lost_at_the_edge(count, width, text):
    page = np.asarray(sheet("What is it? " * 30, "a model", panels(count, width=width, text=text)))
    assert page.shape[1] <= max(WIDEST, width + 100)
    for colour in COLOURS[:count]:
        rows, columns = np.nonzero((page == colour).all(-1))
        assert len(rows) == width * HEIGHT  # whole: nothing was drawn over it
        assert np.ptp(rows) == HEIGHT - 1 and np.ptp(columns) == width - 1
    for edge in (page[:10], page[-10:], page[:, :10], page[:, -10:]):
        assert (edge == 255).all()


def test_eight_panels_make_two_rows_of_four():
    page = np.asarray(sheet("q", "m", panels(8)))
    tops = [np.nonzero((page == colour).all(-1))[0].min() for colour in COLOURS[:8]]
    assert len(set(tops[:4])) == len(set(tops[4:])) == 1 and tops[0] < tops[4]

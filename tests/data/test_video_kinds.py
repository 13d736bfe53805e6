"""Videos that are sound and unusual: mirrored, held, at a variable rate, of oblong pixels."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from m3router.data.errors import VideoError
from m3router.data.videos import displayed_size, frame_indices, open_video, shown_frames, upright
from tests.data.clips import SIZE, with_duration, with_matrix, write_timed, write_video
from tests.data.test_videos import noise, numbers

PIECES = [[(255, 0, 0), (0, 255, 0)], [(0, 0, 255), (255, 255, 255)]]

# Matrix: where the stored corners (red at the top left, green beside it, blue below) are shown,
# by FFmpeg's own rotation of the same files (fftools, ffmpeg_filter.c).
MATRICES = {
    (1, 0, 0, 1): "red green blue",
    (-1, 0, 0, 1): "green red white",
    (1, 0, 0, -1): "blue white red",
    (-1, 0, 0, -1): "white blue green",
    (0, 1, 1, 0): "red blue green",
    (0, 1, -1, 0): "blue red white",
    (0, -1, 1, 0): "green white red",
    (0, -1, -1, 0): "white green blue",
}
NAMES = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}


def quarters(_: int) -> np.ndarray:
    tile = np.array(PIECES, np.uint8)
    return tile.repeat(SIZE[1] // 2, axis=0).repeat(SIZE[0] // 2, axis=1)


def read(sheet: Image.Image) -> list[int]:
    return [round(number) for number in numbers(sheet, columns=2, rows=3, size=SIZE)]


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize(("matrix", "corners"), MATRICES.items())
def test_every_turn_and_mirror_is_shown_as_players_do(tmp_path, matrix, corners, scale):
    path = write_video(tmp_path / "a.mp4", 2, image=quarters)
    sheet = open_video(with_matrix(path, [scale * one for one in matrix]), frames=1)
    assert sheet.size == (SIZE if matrix[0] else SIZE[::-1])
    width, height = sheet.size
    places = ((4, 4), (width - 5, 4), (4, height - 5))
    for place, name in zip(places, corners.split(), strict=True):
        assert np.abs(np.array(sheet.getpixel(place)) - NAMES[name]).max() < 25, name


def test_a_matrix_that_shows_nothing_is_left_out(tmp_path):
    path = write_video(tmp_path / "a.mp4", 2, image=quarters)
    plain = open_video(path, frames=1).tobytes()
    assert open_video(with_matrix(path, (0, 0, 0, 0)), frames=1).tobytes() == plain


@given(
    matrix=st.sampled_from(sorted(MATRICES)),
    width=st.integers(1, 6),
    height=st.integers(1, 6),
    data=st.data(),
)
def test_pixels_go_where_the_matrix_says(matrix, width, height, data):
    a, b, c, d = matrix
    stored = np.arange(width * height * 3, dtype=np.uint8).reshape(height, width, 3)
    shown = np.asarray(upright(Image.fromarray(stored), (a, b, c, d)))
    p, q = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    x = (a * p if a else c * q) % (shown.shape[1] if min(a, c) >= 0 else 10_000)
    x = x if min(a, c) >= 0 else shown.shape[1] - 1 - (p if a else q)
    y = (p if b else q) if max(b, d) > 0 else shown.shape[0] - 1 - (p if b else q)
    assert np.array_equal(shown[y, x], stored[q, p])


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm"])
def test_a_last_frame_that_is_held_is_no_sign_of_a_cut(tmp_path, suffix):
    plain = open_video(write_video(tmp_path / f"a.{suffix}", 30)).tobytes()
    held = with_duration(write_video(tmp_path / f"b.{suffix}", 30), 60.0)
    assert open_video(held).tobytes() == plain


def test_a_held_frame_hides_no_cut(tmp_path):
    for suffix in ("mkv", "webm"):
        path = with_duration(write_video(tmp_path / f"a.{suffix}", image=noise), 60.0)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(VideoError, match="truncated"):
            open_video(path)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_variable_rate_is_sampled_in_time(tmp_path, suffix):
    """Twenty frames in the first second, one in each of the ten that follow."""
    times = [50 * one for one in range(20)] + [1000 + 1000 * one for one in range(11)]
    sheet = open_video(write_timed(tmp_path / f"a.{suffix}", times))
    # 12 s in all: what is displayed at 0, 2, 4, 6, 8 and 10 s
    assert read(sheet) == [0, 21, 23, 25, 27, 29]


def test_a_frame_that_stays_is_shown_for_as_long(tmp_path):
    times = [0, 100, 200, 300, 400, 500, 9_000, 9_100]
    assert read(open_video(write_timed(tmp_path / "a.mkv", times))) == [0, 5, 5, 5, 5, 5]


@pytest.mark.parametrize("start", [0, 5_000])
def test_jitter_and_a_late_start_change_nothing(tmp_path, start):
    jitter = np.random.default_rng(0).integers(-15, 16, 30)
    times = [start + 100 * one + int(jitter[one]) for one in range(30)]
    assert read(open_video(write_timed(tmp_path / "a.mkv", times))) == [0, 5, 10, 15, 20, 25]


@pytest.mark.parametrize(
    ("pixel", "size"),
    [(Fraction(2), (128, 48)), (Fraction(1, 2), (64, 96)), (Fraction(500), SIZE)],
)
def test_oblong_pixels_are_made_square(tmp_path, pixel, size):
    times = [100 * one for one in range(4)]
    path = write_timed(tmp_path / "a.mp4", times, sample_aspect_ratio=pixel)
    assert open_video(path, frames=1).size == size
    assert displayed_size(*SIZE, pixel) == size


def test_oblong_pixels_count_for_the_limit(tmp_path):
    times = [100 * one for one in range(4)]
    path = write_timed(tmp_path / "a.mp4", times, sample_aspect_ratio=Fraction(2))
    with pytest.raises(VideoError, match="128 x 48 pixels"):
        open_video(path, frames=1, max_pixels=128 * 48 - 1)


@given(
    times=st.lists(st.integers(0, 10_000), min_size=1, max_size=60).map(sorted),
    frames=st.integers(1, 12),
)
def test_shown_frames_are_those_on_display(times, frames):
    found = shown_frames(times, frames)
    assert len(found) == min(len(times), frames) and found == sorted(found)
    assert found[0] == 0 or times[found[0]] == times[0]
    assert all(0 <= place < len(times) for place in found)
    shifted = [time + 12_345 for time in times]
    assert shown_frames(shifted, frames) == found


@given(count=st.integers(1, 400), frames=st.integers(1, 20), step=st.integers(1, 1000))
def test_a_constant_rate_is_counted_as_published(count, frames, step):
    times = [7 + step * place for place in range(count)]
    assert shown_frames(times, frames) == frame_indices(count, frames)


def test_frames_without_times_are_counted():
    assert shown_frames([None] * 60, 6) == frame_indices(60, 6)
    assert shown_frames([0, 5, 3, 9, 8, 7, 50], 3) == frame_indices(7, 3)

from __future__ import annotations

import sys

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from m3router.data.errors import DataError, ImageError, VideoError
from m3router.data.images import open_image
from m3router.data.videos import collage, frame_indices, is_video, open_media, open_video
from tests.data.clips import SIZE, write_video

FORMATS = ("mp4", "mov", "mkv", "avi", "webm", "ts")


def noise(number: int) -> np.ndarray:
    """A frame that does not compress, so that files are long enough to be cut."""
    return np.random.default_rng(number).integers(0, 255, (*SIZE[::-1], 3), dtype=np.uint8)


def numbers(sheet: Image.Image, *, columns: int, rows: int, size: tuple[int, int]) -> list[float]:
    """Read the frame numbers off a collage of plain grey frames, in raster order."""
    assert sheet.size == (columns * size[0], rows * size[1])
    middles = [
        sheet.getpixel((column * size[0] + size[0] // 2, row * size[1] + size[1] // 2))[0]
        for row in range(rows)
        for column in range(columns)
    ]
    return [(grey - 20) / 5 for grey in middles]


@pytest.mark.parametrize("suffix", FORMATS)
def test_six_frames_evenly_in_three_rows_of_two(tmp_path, suffix):
    sheet = open_video(write_video(tmp_path / f"a.{suffix}", 30))
    assert sheet.mode == "RGB"
    read = numbers(sheet, columns=2, rows=3, size=SIZE)
    assert read == pytest.approx([0, 5, 10, 15, 20, 25], abs=0.5)


@pytest.mark.parametrize(
    ("frames", "columns", "rows", "shown"),
    [(1, 1, 1, [0]), (4, 2, 2, [0, 7, 14, 21]), (3, 2, 2, [0, 10, 20])],
)
def test_another_number_of_frames(tmp_path, frames, columns, rows, shown):
    sheet = open_video(write_video(tmp_path / "a.mp4"), frames=frames)
    read = numbers(sheet, columns=columns, rows=rows, size=SIZE)
    assert read[: len(shown)] == pytest.approx(shown, abs=0.5)
    assert read[len(shown) :] == [(255 - 20) / 5] * (columns * rows - len(shown))  # white


def test_a_short_video_shows_every_frame_once(tmp_path):
    sheet = open_video(write_video(tmp_path / "a.mp4", 3), frames=6)
    read = numbers(sheet, columns=2, rows=2, size=SIZE)
    assert read[:3] == pytest.approx([0, 1, 2], abs=0.5)


def test_sound_and_a_header_without_a_length_change_nothing(tmp_path):
    plain = np.asarray(open_video(write_video(tmp_path / "a.mkv")))
    longer = write_video(tmp_path / "b.mkv", sound=6)
    live = write_video(tmp_path / "c.mkv", options={"live": "1"})
    with av.open(str(live)) as container:
        assert container.duration is None or container.streams.video[0].frames == 0
    for path in (longer, live):
        assert np.array_equal(np.asarray(open_video(path)), plain)


def test_the_number_of_frames_in_the_header_is_not_believed(tmp_path):
    path = write_video(tmp_path / "a.avi")
    honest = np.asarray(open_video(path))
    content = bytearray(path.read_bytes())
    place = content.index(b"avih") + 8 + 16  # AVIMAINHEADER.dwTotalFrames
    assert int.from_bytes(content[place : place + 4], "little") == 30
    for lie in (7, 900):
        content[place : place + 4] = lie.to_bytes(4, "little")
        path.write_bytes(content)
        assert np.array_equal(np.asarray(open_video(path)), honest)


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_a_turned_telephone_gives_an_upright_image(tmp_path, rotation):
    def image(_: int) -> np.ndarray:
        frame = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
        frame[: SIZE[1] // 2, : SIZE[0] // 2] = 255  # top left
        return frame

    upright = open_video(write_video(tmp_path / "a.mp4", 4, image=image), frames=1)
    turned = write_video(tmp_path / "b.mp4", 4, image=image, rotation=rotation)
    expected = np.asarray(upright.rotate(rotation, expand=True), dtype=int)
    assert np.abs(np.asarray(open_video(turned, frames=1), dtype=int) - expected).max() <= 2


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_single_frame_is_no_video(tmp_path, suffix):
    with pytest.raises(VideoError, match=r"a\.\w+ cannot be read: it has a single frame.*PNG"):
        open_video(write_video(tmp_path / f"a.{suffix}", 1))


def test_sound_alone_is_no_video(tmp_path):
    with pytest.raises(VideoError, match="holds sound but no moving image"):
        open_video(write_video(tmp_path / "a.mp4", 0, sound=2))


def test_the_cover_of_a_piece_of_music_is_no_video(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        audio = container.add_stream("aac", rate=16000)
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height = SIZE
        cover.pix_fmt = "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        part = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        part.sample_rate = 16000
        container.mux(audio.encode(part))
        container.mux(audio.encode())
        drawn = av.VideoFrame.from_ndarray(noise(0), format="rgb24").reformat(format="yuvj420p")
        container.mux(cover.encode(drawn))
        container.mux(cover.encode())
    with pytest.raises(VideoError, match="no moving image"):
        open_video(path)


@pytest.mark.parametrize("suffix", FORMATS[:-1])  # a transport stream may end anywhere
def test_truncated_files(tmp_path, suffix):
    path = write_video(tmp_path / f"a.{suffix}", image=noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(VideoError, match=rf"a\.{suffix} cannot be read: .*truncated"):
        open_video(path)


def test_a_truncated_file_with_its_index_in_front(tmp_path):
    path = write_video(tmp_path / "a.mp4", image=noise, options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 9 // 10])
    with pytest.raises(VideoError, match="truncated: its last packet is not whole"):
        open_video(path)


def test_files_that_are_no_video(tmp_path):
    empty, text, folder = tmp_path / "e.mp4", tmp_path / "t.mp4", tmp_path / "f.mp4"
    empty.write_bytes(b"")
    text.write_text("hello")
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "p.png")
    (tmp_path / "p.png").rename(tmp_path / "p.mp4")
    for path, cause in (
        (empty, r"empty \(0 bytes\)"),
        (text, "not a video"),
        (folder, "it is a folder"),
        (tmp_path / "none.mp4", "no such file"),
        (tmp_path / "p.mp4", "not a video"),
    ):
        with pytest.raises(VideoError, match=f"{path.name} cannot be read: .*{cause}"):
            open_video(path)


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nreal.ts\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile real.ts\n",
    ],
)
def test_a_playlist_opens_no_further_file(tmp_path, text):
    write_video(tmp_path / "real.ts")
    (tmp_path / "a.mp4").write_text(text)
    with pytest.raises(VideoError, match="not a video"):
        open_video(tmp_path / "a.mp4")


def test_damaged_bytes_are_an_error_or_a_collage(tmp_path):
    generator = np.random.default_rng(0)
    path = tmp_path / "a.mp4"
    for suffix in ("mp4", "mkv", "avi"):
        content = write_video(tmp_path / f"whole.{suffix}", 6, image=noise).read_bytes()
        for _ in range(15):
            damaged = np.frombuffer(content, np.uint8).copy()
            places = generator.integers(0, len(damaged), 20)
            damaged[places] = generator.integers(0, 255, 20)
            path.write_bytes(damaged.tobytes())
            try:
                assert open_video(path).mode == "RGB"
            except VideoError as error:
                assert "a.mp4" in str(error)


def test_too_large_and_too_few(tmp_path):
    path = write_video(tmp_path / "a.mp4")
    pixels = SIZE[0] * SIZE[1] * 6
    assert open_video(path, max_pixels=pixels)
    with pytest.raises(VideoError, match="64 x 48 pixels.*Take fewer frames"):
        open_video(path, max_pixels=pixels - 1)
    with pytest.raises(DataError, match="frames must be 1 or more, got 0"):
        open_video(path, frames=0)


def test_without_pyav_the_extra_is_named(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(DataError, match=r"pip install 'm3router\[video\]'") as caught:
        open_video(path)
    assert not isinstance(caught.value, ImageError)  # no error record: the machine is at fault


def test_open_media_takes_both(tmp_path):
    video = write_video(tmp_path / "a.MP4".lower())
    assert open_media(video, frames=2).size == (SIZE[0], 2 * SIZE[1])
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    assert open_media(tmp_path / "a.png").tobytes() == open_image(tmp_path / "a.png").tobytes()
    assert is_video("x/y.WebM") and not is_video("y.png") and not is_video("mp4")


@given(count=st.integers(1, 100_000), frames=st.integers(1, 64))
def test_indices_are_evenly_spaced_distinct_and_inside(count, frames):
    found = frame_indices(count, frames)
    assert len(found) == min(count, frames)
    assert found[0] == 0 and found[-1] < count
    steps = np.diff(found)
    assert np.all(steps == max(1, count // frames))
    assert count - (found[-1] + max(1, count // frames)) < frames  # what is left over


@given(count=st.integers(1, 30), width=st.integers(1, 9), height=st.integers(1, 9))
def test_every_frame_has_its_cell(count, width, height):
    frames = [Image.new("RGB", (width, height), (place, 7, 9)) for place in range(count)]
    sheet = np.asarray(collage(frames))
    columns = sheet.shape[1] // width
    assert columns == round(count**0.5)
    cells = sheet.reshape(-1, height, columns, width, 3).swapaxes(1, 2)
    cells = cells.reshape(-1, height * width * 3)
    assert count <= len(cells) < count + columns
    for place, cell in enumerate(cells):
        own = [place, 7, 9] if place < count else [255, 255, 255]
        assert np.array_equal(cell.reshape(-1, 3), np.tile(own, (width * height, 1)))


def test_frames_of_several_sizes_take_the_smallest():
    sheet = collage([Image.new("RGB", (8, 4)), Image.new("RGB", (6, 6))])
    assert sheet.size == (6, 8)

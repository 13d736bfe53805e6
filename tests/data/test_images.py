from __future__ import annotations

import io
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from m3router.data.errors import DataError, ImageError, ImageSizeError
from m3router.data.images import open_image, read_image, upright_size

RED, BLUE = (255, 0, 0), (0, 0, 255)


def gradient(width: int = 64, height: int = 48) -> Image.Image:
    """Noise, so that files are long enough to be cut."""
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8))


def halves() -> Image.Image:
    """8 wide, 4 high, left red, right blue."""
    image = Image.new("RGB", (8, 4), RED)
    image.paste(BLUE, (4, 0, 8, 4))
    return image


def png_header(width: int, height: int) -> bytes:
    """A valid PNG header with almost no pixels behind it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + crc

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 100)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def test_plain_rgb_is_unchanged(tmp_path: Path) -> None:
    gradient().save(tmp_path / "a.png")
    image = open_image(tmp_path / "a.png")
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), np.asarray(gradient()))


def test_one_pixel(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), RED).save(tmp_path / "a.png")
    image = open_image(tmp_path / "a.png")
    assert (image.size, image.getpixel((0, 0))) == ((1, 1), RED)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "bmp", "tiff"])
def test_truncated_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    gradient().save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match="cannot be read: ") as error:
        open_image(path)
    assert str(path) in str(error.value)


def test_missing_empty_folder_and_text(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="none.png cannot be read: no such file"):
        open_image(tmp_path / "none.png")
    with pytest.raises(ImageError, match="it is a folder"):
        open_image(tmp_path)
    empty = tmp_path / "empty.png"
    empty.touch()
    with pytest.raises(ImageError, match=r"the file is empty \(0 bytes\)"):
        open_image(empty)
    text = tmp_path / "text.png"
    text.write_text("this is no image")
    with pytest.raises(ImageError, match="not an image in a known format"):
        open_image(text)
    with pytest.raises(DataError):
        open_image(tmp_path / ("x" * 5000))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("side", [9_000, 11_000, 20_000])
def test_too_many_pixels_by_the_header(tmp_path: Path, side: int) -> None:
    path = tmp_path / "huge.png"
    path.write_bytes(png_header(side, side))
    with pytest.raises(ImageError, match="huge.png is too large: .* the limit is 64000000 pixels"):
        open_image(path)


def test_limit_is_inclusive_and_can_be_set(tmp_path: Path) -> None:
    gradient(10, 10).save(tmp_path / "a.png")
    assert open_image(tmp_path / "a.png", max_pixels=100).size == (10, 10)
    with pytest.raises(ImageError, match="10 x 10 pixels, the limit is 99"):
        open_image(tmp_path / "a.png", max_pixels=99)


def test_real_20000_by_20000(tmp_path: Path) -> None:
    path = tmp_path / "big.png"
    Image.new("1", (20_000, 20_000)).save(path)
    with pytest.raises(ImageError, match="too large"):
        open_image(path)


def test_cmyk(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    red, green, blue = open_image(tmp_path / "a.jpg").getpixel((4, 4))
    assert red > 230
    assert max(green, blue) < 25


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_alpha_goes_onto_white(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.tiff" if mode == "PA" else "a.png")
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    if mode == "PA":
        clear.quantize(4).save(tmp_path / "a.png")
        path = tmp_path / "a.png"
    else:
        clear.convert(mode).save(path)
    assert open_image(path).getpixel((0, 0)) == (255, 255, 255)


def test_half_alpha_is_blended(tmp_path: Path) -> None:
    Image.new("RGBA", (2, 2), (255, 0, 0, 128)).save(tmp_path / "a.png")
    assert open_image(tmp_path / "a.png").getpixel((0, 0)) == (255, 127, 127)


@pytest.mark.parametrize(("mode", "clear"), [("P", 0), ("L", 0), ("RGB", (0, 0, 0))])
def test_transparent_colour(tmp_path: Path, mode: str, clear: object) -> None:
    Image.new(mode, (4, 4)).save(tmp_path / "a.png", transparency=clear)
    assert open_image(tmp_path / "a.png").getpixel((0, 0)) == (255, 255, 255)


def test_palette_and_grey_and_bilevel(tmp_path: Path) -> None:
    halves().quantize(4).save(tmp_path / "p.png")
    assert open_image(tmp_path / "p.png").getpixel((0, 0)) == RED
    Image.new("L", (2, 2), 77).save(tmp_path / "l.png")
    assert open_image(tmp_path / "l.png").getpixel((0, 0)) == (77, 77, 77)
    Image.new("1", (2, 2), 1).save(tmp_path / "1.png")
    assert open_image(tmp_path / "1.png").getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bit_keeps_its_levels(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.array([[0, 257, 128 * 257, 65535]], dtype=np.uint16)).save(path)
    levels = [open_image(path).getpixel((x, 0))[0] for x in range(4)]
    assert levels == [0, 1, 128, 255]


def test_float_tiff(tmp_path: Path) -> None:
    path = tmp_path / "a.tiff"
    Image.fromarray(np.array([[0.0, 0.5, 1.0, np.nan]], dtype=np.float32)).save(path)
    assert [open_image(path).getpixel((x, 0))[0] for x in range(4)] == [0, 128, 255, 0]
    Image.fromarray(np.array([[-1000.0, 0.0, 1000.0]], dtype=np.float32)).save(path)
    assert [open_image(path).getpixel((x, 0))[0] for x in range(3)] == [0, 128, 255]


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_animation_gives_its_first_frame(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100, **options)
    with Image.open(path) as check:
        assert check.n_frames == 2
    assert open_image(path).getpixel((4, 4)) == RED


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    """Each stored image is turned so that its EXIF tag undoes it."""
    stored = {
        1: np.asarray(halves()),
        2: np.asarray(halves())[:, ::-1],
        3: np.asarray(halves())[::-1, ::-1],
        4: np.asarray(halves())[::-1],
        5: np.asarray(halves()).transpose(1, 0, 2),
        6: np.rot90(np.asarray(halves()), 1),
        7: np.rot90(np.asarray(halves()), 2).transpose(1, 0, 2),
        8: np.rot90(np.asarray(halves()), -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    image = open_image(tmp_path / "a.png")
    assert image.size == (8, 4)
    assert np.array_equal(np.asarray(image), np.asarray(halves()))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_is_ignored(tmp_path: Path) -> None:
    exif = b"Exif\0\0MM\0\x2a\xff\xff\xff\xff"
    gradient().save(tmp_path / "a.jpg", exif=exif)
    assert open_image(tmp_path / "a.jpg").size == (64, 48)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow tells of damaged tags
@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp", "tiff", "bmp", "avif"])
def test_random_damage_never_escapes(tmp_path: Path, suffix: str) -> None:
    """Whatever is flipped, the image is read or an ImageError names it."""
    path = tmp_path / f"a.{suffix}"
    gradient(16, 16).save(path)
    whole = bytearray(path.read_bytes())
    rng = np.random.default_rng(1)
    outcomes = set()
    for _ in range(60):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 4):
            damaged[place] = int(rng.integers(0, 256))
        path.write_bytes(damaged)
        try:
            outcomes.add(open_image(path).mode)
        except ImageError as error:
            assert str(path) in str(error)
            outcomes.add("refused")
    assert outcomes <= {"RGB", "refused"}
    assert outcomes


def test_an_avif_without_its_image(tmp_path: Path) -> None:
    """Pillow raises a RuntimeError here, as for nothing else."""
    gradient().save(tmp_path / "a.avif")
    data = (tmp_path / "a.avif").read_bytes()
    (tmp_path / "a.avif").write_bytes(data.replace(b"pitm", b"none"))
    with pytest.raises(ImageError, match="a.avif cannot be read: truncated or damaged"):
        open_image(tmp_path / "a.avif")


def test_bytes_are_read_as_files_are_and_no_path_is_named(tmp_path: Path) -> None:
    gradient().save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    assert read_image(data).tobytes() == open_image(tmp_path / "a.png").tobytes()
    for bad in (b"", b"text", data[:200]):
        with pytest.raises(ImageError, match="^The image cannot be read: ") as refused:
            read_image(bad)
        assert "0x" not in str(refused.value) and "BytesIO" not in str(refused.value)
    with pytest.raises(ImageSizeError, match="^The image is too large: 64 x 48 pixels"):
        read_image(data, max_pixels=64 * 48 - 1)
    with pytest.raises(ImageError, match=r"not an image in a known format \(JPEG\)"):
        read_image(data, formats=("JPEG",))


def test_the_size_of_a_png_needs_no_pixels_wherever_it_says_that_it_is_turned():
    """A PNG may say so before its pixels, or behind them."""
    picture = Image.effect_noise((3000, 2000), 60).convert("RGB")
    plain, turned = io.BytesIO(), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(plain, "PNG", compress_level=1)
    picture.save(turned, "PNG", compress_level=1, exif=exif)
    file = turned.getvalue()
    at = file.index(b"eXIf") - 4
    chunk = file[at : at + 12 + int.from_bytes(file[at : at + 4], "big")]
    end = file.index(b"IEND") - 4
    behind = file[:at] + file[at + len(chunk) : end] + chunk + file[end:]
    for one in (file, behind):
        assert upright_size(one) == read_image(one).size == (2000, 3000)
    began = time.process_time()
    assert upright_size(plain.getvalue()) == (3000, 2000)
    assert time.process_time() - began < 0.02

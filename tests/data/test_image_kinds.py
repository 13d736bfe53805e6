"""Images that are sound and unusual: wide samples, large texts, every way up, a lost end."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from m3router.data.errors import ImageError
from m3router.data.images import open_image, read_image
from m3router.data.wide_pixels import depth_of

GREY, RGB, GREY_ALPHA, RGB_ALPHA = 0, 2, 4, 6
CHANNELS = {GREY: 1, RGB: 3, GREY_ALPHA: 2, RGB_ALPHA: 4}
DEPTHS = (8, 10, 12, 14, 16)
RAMP = np.linspace(0, 1, 256)[None].repeat(3, axis=0)  # 3 x 256
EIGHT = np.rint(RAMP * 255)


def chunk(kind: bytes, body: bytes) -> bytes:
    crc = struct.pack(">I", zlib.crc32(kind + body))
    return struct.pack(">I", len(body)) + kind + body + crc


def wide_png(samples: np.ndarray, colour: int, extra: bytes = b"", late: bytes = b"") -> bytes:
    """A PNG of 16 bits a sample, (H, W, C), with chunks before and behind its pixels."""
    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            extra,
            chunk(b"IDAT", zlib.compress(rows)),
            late,
            chunk(b"IEND", b""),
        )
    )


def ramp_png(extra: bytes = b"", late: bytes = b"") -> bytes:
    return wide_png(np.rint(RAMP * 65535)[..., None], GREY, extra, late)


def shown(data: bytes) -> np.ndarray:
    return np.asarray(read_image(data)).astype(int)


@pytest.mark.parametrize("bits", DEPTHS)
@pytest.mark.parametrize("colour", CHANNELS)
def test_samples_of_fewer_bits_are_as_bright_as_those_of_sixteen(bits, colour):
    samples = np.rint(RAMP * ((1 << bits) - 1))[..., None].repeat(CHANNELS[colour], axis=-1)
    if colour in (GREY_ALPHA, RGB_ALPHA):
        samples[..., -1] = 65535
    assert np.abs(shown(wide_png(samples, colour)) - EIGHT[..., None]).max() <= 1


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_an_alpha_of_fewer_bits_is_whole_too(bits):
    samples = np.rint(RAMP * ((1 << bits) - 1))[..., None].repeat(4, axis=-1)
    samples[..., -1] = (1 << bits) - 1
    assert np.abs(shown(wide_png(samples, RGB_ALPHA)) - EIGHT[..., None]).max() <= 1


@pytest.mark.parametrize("packing", [None, "tiff_lzw", "tiff_adobe_deflate"])
@pytest.mark.parametrize("order", ["<u2", ">u2"])
@pytest.mark.parametrize("bits", DEPTHS)
def test_tiffs_of_fewer_bits(bits, order, packing):
    samples = np.rint(RAMP * ((1 << bits) - 1)).astype(order)
    buffer = io.BytesIO()
    Image.fromarray(samples).save(buffer, "TIFF", compression=packing)
    assert np.abs(shown(buffer.getvalue()) - EIGHT[..., None]).max() <= 1


def rgb_tiff(samples: np.ndarray, order: str) -> bytes:
    """An uncompressed TIFF of 16-bit RGB, which Pillow cannot write."""
    height, width, _ = samples.shape
    body = samples.astype(f"{order}u2").tobytes()
    tags = {
        256: (4, 1, width),
        257: (4, 1, height),
        258: (3, 3, 8 + len(body)),
        259: (3, 1, 1),
        262: (3, 1, 2),
        273: (4, 1, 8),
        277: (3, 1, 3),
        278: (4, 1, height),
        279: (4, 1, len(body)),
    }
    pack = ">" if order == ">" else "<"
    directory = struct.pack(f"{pack}H", len(tags))
    for tag, (kind, count, value) in tags.items():
        directory += struct.pack(f"{pack}HHI", tag, kind, count)
        short = kind == 3 and count == 1
        directory += struct.pack(f"{pack}HH" if short else f"{pack}I", *([value, 0][: 1 + short]))
    bits = struct.pack(f"{pack}3H", 16, 16, 16) + b"\0\0"
    head = (b"MM\0*" if order == ">" else b"II*\0") + struct.pack(f"{pack}I", 16 + len(body))
    return head + body + bits + directory + bytes(4)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", DEPTHS)
def test_colour_tiffs_of_fewer_bits(bits, order):
    samples = np.rint(RAMP * ((1 << bits) - 1))[..., None].repeat(3, axis=-1)
    samples[..., 1] = samples[:, ::-1, 1]
    expected = np.stack([EIGHT, EIGHT[:, ::-1], EIGHT], axis=-1)
    assert np.abs(shown(rgb_tiff(samples, order)) - expected).max() <= 1


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(sorted(CHANNELS)), st.integers(0, 2**32 - 1), st.sampled_from(DEPTHS))
def test_wide_samples_come_out_as_computed(colour, seed, bits):
    generator = np.random.default_rng(seed)
    samples = generator.integers(0, 1 << bits, (3, 4, CHANNELS[colour]))
    if colour in (GREY_ALPHA, RGB_ALPHA):
        samples[..., -1] = 65535
    colours = samples if colour in (GREY, RGB) else samples[..., :-1]
    white = (1 << depth_of(int(colours.max()))) - 1
    expected = np.rint(colours * 255.0 / white)
    assert np.abs(shown(wide_png(samples, colour)) - expected).max() <= 1


def test_what_a_file_declares_is_believed():
    dark = np.rint(RAMP * 900)
    twelve = np.rint(dark / 4095 * 255)[..., None]
    assert np.array_equal(
        shown(wide_png(dark[..., None], GREY, chunk(b"sBIT", b"\x0c")))[:, :, :1], twelve
    )
    three = dark[..., None].repeat(3, axis=-1)
    declared = wide_png(three, RGB, chunk(b"sBIT", b"\x0c\x0c\x0c"))
    assert np.abs(shown(declared)[:, :, :1] - twelve).max() <= 1
    sixteen = shown(wide_png(dark[..., None], GREY, chunk(b"sBIT", b"\x10")))
    assert sixteen.max() == 4
    buffer = io.BytesIO()
    Image.fromarray(dark.astype(np.uint16)).save(buffer, "TIFF", tiffinfo={281: 4095})
    assert np.array_equal(shown(buffer.getvalue())[:, :, :1], twelve)
    portable = b"P5 256 3 65535\n" + dark.astype(">u2").tobytes()
    assert shown(portable).max() == 4


def test_white_is_zero_and_clear_colours():
    samples = np.rint(RAMP * 65535).astype("<u2")
    buffer = io.BytesIO()
    Image.fromarray(samples).save(buffer, "TIFF", tiffinfo={262: 0})
    assert np.abs(shown(buffer.getvalue()) - (255 - EIGHT[..., None])).max() <= 1
    for bits in (12, 16):
        grey = np.rint(RAMP * ((1 << bits) - 1))[..., None]
        clear = chunk(b"tRNS", struct.pack(">H", 0))
        assert (shown(wide_png(grey, GREY, clear))[:, 0] == 255).all()
        assert (shown(wide_png(grey, GREY, clear))[:, 1] < 5).all()
        colours = grey.repeat(3, axis=-1)
        clear = chunk(b"tRNS", struct.pack(">HHH", 0, 0, 0))
        assert (shown(wide_png(colours, RGB, clear))[:, 0] == 255).all()


LARGE = zlib.compress(bytes(3 << 20))


def damaged(one: bytes) -> bytes:
    return one[:-1] + bytes([one[-1] ^ 1])


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"zTXt", b"k\0\0" + LARGE),
        chunk(b"iTXt", b"k\0\1\0\0\0" + LARGE),
        chunk(b"iCCP", b"k\0\0" + LARGE),
        chunk(b"tEXt", b"k\0" + bytes(65 << 20)),
        damaged(chunk(b"tEXt", b"k\0text")),
        damaged(chunk(b"tIME", b"1234567")),
        chunk(b"gAMA", b""),
        chunk(b"iCCP", b"k\0\5profile"),
        chunk(b"acTL", b""),
    ],
    ids=["zTXt", "iTXt", "iCCP", "tEXt", "text crc", "time crc", "gamma", "profile", "acTL"],
)
@pytest.mark.parametrize("late", [False, True])
def test_what_pixels_do_not_need_refuses_no_png(extra, late):
    data = ramp_png(late=extra) if late else ramp_png(extra)
    assert np.array_equal(shown(data), shown(ramp_png()))


@pytest.mark.parametrize("beside", [b"", chunk(b"iCCP", b"k\0\0" + LARGE)])
@pytest.mark.parametrize("packed", [False, True])
def test_orientation_is_kept_where_texts_are_not(beside, packed):
    exif = b"\nexif\n      34\n" + (
        b"4578696600004d4d002a000000080001011200030000000100060000\n000000000000"
    )
    text = chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<a tiff:Orientation="6"/>')
    if packed:
        text = chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(exif))
    assert shown(ramp_png(text + beside)).shape == (256, 3, 3)


def test_cut_pixels_are_still_refused():
    for data in (ramp_png()[:-30], ramp_png(chunk(b"zTXt", b"k\0\0" + LARGE))[:-30]):
        with pytest.raises(ImageError, match="truncated"):
            read_image(data)
    broken = bytearray(ramp_png())
    broken[-20] ^= 255
    with pytest.raises(ImageError, match="damaged|known format"):
        read_image(bytes(broken))


def halves() -> np.ndarray:
    """16 wide, 8 high: dark, but for its top left quarter."""
    image = np.zeros((8, 16, 3), np.uint8)
    image[:4, :8] = 255
    return image


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff", "avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_way_up_in_every_format(tmp_path: Path, suffix: str, orientation: int) -> None:
    stored = {
        1: halves(),
        2: halves()[:, ::-1],
        3: halves()[::-1, ::-1],
        4: halves()[::-1],
        5: halves().transpose(1, 0, 2),
        6: np.rot90(halves(), 1),
        7: np.rot90(halves(), 2).transpose(1, 0, 2),
        8: np.rot90(halves(), -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, quality=95)
    image = np.asarray(open_image(path)).astype(int)
    assert image.shape == (8, 16, 3)
    assert np.abs(image - halves())[[1, 1, 6, 6], [2, 13, 2, 13]].max() < 40


def jpeg(**options: object) -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def test_a_jpeg_that_lacks_its_end_marker_only_is_read():
    whole = jpeg()
    assert whole.endswith(b"\xff\xd9")
    for cut in (1, 2):
        assert np.array_equal(shown(whole[:-cut]), shown(whole))
    for cut in (40, 200, len(whole) // 2):
        with pytest.raises(ImageError, match="truncated"):
            read_image(whole[:-cut])
    with pytest.raises(ImageError, match="truncated"):
        read_image(jpeg(progressive=True)[:-300])


def test_what_stands_behind_a_jpeg_is_let_be():
    assert np.array_equal(shown(jpeg() + b"\0\0\0\x18ftypmp42" * 500), shown(jpeg()))


def test_several_images_in_a_jpeg_give_the_first():
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    buffer = io.BytesIO()
    first.save(buffer, "MPO", save_all=True, append_images=[second])
    assert shown(buffer.getvalue())[4, 4].tolist() == [254, 0, 0]


def test_lab_is_converted():
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    image = ImageCms.profileToProfile(Image.new("RGB", (4, 4), "red"), srgb, lab, outputMode="LAB")
    buffer = io.BytesIO()
    image.save(buffer, "TIFF")
    assert np.abs(shown(buffer.getvalue())[0, 0] - (255, 0, 0)).max() < 8


def test_a_profile_changes_no_pixel():
    """As in published evaluations, which convert by Pillow without colour management."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    plain, profiled = io.BytesIO(), io.BytesIO()
    image = Image.new("RGB", (4, 4), (200, 100, 50))
    image.save(plain, "PNG")
    image.save(profiled, "PNG", icc_profile=profile)
    assert plain.getvalue() != profiled.getvalue()
    assert np.array_equal(shown(plain.getvalue()), shown(profiled.getvalue()))

"""Images of strangers: what is read, and what is refused before anything decodes it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import re
import struct
import time
import zipfile
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from m3router.router.serve.errors import ApiError
from m3router.router.serve.images.decoding import file_of
from m3router.router.serve.images.image_formats import FORMATS, format_of, problem_of
from m3router.router.serve.images.limits import ImageLimits
from tests.serve.image_server import LIMITS, PARAM, read, spent

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (37, 53, 3), dtype=np.uint8))
BIG = ImageLimits(max_bytes=20_000_000, processes=1)
FRAMES: dict[str, Any] = {"save_all": True, "append_images": [NOISE.rotate(90)]}
WAYS: list[tuple[str, str, dict[str, Any]]] = [
    ("PNG", "RGB", {}),
    ("PNG", "P", {}),
    ("PNG", "RGB", FRAMES),
    ("JPEG", "RGB", {}),
    ("JPEG", "RGB", {"progressive": True, "restart_marker_blocks": 1}),
    ("JPEG", "CMYK", {}),
    ("MPO", "RGB", FRAMES),
    ("GIF", "RGB", {}),
    ("GIF", "RGB", FRAMES),
    ("WEBP", "RGB", {}),
    ("WEBP", "RGBA", {"lossless": True}),
    ("WEBP", "RGB", FRAMES),
    ("TIFF", "RGB", {}),
    ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    ("TIFF", "RGBA", {"compression": "tiff_adobe_deflate"}),
    ("TIFF", "L", {"compression": "packbits"}),
    ("TIFF", "CMYK", {}),
    ("TIFF", "1", {}),
    ("TIFF", "RGB", {"save_all": True, "append_images": [NOISE.rotate(90)]}),
    ("AVIF", "RGB", {}),
    ("AVIF", "RGB", FRAMES),
]


def saved(
    name: str = "PNG", mode: str = "RGB", image: Image.Image = NOISE, **options: Any
) -> bytes:
    file = io.BytesIO()
    image.convert(mode).save(file, name, **options)
    return file.getvalue()


def url_of(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def refused(url: str, limits: ImageLimits = LIMITS) -> ApiError:
    with pytest.raises(ApiError) as caught:
        read(url, limits)
    assert caught.value.param == PARAM
    assert not re.search(r"\s/\w|\.py|0x|object at|Traceback", str(caught.value))
    return caught.value


ways = pytest.mark.parametrize(
    ("name", "mode", "options"), WAYS, ids=lambda one: str(one)[:9] if one else "plain"
)


@ways
def test_every_way_of_saving_is_read(name: str, mode: str, options: dict[str, Any]) -> None:
    data = saved(name, mode, **options)
    image = read(url_of(data))
    assert (image.mode, image.size) == ("RGB", NOISE.size)
    if name in ("PNG", "TIFF") and mode == "RGB":
        assert np.array_equal(np.asarray(image), np.asarray(NOISE)), "the first frame"


@ways
def test_what_follows_an_image_is_accepted_and_goes_no_further(
    name: str, mode: str, options: dict[str, Any]
) -> None:
    """Motion photos, makers' trailers, archives: the pixels are those of the image alone."""
    data = saved(name, mode, **options)
    plain = np.asarray(read(url_of(data)))
    trailers = (b"\0\0\0\x18ftypmp42", b"PK\x03\x04", b"\0" * 600, b"\xff" * 9, b"x" * 70_000)
    for behind in trailers:
        assert np.array_equal(np.asarray(read(url_of(data + behind))), plain)


@ways
def test_cut_among_its_pixels_is_refused_and_told(
    name: str, mode: str, options: dict[str, Any]
) -> None:
    """Later frames, and marks of the end behind the first one's pixels, are not missed."""
    data = saved(name, mode, **options)
    end = len(data) if "save_all" not in options else len(data) // 3
    places = {*range(0, 60, 7), *np.linspace(0, end - 24, 12).astype(int).tolist()}
    for place in places:
        assert refused(url_of(data[:place])).status == 400


def test_a_gif_may_leave_its_trailer_out() -> None:
    assert read(url_of(saved("GIF")[:-1])).size == NOISE.size


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("run.py", "print(1)")
    return file.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    crc = struct.pack(">I", zlib.crc32(kind + body))
    return struct.pack(">I", len(body)) + kind + body + crc


def inside_png(body: bytes, kind: bytes = b"teSt") -> bytes:
    """Within the image, in a chunk that decoders pass over."""
    data = saved()
    return data[:-12] + png_chunk(kind, body) + data[-12:]


def inside_jpeg(body: bytes) -> bytes:
    data = saved("JPEG")
    return data[:2] + b"\xff\xfe" + struct.pack(">H", 2 + len(body)) + body + data[2:]


def inside_gif(body: bytes) -> bytes:
    data = saved("GIF")
    return data[:-1] + b"\x21\xfe" + bytes([len(body)]) + body + b"\0;"


def javascript_jpeg() -> bytes:
    """Heyes' way: a first segment of 0x2F2A bytes opens a comment."""
    data = saved("JPEG")
    (length,) = struct.unpack_from(">H", data, 4)
    first = data[6 : 4 + length].ljust(0x2F2A - 2, b"\0")
    return data[:4] + b"\x2f\x2a" + first[:-12] + b"*/=alert(1)/" + data[4 + length :]


def javascript_gif() -> bytes:
    data = saved("GIF", image=Image.new("RGB", (0x2A2F, 1)))
    assert data[6:8] == b"/*"
    return data[:-1] + b"\x21\xfe\x0c*/=alert(1)//\0;"


TWO_THINGS = {
    "zip behind a png": saved() + zipped(),
    "zip behind a jpeg": saved("JPEG") + zipped(),
    "zip behind a gif": saved("GIF") + zipped(),
    "zip behind a webp": saved("WEBP") + zipped(),
    "zip behind a tiff": saved("TIFF") + zipped(),
    "zip behind an avif": saved("AVIF") + zipped(),
    "zip in a chunk": inside_png(zipped()),
    "zip in a comment": inside_jpeg(zipped()),
    "zip with a comment over the png's end": inside_png(zipped()[:-2] + b"\x10\0"),
    "zip after zeros": saved() + b"\0" * 512 + zipped(),
    "page behind a jpeg": saved("JPEG") + b"<html><script>alert(1)</script>",
    "page in a comment": inside_jpeg(b"<html><body>"),
    "script in a chunk": inside_png(b"Comment\0<SCRIPT src=//x>", b"tEXt"),
    "script in a gif": inside_gif(b"<script>alert(1)</script>"),
    "php in a png": inside_png(b"a\0<?php system(1);", b"tEXt"),
    "pdf in a jpeg": inside_jpeg(b"\n%PDF-1.7\n"),
    "javascript jpeg": javascript_jpeg(),
    "javascript gif": javascript_gif(),
    "mp4 behind a jpeg": saved("JPEG") + b"\0\0\0\x18ftypmp42",
    "png behind a png": saved() + saved(),
    "gif behind a jpeg": saved("JPEG") + saved("GIF"),
}  # fmt: skip


@pytest.mark.parametrize("kind", TWO_THINGS)
def test_files_that_are_something_else_too_are_read_as_images(kind: str) -> None:
    """Nothing here keeps or passes on a file: what else it is for other programs is their matter.

    The image is built from pixels alone, so that none of the file's other bytes can be in it.
    """
    limits = replace(LIMITS, max_pixels=20_000)
    data = TWO_THINGS[kind]
    image = read(url_of(data), limits)
    assert image.size == ((141, 1) if kind == "javascript gif" else NOISE.size)
    assert image.mode == "RGB"
    file = io.BytesIO()
    image.save(file, "PNG")  # as a recorder of traffic keeps it
    again = file.getvalue()
    assert not zipfile.is_zipfile(io.BytesIO(again))
    assert not re.search(rb"<script|<html|<\?php|%PDF-|alert|PK\x05\x06|ftyp", again, re.I)


@pytest.mark.parametrize("kind", [one for one in TWO_THINGS if one.startswith("zip")])
def test_the_archives_are_real(kind: str) -> None:
    """Else reading them would prove nothing. (Python reads some that Info-ZIP reads, not all.)"""
    assert zipfile.is_zipfile(io.BytesIO(TWO_THINGS[kind]))


@pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP"])
def test_texts_of_cameras_are_no_second_nature(name: str) -> None:
    xmp = b'<?xpacket begin=""?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF/></x:xmpmeta>'
    exif = Image.Exif()
    exif[0x010E] = "taken at <home> & more; see https://example.org/?a=b"
    assert read(url_of(saved(name, exif=exif, xmp=xmp))).size == NOISE.size


def test_further_jpegs_behind_a_jpeg_are_a_phones() -> None:
    assert read(url_of(saved("JPEG") + saved("JPEG"))).size == NOISE.size
    assert read(url_of(saved("JPEG") * 30)).size == NOISE.size


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("data:image/png;base64", "invalid_image_url"),
        ("data:", "invalid_image_url"),
        ("data:image/png,AAAA", "invalid_base64_image"),
        ("data:image/png;base64;x=y,AAAA", "invalid_base64_image"),
        ("data:image/svg+xml;base64,PHN2Zy8+", "invalid_image_format"),
        ("data:image/png;base64,", "empty_image_file"),
        ("data:image/png;base64, \n", "empty_image_file"),
        ("data:;base64,AAAA", "invalid_image_format"),
        (" data:image/png;base64,AAAA", "invalid_image_format"),
        ("data:image/png;" + "a" * 100_000 + ";base64,AAAA", "invalid_image_url"),
        ("data:image/png;base64,A", "invalid_base64_image"),
        ("data:image/png;base64,QUJD====", "invalid_base64_image"),
        ("data:image/png;base64,QQ==QQ==", "invalid_base64_image"),
        ("data:image/png;base64,QUJ%0A", "invalid_base64_image"),
        ("data:image/png;base64,QUJ\N{LATIN SMALL LETTER E WITH ACUTE}", "invalid_base64_image"),
        ("https://example.org/a.png", "invalid_image_url"),
        ("file:///etc/passwd", "invalid_image_url"),
        ("/etc/passwd", "invalid_image_url"),
        ("javascript:alert(1)", "invalid_image_url"),
        ("", "invalid_image_url"),
        ("\0", "invalid_image_url"),
    ],
)
def test_urls_that_are_no_image(url: str, code: str) -> None:
    error = refused(url)
    assert (error.status, error.code) == (400, code)


def test_spellings_that_are_the_same() -> None:
    """The bytes decide: not the type, nor how the base64 is broken into lines."""
    data = saved("JPEG")
    url = url_of(data, "image/jpeg")
    head, text = url.split(",")
    lines = "\r\n".join(text[at : at + 76] for at in range(0, len(text), 76))
    spellings = [
        *(
            f"data:{kind};base64,{text}"
            for kind in ("", "image/png", "text/html", "IMAGE/JPG", "x")
        ),
        url.replace("data:", "DATA:"),
        url.replace(";base64", "; name=a.jpg ; BASE64"),
        f"\n{head}, {lines}\n",
        f"{head},{text.rstrip('=')}",
        f"{head},{text.replace('+', '-').replace('/', '_')}",
    ]
    plain = read(url).tobytes()
    assert "+" in text and "/" in text and text.endswith("=")
    assert all(read(one).tobytes() == plain for one in spellings)


@given(
    st.binary(min_size=1, max_size=40),
    st.integers(1, 9),
    st.sampled_from(("", " ", "\n", "\r\n\t")),
    st.booleans(),
    st.booleans(),
)
def test_base64_in_any_usual_spelling_is_what_was_encoded(
    data: bytes, width: int, gap: str, padded: bool, safe: bool
) -> None:
    text = (base64.urlsafe_b64encode if safe else base64.b64encode)(data).decode()
    text = text if padded else text.rstrip("=")
    text = gap.join(text[at : at + width] for at in range(0, len(text), width))
    assert asyncio.run(file_of("data:;base64," + text, 1000)) == data


def test_long_base64_is_decoded_in_slices() -> None:
    data = np.random.default_rng(1).bytes(3_500_000)
    text = base64.encodebytes(data).decode()
    assert asyncio.run(file_of("data:;base64," + text, 4_000_000)) == data
    for at in (1 << 20, (1 << 20) + 1, 3_000_000):
        broken = text[:at] + "=" + text[at:]
        with pytest.raises(ApiError, match="not valid base64"):
            asyncio.run(file_of("data:;base64," + broken, 4_000_000))


def test_length_is_refused_before_decoding() -> None:
    url = "data:image/png;base64," + "A" * 4_000_000
    began = time.process_time()
    error = refused(url)
    assert (error.status, error.code) == (413, "image_file_too_large")
    assert time.process_time() - began < 0.1
    size = len(saved())
    assert asyncio.run(file_of(url_of(saved()), size)) == saved()
    for less in (1, 2, 3, 4):
        with pytest.raises(ApiError) as caught:
            asyncio.run(file_of(url_of(saved()), size - less))
        assert caught.value.code == "image_file_too_large"


def png_of(width: int, height: int) -> bytes:
    """A header that promises much, and little behind it."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


BOMBS = {
    "png": png_of(60_000, 60_000),
    "png of one row": png_of(2**31 - 1, 1),
    "bilevel png": saved("PNG", "1", Image.new("1", (4_000, 3_000))),
    "gif": (lambda data: data[:6] + b"\xff\xff\xff\xff" + data[10:])(saved("GIF")),
    "gif frame": (lambda data, at: data[: at + 4] + b"\xf0\xff\xf0\xff" + data[at + 8 :])(
        saved("GIF"), saved("GIF").index(b"\x2c\0\0\0\0") + 1
    ),
    "webp": saved("WEBP", image=Image.new("RGB", (4_000, 3_000)), quality=1, method=0),
    "jpeg": (lambda data, at: data[: at + 5] + b"\xff\xff\xff\xff" + data[at + 9 :])(
        saved("JPEG"), saved("JPEG").index(b"\xff\xc0")
    ),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_bombs_by_their_header(kind: str) -> None:
    limits = replace(BIG, max_pixels=10_000_000)
    began = spent(limits)
    error = refused(url_of(BOMBS[kind]), limits)
    assert (error.status, error.code) == (413, "image_too_large")
    assert spent(limits) - began < 2


def test_jpegs_of_thousands_of_scans_are_not_decoded() -> None:
    data = saved("JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    scan = data[start:-2]
    bomb = data[:-2] + scan * 5000 + data[-2:]
    error = refused(url_of(bomb), BIG)
    assert error.code == "image_parse_error" and "100 scans" in str(error)


@pytest.mark.parametrize(
    "data",
    [
        b"\x89PNG\r\n\x1a\n" + b"\0\0\0\0teSt\0\0\0\0" * 500_000,
        saved()[:33] + png_chunk(b"teSt", b"") * 1_000_000 + saved()[33:],
        b"\xff\xd8\xff" + b"\xfe\0\2\xff" * 2_000_000,
        b"\xff\xd8\xff\xda\0\2" + b"\xff" * 8_000_000,
        b"\xff\xd8\xff\xda\0\2" + b"\xff\0" * 4_000_000,
        b"GIF89a" + b"\0" * 7 + b"\x21\xfe" + b"\1a" * 4_000_000,
        b"GIF89a" + b"\0" * 7 + b"\x21\xfe" + (b"\xff" + b"a" * 255) * 30_000,
        b"GIF89a" + b"\0" * 7 + b"\x21\xfe\0" * 3_000_000,
        b"\0\0\0\x10ftypavif\0\0\0\0" + b"\0\0\0\x08free" * 1_000_000,
        saved() + b"PK\5\6" * 2_000_000,
        saved() + b"<" * 8_000_000,
        saved("JPEG") + b"\xff\xfe\0\2" * 2_000_000,
        saved("GIF") + b"\x21\xfe\0" * 3_000_000,
    ],
    ids=range(13),
)
def test_no_file_keeps_the_server_busy(data: bytes) -> None:
    """Pillow's own time for some of these grows with the square of their length."""
    name = format_of(data)
    began = spent(BIG)
    with contextlib.suppress(ApiError):
        read(url_of(data), BIG)
    assert spent(BIG) - began < 4.0
    assert name in FORMATS


@pytest.mark.parametrize("name", FORMATS)
def test_plain_images_have_no_problem(name: str) -> None:
    assert problem_of(name, saved(name)) == ""


@given(
    place=st.integers(0, 10**6),
    change=st.binary(min_size=1, max_size=6),
    which=st.integers(0, len(WAYS) - 1),
)
def test_damage_is_read_or_refused_never_raised(place: int, change: bytes, which: int) -> None:
    name, mode, options = WAYS[which]
    data = bytearray(saved(name, mode, **options))
    at = place % len(data)
    data[at : at + len(change)] = change
    try:
        assert read(url_of(bytes(data))).mode == "RGB"
    except ApiError as error:
        assert error.status in (400, 413) and error.code

"""Images of strangers: what is read, and what is refused before anything decodes it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import re
import struct
import threading
import time
import zipfile
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from m3router.router.serve.errors import ApiError
from m3router.router.serve.images.decoding import TYPES, ImageLimits, image_of
from m3router.router.serve.images.image_formats import FORMATS, format_of, problem_of

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (37, 53, 3), dtype=np.uint8))
LIMITS = ImageLimits(max_bytes=200_000, max_pixels=10_000)
MIME = {name: kind for kind, name in reversed(TYPES.items())}
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
    ("BMP", "RGB", {}),
    ("BMP", "P", {}),
    ("BMP", "1", {}),
    ("PPM", "RGB", {}),
    ("PPM", "L", {}),
    ("PPM", "1", {}),
    ("AVIF", "RGB", {}),
    ("AVIF", "RGB", FRAMES),
]


def saved(
    name: str = "PNG", mode: str = "RGB", image: Image.Image = NOISE, **options: Any
) -> bytes:
    file = io.BytesIO()
    image.convert(mode).save(file, name, **options)
    return file.getvalue()


def url_of(data: bytes, kind: str | None = None) -> str:
    kind = kind or MIME[format_of(data)]
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def read(url: str, limits: ImageLimits = LIMITS) -> Image.Image:
    return asyncio.run(image_of(url, limits, None, param="messages.0.content.1"))


def refused(url: str, limits: ImageLimits = LIMITS) -> ApiError:
    with pytest.raises(ApiError) as caught:
        read(url, limits)
    assert caught.value.param == "messages.0.content.1"
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
    if name in ("PNG", "PPM", "BMP") and mode == "RGB":
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
        kind = MIME[format_of(data)]
        assert refused(url_of(data[:place], kind)).status == 400


def test_a_gif_may_leave_its_trailer_out() -> None:
    assert read(url_of(saved("GIF")[:-1])).size == NOISE.size


def test_bitmaps_of_text() -> None:
    data = b"P3\n# by hand\n2 1\n# and here\n255\n255 0 0  0 0 255\n"
    assert read(url_of(data)).getpixel((0, 0)) == (255, 0, 0)
    assert "comments among its pixels" in str(refused(url_of(data + b"# there\n")))


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


def javascript_bmp() -> bytes:
    data = bytearray(saved("BMP"))
    data[2:4] = b"/*"
    return bytes(data)


TWO_THINGS = {
    "zip behind a png": saved() + zipped(),
    "zip behind a jpeg": saved("JPEG") + zipped(),
    "zip behind a gif": saved("GIF") + zipped(),
    "zip behind a webp": saved("WEBP") + zipped(),
    "zip behind a bmp": saved("BMP") + zipped(),
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
    "javascript bmp": javascript_bmp(),
    "mp4 behind a jpeg": saved("JPEG") + b"\0\0\0\x18ftypmp42",
    "png behind a png": saved() + saved(),
    "gif behind a jpeg": saved("JPEG") + saved("GIF"),
    "gap in a bmp": (lambda data: data[:10] + struct.pack("<I", 9054) + data[14:54] + b"\1" * 9000
                     + data[54:])(saved("BMP")),
}  # fmt: skip


@pytest.mark.parametrize("kind", TWO_THINGS)
def test_files_that_are_something_else_too_are_read_as_images(kind: str) -> None:
    """Nothing here keeps or passes on a file: what else it is for other programs is their matter.

    The image is built from pixels alone, so that none of the file's other bytes can be in it.
    """
    limits = ImageLimits(max_bytes=200_000, max_pixels=20_000)
    data = TWO_THINGS[kind]
    image = read(url_of(data), limits)
    assert image.size == ((0x2A2F, 1) if kind == "javascript gif" else NOISE.size)
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
        ("data:;base64,AAAA", "unsupported_image_media_type"),
        ("data:image/png,AAAA", "invalid_base64_image"),
        ("data:image/png;base64;x=y,AAAA", "invalid_base64_image"),
        ("data:image/svg+xml;base64,AAAA", "unsupported_image_media_type"),
        ("data:image/tiff;base64,AAAA", "unsupported_image_media_type"),
        ("data:text/html;base64,AAAA", "unsupported_image_media_type"),
        ("data:image/png;base64,", "empty_image_file"),
        ("data:image/png;base64,AAAA", "invalid_image_format"),
        (" data:image/png;base64,AAAA", "invalid_image_url"),
        ("data:image/png;" + "a" * 100_000 + ";base64,AAAA", "invalid_image_url"),
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
    url = url_of(saved("JPEG"))
    assert read(url.replace("image/jpeg", "Image/JPG")).size == NOISE.size
    assert read(url.replace("data:", "DATA:")).size == NOISE.size
    assert read(url.replace(";base64", ";name=a.jpg;base64")).size == NOISE.size


@given(st.text(alphabet=st.sampled_from("AQgw+/=-_ \n\té"), max_size=12))
@example("QR==")
@example("QUJD=")
@example("QUI")
@example("QUJD\n")
def test_base64_is_strict(text: str) -> None:
    """Accepted is exactly what encoding something gives; the reference encodes all bytes back."""
    error = refused("data:image/png;base64," + text)
    try:
        data = base64.b64decode(text.encode("ascii"))
        canonical = base64.b64encode(data).decode() == text
    except ValueError:
        canonical = False
    assert (error.code == "invalid_base64_image") == (not canonical)


def test_what_was_declared_is_what_it_is() -> None:
    for name in FORMATS:
        data = saved(name)
        for kind, other in TYPES.items():
            if other != name:
                assert refused(url_of(data, kind)).code == "image_type_mismatch"


def test_length_is_refused_before_decoding() -> None:
    url = "data:image/png;base64," + "A" * 40_000_000
    began = time.process_time()
    error = refused(url)
    assert (error.status, error.code) == (413, "image_file_too_large")
    assert time.process_time() - began < 1.0
    exact = ImageLimits(max_bytes=len(saved()), max_pixels=10_000)
    assert read(url_of(saved()), exact).size == NOISE.size
    for less in (1, 2, 3, 4):
        tight = ImageLimits(max_bytes=len(saved()) - less, max_pixels=10_000)
        assert refused(url_of(saved()), tight).code == "image_file_too_large"


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
    limits = ImageLimits(max_bytes=2_000_000, max_pixels=10_000_000)
    began = time.process_time()
    error = refused(url_of(BOMBS[kind]), limits)
    assert (error.status, error.code) == (413, "image_too_large")
    assert time.process_time() - began < 0.5


def test_jpegs_of_thousands_of_scans_are_not_decoded() -> None:
    data = saved("JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    scan = data[start:-2]
    bomb = data[:-2] + scan * 5000 + data[-2:]
    limits = ImageLimits(max_bytes=len(bomb), max_pixels=10_000)
    error = refused(url_of(bomb), limits)
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
        b"P6" + b"#\n" * 4_000_000,
        b"P1 9 9" + b" #\n" * 2_000_000,
        saved() + b"PK\5\6" * 2_000_000,
        saved() + b"<" * 8_000_000,
        saved("JPEG") + b"\xff\xfe\0\2" * 2_000_000,
        saved("GIF") + b"\x21\xfe\0" * 3_000_000,
    ],
    ids=range(15),
)
def test_no_file_keeps_the_server_busy(data: bytes) -> None:
    """Pillow's own time for some of these grows with the square of their length."""
    name = format_of(data)
    began = time.process_time()
    with contextlib.suppress(ApiError):
        asyncio.run(image_of(url_of(data), ImageLimits(max_bytes=20_000_000), None))
    assert time.process_time() - began < 2.0
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
    kind = MIME.get(format_of(bytes(data)), "image/png")
    try:
        assert read(url_of(bytes(data), kind)).mode == "RGB"
    except ApiError as error:
        assert error.status in (400, 413) and error.code


def test_decoding_happens_in_few_threads() -> None:
    url = url_of(saved(image=NOISE.resize((90, 90))))

    async def many() -> None:
        await asyncio.gather(*(image_of(url, LIMITS, None) for _ in range(50)))

    asyncio.run(many())
    names = [one.name for one in threading.enumerate() if one.name.startswith("pictures")]
    assert 1 <= len(names) <= LIMITS.threads

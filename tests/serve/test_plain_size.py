"""A size that is read without a decoder is the decoder's, or is not told."""

from __future__ import annotations

import io
import random

import pytest
from PIL import Image

from m3router.router.serve.errors import ApiError
from m3router.router.serve.images.limits import ImageLimits
from m3router.router.serve.images.plain_size import plain_size
from m3router.router.serve.images.reading import size_of

LIMITS = ImageLimits()


def saved(kind: str, mode: str = "RGB", size: tuple[int, int] = (37, 19), **how) -> bytes:
    file = io.BytesIO()
    Image.effect_noise(size, 60).convert(mode).save(file, kind, **how)
    return file.getvalue()


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


PLAIN = [
    *(saved("PNG", mode) for mode in ("RGB", "L", "1", "P", "RGBA", "LA", "I;16")),
    saved("PNG", dpi=(72, 72)),
    saved("PNG", size=(300, 200)) + b"behind",
    *(saved("JPEG", mode) for mode in ("RGB", "L", "CMYK")),
    *(saved("JPEG", progressive=True, subsampling=at) for at in (0, 2)),
    saved("JPEG", comment=b"x" * 300, icc_profile=b"y" * 500) + b"behind",
]
TURNED = [
    saved("PNG", exif=turned()),
    saved("JPEG", exif=turned()),
    saved("JPEG", xmp=b'<x xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'),
]


def test_plain_images_are_told():
    for data in PLAIN:
        assert plain_size(data) == size_of(data, LIMITS)


def test_what_may_be_turned_is_left_to_a_decoder():
    others = [saved(kind) for kind in ("GIF", "WEBP", "TIFF")]
    for data in [*TURNED, *others, saved("JPEG")[:-2], saved("PNG")[:-12], b"", b"\xff\xd8\xff"]:
        assert plain_size(data) is None
    assert size_of(TURNED[1], LIMITS) == (19, 37)


@pytest.mark.parametrize("seed", range(4))
def test_damaged_images_have_no_other_size_than_a_decoders(seed):
    draw = random.Random(seed)
    for _ in range(500):
        data = bytearray(draw.choice(PLAIN + TURNED))
        near = draw.choice((64, len(data)))
        for _ in range(draw.choice((1, 2, 8))):
            data[draw.randrange(near)] = draw.choice((0, 1, 0x7F, 0xFF, draw.randrange(256)))
        if draw.random() < 0.2:
            del data[draw.randrange(len(data)) :]
        told = plain_size(bytes(data))
        try:
            wanted = size_of(bytes(data), LIMITS)
        except ApiError:
            continue  # a header may be whole where a table or a check of what follows is not
        assert told in (None, wanted)

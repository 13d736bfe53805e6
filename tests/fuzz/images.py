"""Images that are broken on purpose, from a seed: lengths, sizes, counts, cuts and splices.

Each is given to a process that decodes, with the server's own limits. What the process answers is
an image or a refusal; that it ends, grows or takes long is a find. Its processor time is counted,
so that a busy machine finds nothing.
"""

from __future__ import annotations

import atexit
import functools
import io
import random
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from m3router.router.serve.errors import ApiError
from m3router.router.serve.images.image_formats import format_of
from m3router.router.serve.images.limits import ImageLimits
from m3router.router.serve.images.worker import DiedError, Worker
from tests.fuzz.driver import Limits, processor_seconds

LIMITS = Limits(seconds=60.0, asleep=300.0)
IMAGES = ImageLimits(seconds=13.0)
SLOW = 5.0
"""Seconds of processor time from which on an image that is decoded or refused is a find, too."""
WAIT = 240.0  # seconds for a process that does not work at all
GROWTH = 256 << 20
"""Bytes; the C library keeps some of a large image's memory for the next one."""
WARM_UP = 2_000  # images after which a process must not grow any more
SPECIAL = (0, 1, 2, 0x7F, 0x80, 0xFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


@dataclass
class Found:
    """What came of the images so far.

    Attributes:
        images: How many were tried.
        decoded: How many were.
        slowest: Seconds of processor time, with the first bytes of the image.
        peak: Most bytes that the process has held at one time.
        held: Bytes that it held after so many images that it should not grow any more.
    """

    images: int = 0
    decoded: int = 0
    slowest: tuple[float, str] = (0.0, "")
    peak: int = 0
    held: int = 0


FOUND = Found()


def cases(seed: int) -> Iterator[bytes]:
    """Broken images of all formats, without end; the same for the same seed."""
    random_ = random.Random(seed)
    bases = seeds()
    while True:
        data = bytearray(random_.choice(bases))
        for _ in range(random_.choice((1, 1, 1, 2, 3, 8))):
            random_.choice(MUTATIONS)(random_, data, bases)
        if random_.random() < 0.5 and data[:4] == b"\x89PNG":
            data = _with_checksums(data)
        yield bytes(data)


def prepare() -> None:
    """Start the process that decodes, before there are limits of memory for the one that asks."""
    if not _worker().alive:
        _worker().start()


def check(data: bytes) -> None:
    """Have an image decoded.

    Raises:
        AssertionError: If that ends the process, takes too long or too much, or gives no image.
    """
    if not format_of(data):  # refused by the server itself
        return
    prepare()
    worker = _worker()
    assert worker.pid is not None
    began = processor_seconds(worker.pid)
    FOUND.images += 1
    try:
        image = worker.pixels(data, time.monotonic() + WAIT)
    except ApiError as error:
        assert error.status in (400, 413) and error.code, error
    except DiedError as error:
        cause = "took too long" if error.late else "ended the process"
        raise AssertionError(f"{len(data)} bytes of {format_of(data)} {cause}") from error
    else:
        FOUND.decoded += 1
        assert image.mode == "RGB" and min(image.size) >= 1
        assert max(image.size) <= IMAGES.longest_side
    spent = processor_seconds(worker.pid) - began
    assert spent < SLOW, f"{len(data)} bytes of {format_of(data)} took {spent:.1f} s"
    FOUND.slowest = max(FOUND.slowest, (spent, data[:12].hex()))
    FOUND.peak = max(FOUND.peak, resident(worker.pid, "VmHWM"))
    _check_growth(resident(worker.pid, "VmRSS"))


def _check_growth(now: int) -> None:
    if FOUND.images <= WARM_UP:
        FOUND.held = max(FOUND.held, now)
    grown = now - FOUND.held
    if grown > GROWTH:
        FOUND.held = now  # it is told once
        raise AssertionError(f"the process grew by {grown >> 20} MiB")


def report() -> str:
    """What was found, in one line."""
    now = resident(_worker().pid, "VmRSS")
    return (
        f"{FOUND.images} images, {FOUND.decoded} decoded; slowest {FOUND.slowest[0]:.2f} s "
        f"(begins {FOUND.slowest[1]}); peak {FOUND.peak >> 20} MiB, now {now >> 20} MiB, "
        f"{(now - FOUND.held) / 2**20:+.0f} MiB after the first {WARM_UP}"
    )


def resident(pid: int | None, name: str) -> int:
    """Bytes that a process holds (VmRSS) or has held at most (VmHWM); 0 where none tells."""
    try:
        with open(f"/proc/{pid}/status") as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith(name))
    except (OSError, StopIteration):
        return 0


@functools.cache
def _worker() -> Worker:
    worker = Worker(IMAGES)
    atexit.register(worker.close)
    return worker


@functools.cache
def seeds() -> tuple[bytes, ...]:
    """Sound images of all formats that are taken, in many kinds."""
    grey = np.random.default_rng(5).normal(128, 90, (47, 61)).clip(0, 255).astype(np.uint8)
    noise = Image.fromarray(grey).convert("RGB")
    plain = Image.linear_gradient("L").resize((40, 30)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "x" * 40
    frames = {"save_all": True}
    ways: list[tuple[str, str, dict[str, Any]]] = [
        ("PNG", "RGB", {}),
        ("PNG", "RGBA", {"exif": exif}),
        ("PNG", "P", {"transparency": 3}),
        ("PNG", "I;16", {}),
        ("PNG", "1", {"icc_profile": b"profile" * 20}),
        ("PNG", "RGB", frames),
        ("JPEG", "RGB", {"exif": exif}),
        ("JPEG", "RGB", {"progressive": True, "restart_marker_blocks": 2}),
        ("JPEG", "CMYK", {"icc_profile": b"profile" * 20}),
        ("JPEG", "L", {"comment": b"hello"}),
        ("MPO", "RGB", frames),
        ("WEBP", "RGB", {"exif": exif}),
        ("WEBP", "RGBA", {"lossless": True}),
        ("WEBP", "RGBA", frames),
        ("GIF", "P", {"comment": b"hello"}),
        ("GIF", "RGB", frames),
        ("AVIF", "RGB", {"exif": exif}),
        ("AVIF", "RGBA", {}),
        ("AVIF", "RGB", frames),
        *(("TIFF", mode, {}) for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "I;16", "F")),
        *(
            ("TIFF", "RGB", {"compression": name, "exif": exif})
            for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
        ),
    ]
    found = []
    for name, mode, options in ways:
        for image in (noise, plain):
            shown = image.convert("L" if mode == "I;16" else "RGB").convert(mode)
            more = {"append_images": [shown.rotate(180)]} if "save_all" in options else {}
            file = io.BytesIO()
            shown.save(file, name, **options, **more)
            found.append(file.getvalue())
    return tuple(found)


def _with_checksums(data: bytearray) -> bytearray:
    """A PNG whose chunks pass their check, so that decoders go on to what they hold."""
    at = 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        end = at + 8 + length
        if end + 4 > len(data):
            break
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return data


Mutation = Callable[[random.Random, bytearray, tuple[bytes, ...]], None]


def _number(random_: random.Random, data: bytearray, _: object) -> None:
    """Some field becomes a number that fields are rarely meant to hold."""
    size = random_.choice((1, 2, 2, 4, 4, 4, 8))
    value = random_.choice(SPECIAL) + random_.choice((-1, 0, 0, 1))
    if random_.random() < 0.3:
        value = random_.getrandbits(random_.choice((4, 8, 12, 16, 24, 32)))
    order = random_.choice(("big", "little"))
    # Headers, where most lengths and counts are, are struck more often.
    room = len(data) if random_.random() < 0.5 else min(len(data), 400)
    at = random_.randrange(max(1, room))
    data[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, order)  # type: ignore[arg-type]


def _bits(random_: random.Random, data: bytearray, _: object) -> None:
    for _ in range(random_.choice((1, 1, 4, 30))):
        if data:
            data[random_.randrange(len(data))] ^= 1 << random_.randrange(8)


def _cut(random_: random.Random, data: bytearray, _: object) -> None:
    del data[random_.randrange(len(data) + 1) :]


def _leave_out(random_: random.Random, data: bytearray, _: object) -> None:
    at = random_.randrange(len(data) + 1)
    del data[at : at + random_.choice((1, 2, 4, 16, 100))]


def _repeat(random_: random.Random, data: bytearray, _: object) -> None:
    """A part again and again, as scans, chunks, blocks or tags might come."""
    at, length = random_.randrange(len(data) + 1), random_.choice((1, 2, 12, 40, 300))
    data[at:at] = data[at : at + length] * random_.choice((1, 2, 50, 500))


def _splice(random_: random.Random, data: bytearray, bases: tuple[bytes, ...]) -> None:
    other = random_.choice(bases)
    at, start = random_.randrange(len(data) + 1), random_.randrange(len(other))
    data[at : at + random_.choice((0, 30, 1000))] = other[
        start : start + random_.choice((30, 3000))
    ]


def _size(random_: random.Random, data: bytearray, _: object) -> None:
    """A width or height, where the format has it, becomes a large one."""
    places = {b"\x89PNG": (16, 4, "big"), b"GIF8": (6, 2, "little"), b"RIFF": (24, 3, "little")}
    at, size, order = places.get(bytes(data[:4]), (-1, 4, "big"))
    if data[:3] == b"\xff\xd8\xff":
        at, size = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2")) + 5, 2
    elif data[4:8] == b"ftyp":
        at = data.find(b"ispe") + 8
    if at > 8 or (at > 0 and size == 2):
        large = random_.choice((300, 3000, 5000, 60_000, 24_000_000)) % (1 << 8 * size)
        at += random_.choice((0, size))
        data[at : at + size] = large.to_bytes(size, order)  # type: ignore[arg-type]


MUTATIONS: tuple[Mutation, ...] = (
    _number,
    _number,
    _number,
    _bits,
    _cut,
    _leave_out,
    _repeat,
    _splice,
    _size,
)

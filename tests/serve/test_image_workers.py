"""What images can do to the server: memory and time are measured from outside, in the processes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import itertools
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from m3router.data.images import read_image
from m3router.m3core.endpoint.sent_images import Sending
from m3router.router.serve.errors import ApiError
from m3router.router.serve.images.image_formats import FORMATS, format_of
from m3router.router.serve.images.limits import ImageLimits
from m3router.router.serve.images.workers import ImageWorkers
from tests.fuzz import images as fuzz
from tests.serve.test_images import png_chunk, png_of

USUAL = ImageLimits(max_bytes=20 << 20, processes=1)
NOISE = Image.fromarray(np.random.default_rng(3).integers(0, 255, (40, 60, 3), dtype=np.uint8))


def saved(name: str = "PNG", image: Image.Image = NOISE, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


@contextlib.asynccontextmanager
async def started(limits: ImageLimits = USUAL) -> AsyncIterator[ImageWorkers]:
    workers = ImageWorkers(limits)
    await workers.start()
    try:
        yield workers
    finally:
        await workers.stop()


def soon(seconds: float = 60.0) -> float:
    return time.monotonic() + seconds


async def error_of(work: Awaitable[Any]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await work
    return caught.value


def tiff_of_tags(count: int, size: int) -> bytes:
    """Tags that all name the same bytes."""
    rest = bytes(size)
    tags = b"".join(
        struct.pack("<HHII", 40_000 + number, 7, size, 10 + 12 * count) for number in range(count)
    )
    return b"II*\0\x08\0\0\0" + struct.pack("<H", count) + tags + rest


def exif_jpeg(tags: bytes) -> bytes:
    """EXIF over several segments, which Pillow joins."""
    data, parts = saved("JPEG"), []
    for at in range(0, len(tags), 60_000):
        body = b"Exif\0\0" + tags[at : at + 60_000]
        parts.append(b"\xff\xe1" + struct.pack(">H", 2 + len(body)) + body)
    return data[:2] + b"".join(parts) + data[2:]


def text_png(kind: bytes, count: int) -> bytes:
    packed = zlib.compress(bytes(1_000_000))
    bodies = {
        b"zTXt": b"a\0\0" + packed,
        b"iTXt": b"a\0\1\0\0\0" + packed,
        b"iCCP": b"a\0\0" + zlib.compress(bytes(300 << 20)),
        b"eXIf": tiff_of_tags(20_000, 3_000_000),
    }
    data = saved()
    return data[:33] + png_chunk(kind, bodies[kind]) * count + data[33:]


def scans(count: int) -> bytes:
    data = saved("JPEG", Image.new("RGB", (4000, 4000)), progressive=True)
    start = data.rindex(b"\xff\xda")
    return data[:-2] + data[start:-2] * count + data[-2:]


def claimed_avif(place: bytes, behind: int, value: bytes) -> bytes:
    data = bytearray(saved("AVIF"))
    at = bytes(data).index(place) + behind
    data[at : at + len(value)] = value
    return bytes(data)


def claimed_webp(width: int, height: int) -> bytes:
    data = bytearray(saved("WEBP", NOISE.convert("RGBA"), exif=b"Exif\0\0x"))
    assert data[12:16] == b"VP8X"
    data[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(data)


def gif_of_comments(count: int) -> bytes:
    data = saved("GIF")
    return data[:13] + b"\x21\xfe" + (b"\xff" + b"a" * 255) * count + b"\0" + data[13:]


LONG = (24_999_999, 1)
ATTACKS: dict[str, Callable[[], bytes]] = {
    "wide": lambda: saved(image=Image.new("RGB", LONG)),
    "tall": lambda: saved(image=Image.new("L", LONG[::-1])),
    "panorama": lambda: saved("JPEG", Image.new("RGB", (24_000, 1_000))),
    "largest": lambda: saved(image=Image.new("RGBA", (5_000, 5_000))),
    "pixels of a header": lambda: png_of(5_000, 5_000),
    "tiff tags": lambda: tiff_of_tags(60_000, 4_000_000),
    "exif": lambda: exif_jpeg(tiff_of_tags(5_000, 1_000_000)),
    "png exif": lambda: text_png(b"eXIf", 1),
    "png zTXt": lambda: text_png(b"zTXt", 5_000),
    "png iTXt": lambda: text_png(b"iTXt", 5_000),
    "png iCCP": lambda: text_png(b"iCCP", 10),
    "scans": lambda: scans(80),
    "gif comments": lambda: gif_of_comments(70_000),
    "gif canvas": lambda: saved("GIF")[:6] + b"\x50\xc3\xf4\x01" + saved("GIF")[10:],
    "webp canvas": lambda: claimed_webp(1 << 24, 255),
    "avif box": lambda: claimed_avif(b"mdat", -4, b"\x7f\xff\xff\xff"),
    "avif size": lambda: claimed_avif(b"ispe", 8, b"\0\0\x13\x88\0\0\x13\x88"),
    "avif extent": lambda: claimed_avif(b"iloc", 24, b"\x7f\xff\xff\xff"),
}


@pytest.mark.parametrize("kind", ATTACKS)
def test_no_image_takes_more_than_its_pixels_need(kind: str) -> None:
    """Neither here nor in the process that decodes, whatever the bytes claim."""
    data = ATTACKS[kind]()

    async def main() -> tuple[float, int]:
        async with started(replace(USUAL, memory=3 << 30)) as workers:
            before = time.monotonic()
            try:
                image = await workers.decode(data, deadline=soon())
                assert max(image.size) <= USUAL.longest_side
            except ApiError as error:
                assert error.status in (400, 413), error
            return time.monotonic() - before, fuzz.resident(workers.pids[0], "VmHWM")

    seconds, peak = asyncio.run(main())
    assert seconds < USUAL.seconds + 1
    assert peak < 800 << 20


@pytest.mark.parametrize(
    "data",
    [
        b"BM" + bytes(16) + struct.pack("<ii", 25_000_000, 1) + b"\1\0\x08\0\1\0\0\0" + bytes(90),
        b"P6 5000 5000 254\n" + bytes(1000),
        b"P1 9 9\n" + b"1 " * 81,
        b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100),
        b"\xff\x4f\xff\x51" + bytes(100),
        b"II+\0\x08\0\0\0" + bytes(100),
        b"8BPS\0\1" + bytes(100),
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"\0\0\1\0\1\0" + bytes(100),
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    ],
    ids=["bmp", "ppm", "pbm", "jp2", "j2k", "bigtiff", "psd", "eps", "ico", "svg", "heic"],
)
def test_other_formats_are_refused_by_their_first_bytes(data: bytes) -> None:
    """No process is asked: here none was started."""
    error = asyncio.run(error_of(ImageWorkers(USUAL).decode(data, deadline=soon())))
    assert (error.status, error.code) == (400, "invalid_image_format")
    assert all(name in str(error) for name in FORMATS)


def kinds() -> list[tuple[str, str, dict[str, Any]]]:
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = [("PNG", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")]
    plain += [("TIFF", mode, {}) for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "I;16", "F")]
    packed = [
        ("TIFF", "RGB", {"compression": one})
        for one in ("tiff_lzw", "tiff_adobe_deflate", "packbits")
    ]
    turned = [(name, "RGB", {"exif": exif}) for name in ("PNG", "JPEG", "WEBP", "TIFF", "AVIF")]
    return plain + packed + turned + [("GIF", "P", {}), ("JPEG", "CMYK", {}), ("WEBP", "RGBA", {})]


def test_pixels_sizes_and_sent_images_are_those_of_this_library() -> None:
    """Upright, on white, to the pixel; an option's image is what it makes of these pixels."""
    sending = Sending(longest_side=20, encoding="png")

    async def main() -> None:
        async with started() as workers:
            for name, mode, options in kinds():
                shown = NOISE.convert("L" if mode in ("I;16", "LA") else "RGB").convert(mode)
                data = saved(name, shown, **options)
                expected = read_image(data)
                got = await workers.decode(data, deadline=soon())
                assert got.tobytes() == expected.tobytes(), (name, mode)
                assert await workers.size(data, deadline=soon()) == expected.size
                assert await workers.sent(data, sending, deadline=soon()) == sending.encode(
                    expected
                )

    asyncio.run(main())


def test_long_images_are_made_smaller_and_others_are_not() -> None:
    limits = replace(USUAL, max_pixels=10_000)

    async def main() -> None:
        async with started(limits) as workers:
            for size, expected in (
                ((100, 100), (100, 100)),
                ((101, 99), (100, 98)),
                ((1000, 10), (100, 1)),
                ((1, 10_000), (1, 100)),
            ):
                for name in ("PNG", "JPEG"):
                    data = saved(name, Image.new("RGB", size, (200, 100, 50)))
                    image = await workers.decode(data, deadline=soon())
                    assert image.size == expected
                    assert np.abs(np.asarray(image).astype(int) - (200, 100, 50)).max() <= 3

    asyncio.run(main())


def test_what_is_in_flight_is_counted_until_it_is_let_go_of() -> None:
    """Many images of a few kilobytes at once, of which there is room for two."""
    limits = replace(USUAL, processes=2, max_pixels=4_000_000, in_flight=40_000_000)
    data = saved(image=Image.new("RGB", (2_000, 2_000)))
    taken = []

    async def one(workers: ImageWorkers) -> None:
        image = await workers.decode(data, deadline=soon())
        await asyncio.sleep(0.01)
        taken.append(workers.in_flight.taken)
        assert image.size == (2_000, 2_000)

    async def main() -> None:
        async with started(limits) as workers:
            await asyncio.gather(*(one(workers) for _ in range(24)))
            kept = [await workers.decode(data, deadline=soon()) for _ in range(2)]
            error = await error_of(workers.decode(data, deadline=soon(0.3)))
            assert (error.status, error.code) == (503, "overloaded")
            assert error.headers["Retry-After"]
            kept.clear()
            gc.collect()
            assert (await workers.decode(data, deadline=soon())).size == (2_000, 2_000)
            await asyncio.sleep(0.05)
            assert workers.in_flight.taken == 0 and workers.waiting == 0

    asyncio.run(main())
    assert len(taken) == 24 and max(taken) <= limits.in_flight
    assert fuzz.resident(os.getpid(), "VmHWM") < 2 << 30


def test_files_that_wait_are_counted() -> None:
    data = saved() + bytes(1_000_000)
    limits = replace(USUAL, waiting=3_500_000, in_flight=10)

    async def size_of(workers: ImageWorkers) -> tuple[int, int]:
        return (await workers.decode(data, deadline=soon())).size

    async def main() -> None:
        async with started(limits) as workers:
            held = await workers.decode(saved(), deadline=soon())
            queued = [asyncio.create_task(size_of(workers)) for _ in range(3)]
            await asyncio.sleep(0.1)
            error = await error_of(workers.decode(data, deadline=soon()))
            assert (error.status, error.code) == (503, "overloaded")
            del held
            assert await asyncio.gather(*queued) == [NOISE.size] * 3
            assert workers.waiting == 0

    asyncio.run(main())


def test_time_is_limited_and_large_images_hold_up_no_small_ones() -> None:
    """A process that takes too long is ended; meanwhile another one is free for small images."""
    slow = scans(90)
    limits = replace(USUAL, processes=2, seconds=1.0)

    async def main() -> None:
        async with started(limits) as workers:
            before = workers.pids
            large = [asyncio.create_task(workers.decode(slow, deadline=soon())) for _ in range(3)]
            await asyncio.sleep(0.2)
            waits = []
            for _ in range(20):
                began = time.monotonic()
                await workers.decode(saved(), deadline=soon())
                waits.append(time.monotonic() - began)
                await asyncio.sleep(0.02)
            assert sorted(waits)[10] < 0.3, waits
            for one in await asyncio.gather(*large, return_exceptions=True):
                assert isinstance(one, ApiError)
                assert (one.status, one.code) == (413, "image_too_large"), one
            error = await error_of(workers.decode(slow, deadline=soon(0.4)))
            assert (error.status, error.code) == (504, "timeout")
            assert (await workers.decode(saved(), deadline=soon())).size == NOISE.size
            assert not set(before) <= set(workers.pids)

    asyncio.run(main())


def test_the_event_loop_goes_on() -> None:
    data = saved(image=Image.new("RGB", (5_000, 5_000)))

    async def main() -> float:
        gaps = [0.0]

        async def beat() -> None:
            for _ in itertools.repeat(None):
                began = time.monotonic()
                await asyncio.sleep(0.002)
                gaps.append(time.monotonic() - began)

        async with started() as workers:
            beating = asyncio.create_task(beat())
            for _ in range(2):
                await workers.decode(data, deadline=soon())
            beating.cancel()
        return sorted(gaps)[-3]

    assert asyncio.run(main()) < 0.1


def test_a_process_that_dies_costs_one_image() -> None:
    slow = scans(60)

    async def main() -> None:
        async with started() as workers:
            task = asyncio.create_task(workers.decode(slow, deadline=soon()))
            await asyncio.sleep(0.4)
            os.kill(workers.pids[0], signal.SIGKILL)
            error = await error_of(task)
            assert (error.status, error.code) == (400, "image_parse_error")
            assert (await workers.decode(saved(), deadline=soon())).size == NOISE.size
            os.kill(workers.pids[0], signal.SIGKILL)  # while it is idle: no image's fault
            assert (await workers.decode(saved(), deadline=soon())).size == NOISE.size
            assert workers.restarts == 2

    asyncio.run(main())


def test_memory_is_limited_by_the_system() -> None:
    data = saved(image=Image.new("RGB", (4_000, 4_000)))

    async def main() -> None:
        async with started(replace(USUAL, memory=30 << 20)) as workers:
            error = await error_of(workers.decode(data, deadline=soon()))
            assert (error.status, error.code) == (413, "image_too_large")
            assert "memory" in str(error)
            assert (await workers.decode(saved(), deadline=soon())).size == NOISE.size

    asyncio.run(main())


def test_a_client_that_leaves_frees_its_process() -> None:
    slow = scans(90)

    async def main() -> None:
        async with started() as workers:
            task = asyncio.create_task(workers.decode(slow, deadline=soon()))
            await asyncio.sleep(0.3)
            task.cancel()
            began = time.monotonic()
            assert (await workers.decode(saved(), deadline=soon())).size == NOISE.size
            assert time.monotonic() - began < 4
            assert workers.in_flight.taken <= 4 * 60 * 40

    asyncio.run(main())


def test_nothing_is_left_behind() -> None:
    async def main() -> list[int]:
        async with started(replace(USUAL, processes=2)) as workers:
            pids = workers.pids
            busy = asyncio.create_task(workers.decode(scans(90), deadline=soon()))
            await asyncio.sleep(0.2)
        assert (await error_of(busy)).status in (400, 503)
        return pids

    for pid in asyncio.run(main()):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert not [one for one in threading.enumerate() if one.name.startswith("images")]


PARENT = """
import asyncio, sys, time
from m3router.router.serve.images.workers import ImageWorkers

async def main():
    workers = ImageWorkers()
    await workers.start()
    print(*workers.pids, flush=True)
    await workers.decode(sys.stdin.buffer.read(), deadline=time.monotonic() + 60)

asyncio.run(main())
"""


def test_no_process_outlives_a_server_that_is_killed() -> None:
    server = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert server.stdin is not None and server.stdout is not None
    pids = [int(pid) for pid in server.stdout.readline().split()]
    server.stdin.write(scans(90))
    server.stdin.close()
    time.sleep(0.3)
    server.kill()
    server.wait()
    server.stdout.close()
    deadline = time.monotonic() + 20
    while any(os.path.exists(f"/proc/{pid}") for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(pids) == 2 and not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def test_broken_images_are_read_or_refused() -> None:
    """The fuzzer, for a moment; `tests/fuzz/images.py` says what it looks for."""
    for data in itertools.islice(fuzz.cases(0), 400):
        fuzz.check(data)
    assert fuzz.FOUND.images > 350 and fuzz.FOUND.decoded > 80, fuzz.report()
    assert {format_of(one) for one in fuzz.seeds()} == set(FORMATS)
    assert fuzz.FOUND.resident < USUAL.process_memory

"""What images can do to the server: memory and time are measured from outside, in the processes.

Processor time is what is limited here, and what comes before what: how long anything takes on the
clock depends on whatever else the machine does.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import gc
import io
import itertools
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from m3router.data.images import read_image
from m3router.m3core.endpoint.sent_images import Sending
from m3router.router.serve.errors import ApiError
from m3router.router.serve.images.image_formats import FORMATS, format_of, problem_of, weight_of
from m3router.router.serve.images.limits import ImageLimits
from m3router.router.serve.images.worker import Worker
from m3router.router.serve.images.workers import ImageWorkers
from tests.children import child
from tests.fuzz import images as fuzz
from tests.fuzz.driver import processor_seconds
from tests.serve.test_images import png_chunk, png_of

USUAL = ImageLimits(max_bytes=20 << 20, processes=1, seconds=60.0)
ENOUGH = 60 << 20
"""Bytes of memory beyond what a process has, for all but large images."""
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


def soon(seconds: float = 120.0) -> float:
    return time.monotonic() + seconds


async def error_of(work: Awaitable[Any]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await work
    return caught.value


async def at_work(workers: ImageWorkers) -> None:
    """Wait until a process is in the middle of an image."""
    before = {pid: processor_seconds(pid) for pid in workers.pids}
    while all(processor_seconds(pid) < spent + 0.05 for pid, spent in before.items()):
        await asyncio.sleep(0.01)


@contextlib.contextmanager
def process(memory: int) -> Iterator[Worker]:
    one = Worker(replace(USUAL, memory=memory))
    one.start()
    yield one
    one.close()


@pytest.fixture(scope="module")
def decoder() -> Iterator[Worker]:
    with process(3 << 30) as one:
        yield one


@pytest.fixture(scope="module")
def tight() -> Iterator[Worker]:
    with process(ENOUGH) as one:
        yield one


def tiff_of_tags(count: int, size: int) -> bytes:
    """Tags that all name the same bytes."""
    rest = bytes(size)
    tags = b"".join(
        struct.pack("<HHII", number + 1, 7, size, 10 + 12 * count) for number in range(count)
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
    body = {
        b"zTXt": b"a\0\0" + packed,
        b"iTXt": b"a\0\1\0\0\0" + packed,
        b"iCCP": b"a\0\0" + packed * 300,
        b"eXIf": tiff_of_tags(20_000, 3_000_000),
    }[kind]
    data = saved()
    return data[:33] + png_chunk(kind, body) * count + data[33:]


@functools.cache
def progressive() -> bytes:
    return saved("JPEG", Image.new("RGB", (4000, 4000)), progressive=True)


def scans(count: int) -> bytes:
    """An image of a few kilobytes that is slow to decode."""
    data = progressive()
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


def gif_of_comments(count: int, before: bytes) -> bytes:
    """Before the first frame, behind something that decoders pass over."""
    data = saved("GIF", NOISE.convert("L"))
    at = data.index(b",", 13 + 768)
    comments = b"\x21\xfe" + (b"\xff" + b"a" * 255) * count + b"\0"
    return data[:at] + before + comments + data[at:]


LARGE_FRAME = zlib.decompress(
    base64.b64decode(
        "eNpjYGCQSSupLEgsy0xjAAIQnZuZZpibmQjiv8xNLUlkgADFjJScIiiboSAzuYQBDfAVZJbkglmMQCyXmZOfDOK4gP"
        "iMEFFGXgYGJhBbIzMzLw2uVgrISWWC8hLLDAyd83PywXZlZBYUFQBpz8yC5HwgLZJZXJAKtU8AioH2VmSCNXMACZ7E"
        "MkPnRnkZkIBwcn5OUV5yTgXQXF4GtgagkHhmQS7MR0BnsTAyNbMA3cSZm5JYIsTAxSX/2f7//28zODJMjT4wS/C2zr"
        "1ToLOGwfr8KR3vDbdY1qWpW6xjVVj3YrrkAZ2Ov1/V4jzlU4IzY5YYhu6I3bOwM9TjPfOMGv7l8yMLo0WusjUtKVqp"
        "cmBUMz01U6IXAFI1ESs="
    )
)
"""An AVIF of 8192 x 8192 grey pixels whose header says 16 x 16, in 782 bytes."""

LONG = (24_999_999, 1)
ATTACKS: dict[str, Callable[[], bytes]] = {
    "wide": lambda: saved(image=Image.new("L", LONG)),
    "panorama": lambda: saved("JPEG", Image.new("RGB", (24_000, 1_000))),
    "pixels of a header": lambda: png_of(5_000, 5_000),
    "tiff tags": lambda: tiff_of_tags(60_000, 4_000_000),
    "exif": lambda: exif_jpeg(tiff_of_tags(5_000, 1_000_000)),
    "png exif": lambda: text_png(b"eXIf", 1),
    "png zTXt": lambda: text_png(b"zTXt", 5_000),
    "png iTXt": lambda: text_png(b"iTXt", 5_000),
    "png iCCP": lambda: text_png(b"iCCP", 10),
    "gif comments": lambda: gif_of_comments(70_000, b""),
    "gif comments behind a byte": lambda: gif_of_comments(70_000, b"\1"),
    "gif comments behind an empty block": lambda: gif_of_comments(70_000, b"\x21\1\0,\0"),
    "gif comments behind a loop": lambda: gif_of_comments(70_000, b"\x21\xff\x0bNETSCAPE2.0\0;\0"),
    "gif canvas": lambda: saved("GIF")[:6] + b"\x50\xc3\xf4\x01" + saved("GIF")[10:],
    "webp canvas": lambda: claimed_webp(1 << 24, 255),
    "avif size": lambda: claimed_avif(b"ispe", 8, b"\0\0\x13\x88\0\0\x13\x88"),
    "avif frame": lambda: LARGE_FRAME,
    "avif extent": lambda: claimed_avif(b"iloc", 24, b"\x7f\xff\xff\xff"),
}
LONG_ATTACKS: dict[str, Callable[[], bytes]] = {
    "tall": lambda: saved(image=Image.new("L", LONG[::-1])),
    "largest": lambda: saved(image=Image.new("RGBA", (5_000, 5_000))),
    "floats": lambda: saved("TIFF", Image.new("F", (5_000, 5_000)), compression="tiff_lzw"),
    "scans": lambda: scans(80),
}


def attack(decoder: Worker, data: bytes) -> None:
    if not decoder.alive:
        decoder.start()
    assert decoder.pid is not None
    with contextlib.suppress(OSError), open(f"/proc/{decoder.pid}/clear_refs", "w") as file:
        file.write("5")  # the peak begins anew
    before = processor_seconds(decoder.pid)
    try:
        image = decoder.pixels(data, soon())
        assert max(image.size) <= USUAL.longest_side
    except ApiError as error:
        assert error.status in (400, 413), error
    assert processor_seconds(decoder.pid) - before < 4.0
    assert fuzz.resident(decoder.pid, "VmHWM") < 800 << 20


@pytest.mark.parametrize("kind", ATTACKS)
def test_no_image_takes_more_than_its_pixels_need(kind: str, decoder: Worker) -> None:
    """Whatever its bytes claim."""
    attack(decoder, ATTACKS[kind]())


@pytest.mark.slow
@pytest.mark.parametrize("kind", LONG_ATTACKS)
def test_no_large_image_takes_more_than_its_pixels_need(kind: str, decoder: Worker) -> None:
    attack(decoder, LONG_ATTACKS[kind]())


def avifs() -> Iterator[bytes]:
    """An AVIF each of whose boxes says that it is huge, and one that has hardly any."""
    data = saved("AVIF")
    for found in re.finditer(rb"ftyp|meta|hdlr|pitm|iloc|iinf|iprp|ipco|ispe|ipma|mdat", data):
        start = found.start() - 4
        for length in (b"\0\0\0\0", b"\x40\0\0\0", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff"):
            yield data[:start] + length + found[0] + data[start + 8 :]
        long = b"\0\0\0\1" + found[0] + (1 << 40).to_bytes(8, "big")
        yield data[:start] + long + data[start + 8 :]
    head = b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf"
    yield head + b"\x40\0\0\0mdat" + bytes(253 - 8 - len(head))


def test_nothing_is_filled_up_to_what_a_box_claims(tight: Worker) -> None:
    """253 bytes took a gigabyte once: an AVIF was filled up to the end of its last box."""
    whole = list(avifs())
    tracemalloc.start()
    for data in whole:
        assert format_of(data) in ("AVIF", "")
        problem_of("AVIF", data)
        weight_of("AVIF", data)
        try:
            assert tight.pixels(data, soon()).size == NOISE.size
        except ApiError as error:
            assert error.status == 400, error
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    assert len(whole[-1]) == 253
    assert fuzz.resident(tight.pid, "VmHWM") < ENOUGH + (100 << 20)


def test_memory_is_limited_by_the_system(tight: Worker) -> None:
    data = saved(image=Image.new("RGB", (4_000, 4_000)))
    with pytest.raises(ApiError, match="too much memory") as caught:
        tight.pixels(data, soon())
    assert (caught.value.status, caught.value.code) == (413, "image_too_large")
    with pytest.raises(ApiError, match="cannot be read") as caught:  # the decoder does not say why
        tight.pixels(LARGE_FRAME, soon())
    assert caught.value.status == 400
    assert tight.pixels(saved(), soon()).size == NOISE.size


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


EXIF = Image.Exif()
EXIF[0x0112] = 6
PHOTO = Image.blend(
    NOISE.resize((90, 60)),
    Image.merge(
        "RGB", [Image.linear_gradient("L").resize((90, 60)).rotate(turn) for turn in (0, 180, 0)]
    ),
    0.8,
)
KINDS: list[tuple[str, str, dict[str, Any]]] = [
    *(("PNG", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")),
    ("PNG", "P", {"transparency": 3}),
    ("PNG", "RGB", {"save_all": True}),
    *(("TIFF", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK")),
    *(
        ("TIFF", "RGB", {"compression": one})
        for one in ("tiff_lzw", "tiff_adobe_deflate", "packbits")
    ),
    *((name, "RGB", {"exif": EXIF}) for name in ("PNG", "JPEG", "WEBP", "TIFF", "AVIF")),
    *(("JPEG", mode, {}) for mode in ("L", "RGB", "CMYK")),
    ("JPEG", "RGB", {"progressive": True, "quality": 95}),
    ("MPO", "RGB", {"save_all": True}),
    ("GIF", "P", {"transparency": 3}),
    *((name, mode, {}) for name in ("WEBP", "AVIF") for mode in ("RGB", "RGBA")),
    *((name, "RGB", {"save_all": True}) for name in ("GIF", "WEBP", "AVIF")),
]


def by_pillow(data: bytes) -> Image.Image:
    """Pillow's own decode of the first frame, upright and on white."""
    with Image.open(io.BytesIO(data)) as file:
        upright = ImageOps.exif_transpose(file)
        if not upright.has_transparency_data:
            return upright.convert("RGB")
        layer = upright.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def written(name: str, mode: str, options: dict[str, Any]) -> bytes:
    shown = PHOTO.convert("L" if mode == "LA" else "RGB").convert(mode)
    if mode in ("LA", "RGBA"):
        shown.putalpha(Image.linear_gradient("L").resize(shown.size))
    more = {"append_images": [shown.rotate(180)]} if "save_all" in options else {}
    return saved(name, shown, **options, **more)


def test_pixels_sizes_and_sent_images_are_those_of_pillow() -> None:
    """To the pixel; what an option sends is what it makes of these pixels."""
    sending = Sending(longest_side=20, encoding="png")

    async def main() -> None:
        async with started() as workers:
            for name, mode, options in KINDS:
                data = written(name, mode, options)
                expected = by_pillow(data)
                got = await workers.decode(data, deadline=soon())
                assert (got.mode, got.size) == ("RGB", expected.size), (name, mode)
                assert got.tobytes() == expected.tobytes(), (name, mode, options)
                assert got.tobytes() == read_image(data).tobytes()
                assert await workers.size(data, deadline=soon()) == expected.size
                assert await workers.sent(data, sending, deadline=soon()) == sending.encode(
                    expected
                )

    asyncio.run(main())


def test_more_than_eight_bits_are_scaled_to_eight(decoder: Worker) -> None:
    values = np.linspace(0, 65_535, 40 * 60).reshape(40, 60)
    grey = Image.fromarray(values.astype(np.uint16))
    floats = Image.fromarray((values / 65_535).astype(np.float32))
    expected = np.rint(values.astype(np.uint16) * (255 / 65_535))
    for data in (saved("PNG", grey), saved("TIFF", grey), saved("TIFF", floats)):
        got = np.asarray(decoder.pixels(data, soon())).astype(int)
        assert np.abs(got - expected[..., None]).max() <= (0 if data[:2] == b"\x89P" else 1)
    rows = b"".join(b"\0" + row.repeat(3).astype(">u2").tobytes() for row in values)
    colour = b"\x89PNG\r\n\x1a\n" + b"".join(
        png_chunk(kind, body)
        for kind, body in (
            (b"IHDR", struct.pack(">IIBBBBB", 60, 40, 16, 2, 0, 0, 0)),
            (b"IDAT", zlib.compress(rows)),
            (b"IEND", b""),
        )
    )
    assert decoder.pixels(colour, soon()).tobytes() == by_pillow(colour).tobytes()


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
    limits = replace(USUAL, processes=2, max_pixels=1_000_000, in_flight=10_000_000)
    data = saved(image=Image.new("RGB", (1_000, 1_000)))
    taken = []

    async def one(workers: ImageWorkers) -> None:
        image = await workers.decode(data, deadline=soon())
        taken.append(workers.in_flight.taken)
        assert image.size == (1_000, 1_000)

    async def main() -> None:
        async with started(limits) as workers:
            await asyncio.gather(*(one(workers) for _ in range(24)))
            kept = [await workers.decode(data, deadline=soon()) for _ in range(2)]
            error = await error_of(workers.decode(data, deadline=soon(0.3)))
            assert (error.status, error.code) == (503, "overloaded")
            assert error.headers["Retry-After"]
            kept.clear()
            gc.collect()
            assert (await workers.decode(data, deadline=soon())).size == (1_000, 1_000)
            while workers.in_flight.taken:
                await asyncio.sleep(0.01)
            assert workers.waiting == 0

    asyncio.run(main())
    assert len(taken) == 24 and max(taken) <= limits.in_flight


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


def test_time_is_limited() -> None:
    """A process that takes too long is ended, and another takes its place."""
    limits = replace(USUAL, seconds=3.0)

    async def main() -> None:
        async with started(limits) as workers:
            for seconds, status, code in ((120, 413, "image_too_large"), (0.3, 504, "timeout")):
                (stopped,) = workers.pids
                os.kill(stopped, signal.SIGSTOP)  # it gets nowhere from here on
                error = await error_of(workers.decode(saved(), deadline=soon(seconds)))
                assert (error.status, error.code) == (status, code)
                assert (await workers.decode(saved(), deadline=soon())).size == NOISE.size
                assert workers.pids != [stopped]

    asyncio.run(main())


def test_large_images_hold_up_no_small_ones() -> None:
    """However many come, they leave one process to the others."""

    async def main() -> None:
        async with started(replace(USUAL, processes=2)) as workers:
            large = [
                asyncio.create_task(workers.decode(scans(10), deadline=soon())) for _ in range(3)
            ]
            await at_work(workers)
            for _ in range(10):
                await workers.decode(saved(), deadline=soon())
            assert not all(one.done() for one in large)
            assert [one.size for one in await asyncio.gather(*large)] == [(4000, 4000)] * 3

    asyncio.run(main())


def test_the_event_loop_does_nothing_itself() -> None:
    data = saved(image=Image.new("RGB", (3_000, 3_000)))

    async def main() -> float:
        async with started() as workers:
            before = time.thread_time()
            for _ in range(3):
                assert (await workers.decode(data, deadline=soon())).size == (3_000, 3_000)
            return time.thread_time() - before

    assert asyncio.run(main()) < 0.03


@pytest.mark.slow
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
    async def main() -> None:
        async with started() as workers:
            task = asyncio.create_task(workers.decode(scans(90), deadline=soon()))
            await at_work(workers)
            os.kill(workers.pids[0], signal.SIGKILL)
            error = await error_of(task)
            assert (error.status, error.code) == (400, "image_parse_error")
            assert (await workers.decode(saved(), deadline=soon())).size == NOISE.size
            os.kill(workers.pids[0], signal.SIGKILL)  # while it is idle: no image's fault
            assert (await workers.decode(saved(), deadline=soon())).size == NOISE.size
            assert workers.restarts == 2

    asyncio.run(main())


def test_a_client_that_leaves_frees_its_process() -> None:
    async def main() -> None:
        async with started() as workers:
            (busy,) = workers.pids
            task = asyncio.create_task(workers.decode(scans(90), deadline=soon()))
            await at_work(workers)
            os.kill(busy, signal.SIGSTOP)
            task.cancel()
            assert (await workers.decode(saved(), deadline=soon())).size == NOISE.size
            assert workers.pids != [busy] and workers.restarts == 1
            assert workers.in_flight.taken <= 4 * 60 * 40

    asyncio.run(main())


def test_nothing_is_left_behind() -> None:
    async def main() -> list[int]:
        async with started(replace(USUAL, processes=2)) as workers:
            pids = workers.pids
            busy = asyncio.create_task(workers.decode(scans(90), deadline=soon()))
            await at_work(workers)
        assert (await error_of(busy)).status in (400, 503)
        return pids

    others = set(threading.enumerate())  # of servers that other tests keep for a while
    for pid in asyncio.run(main()):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    ours = set(threading.enumerate()) - others
    assert not [one for one in ours if one.name.startswith("images")]


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
    with child(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        assert server.stdin is not None and server.stdout is not None
        pids = [int(pid) for pid in server.stdout.readline().split()]
        server.stdin.buffer.write(scans(30))
        server.stdin.close()
        time.sleep(0.3)
        server.kill()
    deadline = time.monotonic() + 60
    while any(os.path.exists(f"/proc/{pid}") for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(pids) == 2 and not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def test_the_fuzzer_knows_every_format() -> None:
    assert {format_of(one) for one in fuzz.seeds()} == set(FORMATS)

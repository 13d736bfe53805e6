"""Images of strangers, decoded in processes of their own, few at a time.

Whatever a file makes a decoder do, it happens in a process with limits of memory and time. What
that ends costs the one image, not the server: another process takes its place. A file waits until
a process is free and until there is room for what it becomes; large images leave one of the
processes to the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
import weakref
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from PIL import Image

from m3router.data.errors import M3RouterError
from m3router.m3core.endpoint.sent_images import Sending, SentImage
from m3router.router.serve.errors import ApiError
from m3router.router.serve.images.image_formats import FORMATS, format_of, weight_of
from m3router.router.serve.images.in_flight import BytesInFlight
from m3router.router.serve.images.limits import PIXEL_BYTES, ImageLimits
from m3router.router.serve.images.plain_size import plain_size
from m3router.router.serve.images.waiting import until
from m3router.router.serve.images.worker import DiedError, Worker

HEAVY = 4_000_000
"""Pixels from which on an image may take all processes but one."""
RETRY_SECONDS = 2
PAUSE_SECONDS = 5.0
"""Before a process that did not start is tried again."""

LEFT_SECONDS = 0.5
"""For an image whose client has left; then its process is ended."""

Found = TypeVar("Found")
Made = TypeVar("Made", Image.Image, SentImage)

_log = logging.getLogger(__name__)


class ImageWorkers:
    """Decodes images in processes of their own.

    Args:
        limits: What images may be, and what all of them together may take.
    """

    def __init__(self, limits: ImageLimits | None = None) -> None:
        self.limits = limits or ImageLimits()
        self.in_flight = BytesInFlight(self.limits.in_flight)
        self.waiting = 0
        self.restarts = 0
        self._workers: list[Worker] = []
        self._idle: asyncio.Queue[Worker] = asyncio.Queue()
        self._heavy = asyncio.Semaphore(max(1, self.limits.processes - 1))
        self._threads: ThreadPoolExecutor | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._no_start_before = 0.0

    @property
    def pids(self) -> list[int]:
        """Of the processes."""
        return [one.pid for one in self._workers if one.pid is not None]

    async def start(self) -> None:
        """Start the processes; returns when all are ready.

        Raises:
            M3RouterError: If one does not start.
        """
        count = self.limits.processes
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="images")
        self._idle = asyncio.Queue()
        self._workers = [Worker(self.limits) for _ in range(count)]
        starts = [self._in_thread(one.start) for one in self._workers]
        if any(await asyncio.gather(*starts, return_exceptions=True)):
            await self.stop()
            raise M3RouterError("The processes that decode images do not start.")
        for one in self._workers:
            self._idle.put_nowait(one)

    async def stop(self) -> None:
        """End the processes, whatever they are at."""
        threads, self._threads = self._threads, None
        for one in self._workers:
            await asyncio.to_thread(one.close)
        if threads is not None:
            await asyncio.to_thread(threads.shutdown)
        self._workers = []

    async def decode(self, data: bytes, *, deadline: float) -> Image.Image:
        """Decode an image.

        It counts as in flight for as long as the returned object lives.

        Args:
            data: Its file.
            deadline: As of :func:`time.monotonic`; for waiting and decoding together.

        Returns:
            Upright RGB, at least 1 x 1; an image whose longer side has more pixels than
            `limits.longest_side` is made smaller.

        Raises:
            ApiError: 413 if it is too large in bytes, pixels, memory or time; 503 and 504 if it was
                not its turn, or not ready, in time; 400 for all else.
        """
        return await self._made(lambda one, at: one.pixels(data, at), data, deadline)

    async def size(self, data: bytes, *, deadline: float) -> tuple[int, int]:
        """Width and height of an image that is set upright, as its header says.

        Raises:
            ApiError: As :meth:`decode`.
        """
        async with self._turn(data, deadline, light=True):
            size = plain_size(data)
            if size is not None and math.prod(size) <= self.limits.max_pixels:
                return size
            return await self._asked(lambda one, at: one.size(data, at), deadline)

    async def sent(self, data: bytes, sending: Sending, *, deadline: float) -> SentImage:
        """The image as an option sends it.

        Args:
            data: Its file.
            sending: How the option sends it.
            deadline: As of :func:`time.monotonic`; for waiting and decoding together.

        Raises:
            ApiError: As :meth:`decode`.
        """
        return await self._made(lambda one, at: one.sent(data, sending, at), data, deadline)

    async def _made(
        self, make: Callable[[Worker, float], Made], data: bytes, deadline: float
    ) -> Made:
        """Have something made, with room for the largest; it counts until it is let go of."""
        async with self._turn(data, deadline):
            try:
                taken = await self.in_flight.take(PIXEL_BYTES * self.limits.max_pixels, deadline)
            except TimeoutError:
                raise _busy("Too many images are being answered") from None
            kept = 0
            try:
                made = await self._asked(make, deadline)
                kept = min(taken, _bytes_of(made))
                weakref.finalize(made, self._let_go, kept).atexit = False
                return made
            finally:
                self.in_flight.give(taken - kept)

    @contextlib.asynccontextmanager
    async def _turn(self, data: bytes, deadline: float, light: bool = False) -> AsyncIterator[None]:
        """Refuse what is refused at once; then count the file, and wait if it is a large image."""
        name = _format(data, self.limits)
        if self.waiting + len(data) > max(self.limits.waiting, len(data)):
            raise _busy("Too many images wait to be decoded")
        self.waiting += len(data)
        try:
            if light or weight_of(name, data) <= HEAVY:
                yield
                return
            try:
                async with until(deadline):
                    await self._heavy.acquire()
            except TimeoutError:
                raise _busy("Too many large images wait to be decoded") from None
            try:
                yield
            finally:
                self._heavy.release()
        finally:
            self.waiting -= len(data)

    async def _asked(self, ask: Callable[[Worker, float], Found], deadline: float) -> Found:
        """Have a process do something, as soon as one is free."""
        if self._threads is None:
            raise _unavailable()
        try:
            async with until(deadline):
                worker = await self._idle.get()
        except TimeoutError:
            raise _busy("Too many images wait to be decoded") from None
        if self._threads is None:  # ended meanwhile
            self._idle.put_nowait(worker)
            raise _unavailable()
        own = time.monotonic() + self.limits.seconds
        work = self._in_thread(lambda: self._one(worker, ask, min(own, deadline)))
        work.add_done_callback(lambda _: self._back(worker))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:  # the client left
            await asyncio.wait({work}, timeout=LEFT_SECONDS)
            if not work.done():
                worker.kill()
                await asyncio.wait({work})
            work.exception()  # nobody is told
            raise
        except DiedError as error:
            if not error.late:
                raise ApiError(
                    400,
                    "The image cannot be decoded: its decoder broke down.",
                    code="image_parse_error",
                ) from error
            if own <= deadline:
                raise ApiError(
                    413,
                    f"The image takes more than {self.limits.seconds:g} s to decode. Scale it "
                    "down first.",
                    code="image_too_large",
                ) from error
            raise ApiError(
                504, "The image was not decoded in time.", kind="server_error", code="timeout"
            ) from error

    def _in_thread(self, work: Callable[[], Found]) -> asyncio.Future[Found]:
        assert self._loop is not None
        return self._loop.run_in_executor(self._threads, work)

    def _one(self, worker: Worker, ask: Callable[[Worker, float], Found], at: float) -> Found:
        if worker.alive:
            try:
                return ask(worker, at)
            except DiedError as error:
                if error.begun or error.late:
                    raise
        self._restart(worker)  # it ended before, by no fault of this image
        return ask(worker, at)

    def _back(self, worker: Worker) -> None:
        """Let a process be used again, or another in its place."""
        if worker.alive or self._threads is None:
            self._idle.put_nowait(worker)
        else:
            again = self._in_thread(lambda: self._prepare(worker))
            again.add_done_callback(lambda _: self._idle.put_nowait(worker))

    def _prepare(self, worker: Worker) -> None:
        with contextlib.suppress(ApiError):  # whoever asks next tries again, and is told
            self._restart(worker)

    def _restart(self, worker: Worker) -> None:
        """Start a process in place of one that ended.

        Raises:
            ApiError: If it does not start, or another did not a moment ago.
        """
        if self._threads is None or time.monotonic() < self._no_start_before:
            raise _unavailable()
        try:
            worker.start()
        except DiedError as error:
            self._no_start_before = time.monotonic() + PAUSE_SECONDS
            _log.error("a process that decodes images did not start")
            raise _unavailable() from error
        self.restarts += 1

    def _let_go(self, size: int) -> None:
        """Called by whichever thread lets an image go."""
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the server has ended
            self._loop.call_soon_threadsafe(self.in_flight.give, size)


def _format(data: bytes, limits: ImageLimits) -> str:
    """Which format a file is in, where it may be decoded at all.

    Raises:
        ApiError: If it is empty, too long, or of none that is taken.
    """
    if not data:
        raise ApiError(400, "The image is empty (0 bytes).", code="empty_image_file")
    if len(data) > limits.max_bytes:
        raise too_many_bytes(limits.max_bytes)
    name = format_of(data)
    if not name:
        raise ApiError(
            400,
            f"The image is not in a format that is taken ({', '.join(FORMATS)}).",
            code="invalid_image_format",
        )
    return name


def _bytes_of(made: Image.Image | SentImage) -> int:
    if isinstance(made, SentImage):
        return len(made.url)
    return PIXEL_BYTES * made.width * made.height


def too_many_bytes(max_bytes: int) -> ApiError:
    """Refuse an image for its bytes."""
    return ApiError(413, f"The image has more than {max_bytes} bytes.", code="image_file_too_large")


def _busy(cause: str) -> ApiError:
    return ApiError(
        503,
        f"{cause}. Try again later.",
        kind="server_error",
        code="overloaded",
        headers={"Retry-After": str(RETRY_SECONDS)},
    )


def _unavailable() -> ApiError:
    return ApiError(
        503,
        "Images cannot be decoded just now. Try again later.",
        kind="server_error",
        code="unavailable",
        headers={"Retry-After": "5"},
    )

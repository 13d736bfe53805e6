"""Reads images as the server does: by processes that decode, on an event loop of their own."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from PIL import Image

from m3router.router.serve.images.decoding import image_of
from m3router.router.serve.images.limits import ImageLimits
from m3router.router.serve.images.workers import ImageWorkers
from tests.fuzz.driver import processor_seconds

Found = TypeVar("Found")
PARAM = "messages.0.content.1"
LIMITS = ImageLimits(max_bytes=200_000, max_pixels=10_000, processes=1)


@functools.cache
def loop() -> asyncio.AbstractEventLoop:
    one = asyncio.new_event_loop()
    threading.Thread(target=one.run_forever, daemon=True).start()
    return one


def run(work: Coroutine[Any, Any, Found]) -> Found:
    return asyncio.run_coroutine_threadsafe(work, loop()).result(120)


@functools.cache
def workers(limits: ImageLimits) -> ImageWorkers:
    """Started once for the same limits; they end with this process."""
    some = ImageWorkers(limits)
    run(some.start())
    return some


def read(url: str, limits: ImageLimits = LIMITS, seconds: float = 60.0) -> Image.Image:
    """What an ``image_url`` shows."""
    deadline = time.monotonic() + seconds
    return run(image_of(url, workers(limits), deadline=deadline, param=PARAM))


def spent(limits: ImageLimits = LIMITS) -> float:
    """Seconds of processor time so far, here and in the processes that decode."""
    return time.process_time() + sum(processor_seconds(pid) for pid in workers(limits).pids)

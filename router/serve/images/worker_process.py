"""The process that decodes images of strangers, under limits, for as long as its parent lives.

It is started by :mod:`m3router.router.serve.images.worker`. Whatever an image makes a decoder do,
it happens here: memory, processor time and files are limited by the system where it can (Linux has
all limits; macOS has no limit of memory, Windows none at all: there the parent's clock remains).
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
import warnings
from typing import Any

from PIL import AvifImagePlugin, Image

from m3router.m3core.endpoint.sent_images import Sending
from m3router.router.serve.errors import ApiError
from m3router.router.serve.images.limits import ImageLimits
from m3router.router.serve.images.messages import Pipe, exactly, receive, send
from m3router.router.serve.images.reading import pixels_of, size_of, too_much_memory

if sys.platform != "win32":
    import resource

NICENESS = 5
"""Decoding gives way to answering."""
PARENT_SECONDS = 5.0
"""Between looks whether the parent is still there."""


def main(limits: ImageLimits) -> None:
    """Decode what the pipe brings until it ends.

    Args:
        limits: What images may be.
    """
    requests, answers = sys.stdin.buffer, _own_output()
    _warm_up(limits)
    send(answers, {"ready": True})
    with open(os.devnull, "wb") as nowhere:  # decoders write what a file makes them write
        os.dup2(nowhere.fileno(), 2)
    warnings.simplefilter("ignore")  # of which Python keeps every text, and files make many
    # Each thread would take address space for a stack and an arena of its own.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    _limit(limits)
    parent = os.getppid()
    while True:
        _await_request(requests, parent)
        try:
            head, length = receive(requests)
            data = exactly(requests, length)
        except EOFError:
            return
        _limit_time(limits.seconds)
        try:
            send(answers, {"begun": True})
            _answer(answers, head, data, limits)
        except ApiError as error:
            _refuse(answers, error)
        except MemoryError:
            _refuse(answers, too_much_memory())
        except BrokenPipeError:
            return


def _warm_up(limits: ImageLimits) -> None:
    """Load what the first image needs.

    On a busy machine that takes seconds: an image with less time than that would end the process,
    and the next one, asked of a new process, would do so again.
    """
    for kind in ("PNG", "JPEG"):
        file = io.BytesIO()
        Image.new("RGB", (8, 8)).save(file, kind)
        pixels_of(file.getvalue(), limits)


def _answer(answers: Pipe, head: dict[str, Any], data: bytes, limits: ImageLimits) -> None:
    if head["job"] == "size":
        send(answers, {"size": size_of(data, limits)})
        return
    image = pixels_of(data, limits)
    if head["job"] == "pixels":
        send(answers, {"size": image.size}, image.tobytes())
        return
    sent = Sending(**head["sending"]).encode(image)
    send(answers, {"size": (sent.width, sent.height)}, sent.url.encode("ascii"))


def _refuse(answers: Pipe, error: ApiError) -> None:
    told = {"status": error.status, "message": str(error), "code": error.code}
    send(answers, {"error": told})


def _own_output() -> Pipe:
    """The pipe to the parent; what anything else prints goes to the log."""
    own = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(own, "wb")


def _limit(limits: ImageLimits) -> None:
    with contextlib.suppress(OSError, AttributeError):
        os.nice(NICENESS)
    if sys.platform == "win32":
        return
    _set(resource.RLIMIT_CORE, 0)
    _set(resource.RLIMIT_FSIZE, 0)
    held = _held()
    if held is not None:
        _set(resource.RLIMIT_AS, held + limits.process_memory)


def _held() -> int | None:
    """Bytes of address space that this process has; None where the system does not say."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def _set(kind: int, value: int) -> None:
    if sys.platform == "win32":
        return
    most = resource.getrlimit(kind)[1]
    if most != resource.RLIM_INFINITY:
        value = min(value, most)
    resource.setrlimit(kind, (value, value))


def _limit_time(seconds: float) -> None:
    """End this process by itself where an image takes too long and no parent ends it."""
    if sys.platform == "win32":
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = resource.getrlimit(resource.RLIMIT_CPU)[1]
    value = int(used.ru_utime + used.ru_stime + seconds) + 2
    if most == resource.RLIM_INFINITY or value < most:
        resource.setrlimit(resource.RLIMIT_CPU, (value, most))


def _await_request(requests: Pipe, parent: int) -> None:
    """Wait for bytes, or end with the parent, should another process hold the pipe open."""
    if sys.platform == "win32":
        return
    while not select.select([requests], [], [], PARENT_SECONDS)[0]:
        if os.getppid() != parent:
            os._exit(0)

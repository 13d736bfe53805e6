"""The parent's end of one decoding process: start it, ask it, end it when it takes too long."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeVar

from PIL import Image

from m3router.m3core.endpoint.sent_images import Sending, SentImage
from m3router.router.serve.errors import ApiError
from m3router.router.serve.images.limits import ImageLimits
from m3router.router.serve.images.messages import Pipe, exactly, receive, send

START_SECONDS = 60.0
_BAND = 1 << 20  # pixels that are handed over at a time, so that no lock is held for long
_CODE = (
    "import json, sys; paths, limits = map(json.loads, sys.argv[1:]); sys.path[:] = paths; "
    "from m3router.router.serve.images.limits import ImageLimits; "
    "from m3router.router.serve.images.worker_process import main; main(ImageLimits(**limits))"
)

Found = TypeVar("Found")


class DiedError(Exception):
    """The process ended before it answered.

    Attributes:
        late: Whether it was ended since its time was up.
        begun: Whether it had begun with what it was asked, which may have ended it.
    """

    def __init__(self, *, late: bool = False, begun: bool = False) -> None:
        super().__init__("the process that decodes ended")
        self.late = late
        self.begun = begun


class Worker:
    """One process that decodes. Its methods block; one thread at a time calls them.

    Args:
        limits: What images may be.
    """

    def __init__(self, limits: ImageLimits) -> None:
        self.limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._late = False
        self._begun = False
        self._closed = False

    @property
    def pid(self) -> int | None:
        """Of the process; None while there is none."""
        return None if self._process is None else self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        process = self._process
        return process is not None and not self._late and process.poll() is None

    def start(self) -> None:
        """Start a process, in place of the one before, and wait until it is ready.

        Raises:
            DiedError: If it does not get ready.
        """
        self._end()
        with self._lock:
            if self._closed:
                raise DiedError
            self._late = False
            self._process = _spawn(self.limits)
        self._talk(lambda _, answers: receive(answers), time.monotonic() + START_SECONDS)

    def close(self) -> None:
        """End the process for good; may be called while another thread asks it."""
        with self._lock:
            self._closed = True
        self._end()

    def size(self, data: bytes, deadline: float) -> tuple[int, int]:
        """Width and height of an image that is set upright, by its header.

        Raises:
            ApiError: If the image is refused.
            DiedError: If the process ended before it answered, or was ended at the deadline.
        """
        return self._ask({"job": "size"}, data, deadline, lambda size, *_: size)

    def pixels(self, data: bytes, deadline: float) -> Image.Image:
        """The decoded image, RGB; raises as :meth:`size` does."""
        return self._ask({"job": "pixels"}, data, deadline, _read_pixels)

    def sent(self, data: bytes, sending: Sending, deadline: float) -> SentImage:
        """The image as an option sends it; raises as :meth:`size` does."""

        def read(size: tuple[int, int], answers: Pipe, length: int) -> SentImage:
            url = exactly(answers, length).decode("ascii")
            return SentImage(url=url, width=size[0], height=size[1])

        return self._ask({"job": "sent", "sending": asdict(sending)}, data, deadline, read)

    def _ask(
        self,
        head: dict[str, Any],
        data: bytes,
        deadline: float,
        read: Callable[[tuple[int, int], Pipe, int], Found],
    ) -> Found:
        def talk(requests: Pipe, answers: Pipe) -> Found | ApiError:
            send(requests, head, data)
            receive(answers)
            self._begun = True
            told, length = receive(answers)
            if "error" in told:
                error = told["error"]
                return ApiError(error["status"], error["message"], code=error["code"])
            width, height = told["size"]
            return read((int(width), int(height)), answers, length)

        found = self._talk(talk, deadline)
        if isinstance(found, ApiError):
            raise found
        return found

    def _talk(self, talk: Callable[[Pipe, Pipe], Found], deadline: float) -> Found:
        """Write and read, with the process ended at the deadline: then the pipes end, too."""
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise DiedError
        self._begun = False
        alarm = threading.Timer(max(0.0, deadline - time.monotonic()), self._end_late)
        alarm.daemon = True
        alarm.start()
        try:
            return talk(process.stdin, process.stdout)
        except (EOFError, OSError, ValueError, KeyError, TypeError) as error:
            late = self._late
            self._end()
            raise DiedError(late=late, begun=self._begun) from error
        finally:
            alarm.cancel()

    def _end_late(self) -> None:
        self._late = True
        self.kill()

    def kill(self) -> None:
        """End the process; whoever asks it at this moment is told."""
        with self._lock:
            if self._process is not None:
                self._process.kill()

    def _end(self) -> None:
        self.kill()
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            process.wait()
            for pipe in filter(None, (process.stdin, process.stdout)):
                with contextlib.suppress(OSError):  # for what was not written any more
                    pipe.close()


def _read_pixels(size: tuple[int, int], answers: Pipe, length: int) -> Image.Image:
    width, height = size
    if width < 1 or height < 1 or length != 3 * width * height:
        raise ValueError("these are no pixels of that size")
    image = Image.new("RGB", size)
    rows = max(1, _BAND // width)
    for top in range(0, height, rows):
        band = min(rows, height - top)
        pixels = exactly(answers, 3 * width * band)
        image.paste(Image.frombytes("RGB", (width, band), pixels), (0, top))
    return image


def _spawn(limits: ImageLimits) -> subprocess.Popen[bytes]:
    """A Python of its own that has imported nothing of this one.

    Not by multiprocessing, which would run the main module of whoever serves once more.
    """
    paths = [os.path.abspath(one) for one in sys.path]
    return subprocess.Popen(
        [sys.executable, "-c", _CODE, json.dumps(paths), json.dumps(asdict(limits))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )

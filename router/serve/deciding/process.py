"""Decides in a process of its own, so that the one that relays loads no torch and never waits."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import pickle
import socket
import sys
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Self

from PIL import Image

from m3router.data.errors import DataError, M3RouterError
from m3router.router.cascade.rule import Cascade
from m3router.router.serve.backends.backend import UnavailableError
from m3router.router.serve.deciding.decider import Asked, AskedImage, Judged, RouterFacts
from m3router.router.serve.deciding.wire import (
    HEAD,
    Dropped,
    Loading,
    NeedsPixels,
    Pixels,
    Question,
    Refused,
    Started,
    Told,
    packed,
)

logger = logging.getLogger(__name__)

CHILD = "m3router.router.serve.deciding.child"
PIECE = 1 << 20
"""Bytes of pixels that are sent at a time: copying more would hold up the event loop."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before a process that ended is started again, doubled each time."""
STEADY = 60.0
"""Seconds after which a process counts as one that does not end by itself."""
PATIENCE = 2.0
"""Seconds for a process to end by itself."""
GONE = "The process that decides has ended; it is being started again."


class ProcessDecider:
    """A router in a process of its own; a `m3router.router.serve.deciding.decider.Decider`.

    The process is spawned, reachable by its parent only, and ends with it. Where it ends by itself,
    what waits is told so, and it is started again.

    Args:
        run: A run folder after ``train`` and ``calibrate``.
        policy: Name of the server's own policy.
        encoder: Folder or hub id of the router's image encoder; None for the one it was trained
            with.
        device: Where the encoder is loaded.
        threads: Processor threads; None for all cores but one, which is left to who relays.
    """

    def __init__(
        self,
        run: Path,
        *,
        policy: str = "default",
        encoder: str | None = None,
        device: str = "auto",
        threads: int | None = None,
    ) -> None:
        self._loading = Loading(
            run=str(run), policy=policy, encoder=encoder, device=device, threads=threads
        )
        self._child: Child | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> RouterFacts:
        """Load and warm up; see the protocol."""
        self._child = await Child.started(self._loading)
        self._keeper = asyncio.create_task(self._keep(self._child))
        return self._child.facts

    async def decide(self, asked: Asked) -> Judged:
        """Decide for one question; see the protocol."""
        if self._child is None:
            raise UnavailableError(GONE)
        return await self._child.decide(asked)

    def load(self) -> dict[str, float]:
        """Questions "waiting", and "cached" images; see the protocol."""
        if self._child is None:
            return {"waiting": 0, "cached": 0}
        return {"waiting": self._child.waiting, "cached": self._child.cached}

    async def stop(self) -> None:
        """End the process; see the protocol."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        child, self._child = self._child, None
        if child is not None:
            await child.end()

    async def _keep(self, first: Child) -> None:
        """Start the process again whenever it has ended."""
        facts, child, pause = first.facts, first, FIRST_PAUSE
        while True:
            began = time.monotonic()
            code = await child.process.wait()
            self._child = None
            await child.end()
            logger.error("The process that decides has ended with code %s.", code)
            if time.monotonic() - began > STEADY:
                pause = FIRST_PAUSE
            while self._child is None:
                await asyncio.sleep(pause)
                pause = min(LONGEST_PAUSE, 2 * pause)
                try:
                    child = await Child.started(self._loading)
                except M3RouterError as error:
                    logger.error("The process that decides does not start again: %s", error)
                    continue
                if child.facts == facts:
                    self._child = child
                else:
                    logger.error("The run holds another router now: start the server again.")
                    await child.end()


@dataclass(eq=False)
class Waiting:
    """A question that waits.

    Attributes:
        answer: What it waits for.
        image: That it is about.
        supply: Sends the image's pixels; None where nobody asked for them.
    """

    answer: asyncio.Future[Judged]
    image: AskedImage | None
    supply: asyncio.Task[None] | None = None


class Child:
    """A process that decides, and its sockets; see `started`."""

    facts: RouterFacts

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        told: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        asked: asyncio.StreamWriter,
    ) -> None:
        self.process = process
        self.cached = 0
        self._told, self._asked = told, asked
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Waiting] = {}
        self._gone = False
        self._listener: asyncio.Task[None] | None = None

    @classmethod
    async def started(cls, loading: Loading) -> Self:
        """Spawn a process and wait until it can decide.

        Raises:
            M3RouterError: Where it cannot load what it is told to.
        """
        asked, theirs = socket.socketpair()
        told, theirs_too = socket.socketpair()
        with theirs, theirs_too:
            process = await _spawned(theirs.fileno(), theirs_too.fileno())
        _, writer = await asyncio.open_connection(sock=asked)
        child = cls(process, await asyncio.open_connection(sock=told), writer)
        try:
            child._send(loading)
            child.facts = await child._facts()
        except BaseException:
            await child.end()
            raise
        child._listener = asyncio.create_task(child._listen())
        return child

    @property
    def waiting(self) -> int:
        """Questions that wait."""
        return len(self._waiting)

    async def decide(self, asked: Asked) -> Judged:
        """Decide for one question; see `ProcessDecider.decide`."""
        if self._gone:
            raise UnavailableError(GONE)
        number, image = next(self._numbers), asked.image
        one = Waiting(asyncio.get_running_loop().create_future(), image)
        self._waiting[number] = one
        digest, size = ("", None) if image is None else (image.digest, image.size)
        self._send(Question(number, asked.question, asked.wish, digest, size, asked.again))
        try:
            return await one.answer
        finally:
            if one.supply is not None:
                one.supply.cancel()
            if self._waiting.pop(number, None) is not None:  # given up
                self._send(Dropped(number))

    async def end(self) -> None:
        """End the process for sure; what waits is told so."""
        for writer in (self._asked, self._told[1]):
            writer.close()
        try:
            async with asyncio.timeout(PATIENCE):
                await self.process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()
        if self._listener is not None:
            await self._listener

    async def _facts(self) -> RouterFacts:
        try:
            message = await self._heard()
        except EOFError as error:
            code = await self.process.wait()
            raise UnavailableError(
                f"The process that decides ended with code {code} before it was ready."
            ) from error
        if isinstance(message, Refused):
            raise message.error
        assert isinstance(message, Started)
        return message.facts

    async def _heard(self) -> object:
        try:
            reader, _ = self._told
            length, _ = HEAD.unpack(await reader.readexactly(HEAD.size))
            return pickle.loads(await reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise EOFError from error

    async def _listen(self) -> None:
        try:
            with contextlib.suppress(EOFError):
                while True:
                    self._take(await self._heard())
        finally:
            self._gone = True
            for number in list(self._waiting):
                self._settle(number, UnavailableError(GONE))

    def _take(self, message: object) -> None:
        if isinstance(message, NeedsPixels):
            one = self._waiting.get(message.number)
            if one is not None and one.image is not None:
                one.supply = asyncio.create_task(self._supply(message.number, one.image))
        elif isinstance(message, Told):
            self.cached = message.cached
            cascade = _cascade(message.cascade) if message.cascade else None
            self._settle(message.number, Judged(decision=message.decision, cascade=cascade))
        elif isinstance(message, Refused):
            self._settle(message.number, message.error)

    def _settle(self, number: int, answer: Judged | Exception) -> None:
        one = self._waiting.pop(number, None)
        if one is None or one.answer.done():
            return
        if isinstance(answer, Judged):
            one.answer.set_result(answer)
        else:
            one.answer.set_exception(answer)

    def _send(self, message: object, pixels: bytes = b"") -> None:
        """Send a message; that the process is gone, the listener is told."""
        if not self._gone:
            self._asked.write(packed(message, pixels) + pixels)

    async def _supply(self, number: int, image: AskedImage) -> None:
        """Send an image piece by piece, as fast as it is taken; or tell why it cannot be sent."""
        try:
            found = await image.pixels()
            width, height = found.size
            rows = max(1, PIECE // (3 * width))
            for top in range(0, height, rows):
                pixels = _rows(found, top, min(height, top + rows))
                self._send(Pixels(number, 3 * width * top, found.size), pixels)
                await self._asked.drain()
        except ConnectionError:
            return  # as above
        except Exception as error:  # whatever a decoder does, who asked is told
            if number in self._waiting:
                self._settle(number, error)
                self._send(Dropped(number))


def _rows(image: Image.Image, top: int, bottom: int) -> bytes:
    """Some rows of an image.

    Raises:
        DataError: If it is cut short, or was closed.
    """
    try:
        piece = image.crop((0, top, image.width, bottom))
        return (piece if piece.mode == "RGB" else piece.convert("RGB")).tobytes()
    except (OSError, ValueError) as error:
        raise DataError(f"The image cannot be read: {error}.") from error


async def _spawned(*ends: int) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", CHILD, *map(str, ends)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            pass_fds=ends,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,  # Ctrl-C is for the gateway
        )
    except OSError as error:
        raise UnavailableError(f"No process that decides can be started: {error}.") from error


@lru_cache(maxsize=64)
def _cascade(pickled: bytes) -> Cascade:
    found = pickle.loads(pickled)
    assert isinstance(found, Cascade)
    return found

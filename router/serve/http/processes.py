"""Several processes behind one port: one starts them, watches them and ends them.

::

    supervisor        binds the address; serves nothing
      process 0       accepts at the same socket; its own event loop, its own application
      process 1       ...

Whichever process is free accepts the next connection. One that dies is started again, after a
pause that doubles as long as it keeps dying. SIGTERM and SIGINT go on to all of them, which then
drain as one process alone does. Where the supervisor itself is killed, they drain and end too.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Protocol

from m3router.data.errors import M3RouterError
from m3router.router.serve.backends.backend import UnavailableError
from m3router.router.serve.http.running import bind, run, server_of, url_of
from m3router.router.serve.logs import continue_logging

PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before a process that died is started again, at first and at most."""
WELL = 60.0
"""Seconds that a process must have lived for its death to count as the first."""
MARGIN = 15.0
"""Seconds beyond the time to drain before a process is killed."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Place:
    """A process among several.

    Attributes:
        number: From 0; one that takes a dead one's place has its number.
        processes: How many there are.
        folder: For what they share, such as metrics; of this server alone, and gone with it.
        ready: To be called once requests are taken, with what whoever started the server is to be
            told; can be pickled.
    """

    number: int
    processes: int
    folder: Path
    ready: Callable[[object], None]


class Application(Protocol):
    """An ASGI application that keeps why it did not start, as `Lifespan` does."""

    error: M3RouterError | None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve."""
        ...


MakeApplication = Callable[[Place], Application]


def serve_processes(
    make: MakeApplication,
    host: str,
    port: int,
    *,
    processes: int,
    drain_seconds: int = 30,
    on_start: Callable[[str], None] | None = None,
    on_ready: Callable[[Any], None] | None = None,
    **options: Any,
) -> None:
    """Serve with several processes until a signal asks to stop.

    Args:
        make: Makes the application; called in each process. Can be pickled: a function of a module,
            or a `functools.partial` of one.
        host: Name or address to listen at.
        port: To listen at; 0 for any free one.
        processes: How many.
        drain_seconds: For answers that run when a signal comes.
        on_start: Called with the address once it is taken.
        on_ready: Called with what the first process told, once all take requests.
        options: Further arguments of :func:`server_of` that can be pickled.

    Raises:
        DataError: The address is not available, or an argument of a process is wrong.
        M3RouterError: What a process tells where it cannot start.
    """
    server_of(None, **options)  # what is wrong is told before anything is started
    listener = bind(host, port)
    with listener, tempfile.TemporaryDirectory(prefix="m3router-") as folder:
        if on_start is not None:
            on_start(url_of(host, listener, tls=bool(options.get("tls_cert"))))
        child = _Child(make, listener, Path(folder), processes, drain_seconds, options)
        _Supervisor(child, on_ready).watch()


@dataclass(frozen=True)
class _Child:
    """What each process is started with."""

    make: MakeApplication
    listener: socket.socket
    folder: Path
    processes: int
    drain_seconds: int
    options: Mapping[str, Any]

    def main(self, number: int, supervisor: Connection) -> None:
        """A process' whole life."""
        os.setpgrp()  # Ctrl-C is the supervisor's, which passes it on
        continue_logging()
        threading.Thread(target=_end_with, args=(supervisor,), daemon=True).start()
        place = Place(
            number=number,
            processes=self.processes,
            folder=self.folder,
            ready=lambda told: supervisor.send(_Ready(told)),
        )
        try:
            app = self.make(place)
            server = server_of(app, drain_seconds=self.drain_seconds, **self.options)
            with contextlib.suppress(SystemExit):  # uvicorn's, where it did not start
                run(server, self.listener)
            error = app.error
        except M3RouterError as raised:
            error = raised
        if error is not None:
            supervisor.send(_Failed(type(error), str(error)))
            sys.exit(1)
        if not server.started:
            sys.exit(1)


def _end_with(supervisor: Connection) -> None:
    """Drain and end where the supervisor is gone; nothing else is ever heard of it."""
    with contextlib.suppress(EOFError, OSError):
        supervisor.recv()
    os.kill(os.getpid(), signal.SIGTERM)


@dataclass(frozen=True)
class _Ready:
    told: object


@dataclass(frozen=True)
class _Failed:
    kind: type[M3RouterError]
    message: str


@dataclass
class _Seat:
    """A process' place in the supervisor's eyes."""

    number: int
    process: SpawnProcess | None = None
    pipe: Connection | None = None
    began: float = 0.0
    due: float = 0.0
    pause: float = PAUSE
    ready: _Ready | None = None
    failed: _Failed | None = None


@dataclass
class _Supervisor:
    child: _Child
    on_ready: Callable[[Any], None] | None
    seats: list[_Seat] = field(init=False)
    up: bool = False
    """Whether all were ready once: from then on, who dies is started again."""
    stopping: float | None = None
    """When it began to stop."""
    error: M3RouterError | None = None

    def __post_init__(self) -> None:
        self.seats = [_Seat(number) for number in range(self.child.processes)]
        self._signals = 0

    def watch(self) -> None:
        """Until all have ended."""
        with self._woken_by_signals() as wake:
            while True:
                now = time.monotonic()
                if self._signals and self.stopping is None:
                    self.stop(now)
                if self.stopping is None:
                    for seat in self.seats:
                        if seat.process is None and seat.due <= now:
                            self.start(seat)
                elif not any(seat.process for seat in self.seats):
                    break
                elif self._signals > 1 or now > self.stopping + self.child.drain_seconds + MARGIN:
                    self._each(lambda process: process.kill())
                self._hear(wake, now)
        if self.error is not None:
            raise self.error

    def start(self, seat: _Seat) -> None:
        """Start a process."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        seat.process = context.Process(
            target=self.child.main, args=(seat.number, theirs), name=f"m3router {seat.number}"
        )
        seat.pipe, seat.began, seat.ready, seat.failed = ours, time.monotonic(), None, None
        seat.process.start()
        theirs.close()

    def stop(self, now: float) -> None:
        """Ask all to finish what runs."""
        self.stopping = now
        self._each(lambda process: process.terminate())

    def _each(self, act: Callable[[SpawnProcess], None]) -> None:
        for seat in self.seats:
            if seat.process is not None:
                act(seat.process)

    def _hear(self, wake: socket.socket, now: float) -> None:
        """Wait for something to happen, and take it in."""
        waits = [seat.due - now for seat in self.seats if seat.process is None]
        timeout = 1.0 if self.stopping is not None else min(waits, default=None)
        pipes = {seat.pipe: seat for seat in self.seats if seat.pipe is not None}
        ends = {seat.process.sentinel: seat for seat in self.seats if seat.process is not None}
        for one in wait([wake, *pipes, *ends], timeout and max(0.0, timeout)):
            if one is wake:
                wake.recv(64)
            elif isinstance(one, Connection):
                self._told(pipes[one])
            else:
                self._ended(ends[one])  # type: ignore[index]

    def _told(self, seat: _Seat) -> None:
        assert seat.pipe is not None
        try:
            message = seat.pipe.recv()
        except (EOFError, OSError):
            seat.pipe.close()
            seat.pipe = None
            return
        if isinstance(message, _Failed):
            seat.failed = message
            return
        seat.ready = message
        if not self.up and all(one.ready for one in self.seats):
            self.up = True
            if self.on_ready is not None:
                first = self.seats[0].ready
                self.on_ready(first.told if first else None)

    def _ended(self, seat: _Seat) -> None:
        """Forget a process that ended, and see that another one takes its place."""
        assert seat.process is not None
        while seat.pipe is not None:  # what it told last
            self._told(seat)
        seat.process.join()
        code, seat.process = seat.process.exitcode, None
        if self.stopping is not None:
            return
        now = time.monotonic()
        told = f" {seat.failed.message}" if seat.failed else ""
        if not self.up:
            self.error = (
                seat.failed.kind(seat.failed.message)
                if seat.failed
                else UnavailableError(f"A process ended with code {code} before it was ready.")
            )
            self.stop(now)
            return
        seat.pause = PAUSE if now - seat.began > WELL else min(LONGEST_PAUSE, 2 * seat.pause)
        seat.due = now + seat.pause
        logger.error(
            "Process %d ended with code %s; another one starts in %g s.%s",
            *(seat.number, code, seat.pause, told),
        )

    @contextlib.contextmanager
    def _woken_by_signals(self) -> Iterator[socket.socket]:
        """A socket that becomes readable when a signal to stop has come."""
        ours, theirs = socket.socketpair()

        def heard(_number: int, _frame: object) -> None:
            self._signals += 1
            with contextlib.suppress(OSError):
                theirs.send(b"!")

        theirs.setblocking(False)
        before = {one: signal.signal(one, heard) for one in (signal.SIGTERM, signal.SIGINT)}
        try:
            with ours, theirs:
                yield ours
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

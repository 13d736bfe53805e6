"""Ctrl-C and SIGTERM end a search without losing a finished trial."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Whether to stop; only computing is interrupted, never what writes to the study."""

    def __init__(self) -> None:
        self.asked = False
        self.interrupted = False
        self._inside = False

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let a signal interrupt what is done here.

        Raises:
            KeyboardInterrupt: a signal came here, or before.
        """
        self._inside = True
        try:
            if self.asked:
                raise KeyboardInterrupt
            yield
        finally:
            self._inside = False

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        self.asked = True
        self.interrupted = number == signal.SIGINT
        if self._inside:
            self._inside = False  # a second signal does not interrupt what follows
            raise KeyboardInterrupt


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Handle SIGINT and SIGTERM; outside the main thread, where that cannot be, do nothing."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.ask) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""What the gateway and its deciding process say to each other, over a pair of sockets.

The gateway asks with a question and an image's size; the process asks back for the pixels where it
does not know the image yet, so that these go over once, and no more of them than it takes on::

    Question, Dropped ->
                        <- NeedsPixels
    Pixels, Pixels    ->
                        <- Told, Refused

Both ends are processes of this package, joined by sockets without a name: nobody else can speak
here, and what is unpickled was made by the other end out of plain values.
"""

from __future__ import annotations

import pickle
import socket
import struct
from dataclasses import dataclass

from m3router.data.errors import DataError, M3RouterError, MismatchError, ModelError
from m3router.router.inference.decision import Decision
from m3router.router.serve.backends.backend import UnavailableError
from m3router.router.serve.deciding.decider import RouterFacts, Wish

HEAD = struct.Struct("!QQ")
"""Bytes of a message, and of the pixels behind it."""


@dataclass(frozen=True, kw_only=True)
class Loading:
    """What the process loads; see `m3router.router.inference.router.Router.load`."""

    run: str
    policy: str
    encoder: str | None
    device: str
    threads: int | None


@dataclass(frozen=True)
class Question:
    """A question: its number, what is asked, how to route it, about an image of which size.

    `again` is that of :class:`m3router.router.serve.deciding.decider.Asked`.
    """

    number: int
    question: str
    wish: Wish
    digest: str
    size: tuple[int, int] | None
    again: bool = True


@dataclass(frozen=True)
class Dropped:
    """Nobody waits for this question any more, or its image cannot be sent."""

    number: int


@dataclass(frozen=True)
class Pixels:
    """A part of the image of a question: RGB, row by row, from this byte on; behind the message.

    The image is of this size, which may be below that of its header.
    """

    number: int
    start: int
    size: tuple[int, int]


@dataclass(frozen=True)
class Started:
    """The process can decide."""

    facts: RouterFacts


@dataclass(frozen=True)
class NeedsPixels:
    """The image of this question is not known."""

    number: int


@dataclass(frozen=True)
class Told:
    """What was decided; the cascade is pickled, into the same bytes for the same one."""

    number: int
    decision: Decision
    cascade: bytes
    cached: int


@dataclass(frozen=True)
class Refused:
    """Why nothing was decided; number 0 for why the process cannot start."""

    number: int
    kind: str
    message: str

    @classmethod
    def because(cls, number: int, error: M3RouterError) -> Refused:
        """Tell an error; what is none of `KINDS` broke down."""
        found = [name for name, kind in KINDS.items() if isinstance(error, kind)]
        return cls(number, (found or [UnavailableError.__name__])[0], str(error))

    @property
    def error(self) -> M3RouterError:
        """The error, to be raised."""
        return KINDS[self.kind](self.message)


KINDS: dict[str, type[M3RouterError]] = {
    one.__name__: one for one in (DataError, MismatchError, ModelError, UnavailableError)
}
"""Errors that arrive as such."""


def packed(message: object, pixels: bytes = b"") -> bytes:
    """A message as it is sent, the pixels behind it not included."""
    body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return HEAD.pack(len(body), len(pixels)) + body


def send(end: socket.socket, message: object, pixels: bytes = b"") -> None:
    """Send a message and the pixels behind it.

    Raises:
        OSError: If the other end is gone.
    """
    end.sendall(packed(message, pixels))
    if pixels:
        end.sendall(pixels)


def receive(end: socket.socket) -> tuple[object, bytearray]:
    """A message and the pixels behind it.

    Raises:
        EOFError: If the other end is gone.
    """
    length, behind = HEAD.unpack(_exactly(end, HEAD.size))
    return pickle.loads(_exactly(end, length)), _exactly(end, behind)


def _exactly(end: socket.socket, length: int) -> bytearray:
    found = bytearray(length)
    view = memoryview(found)
    while view:
        try:
            count = end.recv_into(view)
        except ConnectionError as error:
            raise EOFError from error
        if not count:
            raise EOFError
        view = view[count:]
    return found

"""An upstream that keeps the very bytes it got, and answers the very bytes it is told to."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMPLETION = (
    b'{ "id":"chatcmpl-1", "object":"chat.completion",  "choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"\xc3\xa4 \\u00e4"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10} }\n'
)


@dataclass
class Heard:
    method: str
    path: str
    headers: list[tuple[str, str]]
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw)

    def header(self, name: str) -> str | None:
        found = [value for own, value in self.headers if own.lower() == name]
        return found[0] if found else None


@dataclass
class Said:
    """Pieces of a body; chunked where there are several, or it is cut."""

    pieces: list[bytes] = field(default_factory=lambda: [COMPLETION])
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    cut: bool = False
    before: float = 0.0
    between: float = 0.0
    closes: bool = False


@dataclass
class RawUpstream:
    url: str = ""
    heard: list[Heard] = field(default_factory=list)
    script: Callable[[Heard], Said] = lambda heard: Said()
    broken: threading.Event = field(default_factory=threading.Event)
    """Set once a client left while it was answered."""
    written: int = 0


@contextlib.contextmanager
def raw_upstream() -> Iterator[RawUpstream]:
    outer = RawUpstream()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            heard = Heard(self.command, self.path, list(self.headers.items()), raw)
            outer.heard.append(heard)
            said = outer.script(heard)
            time.sleep(said.before)
            try:
                self.say(said)
            except OSError:
                outer.broken.set()
                self.close_connection = True

        do_POST = do_GET = do_DELETE = answer

        def say(self, said: Said) -> None:
            self.send_response(said.status)
            for name, value in said.headers.items():
                self.send_header(name, value)
            chunked = len(said.pieces) > 1 or said.cut
            if chunked:
                self.send_header("Transfer-Encoding", "chunked")
            elif said.pieces:
                self.send_header("Content-Length", str(len(said.pieces[0])))
            else:
                self.send_header("Content-Length", "0")
            self.end_headers()
            for piece in said.pieces:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
                self.wfile.flush()
                outer.written += len(piece)
                time.sleep(said.between)
            if chunked and not said.cut:
                self.wfile.write(b"0\r\n\r\n")
            if said.cut or said.closes:
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    outer.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield outer
    finally:
        server.shutdown()
        server.server_close()

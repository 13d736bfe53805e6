"""A server of chat completions in this process, whose replies a test writes."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]


class JudgeServer:
    """What was asked, and what is replied.

    Attributes:
        reply: Gives the text of a reply; an int is a status of HTTP.
        asked: Bodies of all requests.
        keys: Their ``Authorization`` headers.
    """

    def __init__(self, reply: Callable[[Body], str | int]) -> None:
        self.reply = reply
        self.asked: list[Body] = []
        self.keys: list[str | None] = []
        self.url = ""
        self._lock = threading.Lock()

    def answer(self, body: Body, key: str | None) -> tuple[int, Body]:
        with self._lock:
            self.asked.append(body)
            self.keys.append(key)
        said = self.reply(body)
        if isinstance(said, int):
            return said, {"error": {"message": f"status {said}"}}
        choice = {"message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 100, "completion_tokens": 4}
        return 200, {"model": "judge-2026-01", "choices": [choice], "usage": usage}


@contextmanager
def judge_server(reply: Callable[[Body], str | int]) -> Iterator[JudgeServer]:
    """Serve until the end of the block."""
    judge = JudgeServer(reply)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, answer = judge.answer(body, self.headers.get("Authorization"))
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    judge.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield judge
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

"""A small HTTP server whose answers a test writes down."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

TEXT_TOKENS = 10


@dataclass
class Said:
    """A response: an object becomes JSON; bytes are sent as they are."""

    body: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    kind: str = "application/json"


@dataclass
class Heard:
    """A request."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]

    @property
    def content(self) -> list[dict[str, Any]]:
        return self.body["messages"][-1]["content"]

    @property
    def question(self) -> str:
        return self.content[-1]["text"]

    @property
    def image(self) -> Image.Image | None:
        if self.content[0]["type"] != "image_url":
            return None
        url = self.content[0]["image_url"]["url"]
        return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


Script = Callable[[Heard], Said]


def completion(text: str = "red", **more: Any) -> dict[str, Any]:
    """A whole chat completion."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": more.pop("finish_reason", "stop"),
        "logprobs": more.pop("logprobs", None),
    }
    return {"object": "chat.completion", "choices": [choice], **more}


def usage(prompt: int, answer: int = 2, **details: Any) -> dict[str, Any]:
    counts = {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}
    return {**counts, **({"prompt_tokens_details": details} if details else {})}


def honest(heard: Heard) -> Said:
    """Reads the image: a token for each 32 x 32 pixels of it, the answer its size."""
    image = heard.image
    tokens = 0 if image is None else (image.width // 32) * (image.height // 32)
    text = "none" if image is None else f"{image.width} x {image.height}"
    counts = usage(TEXT_TOKENS + tokens)
    return Said(completion(text, model=heard.body["model"], usage=counts))


def events(*payloads: Any, done: bool = True) -> Said:
    """A stream."""
    lines = [f"data: {json.dumps(one)}\n\n" for one in payloads]
    text = ": hello\n\n" + "".join(lines) + ("data: [DONE]\n\n" if done else "")
    return Said(text.encode(), kind="text/event-stream")


class ScriptedServer:
    """Answers ``POST /v1/chat/completions`` by a script, and keeps what it heard."""

    def __init__(self) -> None:
        self.script: Script = honest
        self.gets: dict[str, Any] = {}
        self.heard: list[Heard] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                heard = Heard(self.path, dict(self.headers), json.loads(self.rfile.read(length)))
                with outer._lock:
                    outer.heard.append(heard)
                    outer._at_once += 1
                    outer.most_at_once = max(outer.most_at_once, outer._at_once)
                try:
                    said = outer.script(heard)
                finally:
                    with outer._lock:
                        outer._at_once -= 1
                self._say(said)

            def do_GET(self) -> None:
                found = outer.gets.get(self.path)
                self._say(Said({"detail": "Not Found"}, 404) if found is None else Said(found))

            def _say(self, said: Said) -> None:
                body = said.body if isinstance(said.body, bytes) else json.dumps(said.body).encode()
                self.send_response(said.status)
                self.send_header("Content-Type", said.kind)
                self.send_header("Content-Length", str(len(body)))
                for name, value in said.headers.items():
                    self.send_header(name, value)
                with contextlib.suppress(ConnectionError):  # a client that did not wait
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

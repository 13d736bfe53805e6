"""A server that is the guard and little else: `python -m tests.serve.guarded KEYS`.

It says its address. Behind the door bodies are parsed, and answered with the number of their
fields.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

from m3router.router.serve.guard.keys import KeyRing
from m3router.router.serve.guard.rates import Rates
from m3router.router.serve.guard.request_guard import RequestGuard
from m3router.router.serve.http.app import admit
from m3router.router.serve.http.running import serve_forever


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    told = b"{}"
    if scope["method"] == "POST":
        body = json.loads((await receive())["body"])
        told = json.dumps({"fields": len(body)}).encode()
    headers = [(b"content-length", b"%d" % len(told)), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": told})


def main(keys: str) -> None:
    door = partial(admit, KeyRing.of(Path(keys), None), Rates(None, 1))
    guard = RequestGuard(app, 20 << 20, 5.0, 16, admit=door)
    serve_forever(guard, "127.0.0.1", 0, access_log=False, on_start=_tell)


def _tell(address: str) -> None:
    sys.stdout.write(address + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])

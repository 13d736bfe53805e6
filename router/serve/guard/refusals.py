"""How a request is refused, wherever that happens: OpenAI's error object, fenced by headers."""

from __future__ import annotations

import json

from m3router.router.serve.errors import ApiError

HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"cache-control": b"no-store",
    b"referrer-policy": b"no-referrer",
    b"x-frame-options": b"DENY",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"cross-origin-resource-policy": b"same-origin",
}
"""On every answer, unless the application set them itself."""

REFUSAL_SECONDS = 0.1
"""Between a request that is refused at the door and its answer. Who tries again at once, on however
few connections, costs this server little; who asked by mistake does not notice."""


def refusal_of(error: ApiError) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers, without :data:`HEADERS`, and body of an answer that refuses."""
    body = json.dumps(error.body()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    headers += [
        (name.lower().encode(), value.encode("latin-1")) for name, value in error.headers.items()
    ]
    return headers, body

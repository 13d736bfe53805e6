"""An upstream in a process of its own that looks at nothing: what is slow then is the gateway.

    python -m tests.serve.gateway.careless_upstream PORT

The honest stand-in decodes the images that it is sent, so that images made to harm harm it as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys

from tests.serve.gateway.raw_upstream import COMPLETION

MODELS = json.dumps({"object": "list", "data": [{"id": "stand-in", "object": "model"}]}).encode()


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = next(
                (line for line in head.split(b"\r\n") if line.startswith(b"content-length:")), b":0"
            )
            await reader.readexactly(int(length.partition(b":")[2]))
            body = MODELS if head.startswith(b"get") else COMPLETION
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
            )
            await writer.drain()
    writer.close()


async def main(port: int) -> None:
    """Answer until killed."""
    server = await asyncio.start_server(_serve, "127.0.0.1", port, limit=1 << 20)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))

"""How the application is run: one uvicorn process with limits, until SIGTERM or SIGINT."""

from __future__ import annotations

import logging
import signal
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from m3router.data.errors import DataError
from m3router.router.serve.http.request_ids import RequestIds

if TYPE_CHECKING:
    import uvicorn

    from m3router.router.serve.guard.connection_timeouts import ConnectionTimeouts

KEEP_ALIVE = 5  # seconds that a connection may rest between two requests
HEADER_BYTES = 32 << 10  # of a request's line and headers
BACKLOG = 512  # connections that the system holds until they are taken


def serve_forever(
    app: Any,
    host: str,
    port: int,
    *,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    timeouts: ConnectionTimeouts | None = None,
    drain_seconds: int = 30,
    proxies: str | None = None,
    access_log: bool = True,
    on_start: Callable[[str], None] | None = None,
    on_stop: Callable[[], None] | None = None,
) -> None:
    """Serve until a signal asks to stop; then take nothing new, finish what runs, and return.

    The address is taken first, so that a port in use is known before a model is loaded, but
    nothing is accepted before the application's lifespan has started. At SIGTERM or SIGINT the
    port is closed, answers that run are finished within `drain_seconds`, then those left are
    cancelled and the lifespan ends. A second SIGINT stops at once.

    Args:
        app: The ASGI application.
        host: Name or address to listen at.
        port: To listen at; 0 for any free one.
        tls_cert: PEM file of the certificate and its chain; None for plain HTTP.
        tls_key: PEM file of its key; None where it stands in `tls_cert`.
        timeouts: How long clients are waited for; None for the usual times.
        drain_seconds: For answers that run when a signal comes.
        proxies: Addresses whose X-Forwarded-For is believed, separated by commas; None for none.
        access_log: Write a line for each request, as `RequestIds` does.
        on_start: Called with the address, such as "http://127.0.0.1:8000", once it is taken.
        on_stop: Called once when a signal comes, within its handler: set a flag, no more.

    Raises:
        DataError: uvicorn is missing, the address is not available, or the certificate cannot be
            used.
    """
    listener = bind(host, port)
    try:
        server = server_of(
            app,
            tls_cert=tls_cert,
            tls_key=tls_key,
            timeouts=timeouts,
            drain_seconds=drain_seconds,
            proxies=proxies,
            access_log=access_log,
            on_stop=on_stop,
        )
        if on_start is not None:
            on_start(url_of(host, listener, tls=tls_cert is not None))
        run(server, listener)
    finally:
        listener.close()


def server_of(
    app: Any,
    *,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    timeouts: ConnectionTimeouts | None = None,
    drain_seconds: int = 30,
    proxies: str | None = None,
    access_log: bool = True,
    on_stop: Callable[[], None] | None = None,
) -> uvicorn.Server:
    """The uvicorn server as :func:`serve_forever` runs it; the same arguments and errors."""
    try:
        import uvicorn

        from m3router.router.serve.guard.connection_timeouts import (
            ConnectionTimeouts,
            ObservedServer,
            protocol_of,
        )
    except ImportError as error:
        raise DataError(
            "Serving needs the package uvicorn, which is not installed: pip install "
            "'m3router[serve]'"
        ) from error
    if tls_key is not None and tls_cert is None:
        raise DataError("--tls-key is given without --tls-cert; give both.")
    timeouts = timeouts or ConnectionTimeouts()
    config = uvicorn.Config(
        RequestIds(app, log=access_log),
        http=protocol_of(timeouts),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,  # RequestIds writes it
        server_header=False,
        proxy_headers=proxies is not None,
        forwarded_allow_ips=proxies,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=drain_seconds,
        h11_max_incomplete_event_size=HEADER_BYTES,
        ssl_certfile=tls_cert,
        ssl_keyfile=tls_key,
    )
    try:
        config.load()
    except (ssl.SSLError, OSError) as error:
        raise DataError(
            f"The certificate {tls_cert} and its key cannot be used: {error.strerror or error}."
        ) from error
    return ObservedServer(config, on_stop)


def url_of(host: str, listener: socket.socket, *, tls: bool) -> str:
    """The address of a server, as clients give it."""
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if tls else 'http'}://{shown}:{listener.getsockname()[1]}"


def bind(host: str, port: int) -> socket.socket:
    """Take an address and listen there: who connects before the server runs waits for it.

    Raises:
        DataError: If it is not available.
    """
    if not 0 <= port <= 65_535:
        raise DataError(f"--port must be 0 to 65535, got {port}.")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise DataError(f"{host}:{port} is not an address to listen at: {error}.") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError as error:
        listener.close()
        raise DataError(
            f"Cannot listen at {host}:{port}: {error.strerror}. Choose another with --port."
        ) from error
    return listener


def run(server: uvicorn.Server, listener: socket.socket) -> None:
    """Run until a signal. uvicorn raises the signal again at its end, which must not kill us."""

    def heard(_number: int, _frame: FrameType | None) -> None:
        return None

    spoken = logging.getLogger("uvicorn.error")
    spoken.addFilter(_no_echo)
    before = {number: signal.signal(number, heard) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        server.run(sockets=[listener])
    finally:
        spoken.removeFilter(_no_echo)
        for number, handler in before.items():
            signal.signal(number, handler)


def _no_echo(record: logging.LogRecord) -> bool:
    """Leave out that the application did not start: why is told by whoever knows it."""
    return not str(record.msg).startswith("Application startup failed")

"""Requests over HTTP: bounded, to one host only, without a machine's proxies."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from m3router.data.errors import DataError, M3RouterError, ModelError
from m3router.m3core.endpoint.keys import HIDDEN, Key

MOST_BYTES = 16 << 20
"""Of a response; longer ones are not read on."""
MOST_REDIRECTS = 3
SAME_METHOD = (307, 308)
"""Redirects after which the same request is sent again (RFC 9110, section 15.4)."""
CONNECT_SECONDS = 10.0
LONGEST_TIMEOUT = 1e6
"""Seconds; what sockets take has an end."""
LONG_KEY = 16
"""Characters from which on a key is no word that an answer may have by chance."""


class NoConnectionError(M3RouterError):
    """Nobody listens at the address."""


class NoReplyError(M3RouterError):
    """A connection that broke, or a response that did not come in time or did not end."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A response.

    Attributes:
        status: Of HTTP.
        content_type: "" where there is none.
        retry_after: The header; None where there is none.
        body: All of it.
        seconds: From the request to the end of the response.
    """

    status: int
    content_type: str
    retry_after: str | None
    body: bytes
    seconds: float


def check_timeout(seconds: float) -> None:
    """Check that a response can be waited for so long.

    Raises:
        DataError: It cannot.
    """
    if not 0 < seconds < LONGEST_TIMEOUT:
        raise DataError(
            f"timeout_s (--request-timeout) must be seconds above 0 and below "
            f"{LONGEST_TIMEOUT:.0f}, got {seconds:g}"
        )


class Transport:
    """Sends requests to one endpoint; safe to use from several threads.

    The environment's proxies and certificates are not used, and redirects lead nowhere but to
    other paths of the same host, so that a key goes to the host that the user named alone.

    Args:
        url: As :func:`m3router.m3core.endpoint.keys.base_url` gives it.
        key: Sent as a bearer token; None for none.
        connections: Most at the same time.
        timeout: Seconds in which a whole response must have come.

    Raises:
        DataError: If the seconds are none.
        ModelError: If the package httpx is not installed.
    """

    def __init__(self, url: str, *, key: Key | None, connections: int, timeout: float) -> None:
        check_timeout(timeout)
        try:
            import httpx
        except ImportError as error:
            raise ModelError(
                "asking an endpoint needs the package httpx: pip install 'm3router[endpoint]'"
            ) from error
        self._url = url
        self._key = key
        self._timeout = timeout
        self._no_connection = (httpx.ConnectError, httpx.ConnectTimeout)
        self._too_slow = httpx.TimeoutException
        self._no_reply = (httpx.TransportError, httpx.InvalidURL, httpx.DecodingError)
        headers = {
            "Accept": "application/json, text/event-stream",
            "Accept-Encoding": "identity",  # so that the bound on a response is one on memory
            "User-Agent": "m3router",
        }
        if key is not None:
            headers["Authorization"] = f"Bearer {key.reveal()}"
        self._client = httpx.Client(
            headers=headers,
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(timeout, connect=min(timeout, CONNECT_SECONDS)),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
        )

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def post(self, path: str, body: Any) -> Reply:
        """Send JSON.

        Raises:
            NoConnectionError: If nobody listens.
            NoReplyError: If no whole response comes.
            ModelError: If the endpoint leads elsewhere.
        """
        return self._send("POST", self._url + path, body)

    def get(self, path: str, *, root: bool = False) -> Reply:
        """Read a path behind the address, or of the host itself where ``root`` is set.

        Raises:
            NoConnectionError: If nobody listens.
            NoReplyError: If no whole response comes.
            ModelError: If the endpoint leads elsewhere.
        """
        parts = urlsplit(self._url)
        url = f"{parts.scheme}://{parts.netloc}" if root else self._url
        return self._send("GET", url + path, None)

    def _send(self, method: str, url: str, body: Any) -> Reply:
        for _ in range(MOST_REDIRECTS + 1):
            try:
                reply, location = self._once(method, url, body)
            except self._no_connection as error:
                if "[SSL" in str(error) or "certificate" in str(error).lower():
                    raise ModelError(
                        f"the server at {self._url} and this client find no common ground by TLS "
                        f"({error}): check http:// or https:// and the server's certificate; "
                        "authorities that the environment names are not used"
                    ) from error
                raise NoConnectionError(f"no server answers at {self._url} ({error})") from error
            except self._too_slow as error:
                raise NoReplyError(self._slow()) from error
            except self._no_reply as error:
                said = str(error) or type(error).__name__
                raise NoReplyError(f"the connection broke: {said}") from error
            if location is None:
                return reply
            if reply.status not in SAME_METHOD or _origin(location) != _origin(url):
                break
            url = location
        target = urlsplit(self._hidden(str(location)))
        raise ModelError(
            f"the endpoint {self._url} redirects to {target.scheme}://{target.hostname}"
            f"{target.path} (status {reply.status}), which is not followed, so that keys and "
            "images go where you said only: give the right address"
        )

    def _hidden(self, text: str) -> str:
        """A text without the key, should a server have repeated it."""
        return text if self._key is None else self._key.hide(text)

    def _slow(self) -> str:
        return (
            f"no whole response within {self._timeout:g} s; allow more with --request-timeout, or "
            "fewer requests with --in-flight"
        )

    def _without_key(self, body: bytes) -> bytes:
        """A response without the key, so that even an answer that repeats it brings it nowhere.

        NOTE: not of a short one: it may be a word such as "EMPTY".
        """
        if self._key is None or len(self._key.reveal()) < LONG_KEY:
            return body
        return body.replace(self._key.reveal().encode("ascii"), HIDDEN.encode("ascii"))

    def _once(self, method: str, url: str, body: Any) -> tuple[Reply, str | None]:
        """One response, and where it leads to."""
        began = time.monotonic()
        with self._client.stream(method, url, json=body) as response:
            content = bytearray()
            for piece in response.iter_bytes():
                content += piece
                if len(content) > MOST_BYTES:
                    raise NoReplyError(
                        f"the response is longer than {MOST_BYTES >> 20} MiB and was not read on"
                    )
                if time.monotonic() - began > self._timeout:
                    raise NoReplyError(self._slow())
            reply = Reply(
                status=response.status_code,
                content_type=response.headers.get("Content-Type", ""),
                retry_after=response.headers.get("Retry-After"),
                body=self._without_key(bytes(content)),
                seconds=time.monotonic() - began,
            )
            if not response.has_redirect_location:
                return reply, None
            return reply, str(response.url.join(response.headers["Location"]))


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname, port

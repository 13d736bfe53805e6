"""Images from elsewhere, from hosts that the operator lists and from nowhere else.

What a server fetches at a stranger's word can be turned against the network that it stands in
(server-side request forgery, OWASP A10:2021). So a name is resolved here, once; every address it
has must be public; the connection goes to the checked address and no name is looked up again (DNS
rebinding); certificate and Host are still the name's; and each redirect starts from the beginning.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urljoin, urlsplit

from m3router.data.errors import DataError
from m3router.router.serve.errors import ApiError
from m3router.router.serve.images.addresses import is_public

if TYPE_CHECKING:
    import ssl

    import httpx

PORTS = frozenset({80, 443})
REDIRECTS = 3
PARALLEL = 8
LONGEST_URL = 4096

_HOST = re.compile(r"(?:\*\.)?(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9-]{1,63}")
_URL = re.compile(r"[!-~]+")
_log = logging.getLogger(__name__)

Resolve = Callable[[str, int], Awaitable[list[str]]]


@dataclass(frozen=True)
class _Target:
    """An address that may be asked, and how it is asked."""

    url: str
    scheme: str
    host: str
    port: int
    path: str


class Fetcher:
    """Fetches images over HTTP.

    Args:
        hosts: Names that may be asked; ``*.example.org`` for all below example.org.
        max_bytes: Longest image.
        seconds: For all of it: resolving, connecting, redirects, reading.
        ports: That may be asked.
        parallel: Fetches at once; others wait within their time.
        resolve: Name and port -> addresses; None for the system's resolver.
        allowed: Which addresses may be asked; for tests, which have no public server.
        tls: What certificates are checked against; None for the usual authorities.

    Raises:
        DataError: If a host is not a plain name, or httpx is missing.
    """

    def __init__(
        self,
        hosts: Iterable[str],
        max_bytes: int,
        seconds: float,
        *,
        ports: frozenset[int] = PORTS,
        parallel: int = PARALLEL,
        resolve: Resolve | None = None,
        allowed: Callable[[str], bool] = is_public,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        try:
            import httpx
        except ImportError as error:
            raise DataError(
                "Fetching images needs the package httpx, which is not installed: pip install "
                "'m3router[serve]'"
            ) from error
        self.hosts = frozenset(_check_listed(host) for host in hosts)
        self.max_bytes = max_bytes
        self.seconds = seconds
        self.ports = ports
        self.resolve = resolve or _resolve
        self.allowed = allowed
        self._tls = tls or httpx.create_ssl_context(trust_env=False)
        self._slots = asyncio.Semaphore(parallel)

    async def fetch(self, url: str) -> bytes:
        """Get the image at an address.

        Args:
            url: http or https, of a listed host.

        Returns:
            The bytes; nothing is known of them but that they were called ``image/...``.

        Raises:
            ApiError: 400 if the address may not be asked or gave no image, 413 if that is too
                large. What names resolve to and how a connection failed is not told.
        """
        target = self._target(url)
        try:
            async with asyncio.timeout(self.seconds), self._slots:
                for _ in range(REDIRECTS + 1):
                    found = await self._get(target)
                    if isinstance(found, bytes):
                        return found
                    following = self._target(urljoin(target.url, found))
                    if (target.scheme, following.scheme) == ("https", "http"):
                        raise _unfetched(target.host, "a redirect left https")
                    target = following
                raise _unfetched(target.host, f"more than {REDIRECTS} redirects")
        except TimeoutError:
            raise _unfetched(target.host, f"took longer than {self.seconds:g} seconds") from None

    def _target(self, url: str) -> _Target:
        """Take an address apart, once: what is checked is what is asked."""
        try:
            if len(url) > LONGEST_URL or not _URL.fullmatch(url) or "\\" in url:
                raise ValueError
            parts = urlsplit(url)
            scheme = parts.scheme.lower()
            if scheme not in ("http", "https") or not parts.hostname:
                raise ValueError
            port = parts.port or (443 if scheme == "https" else 80)
        except ValueError:
            raise ApiError(
                400,
                "The image's address is not a plain http or https URL (printable ASCII, at most "
                f"{LONGEST_URL} characters).",
                code="invalid_image_url",
            ) from None
        if "@" in parts.netloc:
            raise ApiError(
                400, "The image's address must not hold a password.", code="invalid_image_url"
            )
        host = parts.hostname.lower().removesuffix(".")
        if not self._listed(host) or port not in self.ports:
            raise ApiError(
                400,
                "Images are not fetched from that host and port here.",
                code="invalid_image_url",
            )
        return _Target(url, scheme, host, port, _path(parts))

    def _listed(self, host: str) -> bool:
        if "*" in host or not _HOST.fullmatch(host):
            return False
        if host in self.hosts:
            return True
        above = host.split(".")[1:]
        return any("*." + ".".join(above[start:]) in self.hosts for start in range(len(above)))

    async def _get(self, target: _Target) -> bytes | str:
        """Ask once: the bytes of an image, or where it is said to be instead."""
        import httpx

        addresses = await self._addresses(target)
        # A transport, not a client: no proxy of the environment that would resolve the name once
        # more, no cookies, no redirects of its own, and no line in the log with the address.
        async with httpx.AsyncHTTPTransport(verify=self._tls, trust_env=False) as transport:
            for address in addresses:
                try:
                    return await self._read(transport, target, address)
                except httpx.ConnectError as error:
                    cause = error
                except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
                    _log.info("%s: %s", target.host, type(error).__name__)
                    raise _unfetched(target.host, "the connection failed") from error
        _log.info("%s: %s", target.host, type(cause).__name__)
        raise _unfetched(target.host, "it cannot be reached")

    async def _addresses(self, target: _Target) -> list[str]:
        try:
            found = await self.resolve(target.host, target.port)
        except (OSError, UnicodeError):
            found = []
        if not found or not all(self.allowed(address) for address in found):
            _log.info("%s: no address, or one that is not public", target.host)
            raise _unfetched(target.host, "it cannot be reached")
        return found[:4]

    async def _read(
        self, transport: httpx.AsyncHTTPTransport, target: _Target, address: str
    ) -> bytes | str:
        import httpx

        where = f"[{address}]" if ":" in address else address
        usual = target.port == (443 if target.scheme == "https" else 80)
        headers = {
            "Host": target.host if usual else f"{target.host}:{target.port}",
            "Accept": "image/*",
            "Accept-Encoding": "identity",
            "User-Agent": "m3router",
            "Connection": "close",
        }
        steps = dict.fromkeys(("connect", "read", "write", "pool"), self.seconds)
        request = httpx.Request(
            "GET",
            f"{target.scheme}://{where}:{target.port}{target.path}",
            headers=headers,
            extensions={"sni_hostname": target.host, "timeout": steps},
        )
        response = await transport.handle_async_request(request)
        try:
            if response.status_code in (301, 302, 303, 307, 308):
                return str(response.headers.get("location", ""))
            self._check(response, target)
            data = bytearray()
            async for more in response.aiter_raw():
                data += more
                if len(data) > self.max_bytes:
                    raise self._too_large()
            return bytes(data)
        finally:
            await response.aclose()

    def _check(self, response: httpx.Response, target: _Target) -> None:
        if response.status_code != 200:
            raise _unfetched(target.host, f"it answered with status {response.status_code}")
        kind = response.headers.get("content-type", "").strip().lower()
        if not kind.startswith("image/"):
            raise _unfetched(target.host, "what it sent is not called image/...")
        if response.headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise _unfetched(target.host, "it sent something compressed")
        length = response.headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > self.max_bytes:
            raise self._too_large()

    def _too_large(self) -> ApiError:
        return ApiError(
            413, f"The image has more than {self.max_bytes} bytes.", code="image_file_too_large"
        )


def _path(parts: SplitResult) -> str:
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _unfetched(host: str, cause: str) -> ApiError:
    return ApiError(
        400,
        f"The image could not be fetched from {host}: {cause}.",
        code="failed_to_download_image",
    )


def _check_listed(host: str) -> str:
    plain = host.strip().lower().removesuffix(".")
    if not _HOST.fullmatch(plain) or (plain.startswith("*.") and plain.count(".") < 2):
        raise DataError(
            f"Allowed host {host!r} is not a plain name: give example.org, or *.example.org for "
            "all names below it (letters of other scripts as punycode)."
        )
    return plain


async def _resolve(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))

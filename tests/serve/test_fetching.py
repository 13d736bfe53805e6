"""Fetching: which addresses are public, and servers on this machine that try every trick."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import logging
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3router.data.errors import DataError
from m3router.router.serve.errors import ApiError
from m3router.router.serve.images.addresses import is_public
from m3router.router.serve.images.decoding import image_of
from m3router.router.serve.images.fetching import Fetcher
from m3router.router.serve.images.limits import ImageLimits
from m3router.router.serve.images.workers import ImageWorkers

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415478da63f8cf"
    "c0000003010100f7033fd60000000049454e44ae426082"
)
SECRET = "signature=abc123"
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Reading all authorities of the world takes longer than the tests."""
Answer = Callable[[str, asyncio.StreamWriter], Awaitable[None]]


def inside_v4(number: int) -> bool:
    """The special blocks of IPv4, as plain arithmetic on 32 bits."""
    first, second, third = number >> 24, number >> 16 & 255, number >> 8 & 255
    return (
        first in (0, 10, 127)
        or first >= 224
        or (first == 100 and 64 <= second <= 127)
        or (first == 172 and 16 <= second <= 31)
        or (first, second) in ((169, 254), (192, 168), (198, 18), (198, 19))
        or (first, second, third) in ((192, 0, 0), (192, 0, 2), (192, 88, 99))
        or (first, second, third) in ((198, 51, 100), (203, 0, 113))
        or number == (168 << 24) + (63 << 16) + (129 << 8) + 16
    )


@given(
    st.integers(0, 2**32 - 1)
    | st.sampled_from([10, 100, 127, 169, 172, 192, 198, 203]).flatmap(
        lambda first: st.integers(first << 24, (first + 1 << 24) - 1)
    )
)
def test_public_ipv4(number: int) -> None:
    address = ipaddress.IPv4Address(number)
    if is_public(str(address)):
        assert address.is_global and not inside_v4(number)
    else:
        assert inside_v4(number) or not address.is_global


@given(st.integers(0, 2**128 - 1), st.sampled_from([0, 1, 0x2001, 0x2002, 0x2600, 0xFC00, 0xFE80]))
def test_public_ipv6(number: int, first: int) -> None:
    number = (first << 112) | number & (2**112 - 1)
    address = ipaddress.IPv6Address(number)
    if is_public(str(address)):
        assert number >> 125 == 1 and address.is_global
        for inner in (address.ipv4_mapped, address.sixtofour, address.teredo):
            assert inner is None


@given(st.integers(0, 2**32 - 1))
def test_ipv4_within_ipv6_is_never_public(number: int) -> None:
    packed = number.to_bytes(4, "big")
    for before, after in (
        ("00000000000000000000ffff", ""),
        ("000000000000000000000000", ""),
        ("0064ff9b0000000000000000", ""),
        ("0064ff9b0001000000000000", ""),
        ("2002", "00000000000000000001"),
        ("200100000000000000000000", ""),
    ):
        address = ipaddress.IPv6Address(bytes.fromhex(before) + packed + bytes.fromhex(after))
        assert not is_public(str(address))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "10.1.2.3",
        "172.31.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.100.100.200",
        "192.0.0.192",
        "168.63.129.16",
        "224.0.0.1",
        "255.255.255.255",
        "198.18.0.1",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "::ffff:127.0.0.1",
        "2002:7f00:1::",
        "64:ff9b::7f00:1",
        "2001::1",
        "2001:db8::1",
        "3fff::1",
        "2606:4700::1%eth0",
        "localhost",
        "0x7f.1",
        "2130706433",
        "127.1",
        "1.1.1.1:80",
        "[::1]",
        "",
        " 8.8.8.8",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "172.32.0.1", "2606:4700:4700::1111"])
def test_addresses_that_are(address: str) -> None:
    assert is_public(address)


@contextlib.asynccontextmanager
async def serving(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[Any]:
    """A server that hands the request's text to `answer`; gives its port and the requests."""
    requests: list[str] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
            await answer(requests[-1], writer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1], requests


def says(head: str, body: bytes = b"") -> Answer:
    async def answer(request: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 " + head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)

    return answer


def image(body: bytes = PNG) -> Answer:
    return says(f"200 OK\nContent-Type: image/png\nContent-Length: {len(body)}", body)


async def here(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]


def fetcher(port: int, *hosts: str, **more: Any) -> Fetcher:
    options: dict[str, Any] = {"resolve": here, "allowed": lambda address: True}
    options |= {"tls": NO_TLS, **more}
    seconds, longest = options.pop("seconds", 5.0), options.pop("max_bytes", 1000)
    return Fetcher(hosts or ("pics.example",), longest, seconds, ports=frozenset({port}), **options)


def get(answer: Answer, path: str = "/a.png", **more: Any) -> tuple[Any, list[str]]:
    """Fetch from a server of one answer: the bytes or the error, and the requests it saw."""

    async def run() -> tuple[Any, list[str]]:
        async with serving(answer) as (port, requests):
            try:
                url = more.pop("url", "http://pics.example:{port}" + path).format(port=port)
                return await fetcher(port, **more).fetch(url), requests
            except ApiError as error:
                return error, requests

    return asyncio.run(run())


def test_a_image_comes_by_the_names_own_address() -> None:
    found, requests = get(image(), "/a%20b.png?" + SECRET + "#part")
    assert found == PNG
    (request,) = requests
    assert request.startswith(f"GET /a%20b.png?{SECRET} HTTP/1.1\r\n")
    assert "\r\nHost: pics.example:" in request
    assert "cookie" not in request.lower() and "authorization" not in request.lower()


@pytest.mark.parametrize(
    ("listed", "host", "allowed"),
    [
        ("pics.example", "pics.example", True),
        ("Pics.Example.", "PICS.example", True),
        ("pics.example", "pics.example.", True),
        ("pics.example", "a.pics.example", False),
        ("pics.example", "xpics.example", False),
        ("pics.example", "pics.example.evil.org", False),
        ("*.pics.example", "a.pics.example", True),
        ("*.pics.example", "a.b.pics.example", True),
        ("*.pics.example", "pics.example", False),
        ("*.pics.example", "xpics.example", False),
        ("*.pics.example", ".pics.example", False),
    ],
)
def test_hosts_are_listed(listed: str, host: str, allowed: bool) -> None:
    async def run() -> bytes:
        async with serving(image()) as (port, _):
            return await fetcher(port, listed).fetch(f"http://{host}:{port}/")

    if allowed:
        assert asyncio.run(run()) == PNG
    else:
        with pytest.raises(ApiError, match="not fetched from that host") as refused:
            asyncio.run(run())
        assert refused.value.code == "invalid_image_url"


@pytest.mark.parametrize(
    "host",
    ["", "*", "*.", "*.org", "http://a.org", "a.org/", "a.org:80", "a b.org", "*a.org", "[::1]",
     "a..org", "bücher.org", "a.*.org", "**.a.org"],
)  # fmt: skip
def test_hosts_that_cannot_be_listed(host: str) -> None:
    with pytest.raises(DataError, match="is not a plain name"):
        Fetcher([host], 1, 1)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://pics.example/",
        "file://pics.example/etc/passwd",
        "gopher://pics.example:{port}/",
        "http:/pics.example/",
        "http://",
        "//pics.example/",
        "pics.example/a.png",
        "http://user:pw@pics.example:{port}/",
        "http://@pics.example:{port}/",
        "http://pics.example:{port}@evil.org/",
        "http://evil.org\\@pics.example:{port}/",
        "http://evil.org#@pics.example:{port}/",
        "http://evil.org?@pics.example:{port}/",
        "http://pics.example:{port}/\r\nX: y",
        "http://pics.example\t:{port}/",
        "http://pics.example:{port}/a b",
        "http://pics.example:{port}/é",
        "http://pics.éxample:{port}/",
        "http://pics.example:99999/",
        "http://pics.example:0/",
        "http://pics.example:x/",
        "http://pics.example:22/",
        "http://pics.example/",
        "http://127.0.0.1:{port}/",
        "http://[::1]:{port}/",
        "http://[pics.example]:{port}/",
        "http://[::1:{port}/",
        "http://2130706433:{port}/",
        "http://0x7f000001:{port}/",
        "http://pics.example%00.evil.org:{port}/",
        "http://pics%2eexample:{port}/",
        "http://pics。example:{port}/",
        "http://pics.example:{port}/" + "a" * 5000,
    ],
)
def test_urls_that_are_not_asked(url: str) -> None:
    found, requests = get(image(), url=url)
    assert isinstance(found, ApiError)
    assert (found.status, found.code, requests) == (400, "invalid_image_url", [])


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["::ffff:127.0.0.1"], ["169.254.169.254"], []],
)
def test_names_of_the_inside_are_not_asked(addresses: list[str]) -> None:
    async def inner(host: str, port: int) -> list[str]:
        return addresses

    from m3router.router.serve.images.addresses import is_public

    found, requests = get(image(), resolve=inner, allowed=is_public)
    assert isinstance(found, ApiError) and requests == []
    assert str(found) == "The image could not be fetched from pics.example: it cannot be reached."


def test_what_fails_and_what_is_forbidden_look_the_same() -> None:
    async def nowhere(host: str, port: int) -> list[str]:
        raise OSError("Name or service not known")

    unknown, _ = get(image(), resolve=nowhere)
    inside, _ = get(image(), allowed=lambda address: False)

    async def closed() -> str:
        async with serving(image()) as (port, _):
            pass
        with pytest.raises(ApiError) as refused:
            await fetcher(port).fetch(f"http://pics.example:{port}/")
        return str(refused.value)

    assert str(unknown) == str(inside) == asyncio.run(closed())


def test_a_name_is_resolved_once() -> None:
    """A second answer of the name server is never asked for: no DNS rebinding."""
    asked = []

    async def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    found, _ = get(image(), resolve=rebinding, allowed=lambda one: one == "127.0.0.1")
    assert found == PNG and asked == ["pics.example"]


def test_an_address_that_does_not_answer_is_passed_over() -> None:
    async def two(host: str, port: int) -> list[str]:
        return ["127.0.0.2", "127.0.0.1"]

    assert get(image(), resolve=two)[0] == PNG


def redirects(*places: str) -> Answer:
    async def answer(request: str, writer: asyncio.StreamWriter) -> None:
        number = int(request.split(" ")[1].strip("/") or 0)
        if number < len(places):
            await says(f"302 Found\nLocation: {places[number]}")(request, writer)
        else:
            await image()(request, writer)

    return answer


@pytest.mark.parametrize(("hops", "works"), [(0, True), (3, True), (4, False), (50, False)])
def test_three_redirects(hops: int, works: bool) -> None:
    found, requests = get(redirects(*(f"/{number + 1}" for number in range(hops))), "/0")
    assert (found == PNG) == works
    assert len(requests) == min(hops, 3) + 1


@pytest.mark.parametrize(
    "place",
    ["http://127.0.0.1/", "//evil.org/", "file:///etc/passwd", "http://pics.example:22/",
     "http://a:b@pics.example/", "gopher://pics.example/", "http://169.254.169.254/latest", ""],
)  # fmt: skip
def test_redirects_are_judged_like_addresses(place: str) -> None:
    found, requests = get(redirects(*[place] * 9), "/0")
    assert isinstance(found, ApiError) and len(requests) <= 4


def test_a_redirect_is_resolved_and_judged_anew() -> None:
    async def run() -> list[str]:
        async with serving(redirects("http://b.example:{}/9")) as (port, requests):

            async def answer(request: str, writer: asyncio.StreamWriter) -> None:
                await says(f"302 Found\nLocation: http://b.example:{port}/9")(request, writer)

            async with serving(answer) as (first, _):

                async def resolve(host: str, port: int) -> list[str]:
                    return ["127.0.0.1"] if host == "a.example" else ["10.0.0.1"]

                strict = Fetcher(
                    ["a.example", "b.example"],
                    1000,
                    5,
                    ports=frozenset({port, first}),
                    resolve=resolve,
                    allowed=lambda one: one == "127.0.0.1",
                    tls=NO_TLS,
                )
                with pytest.raises(ApiError, match="b.example: it cannot be reached"):
                    await strict.fetch(f"http://a.example:{first}/")
            return requests

    assert asyncio.run(run()) == []


async def endless(request: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n")
    while True:
        writer.write(b"a" * 10_000)
        await writer.drain()


async def trickle(request: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 900\r\n\r\n")
    while True:
        writer.write(b"a")
        await writer.drain()
        await asyncio.sleep(0.02)


async def silent(request: str, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(30)


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (endless, 413, "more than 1000 bytes"),
        (trickle, 400, "took longer than 0.3 seconds"),
        (silent, 400, "took longer than 0.3 seconds"),
        (image(b"a" * 1001), 413, "more than 1000 bytes"),
        (says("200 OK\nContent-Type: image/png\nContent-Length: 99999999"), 413, "more than 1000"),
        (says("200 OK\nContent-Type: text/html", PNG), 400, "not called image"),
        (says("200 OK", PNG), 400, "not called image"),
        (says("200 OK\nContent-Type: image/png\nContent-Encoding: gzip", PNG), 400, "compressed"),
        (says("404 Not Found\nContent-Type: image/png", PNG), 400, "status 404"),
        (says("206 Partial\nContent-Type: image/png", PNG), 400, "status 206"),
        (says("200 OK\nContent-Type: image/png\nContent-Length: 900", b"a"), 400, "failed"),
        (says("nonsense"), 400, "failed"),
        (says("200 OK\nX: " + "a" * 200_000), 400, "failed"),
        (says("200 OK\nContent-Type: image/png\nContent-Length: 5\nContent-Length: 6"), 400, "fa"),
    ],
)  # fmt: skip
def test_answers_that_are_no_image(answer: Answer, status: int, words: str) -> None:
    found, _ = get(answer, seconds=0.3)
    assert isinstance(found, ApiError), found
    assert found.status == status and words in str(found)


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert get(image())[0] == PNG


def test_addresses_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Signed addresses are secrets; names of hosts are the operator's own."""
    caplog.set_level(logging.INFO)
    get(image(), "/private.png?" + SECRET)
    get(says("404 Not Found"), "/private.png?" + SECRET)
    get(image(), "/private.png?" + SECRET, allowed=lambda address: False)
    assert SECRET not in caplog.text and "private.png" not in caplog.text


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's and a client's side of a certificate that its own authority is."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(path)
    return server, ssl.create_default_context(cafile=path)


@pytest.mark.parametrize(("name", "works"), [("pics.example", True), ("evil.example", False)])
def test_certificates_are_the_names(tmp_path: Path, name: str, works: bool) -> None:
    """The connection goes to an address, the certificate must be the name's all the same."""
    server, client = certificate(tmp_path, name)
    asked: list[str | None] = []
    server.sni_callback = lambda _socket, sni, _context: asked.append(sni)

    async def run() -> bytes:
        async with serving(image(), server) as (port, _):
            return await fetcher(port, tls=client).fetch(f"https://pics.example:{port}/")

    if works:
        assert asyncio.run(run()) == PNG
    else:
        with pytest.raises(ApiError, match="it cannot be reached"):
            asyncio.run(run())
    assert asked == ["pics.example"]


def test_a_redirect_does_not_leave_https(tmp_path: Path) -> None:
    server, client = certificate(tmp_path, "pics.example")

    async def run() -> list[str]:
        async with serving(image()) as (plain, requests):
            away = says(f"302 Found\nLocation: http://pics.example:{plain}/")
            async with serving(away, server) as (port, _):
                open_ports = frozenset({plain, port})
                with pytest.raises(ApiError, match="left https"):
                    await Fetcher(
                        ["pics.example"],
                        1000,
                        5,
                        ports=open_ports,
                        resolve=here,
                        allowed=lambda one: True,
                        tls=client,
                    ).fetch(f"https://pics.example:{port}/")
            return requests

    assert asyncio.run(run()) == []


def test_from_an_address_to_a_image() -> None:
    async def run(answer: Answer) -> Any:
        async with serving(answer) as (port, _):
            url = f"http://pics.example:{port}/"
            workers = ImageWorkers(ImageLimits(processes=1))
            await workers.start()
            try:
                deadline = time.monotonic() + 60
                return await image_of(url, workers, fetcher(port), deadline=deadline, param="p")
            finally:
                await workers.stop()

    for body in (PNG, PNG + b"PK"):  # what follows an image is dropped
        assert asyncio.run(run(image(body))).size == (1, 1)
    for body in (b"<svg/>", PNG[:40], b""):
        with pytest.raises(ApiError) as refused:
            asyncio.run(run(image(body)))
        assert refused.value.param == "p"

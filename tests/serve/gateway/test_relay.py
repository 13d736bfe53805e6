"""What goes to an upstream and what comes back: the very bytes, whatever they are."""

from __future__ import annotations

import json
import socket
import threading
import time

import httpx
import pytest

from m3router.router.serve.gateway.upstreams import Upstream, Upstreams, upstreams_of
from m3router.router.serve.guard.keys import KeyRing
from tests.serve.gateway.endpoint_run import OPTIONS, chat, image_part, picture, user
from tests.serve.gateway.gateway_server import ToldDecider, gateway
from tests.serve.gateway.raw_upstream import COMPLETION, Said

NAMES = ("coarse", "fine")
LABELLED = {"log": {"spec": {"kind": "endpoint", "url": "http://other", "options": OPTIONS}}}
IMAGE = picture()
EVENTS = [b"data: {}\n\n", b": comment\r\n\r\n", b'data: {"a": "\xff"}\n\n', b"data: [DONE]\n\n"]


def upstreams(url: str, **more) -> Upstreams:
    return upstreams_of(LABELLED, NAMES, upstream=url, **more)


def ask(url: str, body=None, **more) -> httpx.Response:
    body = chat(user("What?", image_part(IMAGE))) if body is None else body
    return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=20, **more)


def test_answers_come_as_they_are(upstream):
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        "x-request-id": "theirs-1",
        "openai-processing-ms": "12",
        "x-ratelimit-remaining-tokens": "7",
        "x-m3router-option": "a gateway behind",
        "Set-Cookie": "a=b",
        "Retry-After": "3",
    }
    with gateway(upstreams(upstream.url), ToldDecider(NAMES)) as running:
        for status in (200, 400, 429, 500, 503):
            upstream.script = lambda heard, status=status: Said(status=status, headers=headers)
            answer = ask(running.url)
            assert answer.status_code == status and answer.content == COMPLETION
            for name in ("Content-Type", "x-request-id", "openai-processing-ms", "Retry-After"):
                assert answer.headers.get_list(name) == [headers[name]]
            assert answer.headers.get_list("x-m3router-option") == ["coarse"]
            assert "set-cookie" not in answer.headers
        upstream.script = lambda heard: Said(EVENTS, headers={"Content-Type": "text/event-stream"})
        assert ask(running.url).content == b"".join(EVENTS)
        upstream.script = lambda heard: Said([b""], status=204, headers={})
        assert ask(running.url).status_code == 204
        assert len(upstream.heard) == 7, "nothing is asked twice"
        until = time.monotonic() + 10  # a request is counted after its answer has gone
        while len(running.metrics.requests) < 7 and time.monotonic() < until:
            time.sleep(0.01)
        assert [one[0] for one in running.metrics.requests] == [200, 400, 429, 500, 503, 200, 204]


def test_what_is_no_answer_of_http_is_told(upstream):
    with gateway(upstreams(upstream.url), ToldDecider(NAMES)) as running:
        for status, told in ((529, 529), (999, 502), (101, 502)):
            upstream.script = lambda heard, status=status: Said(status=status, closes=True)
            assert ask(running.url).status_code == told
        upstream.script = lambda heard: Said(headers={"X-Long": "x" * 40_000})
        assert len(ask(running.url).headers["x-long"]) == 40_000


def test_pieces_come_when_they_come(upstream):
    upstream.script = lambda heard: Said(
        EVENTS, headers={"Content-Type": "text/event-stream"}, between=0.25
    )
    with gateway(upstreams(upstream.url), ToldDecider(NAMES)) as running:
        began, times, read = time.monotonic(), [], b""
        body = chat(user("What?", image_part(IMAGE)), stream=True)
        with httpx.stream("POST", f"{running.url}/v1/chat/completions", json=body) as answer:
            for piece in answer.iter_raw():
                read += piece
                times.append(time.monotonic() - began)
        assert read == b"".join(EVENTS) and len(times) == len(EVENTS)
        assert times[-1] - times[0] > 0.5


@pytest.mark.parametrize("whole", [True, False])
def test_what_is_cut_is_cut_for_the_client(upstream, whole):
    said = Said(EVENTS[:2], headers={"Content-Type": "text/event-stream"}, cut=True)
    if whole:
        said = Said([COMPLETION], cut=True)
        del said.headers["Content-Type"]
    upstream.script = lambda heard: said
    with gateway(upstreams(upstream.url), ToldDecider(NAMES)) as running:
        with pytest.raises(httpx.RemoteProtocolError):
            ask(running.url)
        assert len(upstream.heard) == 1


def test_an_upstream_that_says_nothing_or_is_not_there(upstream):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    upstream.script = lambda heard: Said(before=2.0)
    with gateway(upstreams(upstream.url), ToldDecider(NAMES), upstream_timeout=0.3) as running:
        late = ask(running.url)
        assert late.status_code == 504 and late.json()["error"]["code"] == "upstream_timeout"
        assert late.headers["x-m3router-option"] == "coarse" and late.headers["x-request-id"]
        upstream.script = lambda heard: Said(EVENTS, between=1.0, headers={})
        with pytest.raises(httpx.RemoteProtocolError):
            ask(running.url)  # it began, and is cut where nothing more came
        assert len(upstream.heard) == 2
    with gateway(upstreams(nobody), ToldDecider(NAMES)) as running:
        answer = ask(running.url)
        assert answer.status_code == 502
        assert answer.json()["error"]["type"] == "server_error"
        assert httpx.get(f"{running.url}/v1/models").status_code == 200


def test_a_client_that_leaves_is_not_answered_on(upstream):
    upstream.script = lambda heard: Said([b"data: {}\n\n"] * 400, between=0.02, headers={})
    with gateway(upstreams(upstream.url), ToldDecider(NAMES)) as running:
        body = chat(user("What?", image_part(IMAGE)), stream=True)
        with httpx.stream("POST", f"{running.url}/v1/chat/completions", json=body) as answer:
            next(answer.iter_raw())
        assert upstream.broken.wait(3)
        until = time.monotonic() + 3
        while not running.metrics.requests and time.monotonic() < until:
            time.sleep(0.01)
        assert running.metrics.requests == [(499, "coarse", "routed")]


def test_a_slow_reader_slows_its_upstream(upstream):
    piece, count = b"data: " + b"x" * 65_530, 1200  # 75 MB
    upstream.script = lambda heard: Said(
        [piece] * count, headers={"Content-Type": "text/event-stream"}
    )
    with gateway(upstreams(upstream.url), ToldDecider(NAMES)) as running:
        body = chat(user("What?", image_part(IMAGE)), stream=True)
        with httpx.stream("POST", f"{running.url}/v1/chat/completions", json=body) as answer:
            pieces = answer.iter_raw()
            next(pieces)
            time.sleep(1.0)
            assert upstream.written < 30_000_000, "the system's buffers, and little more"
            assert sum(map(len, pieces)) > 60_000_000


def test_connections_are_shared_and_a_closed_one_is_no_error(upstream):
    addresses = set()
    upstream.script = lambda heard: Said(closes=len(upstream.heard) % 2 == 0)
    with gateway(upstreams(upstream.url), ToldDecider(NAMES)) as running:
        for _ in range(6):
            assert ask(running.url).status_code == 200
            time.sleep(0.02)
        assert len(upstream.heard) == 6
        del addresses


def test_what_the_client_sends_besides(upstream):
    more = {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": [{"type": "text", "text": "Ja"}]},
            {"role": "user", "content": "Before"},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function"}]},
            {"role": "tool", "tool_call_id": "1", "content": "{}"},
            user("What?", image_part(IMAGE, detail="high")),
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"a": [1, {}]}}}],
        "tool_choice": "auto",
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}},
        "temperature": 0.7,
        "n": 3,
        "stop": ["\n", "é 😀"],
        "logprobs": True,
        "top_logprobs": 5,
        "max_tokens": 7,
        "max_completion_tokens": 8,
        "seed": 12345678901234567890,
        "unknown": {"deep": [None, 1e-7, True]},
        "user": None,
    }
    with gateway(upstreams(upstream.url), ToldDecider(NAMES, option="fine")) as running:
        ask(
            running.url,
            {"model": "m3router/auto", **more, "m3router": {"policy": "default"}},
            headers={
                "Authorization": "Bearer sk-theirs",
                "OpenAI-Organization": "org",
                "X-M3Router-Policy": "default",
                "Cookie": "a=b",
                "traceparent": "00-1-1-00",
            },
        )
    (heard,) = upstream.heard
    patch = OPTIONS["option"][1]["body"]
    assert heard.body == {"model": "stand-in", **more, **patch}
    assert heard.header("authorization") == "Bearer sk-theirs"
    assert heard.header("openai-organization") == "org" and heard.header("traceparent")
    assert heard.header("x-m3router-policy") is None and heard.header("cookie") is None
    assert heard.header("accept-encoding") == "identity"
    assert heard.header("host") == upstream.url.removeprefix("http://")


def test_whose_key_goes_where(upstream, monkeypatch):
    monkeypatch.setenv("UP", "sk-upstream")
    token = "m3r_" + "x" * 40
    ring = KeyRing.of(None, token)
    shown = {"Authorization": f"Bearer {token}"}
    with gateway(upstreams(upstream.url), ToldDecider(NAMES), keys=ring) as running:
        assert ask(running.url).status_code == 401
        assert ask(running.url, headers=shown).status_code == 200
        assert httpx.get(f"{running.url}/v1/models", headers=shown).status_code == 200
    assert token not in str([one.headers for one in upstream.heard])
    with gateway(upstreams(upstream.url, key_env="UP"), ToldDecider(NAMES)) as running:
        ask(running.url, headers={"Authorization": "Bearer sk-client", "api-key": "sk-client"})
    assert upstream.heard[-1].header("authorization") == "Bearer sk-upstream"
    assert "sk-client" not in str(upstream.heard[-1].headers)
    assert "sk-upstream" not in repr(upstreams(upstream.url, key_env="UP"))


def test_no_proxy_of_the_environment_unless_asked(upstream, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, upstream.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    target = upstreams("http://127.0.0.1:9")
    with gateway(target, ToldDecider(NAMES)) as running, httpx.Client(trust_env=False) as client:
        body = chat(user("What?", image_part(IMAGE)))
        answer = client.post(f"{running.url}/v1/chat/completions", json=body)
        assert answer.status_code == 502 and not upstream.heard
    with (
        gateway(target, ToldDecider(NAMES), trust_env=True) as running,
        httpx.Client(trust_env=False) as client,
    ):
        assert client.post(f"{running.url}/v1/chat/completions", json=body).status_code == 200
        assert upstream.heard[0].path.startswith("http://127.0.0.1:9/v1/")


def test_what_is_not_routed_is_passed_on_as_it_came(upstream):
    with gateway(upstreams(upstream.url), ToldDecider(NAMES)) as running:
        raw = b'{"model": "another",  "messages": [], "x": 1.0e2, "x": 2}'
        kind = {"Content-Type": "application/json"}
        answer = httpx.post(f"{running.url}/v1/chat/completions", content=raw, headers=kind)
        assert upstream.heard[-1].raw == raw
        assert answer.headers["x-m3router-reason"].startswith("other-model: ")
        assert "x-m3router-option" not in answer.headers
        for path in ("/v1/completions", "/v1/embeddings"):
            httpx.post(f"{running.url}{path}?a=b%20c", content=b"[not json", headers=kind)
            assert upstream.heard[-1].raw == b"[not json"
            assert upstream.heard[-1].path == f"{path}?a=b%20c"
        for method, path in (
            ("GET", "/v1/responses/resp_1?include=x"),
            ("DELETE", "/v1/responses/resp_1"),
            ("POST", "/v1/responses/resp_1/cancel"),
            ("GET", "/v1/responses/resp_1/input_items"),
        ):
            assert httpx.request(method, running.url + path).content == COMPLETION
            assert (upstream.heard[-1].method, upstream.heard[-1].path) == (method, path)
        count = len(upstream.heard)
        for path in ("/v1/responses/..", "/v1/responses/%2e%2e%2fmodels", "/v1/files", "/"):
            raw_get(running.url, path)
        assert len(upstream.heard) == count


def raw_get(url: str, path: str) -> None:
    """A path that no client writes so."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=5) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        assert b" 404 " in sock.recv(100)


def test_two_servers(upstream, tmp_path):
    from tests.serve.gateway.raw_upstream import raw_upstream

    with raw_upstream() as second:
        two = Upstreams(
            options=upstreams(upstream.url).options,
            serving={
                "coarse": Upstream(name="one", url=f"{upstream.url}/v1"),
                "fine": Upstream(name="two", url=f"{second.url}/v1"),
            },
        )
        second.script = lambda heard: Said(
            [json.dumps({"data": [{"id": "b", "x": 1}, {"id": "m3router/auto"}]}).encode()]
        )
        with gateway(two, ToldDecider(NAMES)) as running:
            ask(running.url)
            assert len(upstream.heard) == 1 and not second.heard
            ask(running.url, chat(user("What?", image_part(IMAGE)), model="m3router/fine"))
            assert len(upstream.heard) == 1 and len(second.heard) == 1
            upstream.script = lambda heard: Said(status=500)
            listed = httpx.get(f"{running.url}/v1/models").json()["data"]
            names = [one["id"] for one in listed]
            assert names == ["b", "m3router/auto", "stand-in", "m3router/coarse", "m3router/fine"]
            one = httpx.get(f"{running.url}/v1/models/m3router/fine")
            assert one.json()["id"] == "m3router/fine"
            assert httpx.get(f"{running.url}/v1/models/c").status_code == 404


def test_many_at_once(upstream):
    upstream.script = lambda heard: Said([heard.body["mark"].encode()])
    wrong = []
    with (
        gateway(upstreams(upstream.url), ToldDecider(NAMES)) as running,
        httpx.Client() as client,
    ):

        def work(name: int) -> None:
            for number in range(10):
                mark = f"{name}-{number}"
                body = chat(user("What?", image_part(IMAGE)), mark=mark)
                got = client.post(f"{running.url}/v1/chat/completions", json=body, timeout=30)
                wrong.extend([mark] * (got.text != mark))

        threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    assert not wrong and len(upstream.heard) == 80

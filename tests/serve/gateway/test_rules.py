"""Which option a request is asked at: images, history, wishes, failures."""

from __future__ import annotations

import base64
import io
import json
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx
import pytest
from PIL import Image

from m3router.data.errors import DataError
from m3router.router.serve.backends.backend import UnavailableError
from m3router.router.serve.gateway.upstreams import Upstream, Upstreams, upstreams_of
from m3router.router.serve.settings import WhenRouterFails
from tests.serve.gateway.endpoint_run import (
    OPTIONS,
    chat,
    data_url,
    image_part,
    picture,
    user,
)
from tests.serve.gateway.gateway_server import ToldDecider, gateway
from tests.serve.gateway.raw_upstream import Said, raw_upstream

post = partial(
    httpx.post, verify=False
)  # no certificates are read: that takes longer than a question
NAMES = ("coarse", "fine")
OPTION, REASON = "x-m3router-option", "x-m3router-reason"
BODY_WIDE = OPTIONS
PER_IMAGE = {
    "model": "stand-in",
    "option": [
        {"name": "coarse", "longest_side": 32, "image": {"detail": "low"}},
        {"name": "fine"},
    ],
}
PATCHES = {one["name"]: one["body"]["mm_processor_kwargs"] for one in OPTIONS["option"]}
A, B, C = (picture(colour=(number, 0, 0)) for number in (1, 2, 3))
SMALL = picture((20, 10))


def upstreams(url: str, options=BODY_WIDE) -> Upstreams:
    spec = {"kind": "endpoint", "url": "http://other", "options": options}
    return upstreams_of({"log": {"spec": spec}}, NAMES, upstream=url)


class Client:
    """Asks a gateway, and says what its upstream got."""

    def __init__(self, running, upstream) -> None:
        self.running, self.upstream = running, upstream

    def __call__(self, body, *, path="/v1/chat/completions", **headers):
        self.answer = post(f"{self.running.url}{path}", json=body, headers=headers)
        return self.upstream.heard[-1].body

    @property
    def option(self) -> str | None:
        return self.answer.headers.get("x-m3router-option")

    @property
    def reason(self) -> str:
        return self.answer.headers["x-m3router-reason"].partition(": ")[0]


@pytest.fixture
def wide(upstream):
    decider = ToldDecider(NAMES)
    with gateway(upstreams(upstream.url), decider) as running:
        client = Client(running, upstream)
        client.decider = decider
        yield client


@pytest.fixture
def local(upstream):
    decider = ToldDecider(NAMES)
    with gateway(upstreams(upstream.url, PER_IMAGE), decider) as running:
        client = Client(running, upstream)
        client.decider = decider
        yield client


def urls(body) -> list[tuple[str, str | None]]:
    """Size and detail of every image."""
    found = []
    for message in body["messages"]:
        for part in message["content"] if isinstance(message["content"], list) else ():
            if part["type"] == "image_url":
                data = base64.b64decode(part["image_url"]["url"].partition(",")[2])
                size = Image.open(io.BytesIO(data)).size
                found.append((f"{size[0]}x{size[1]}", part["image_url"].get("detail")))
    return found


ONE = {"type": "text", "text": "one"}
UNJUDGED = [
    ("no-image", chat(user("What?"))),
    ("no-image", chat({"role": "user", "content": "What?"})),
    ("several-images", chat(user("What?", image_part(A), image_part(B)))),
    ("several-images", chat(user(image_part(A)), user("What?", image_part(B)))),
    ("no-text", chat(user(image_part(A)))),
    ("no-text", chat(user(" ", image_part(A)))),
    ("long-text", chat(user("x" * 70_000, image_part(A)))),
    ("no-image", {**chat(user("What?")), "model": ""}),
    ("other-part", chat(user("x", image_part(A), {"type": "video_url", "video_url": {}}))),
    ("other-part", chat(user("x", image_part(A), {"type": "input_audio", "input_audio": {}}))),
    ("other-part", chat(user("x", image_part(A), {"type": "file", "file": {}}))),
    ("other-part", chat(user("x", image_part(A), 5))),
    ("no-user-turn", chat({"role": "system", "content": "x"})),
    ("no-user-turn", {"model": "stand-in", "messages": 5}),
    ("no-user-turn", {"messages": None, "model": None}),
    ("no-user-turn", chat("x", None, 3, [])),
    ("remote-image", chat(user("x", {"type": "image_url", "image_url": {"url": "http://a/b"}}))),
    ("remote-image", chat(user("x", {"type": "image_url", "image_url": "https://a/b.png"}))),
    ("unreadable-image", chat(user("x", {"type": "image_url", "image_url": {"url": None}}))),
    ("unreadable-image", chat(user("x", {"type": "image_url", "image_url": "data:x,abc"}))),
    (
        "unreadable-image",
        chat(user("x", {"type": "image_url", "image_url": "data:image/png;base64,!!"})),
    ),
    ("unreadable-image", chat(user("x", image_part(b"no image")))),
]


@pytest.mark.parametrize(("code", "body"), UNJUDGED, ids=[str(n) for n in range(len(UNJUDGED))])
def test_what_cannot_be_judged_is_asked_at_the_finest(wide, code, body):
    heard = wide(body)
    assert (wide.option, wide.reason) == ("fine", code) and wide.answer.status_code == 200
    expected = {**body, "model": "stand-in", "mm_processor_kwargs": PATCHES["fine"]}
    assert heard == expected
    assert "x-m3router-estimate" not in wide.answer.headers


def test_what_a_tolerant_reader_reads(wide):
    plain = data_url(A)
    head, _, encoded = plain.partition(",")
    for url in (
        plain.replace("image/png", "image/jpeg"),
        f"DATA:;BASE64,{encoded}",
        f"{head}, {encoded[:50]}\n{encoded[50:]} ",
        plain.rstrip("="),
        f"{head},{encoded.replace('+', '-').replace('/', '_')}",
    ):
        wide(chat(user("What?", {"type": "image_url", "image_url": {"url": url}})))
        assert (wide.option, wide.reason) == ("coarse", "routed"), url[:60]
        digests = {one.image.digest for one in wide.decider.asked}
    assert len(digests) == 1
    wide(
        {
            "messages": [
                {
                    "role": "user",
                    "name": None,
                    "content": [
                        None,
                        {"text": "What?", "type": None, "image_url": None},
                        {"image_url": {"url": plain, "detail": None}},
                        "And why?",
                    ],
                }
            ],
            "stream": None,
            "m3router": None,
            "n": None,
        }
    )
    assert wide.reason == "routed" and wide.decider.asked[-1].question == "What?\nAnd why?"


def test_unlike_images_are_not_routed(upstream):
    for familiarity, unlike, reason in (
        (0.01, 0.01, "unlike-training"),
        (0.02, 0.01, "routed"),
        (0.0001, 0.0, "routed"),
        (None, 1.0, "routed"),
    ):
        decider = ToldDecider(NAMES, familiarity=familiarity)
        with gateway(upstreams(upstream.url), decider, unlike=unlike) as running:
            client = Client(running, upstream)
            client(chat(user("What?", image_part(A))))
            assert client.reason == reason
            assert client.option == ("fine" if reason != "routed" else "coarse")


def test_an_image_is_made_smaller_only_where_the_option_says_so(local):
    heard = local(chat(user("What?", image_part(A, detail="high"))))
    assert urls(heard) == [("32x24", "low")]
    heard = local(chat(user("What?", image_part(SMALL))))
    assert heard["messages"][0]["content"][1] == image_part(SMALL, detail="low")
    local.decider.option = "fine"
    sent = chat(user("What?", image_part(A, detail="high")))
    assert local(sent) == {**sent, "model": "stand-in"}


def test_a_lossy_encoding_is_part_of_an_option(upstream):
    options = {
        "model": "m",
        "option": [{"name": "coarse", "encoding": "jpeg:20"}, PER_IMAGE["option"][1]],
    }
    with gateway(upstreams(upstream.url, options), ToldDecider(NAMES)) as running:
        client = Client(running, upstream)
        heard = client(chat(user("What?", image_part(A))))
        assert heard["messages"][0]["content"][1]["image_url"]["url"].startswith("data:image/jpeg")


def test_earlier_images_keep_their_option(local):
    first = user("What?", image_part(A))
    assert urls(local(chat(first))) == [("32x24", "low")]
    local.decider.option = "fine"
    said = {"role": "assistant", "content": "It is."}
    heard = local(chat(first, said, user("And this?", image_part(B))))
    assert urls(heard) == [("32x24", "low"), ("64x48", None)]
    assert (local.option, local.reason) == ("fine", "routed")
    heard = local(chat(first, said, user("And this?", image_part(B)), said, user("Both?")))
    assert urls(heard) == [("32x24", "low"), ("64x48", None)]
    assert (local.option, local.reason) == ("fine", "follow-up")
    heard = local(chat(first, said, user("Sure?")))
    assert urls(heard) == [("32x24", "low")] and local.option == "coarse"
    assert urls(local(chat(user("x", image_part(C)), said, user("y?")))) == [("64x48", None)]
    assert local.option == "fine", "an image that is not remembered is asked at the finest"


def test_what_a_whole_request_shares_is_that_of_the_finest_image(wide):
    said = {"role": "assistant", "content": "It is."}
    wide(chat(user("What?", image_part(A))))
    wide.decider.option = "fine"
    heard = wide(chat(user("What?", image_part(A)), said, user("This?", image_part(B))))
    assert heard["mm_processor_kwargs"] == PATCHES["fine"] and wide.reason == "routed"
    wide.decider.option = "coarse"
    heard = wide(chat(user("?", image_part(B)), said, user("This?", image_part(C))))
    assert heard["mm_processor_kwargs"] == PATCHES["fine"]
    assert (wide.option, wide.reason) == ("fine", "history")
    heard = wide(chat(user("What?", image_part(A)), said, user("Sure?")))
    assert heard["mm_processor_kwargs"] == PATCHES["coarse"] and wide.reason == "follow-up"
    video = {"type": "video_url", "video_url": {"url": "x"}}
    wide(chat(user("?", video), said, user("This?", image_part(A))))
    assert (wide.option, wide.reason) == ("fine", "history")
    wide(
        chat(user("?", image_part(B)), said, user("This?", image_part(C)), model="m3router/coarse")
    )
    assert (wide.option, wide.reason) == ("coarse", "asked")


def test_a_tools_turn_keeps_the_users_decision(wide):
    call = {"role": "assistant", "content": None, "tool_calls": []}
    wide(chat(user("What?", image_part(A)), call, {"role": "tool", "content": "42"}))
    assert (wide.option, wide.reason) == ("coarse", "routed")
    shown = {"role": "tool", "content": [image_part(B)]}
    wide(chat(user("What?", image_part(A)), call, shown))
    assert (wide.option, wide.reason) == ("fine", "history")


def test_clients_do_not_share_a_memory(wide):
    wide(chat(user("What?", image_part(A))), Authorization="Bearer one")
    follow = chat(user("What?", image_part(A)), {"role": "assistant", "content": ""}, user("y?"))
    wide(follow, Authorization="Bearer two")
    assert wide.option == "fine"
    wide(follow, Authorization="Bearer one")
    assert wide.option == "coarse"


def test_nothing_is_remembered_of_an_answer_that_failed(wide):
    wide.upstream.script = lambda heard: Said(status=500)
    wide(chat(user("What?", image_part(A))))
    wide.upstream.script = lambda heard: Said()
    wide(chat(user("What?", image_part(A)), {"role": "assistant", "content": ""}, user("y?")))
    assert wide.option == "fine"


def test_responses(local):
    answer = {"id": "resp_1", "object": "response", "output": [], "usage": {"input_tokens": 5}}
    local.upstream.script = lambda heard: Said([json.dumps(answer).encode()])

    def ask(content, **more):
        return local({"model": "m3router/auto", "input": content, **more}, path="/v1/responses")

    part = {"type": "input_image", "image_url": data_url(A), "detail": "high"}
    text = {"type": "input_text", "text": "What?"}
    heard = ask([{"role": "user", "content": [text, part]}], instructions="Be brief.", store=False)
    (got,) = heard["input"]
    assert got["content"][0] == text and got["content"][1]["detail"] == "low"
    assert got["content"][1]["image_url"] != part["image_url"]
    assert heard["instructions"] == "Be brief." and heard["store"] is False
    assert heard["model"] == "stand-in" and local.reason == "routed"
    assert local.decider.asked[-1].question == "What?"
    assert local.running.metrics.usages[-1][1] == 5
    ask("And?", previous_response_id="resp_1")
    assert (local.option, local.reason) == ("coarse", "follow-up")
    ask("And?", previous_response_id="resp_2")
    assert (local.option, local.reason) == ("fine", "no-image")
    ask("Hello")
    assert (local.option, local.reason) == ("fine", "no-image")
    ask([{"role": "user", "content": [text, {"type": "input_image", "file_id": "file-1"}]}])
    assert (local.option, local.reason) == ("fine", "remote-image")
    other = {"type": "input_image", "image_url": data_url(B)}
    ask([{"role": "user", "content": [text, other, {"type": "input_file", "file_id": "x"}]}])
    assert (local.option, local.reason) == ("fine", "other-part")
    shown = {"type": "function_call_output", "call_id": "1", "output": [part]}
    heard = ask([{"role": "user", "content": "What?"}, shown, {"type": "reasoning", "id": "r"}])
    assert local.option == "coarse" and heard["input"][1]["output"][0]["detail"] == "low"
    for odd in (None, 5, {}, [None, 5, {"content": 7}], [[]]):
        assert ask(odd)["input"] == odd and local.option == "fine"


def test_what_follows_a_response_goes_to_the_server_that_has_it(upstream):
    with raw_upstream() as second:
        for one, name in ((upstream, "one"), (second, "two")):
            told = json.dumps({"id": f"resp_{name}", "object": "response"}).encode()
            one.script = lambda heard, told=told: Said([told])
        servers = {
            "coarse": Upstream(name="one", url=f"{upstream.url}/v1"),
            "fine": Upstream(name="two", url=f"{second.url}/v1"),
        }
        two = Upstreams(options=upstreams(upstream.url).options, serving=servers)
        decider = ToldDecider(NAMES)
        with gateway(two, decider) as running:

            def ask(option: str, **more) -> tuple[str, str]:
                decider.option = option
                part = {"type": "input_image", "image_url": data_url(A)}
                turn = {"role": "user", "content": [{"type": "input_text", "text": "?"}, part]}
                body = {"model": "m3router/auto", "input": [turn], **more}
                answer = post(f"{running.url}/v1/responses", json=body)
                assert answer.json()["id"] == f"resp_{servers[answer.headers[OPTION]].name}"
                return answer.headers[OPTION], answer.headers[REASON].partition(":")[0]

            assert ask("coarse", conversation={"id": "conv_1"}) == ("fine", "history")
            assert ask("coarse") == ("coarse", "routed")
            assert ask("fine", previous_response_id="resp_one") == ("coarse", "history")
            assert ask("coarse", previous_response_id="resp_two") == ("fine", "history")
            assert ask("coarse", conversation="conv_1") == ("fine", "history")
            assert ask("coarse", previous_response_id="unknown") == ("fine", "history")


def test_what_is_certified_is_told_of_what_it_is_about_alone(upstream):
    decider = ToldDecider(NAMES, guarantee="With 95 % confidence.")
    asked = user("What?", image_part(A))
    with gateway(upstreams(upstream.url), decider) as running:
        client = Client(running, upstream)
        for body, certified in (
            (chat(asked, tools=[], temperature=0.2), True),
            (chat({"role": "system", "content": "Be brief."}, asked), False),
            (chat(asked, tools=[{"type": "function", "function": {"name": "f"}}]), False),
            (chat(asked, {"role": "assistant", "content": "x"}, asked), False),
        ):
            client(body)
            told = client.answer.headers[REASON]
            assert ("guarantee is about such" in told) is certified
            assert ("guarantee is not about it" in told) is not certified
            route = post(f"{running.url}/v1/route", json=body).json()
            assert route["guarantee"] == (decider.guarantee if certified else "")
        client(chat(asked, model="m3router/fine"))
        assert "guarantee" not in client.answer.headers[REASON]
    assert not any(one.again for one in decider.asked), "nobody asked for log-probabilities"


def test_wishes(wide):
    body = chat(user("What?", image_part(A)))
    for more, headers, wished in (
        ({"model": "m3router/fine"}, {}, {"option": "fine"}),
        ({"model": "m3router/option=fine"}, {}, {"option": "fine"}),
        ({"model": "m3router/budget=40"}, {}, {"budget": 40.0}),
        ({"model": "m3router/max-loss=1%"}, {}, {"max_loss": 0.01}),
        ({"model": "m3router/policy=frugal"}, {}, {"policy": "frugal"}),
        ({}, {"X-M3Router-Option": "fine"}, {"option": "fine"}),
        ({}, {"X-M3Router-Budget": "40.5"}, {"budget": 40.5}),
        ({}, {"X-M3Router-Max-Loss": "0.02"}, {"max_loss": 0.02}),
        ({"model": "stand-in"}, {"X-M3Router-Policy": "frugal"}, {"policy": "frugal"}),
        ({"m3router": {"budget": 3, "option": None}}, {}, {"budget": 3.0}),
        ({"m3router": {"max_loss": "2%"}}, {"x-m3router-max-loss": "0.02"}, {"max_loss": 0.02}),
        ({"m3router": {}}, {}, {}),
    ):
        heard = wide({**body, **more}, **headers)
        wish = wide.decider.asked[-1].wish
        given = {k: v for k, v in vars(wish).items() if v is not None}
        assert given == wished and "m3router" not in heard and heard["model"] == "stand-in"
        assert wide.option == wished.get("option", "coarse")
    count = len(wide.upstream.heard)
    for more, headers, told in (
        ({"model": "m3router/fin"}, {}, "Did you mean 'm3router/fine'"),
        ({"model": "m3router/budget=x"}, {}, "budget must be a number above 0"),
        ({"model": "m3router/fine"}, {"x-m3router-option": "coarse"}, "contradicts itself"),
        ({"model": "m3router/fine"}, {"x-m3router-budget": "1"}, "contradicts itself"),
        ({"m3router": {"budget": 1, "policy": "x"}}, {}, "contradicts itself"),
        ({"m3router": {"budgt": 1}}, {}, "Did you mean 'budget'"),
        ({"m3router": {"budget": True}}, {}, "must be a number"),
        ({"m3router": {"max_loss": 2}}, {}, "must be a fraction"),
        ({"m3router": {"option": 2}}, {}, "must be a text"),
        ({"m3router": [1]}, {}, "must be an object"),
        ({"m3router": {"option": "finee"}}, {}, "Did you mean 'fine'"),
        ({"model": "gpt"}, {"x-m3router-budget": "1"}, "none of the options'"),
        ({}, {"x-m3router-optoin": "fine"}, "Did you mean 'x-m3router-option'"),
    ):
        wide({**body, **more}, **headers)
        error = wide.answer.json()["error"]
        assert told in error["message"] and wide.answer.status_code in (400, 404), error
    assert len(wide.upstream.heard) == count
    wide.decider.error = DataError("A budget of 1 cannot be met.")
    wide({**body, "model": "m3router/budget=1"})
    assert wide.answer.status_code == 400 and "cannot be met" in wide.answer.text


def test_a_wished_option_needs_no_judgement(wide):
    heard = wide(chat(user("Hello"), model="m3router/coarse"))
    assert heard["mm_processor_kwargs"] == PATCHES["coarse"] and wide.reason == "asked"
    wide.decider.error = UnavailableError("gone")
    wide(chat(user("x", image_part(A)), model="m3router/coarse"))
    assert (wide.option, wide.reason) == ("coarse", "asked")


@pytest.mark.parametrize("when", list(WhenRouterFails))
def test_a_router_that_fails(upstream, when):
    decider, limits = ToldDecider(NAMES), {"when_router_fails": when, "decide_seconds": 0.3}
    with gateway(upstreams(upstream.url), decider, **limits) as running:
        client = Client(running, upstream)
        for error, seconds in (
            (UnavailableError("gone"), 0.0),
            (DataError("odd"), 0.0),
            (ZeroDivisionError("secret"), 0.0),
            (None, 5.0),
        ):
            decider.error, decider.seconds = error, seconds
            if when is WhenRouterFails.CLOSED:
                client.answer = post(
                    f"{running.url}/v1/chat/completions",
                    json=chat(user("x", image_part(A))),
                )
                assert client.answer.status_code == 503 and not upstream.heard
                assert client.answer.json()["error"]["code"] == "router_failed"
            else:
                client(chat(user("x", image_part(A))))
                assert (client.option, client.reason) == ("fine", "router-failed")
            assert "secret" not in client.answer.text + str(client.answer.headers)


def test_images_at_addresses_that_may_be_fetched(upstream):
    class Fetch:
        async def fetch(self, url: str) -> bytes:
            return A

    decider = ToldDecider(NAMES)
    with gateway(upstreams(upstream.url, PER_IMAGE), decider, fetch=Fetch()) as running:
        client = Client(running, upstream)
        part = {"type": "image_url", "image_url": {"url": "https://a/b.png"}}
        heard = client(chat(user("What?", part)))
        assert urls(heard) == [("32x24", "low")] and client.reason == "routed"
        decider.option = "fine"
        assert client(chat(user("What?", part)))["messages"][0]["content"][1] == part
        heard = client(chat(user("?", part), {"role": "assistant", "content": ""}, user("?")))
        assert client.option == "fine" and client.reason == "follow-up"


def test_names_that_headers_cannot_carry(upstream):
    options = {"model": "m", "option": [{"name": "gröb 1%", "longest_side": 9}, {"name": "fein"}]}
    spec = {"kind": "endpoint", "url": "http://other", "options": options}
    names = ("gröb 1%", "fein")
    asked = upstreams_of({"log": {"spec": spec}}, names, upstream=upstream.url)
    with gateway(asked, ToldDecider(names)) as running:
        client = Client(running, upstream)
        client(chat(user("?", image_part(A))))
        assert client.option == "gr%C3%B6b 1%25"
        client(chat(user("?", image_part(A))), **{"x-m3router-option": "gr%C3%B6b 1%25"})
        assert client.option == "gr%C3%B6b 1%25" and client.reason == "asked"


def test_what_one_client_holds_is_bounded(upstream, monkeypatch):
    monkeypatch.setattr("m3router.router.serve.gateway.app.MOST_HELD", 4000)
    upstream.script = lambda heard: Said(before=0.5)
    with (
        gateway(upstreams(upstream.url), ToldDecider(NAMES), max_bytes=1000) as running,
        ThreadPoolExecutor(8) as pool,
    ):

        def ask(who: str) -> int:
            body = chat(user("x" * 700))
            headers = {"Authorization": f"Bearer {who}"}
            url = f"{running.url}/v1/chat/completions"
            return post(url, json=body, headers=headers, timeout=20).status_code

        many = [pool.submit(ask, "one") for _ in range(5)]
        time.sleep(0.2)
        assert ask("two") == 200
        assert sorted(one.result() for one in many) == [200, 200, 503, 503, 503]
        assert ask("one") == 200

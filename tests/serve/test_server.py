"""`m3router serve` as its users meet it: a process, OpenAI's own client, and raw sockets."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import signal
import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
from PIL import Image
from typer.testing import CliRunner

from m3router.router.cli.main import app
from m3router.router.inference.pipeline import AutoScalePipeline
from m3router.router.serve.guard.keys import new_token, sha256_of
from m3router.router.traffic import read_traffic
from tests.serve.served import Server, data_url, end, start

SECRET = "What is the colour of the unutterable secret?"
get, head, post = (
    partial(ask, verify=False)  # reading certificates takes longer than an answer
    for ask in (httpx.get, httpx.head, httpx.post)
)


@pytest.fixture(scope="module")
def server(small_run, tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    traffic = ("--traffic", str(folder / "kept"), "--traffic-share", "100%")
    running = start(folder, small_run.root, *traffic)
    yield running
    end(running)


@pytest.fixture(scope="module")
def pipeline(small_run):
    return AutoScalePipeline.load(small_run.root, device="cpu")


def messages(picture, question) -> list:
    image = {"type": "image_url", "image_url": {"url": data_url(picture)}}
    return [{"role": "user", "content": [{"type": "text", "text": question}, image]}]


def body_of(image, question, **fields) -> dict:
    return {"model": "m3-auto", "messages": messages(image, question), **fields}


def test_an_image_that_the_model_cannot_read_is_told(server, small_run):
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    image, question = small_run.asked[0]
    for model in ("m3-auto", "m3-9"):
        for shown, outside in ((Image.fromarray(noise), True), (image, False)):
            raw = server.client().chat.completions.with_raw_response.create(
                model=model, messages=messages(shown, question)
            )
            m3 = raw.parse().m3
            assert (m3["familiarity"] <= 0.01) is outside
            assert float(raw.headers["x-m3router-familiarity"]) == round(m3["familiarity"], 4)
            assert raw.headers["x-m3router-option"] == str(m3["scale"])
            assert m3["note"] == raw.headers.get("x-m3router-note", "")
            assert ("outside what this model can read" in m3["note"]) is outside


def test_the_official_client_gets_whole_answers(server, small_run, pipeline):
    client = server.client()
    for image, question in small_run.asked[:4]:
        (wanted,) = pipeline.answer([image], [question])
        got = client.chat.completions.create(model="m3-auto", messages=messages(image, question))
        assert got.choices[0].message.content == wanted.answer.text
        assert got.choices[0].finish_reason == "stop" and got.model == "m3-auto"
        assert got.m3["scale"] == wanted.scale and got.m3["escalated"] is False
        told = {int(scale): p for scale, p in got.m3["sufficiency"].items()}
        assert told == pytest.approx(wanted.sufficiency, abs=1e-4)
        assert set(got.m3["milliseconds"]) >= {"vision", "features", "route", "language", "queue"}
        assert got.usage.visual_tokens == got.m3["visual_tokens"] == wanted.answer.visual_tokens
        read = wanted.answer.visual_tokens + wanted.answer.text_tokens
        assert got.usage.prompt_tokens == read
        assert got.usage.completion_tokens == wanted.answer.answer_tokens
        assert got.usage.total_tokens == read + wanted.answer.answer_tokens


def test_the_official_client_streams(server, small_run, pipeline):
    client = server.client()
    image, question = small_run.asked[1]
    (wanted,) = pipeline.answer([image], [question])
    stream = client.chat.completions.create(
        model="m3-auto",
        messages=messages(image, question),
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert len({one.id for one in chunks}) == 1
    deltas = [one.choices[0].delta for one in chunks if one.choices]
    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas) == wanted.answer.text
    (last,) = [one for one in chunks if one.choices and one.choices[0].finish_reason]
    assert last.choices[0].finish_reason == "stop" and last.m3["scale"] == wanted.scale
    assert chunks[-1].usage.visual_tokens == wanted.answer.visual_tokens
    assert all(one.usage is None and "usage" in one.model_fields_set for one in chunks[:-1])
    without = client.chat.completions.create(
        model="m3-9", messages=messages(image, question), stream=True
    )
    assert all(one.usage is None for one in without)


def test_the_official_async_client_gets_every_answer_at_once(server, small_run, pipeline):
    async def main():
        async with openai.AsyncOpenAI(
            base_url=f"{server.url}/v1",
            api_key="none",
            max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(verify=False),
        ) as client:
            asked = [
                client.chat.completions.create(model=model, messages=messages(image, question))
                for image, question in small_run.asked[:6]
                for model in ("m3-auto", "m3-1", "m3-144", "m3-576")
            ]
            return await asyncio.gather(*asked)

    found = iter(asyncio.run(main()))
    for image, question in small_run.asked[:6]:
        for scale in (None, 1, 144, 576):
            (wanted,) = pipeline.answer([image], [question], scale=scale)
            got = next(found)
            assert got.choices[0].message.content == wanted.answer.text
            assert got.m3["scale"] == wanted.scale
            assert bool(got.m3["sufficiency"]) is (scale is None)


def test_models_are_listed(server, pipeline):
    client = server.client()
    names = [one.id for one in client.models.list()]
    assert names == ["m3-auto", *(f"m3-{scale}" for scale in pipeline.model.grid.scales)]
    assert client.models.retrieve("m3-36").scale == 36
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("m3-37")


def test_wishes_of_a_request(server, small_run):
    image, question = small_run.asked[0]
    client = server.client()

    def ask(model="m3-auto", **extra):
        return client.chat.completions.create(
            model=model, messages=messages(image, question), extra_body=extra
        ).m3["scale"]

    assert ask(scale=36) == 36
    assert ask(budget=1) == 1
    for wrong, message in (
        ({"scale": 37}, "not in this model's grid"),
        ({"budget": 0.5}, "budget must be at least 1"),
        ({"budget": 9, "scale": 9}, "at most one of"),
        ({"max_regret": 1.5}, "less than 1"),
        ({"max_regret": 1e-5}, "too small for a regret"),
        ({"model": "m3-9", "scale": 9}, "fixed scale"),
    ):
        with pytest.raises(openai.BadRequestError, match=message):
            ask(**wrong)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0.7}, "temperature"),
        ({"n": 2}, "n: "),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"stop": ["x"] * 5}, "stop"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": "Is it?"}]}, "one image"),
        ({"messages": [{"role": "system", "content": "Be kind."}]}, "role"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"model": 7}, "model"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(server, small_run, change, message):
    body = body_of(*small_run.asked[0]) | change
    got = post(f"{server.url}/v1/chat/completions", json=body)
    assert got.status_code == 400
    error = got.json()["error"]
    assert message in error["message"] and error["type"] == "invalid_request_error"
    assert set(error) == {"message", "type", "param", "code"}
    assert "base64" not in got.text


def test_bad_images_are_refused(server, small_run):
    _, question = small_run.asked[0]
    png = base64.b64decode(data_url(small_run.asked[0][0]).partition(",")[2])

    def status(data: bytes, kind: str = "image/png") -> int:
        url = f"data:{kind};base64,{base64.b64encode(data).decode()}"
        parts = [
            {"type": "text", "text": question},
            {"type": "image_url", "image_url": {"url": url}},
        ]
        body = {"model": "m3-auto", "messages": [{"role": "user", "content": parts}]}
        got = post(f"{server.url}/v1/chat/completions", json=body)
        assert "/" + "tmp" not in got.text and "Traceback" not in got.text
        return got.status_code

    assert status(png) == 200
    assert status(png + b"PK\x03\x04 and more") == 200  # what follows is dropped
    for data in (b"", b"no image", png[: len(png) // 2]):
        assert status(data) == 400
    assert status(png, "image/jpeg") == 200  # the bytes decide
    assert status(png, "text/html") == 200
    remote = body_of(*small_run.asked[0])
    remote["messages"][0]["content"][1]["image_url"]["url"] = f"{server.url}/health"
    assert post(f"{server.url}/v1/chat/completions", json=remote).status_code == 400


def test_a_client_that_vanishes_frees_its_place(server, small_run):
    address = httpx.URL(server.url)
    image, question = small_run.asked[0]
    for stream in (False, True):
        body = json.dumps(body_of(image, question, stream=stream)).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: {address.host}\r\nContent-Type: "
            f"application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode()
        for _ in range(6):
            with socket.create_connection((address.host, address.port)) as vanishing:
                vanishing.sendall(head + body)
    until = time.monotonic() + 20
    while time.monotonic() < until:
        page = get(f"{server.url}/metrics").text
        if "m3router_queued 0.0" in page and "m3router_running 0.0" in page:
            break
        time.sleep(0.05)
    assert "m3router_queued 0.0" in page and "m3router_running 0.0" in page
    got = server.client().chat.completions.create(
        model="m3-auto", messages=messages(image, question)
    )
    assert got.choices[0].message.content


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_load_balancers_may_look_without_a_body(server, path):
    for ask in (get, head):
        assert ask(server.url + path).status_code == 200
    assert head(server.url + path).text == ""


def test_metrics_add_up(server, small_run):
    def value(name: str) -> float:
        page = get(f"{server.url}/metrics").text
        found = re.findall(rf"^{re.escape(name)} (\S+)$", page, re.M)
        return float(found[0]) if found else 0.0

    answered, tokens = 'm3router_answers_total{routed="no",scale="9"}', "m3router_tokens_total"
    before = value(answered), value(f'{tokens}{{kind="visual"}}')
    server.client().chat.completions.create(model="m3-9", messages=messages(*small_run.asked[0]))
    assert value(answered) == before[0] + 1
    assert value(f'{tokens}{{kind="visual"}}') == before[1] + 9


def test_nothing_that_was_asked_is_logged(server, small_run):
    image, _ = small_run.asked[0]
    server.client().chat.completions.create(model="m3-auto", messages=messages(image, SECRET))
    wrong = body_of(image, SECRET, temperature=1)
    post(f"{server.url}/v1/chat/completions?asked={SECRET}", json=wrong)
    log = server.log.read_text()
    assert "chatcmpl-" in log and " 200 in " in log and " 400" in log
    assert "unutterable" not in log and "base64" not in log and "iVBOR" not in log


def test_recorded_traffic_is_deleted_by_the_id_of_the_answer(server, small_run):
    kept, client = server.log.parent / "kept", server.client()
    image = small_run.asked[0][0].transpose(Image.Transpose.FLIP_LEFT_RIGHT)  # nobody else's
    asked = "Is this kept?"
    told = [
        client.chat.completions.create(model="m3-auto", messages=messages(image, asked), store=one)
        for one in (None, False)
    ]

    def stored() -> str:
        return "".join(one.read_text("utf-8") for one in kept.rglob("*.jsonl"))

    until = time.monotonic() + 60
    while asked not in stored() and time.monotonic() < until:
        time.sleep(0.05)
    assert told[0].id in stored() and told[1].id not in stored()
    (record,) = [one for one in read_traffic(kept) if one["id"] == told[0].id]
    assert list(kept.rglob(Path(record["image"]).name))
    said = {"id": told[0].id, "right": False, "answer": f"{asked}!"}
    assert post(f"{server.url}/v1/feedback", json=said).status_code == 200
    said = {"id": told[1].id, "right": True}  # which did not want to be kept
    assert post(f"{server.url}/v1/feedback", json=said).status_code == 404
    assert f"{asked}!" in stored()
    path = f"{server.url}/v1/traffic/{told[0].id}"
    assert httpx.delete(path, verify=False).json() == {"id": told[0].id, "deleted": True}
    assert asked not in stored() and not list(kept.rglob(Path(record["image"]).name))
    assert httpx.delete(path, verify=False).status_code == 404


def test_keys_rates_and_a_graceful_end(small_run, tmp_path):
    token, other = new_token(), new_token()
    keys = tmp_path / "keys.jsonl"
    line = {"name": "ann", "sha256": sha256_of(token), "created": "2026-11-22"}
    second = {"name": "bob", "sha256": sha256_of(other), "created": "2026-11-22"}
    second["requests_per_minute"] = 2
    keys.write_text(json.dumps(line) + "\n" + json.dumps(second) + "\n")
    keys.chmod(0o600)
    server = start(tmp_path, small_run.root, "--keys", str(keys), "--burst", "2")
    try:
        image, question = small_run.asked[0]
        said = messages(image, question)
        with pytest.raises(openai.AuthenticationError):
            server.client("wrong").models.list()
        assert get(f"{server.url}/metrics").status_code == 401
        assert get(f"{server.url}/health").status_code == 200
        assert list(server.client(token).models.list())
        client = server.client(other)
        with pytest.raises(openai.RateLimitError) as refused:
            for _ in range(4):
                client.models.list()
        assert int(refused.value.response.headers["retry-after"]) >= 1

        # Revoked while the server runs.
        keys.write_text(json.dumps(line) + "\n")
        until = time.monotonic() + 20
        with pytest.raises(openai.AuthenticationError):
            while time.monotonic() < until:
                with contextlib.suppress(openai.RateLimitError):
                    client.models.list()
                time.sleep(0.2)

        async def many():
            async with openai.AsyncOpenAI(
                base_url=f"{server.url}/v1",
                api_key=token,
                max_retries=0,
                http_client=openai.DefaultAsyncHttpxClient(verify=False),
            ) as client:
                asked = [
                    asyncio.ensure_future(
                        client.chat.completions.create(
                            model="m3-576", messages=said, stream=bool(number % 2)
                        )
                    )
                    for number in range(10)
                ]
                while "running 0.0" in (
                    get(f"{server.url}/metrics", headers={"Authorization": f"Bearer {token}"}).text
                ):
                    await asyncio.sleep(0.005)
                server.process.send_signal(signal.SIGTERM)
                texts = []
                for number, one in enumerate(asked):
                    got = await one
                    if number % 2:
                        parts = [c.choices[0].delta.content or "" async for c in got if c.choices]
                        texts.append("".join(parts))
                    else:
                        texts.append(got.choices[0].message.content)
                return texts

        assert len(set(asyncio.run(many()))) == 1
        assert server.process.wait(30) == 0
    finally:
        end(server)


def test_a_server_beyond_this_machine_wants_keys(small_run, tmp_path, monkeypatch):
    monkeypatch.delenv("M3ROUTER_API_KEYS", raising=False)

    def refused(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["serve", *arguments])
        assert done.exit_code == 2
        return " ".join(done.output.split())

    run = str(small_run.root)
    assert "anybody could ask" in refused(run, "--host", "0.0.0.0")
    assert "does not exist. Check the path" in refused(str(tmp_path / "nothing"))
    assert "Known: default" in refused(run, "--policy", "frugal")

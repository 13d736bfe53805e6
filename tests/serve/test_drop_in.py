"""What ordinary clients send beside a question, with an operator's options and without."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace

import httpx
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from PIL import Image

from m3router.m3core.matryoshka.base import Request
from m3router.m3core.matryoshka.sampling import Draw, Sampling
from m3router.router.inference.pipeline import AutoScalePipeline
from m3router.router.serve.backends.engine import LocalEngine
from m3router.router.serve.backends.stop_strings import StopStrings
from m3router.router.serve.backends.vllm.protocol import request_body
from m3router.router.serve.guard.keys import KeyRing
from m3router.router.serve.guard.rates import Rates
from m3router.router.serve.http.app import Front, create_app
from m3router.router.serve.images.decoding import image_of
from m3router.router.serve.images.limits import ImageLimits
from m3router.router.serve.settings import EngineSettings, FrontSettings, SystemText, Temperature
from tests.serve import image_server
from tests.serve.served import data_url

WILLING = FrontSettings(system_text=SystemText.PREPEND, temperature=Temperature.HONOUR)


def shown(url: str) -> Image.Image:
    workers = image_server.workers(ImageLimits())
    return image_server.run(image_of(url, workers, deadline=time.monotonic() + 60))


@pytest.fixture(scope="module")
def pipeline(small_run):
    return AutoScalePipeline.load(small_run.root, device="cpu")


@pytest.fixture(scope="module")
def asked(small_run, pipeline):
    """An image, a question and an answer of several letters."""
    for image, question in small_run.asked:
        (found,) = pipeline.answer([image], [question])
        if len(found.text) > 3:
            return image, question, found.text
    raise AssertionError


@pytest.fixture(scope="module")
def post(small_run, pipeline, asked):
    """Ask a server in this process: settings and bodies to responses."""
    image, question, _ = asked
    parts = [
        {"type": "text", "text": question},
        {"type": "image_url", "image_url": {"url": data_url(image)}},
    ]
    plain = {"model": "m3-auto", "messages": [{"role": "user", "content": parts}]}
    engine = EngineSettings(run=str(small_run.root))
    image_server.workers(ImageLimits())  # started before several threads ask for them

    def post(settings: FrontSettings, *bodies: dict) -> list[httpx.Response]:
        front = Front(
            backend=LocalEngine(engine, pipeline=pipeline),
            image=lambda url: asyncio.to_thread(shown, url),
            keys=KeyRing.of(None, None),
            rates=Rates(None, 1),
            settings=settings,
        )

        async def main():
            await front.backend.start()
            transport = httpx.ASGITransport(create_app(front), raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://front") as client:
                sent = [
                    client.post("/v1/chat/completions", json=plain | body, timeout=60)
                    for body in bodies
                ]
                found = await asyncio.gather(*sent)
            await front.backend.stop(seconds=5)
            return found

        return asyncio.run(main())

    post.parts = parts
    return post


def text_of(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["message"]["content"]


def streamed(answer: httpx.Response) -> tuple[list[str], str]:
    """Texts of a stream, and why it ended."""
    lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")]
    choices = [json.loads(line)["choices"][0] for line in lines]
    texts = [choice["delta"].get("content") or "" for choice in choices]
    return [text for text in texts if text], choices[-1]["finish_reason"]


def test_an_answer_ends_before_a_stop_string(post, asked):
    text = asked[2]
    stops = [text[1:3], [text[2:], "never"], ["never"], text[0], text + "s", [text[-1], text[1]]]
    bodies = [{"stop": stop, "stream": stream} for stop in stops for stream in (False, True)]
    found = post(FrontSettings(), *bodies)
    last = text.find(text[1])
    wanted = [text[:1], text[:2], text, "", text, text[: min(last, text.find(text[-1]))]]
    for place, answer in enumerate(wanted):
        whole, stream = found[2 * place], found[2 * place + 1]
        assert text_of(whole) == answer
        assert whole.json()["choices"][0]["finish_reason"] == "stop"
        texts, reason = streamed(stream)
        assert ("".join(texts), reason) == (answer, "stop")


@given(
    pieces=st.lists(st.text("ab ", max_size=3), max_size=8),
    stops=st.lists(st.text("ab", min_size=1, max_size=4), max_size=4),
)
@examples(deadline=None, derandomize=True)
def test_what_was_told_is_never_cut_off(pieces, stops):
    stop = StopStrings(tuple(stops))
    whole = "".join(pieces)
    cuts = [whole.find(one) for one in stops if one in whole]
    wanted = whole[: min(cuts)] if cuts else whole
    text = ""
    for piece in pieces:
        text += piece
        if stop.ended(text) is not None:
            break
        told = stop.settled(text)
        assert wanted.startswith(told)
        # As much as can be: what is held back may become a stop string.
        held = text[len(told) :]
        assert not held or any(one.startswith(held) for one in stops)
    assert stop.ended(whole) == (wanted if cuts else None)


def test_system_text_is_prepended_or_refused_by_name(post, asked, pipeline):
    image, question, text = asked
    system = {"role": "system", "content": "Say it in one word."}
    developer = {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]}
    user = {"role": "user", "content": post.parts}
    empty = {"messages": [{"role": "system", "content": " "}, user]}
    two = {"messages": [system, developer, user]}
    refused, taken = post(FrontSettings(), two, empty)
    assert refused.status_code == 400 and text_of(taken) == text
    assert refused.json()["error"]["param"] == "messages[0].role"
    assert "the operator can add --system-text prepend" in refused.json()["error"]["message"]
    (found,) = post(WILLING, two)
    whole = f"Say it in one word.\nBe kind.\n{question}"
    (wanted,) = pipeline.answer([image], [whole])
    assert text_of(found) == wanted.answer.text and found.json()["m3"]["scale"] == wanted.scale
    assert found.json()["m3"]["guarantee"] == ""


def test_messages_of_the_user_alone_are_one_question(post, asked):
    apart = [{"role": "user", "content": [part]} for part in reversed(post.parts)]
    (found,) = post(FrontSettings(), {"messages": apart})
    assert text_of(found) == asked[2]


def test_a_temperature_is_refused_ignored_or_honoured(post, asked):
    (refused,) = post(FrontSettings(), {"temperature": 0.1})
    error = refused.json()["error"]
    assert (refused.status_code, error["param"]) == (400, "temperature")
    assert "0.1 came; the operator can add --temperature ignore or --temp" in error["message"]
    ignoring = replace(WILLING, temperature=Temperature.IGNORE)
    hot = [{"temperature": 2, "seed": seed, "model": "m3-1"} for seed in range(8)]
    assert len({text_of(one) for one in post(ignoring, *hot)}) == 1
    nearly = [{"temperature": 1e-9}, {"temperature": 2, "top_p": 0}, {"temperature": 0}]
    assert {text_of(one) for one in post(WILLING, *nearly)} == {asked[2]}
    once, twice = post(WILLING, *hot, *hot), post(WILLING, *reversed(hot))
    texts = [text_of(one) for one in once]
    assert texts[:8] == texts[8:] == [text_of(one) for one in reversed(twice)]
    assert len(set(texts)) > 1
    assert {one.json()["m3"]["guarantee"] for one in once} == {""}


def test_drawn_tokens_have_the_probabilities_that_were_asked_for():
    logits = torch.tensor([2.0, 1.0, 0.5, -1.0, float("-inf")])
    draw = Draw(Sampling(temperature=0.7, top_p=0.9, seed=3))
    likely = (logits / 0.7).softmax(-1)
    kept = likely * torch.tensor([1, 1, 0, 0, 0])  # 0.73 and 0.17: the second passes 0.9
    counts = torch.zeros(5)
    for _ in range(4_000):
        counts[draw(logits.log_softmax(-1))] += 1
    assert torch.allclose(counts / 4_000, kept / kept.sum(), atol=0.03)
    for temperature in (5e-324, 1e-300):
        assert Draw(Sampling(temperature=temperature))(logits) == 0


def test_a_drawn_answer_does_not_depend_on_its_batch(pipeline, small_run):
    model = pipeline.model
    encodings = model.encode([image for image, _ in small_run.asked[:3]])
    requests = [
        Request(encoding=encoding, question=question, scale=9)
        for encoding, (_, question) in zip(encodings, small_run.asked, strict=False)
    ]
    drawn = [Sampling(temperature=1.5, seed=seed) for seed in range(3)]

    def answers(chosen: list[int], sampling: list[Sampling | None]) -> list[str]:
        batch = model.begin([requests[place] for place in chosen], sampling=sampling)
        rows = list(batch.rows)
        while batch.rows:
            batch.step()
        return [row.answer().text for row in rows]

    together = answers([0, 1, 2], [drawn[0], None, drawn[2]])
    alone = [answers([0], [drawn[0]]), answers([1], [None]), answers([2], [drawn[2]])]
    assert together == [text for (text,) in alone]
    assert together[1] == model.answer([requests[1]])[0].text


def test_a_vllm_server_is_asked_for_the_same():
    plain = {"model": "m", "messages": [], "max_tokens": 4, "stream": False}
    drawn = Sampling(temperature=0.7, top_p=0.9, seed=3)
    body = request_body(**plain, stop=("END",), sampling=drawn)
    asked = {"temperature": 0.7, "top_p": 0.9, "seed": 3, "stop": ["END"]}
    assert body == request_body(**plain) | asked


def test_detail_chooses_a_scale_where_nothing_else_does(post, pipeline):
    def body(detail: str | None, **fields) -> dict:
        image = {"type": "image_url", "image_url": post.parts[1]["image_url"] | {"detail": detail}}
        return {"messages": [{"role": "user", "content": [post.parts[0], image]}], **fields}

    coarsest, *_, finest = pipeline.model.grid.scales
    bodies = [body("low"), body("high"), body("original"), body("auto"), body(None)]
    bodies += [body("low", scale=9), body("high", model="m3-1"), body("high", budget=1)]
    bodies += [{"messages": [{"role": "user", "content": post.parts}]}]
    scales = [one.json()["m3"]["scale"] for one in post(FrontSettings(), *bodies)]
    assert scales[:3] == [coarsest, finest, finest]
    assert scales[3] == scales[4] == scales[8]
    assert scales[5:8] == [9, 1, 1]


def test_errors_of_every_kind_are_openais_with_the_requests_id(post, asked):
    long = [{"type": "text", "text": "word " * 3_900}, post.parts[1]]
    bad = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    bodies = [
        ({"messages": [{"role": "user", "content": long}]}, "messages[0].content", "does not fit"),
        (
            {"messages": [{"role": "user", "content": [post.parts[0], bad]}]},
            "messages[0].content[1].image_url.url",
            "not in a format",
        ),
        ({"scale": 37}, "scale", "not in this model's grid"),
        ({"budget": 0.5}, "budget", "at least 1"),
        ({"model": "m4"}, "model", "There is no model 'm4'"),
    ]
    found = post(FrontSettings(), *[body for body, _, _ in bodies])
    for answer, (_, place, sentence) in zip(found, bodies, strict=True):
        error = answer.json()["error"]
        assert error["param"] == place and sentence in error["message"]
        assert set(error) == {"message", "type", "param", "code"}
        assert answer.headers["x-request-id"].startswith("chatcmpl-")


class Broken:
    """A backend that fails in a way that nobody foresaw."""

    def ready(self):
        return True

    def served(self):
        raise ZeroDivisionError("a secret")

    def load(self):
        return {"queued": 0, "running": 0, "capacity": 4}


@pytest.mark.parametrize(
    ("method", "path", "status", "sentence"),
    [
        ("GET", "/v1/models", 500, "The server failed to answer; its operator finds the request"),
        ("GET", "/v1/nothing", 404, "There is no such address here"),
        ("DELETE", "/v1/models", 405, "This address takes GET, not DELETE."),
        ("POST", "/v1/chat/completions", 400, "The body is not valid JSON."),
    ],
)
def test_the_frameworks_own_errors_are_openais(method, path, status, sentence):
    front = Front(
        backend=Broken(),
        image=None,
        keys=KeyRing.of(None, None),
        rates=Rates(None, 1),
        settings=FrontSettings(),
    )

    async def main():
        transport = httpx.ASGITransport(create_app(front), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://front") as client:
            return await client.request(method, path)

    got = asyncio.run(main())
    error = got.json()["error"]
    assert got.status_code == status and sentence in error["message"]
    assert set(error) == {"message", "type", "param", "code"} and "secret" not in got.text
    if status == 500:
        assert got.headers["x-request-id"] in error["message"]
    else:
        assert got.headers["x-request-id"]

"""Clients, workload and servers of the load benchmark, tried on small servers."""

from __future__ import annotations

import base64
import json
import sys
import threading
import time
from collections import Counter
from itertools import islice

import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from PIL import Image
from transformers import AutoProcessor

from experiments.benchmarks.serving.checkpoint import write_checkpoint
from experiments.benchmarks.serving.clients import Level, drive, learn
from experiments.benchmarks.serving.servers import HOST, Server, free_port
from experiments.benchmarks.serving.workload import (
    Question,
    apart,
    body,
    calls,
    data_url,
    repeats,
    together,
)
from m3router.data.errors import M3RouterError
from m3router.m3core.checkpoints import load_model


def questions(folder, *, images=5, each=3):
    made = []
    for number in range(images):
        path = folder / f"{number}.png"
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
        for k in range(each):
            made.append(Question(id=f"{number}-{k}", image=path, text=f"ask {k}?", kind="k"))
    return made


def images(order, count):
    return [one.partition("-")[0] for one in islice(order, count)]


def test_apart_a_image_comes_after_every_other(tmp_path):
    asked = questions(tmp_path)
    seen = images(apart(asked, seed=1), 60)
    for start in range(56):
        assert len(set(seen[start : start + 5])) == 5
    assert set(islice(apart(asked, seed=1), 15)) == {one.id for one in asked}
    assert repeats(seen, within=4) == 0.0


def test_together_all_questions_of_a_image_follow_each_other(tmp_path):
    seen = images(together(questions(tmp_path), seed=1), 15)
    assert [seen[i : i + 3] for i in range(0, 15, 3)] == [[seen[i]] * 3 for i in range(0, 15, 3)]
    assert repeats(seen, within=1) == pytest.approx(10 / 15)


def test_a_workload_is_its_seeds_and_mixed(tmp_path):
    asked = questions(tmp_path)
    first, again, other = (
        list(islice(calls(apart(asked, seed=s), ["x", "y", "z"], seed=s), 600)) for s in (4, 4, 5)
    )
    assert first == again != other
    assert 240 < sum(one.streamed for one in first) < 360
    assert all(150 < number < 250 for number in Counter(one.model for one in first).values())


def test_a_request_is_what_openais_clients_write(tmp_path):
    (one,) = questions(tmp_path, images=1, each=1)
    sent = json.loads(body(one.text, data_url(one.image), model="m", streamed=True, max_tokens=7))
    text, image = sent["messages"][0]["content"]
    head, _, encoded = image["image_url"]["url"].partition(",")
    assert (sent["model"], sent["stream"], sent["max_tokens"], text["text"]) == (
        "m",
        True,
        7,
        "ask 0?",
    )
    assert head == "data:image/png;base64"
    assert base64.b64decode(encoded) == one.image.read_bytes()


def flawed() -> FastAPI:
    """Answers "ask 0?" at the second try, cuts streams of "ask 1?", and fails at "ask 2?"."""
    app, refused = FastAPI(), set()

    @app.post("/v1/chat/completions")
    async def chat(request: Request):
        sent = await request.json()
        question = sent["messages"][0]["content"][0]["text"]
        key = json.dumps(sent)
        if question == "ask 2?":
            return JSONResponse({"error": "no"}, status_code=500)
        if question == "ask 0?" and key not in refused:
            refused.add(key)
            return JSONResponse({}, status_code=429, headers={"Retry-After": "0.05"})
        about = {"scale": 9, "milliseconds": {"route": 1.0}}
        if not sent["stream"]:
            choice = {"index": 0, "message": {"content": "red"}, "finish_reason": "stop"}
            return {"choices": [choice], "m3": about}
        deltas = [{"role": "assistant", "content": ""}, {"content": "re"}, {"content": "d"}]
        chunks = [{"choices": [{"delta": one, "finish_reason": None}]} for one in deltas]
        if question != "ask 1?":
            chunks.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
            chunks.append({"choices": [], "m3": about})

        async def pieces():
            for one in chunks:
                yield f"data: {json.dumps(one)}\n\n"

        return StreamingResponse(pieces(), media_type="text/event-stream")

    return app


@pytest.fixture
def port():
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(flawed(), host=HOST, port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield port
    server.should_exit = True
    thread.join()


def test_clients_keep_what_became_of_every_request(port, tmp_path):
    learn(questions(tmp_path))
    level = Level(
        url=f"http://{HOST}:{port}",
        clients=3,
        warm=0.1,
        seconds=0.9,
        names={"m3-auto": "known"},
        order="apart",
        max_tokens=4,
        seed=0,
    )
    driven = drive(level)
    kinds: dict[tuple[str, bool], list] = {}
    for one in driven.records:
        kinds.setdefault((one.call.question[-1], one.call.streamed), []).append(one)
    assert len(kinds) == 6
    first_tries = {one.call for one in driven.records if one.call.question.endswith("0")}
    assert sum(one.refused for one in driven.records) == len(first_tries)
    for (kind, streamed), records in kinds.items():
        for one in records:
            cut = kind == "1" and streamed
            assert bool(one.problem) == (kind == "2" or cut)
            if kind != "2":
                assert one.text == "red"
                assert one.scale == (None if cut else 9)
            assert (one.first is not None) == (streamed and kind != "2")
            assert one.began <= (one.first or one.began) <= one.ended <= driven.wall
            assert one.ended - one.began >= 0.05 * one.refused
    assert 0 < driven.cpu < driven.wall
    assert max(one.began for one in driven.records) < 1.5  # nobody began anew


def test_a_server_nobody_listens_at_loses_every_request(tmp_path):
    learn(questions(tmp_path))
    level = Level(
        url=f"http://{HOST}:{free_port()}",
        clients=1,
        warm=0.0,
        seconds=0.05,
        names={"m": "m"},
        order="together",
        max_tokens=4,
        seed=0,
    )
    records = drive(level).records
    assert records and all("ConnectError" in one.problem for one in records)


def served(command, port, folder):
    return Server(
        name="files", command=command, port=port, ready="/", log=folder / "log", environment={}
    )


def test_a_server_is_started_watched_and_ended(tmp_path):
    port = free_port()
    command = [sys.executable, "-m", "http.server", str(port), "--bind", HOST, "-d", str(tmp_path)]
    with served(command, port, tmp_path) as server:
        assert 1 < server.memory() < 1000
        assert 0 < server.cpu() < 10
    with pytest.raises(FileNotFoundError):
        server.cpu()


def test_what_a_server_starts_is_watched_too(tmp_path):
    port = free_port()
    child = (
        "held = b'x' * (100 << 20); import http.server as h;"
        f"h.HTTPServer(({HOST!r}, {port}), h.SimpleHTTPRequestHandler).serve_forever()"
    )
    parent = (
        "import signal, subprocess, sys;"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}]);"
        "signal.signal(signal.SIGTERM, lambda *_: child.terminate());"
        "child.wait()"
    )
    with served([sys.executable, "-c", parent], port, tmp_path) as server:
        assert 100 < server.memory() < 400


def test_a_server_that_does_not_start_says_what_it_printed(tmp_path):
    command = [sys.executable, "-c", "raise SystemExit('no such model')"]
    with pytest.raises(M3RouterError, match="no such model"), served(command, 1, tmp_path):
        pass


def test_transformers_reads_the_prompt_that_we_read(tmp_path):
    model = load_model("embedded", device="cpu")
    processor = AutoProcessor.from_pretrained(write_checkpoint(tmp_path / "checkpoint"))
    image = tmp_path / "red.png"
    Image.new("RGB", (192, 192), "red").save(image)
    question = "What number is on the red tag?"
    content = [{"type": "text", "text": question}, {"type": "image", "url": str(image)}]
    found = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    ids = found["input_ids"][0].tolist()
    tokenizer = processor.tokenizer
    text = tokenizer("what number is on the red tag? answer:", add_special_tokens=False)
    assert ids == [tokenizer.bos_token_id, *[4] * 576, *text["input_ids"]]
    assert len(ids) == model.prompt_length(question, 576)
    pixels = model.prepare(Image.open(image))
    assert (found["pixel_values"][0] - pixels).abs().max() < 1e-6

"""What the gateway keeps, and what becomes of `/v1/route` and `/v1/feedback` on it."""

from __future__ import annotations

import httpx
import pytest

from m3router.m3core.endpoint.endpoint_options import EndpointOption
from m3router.m3core.endpoint.sent_images import Sending
from m3router.router.serve.gateway.upstreams import Upstream, Upstreams
from m3router.router.traffic import Recorder, read_feedback, read_traffic
from tests.serve.gateway.endpoint_run import asked_image, chat, image_part, user
from tests.serve.gateway.gateway_server import ToldDecider, gateway

OPTIONS = {
    "low": EndpointOption(
        name="low", model="stand-in", sending=Sending(longest_side=100, encoding="jpeg")
    ),
    "high": EndpointOption(name="high", model="stand-in", image={"detail": "high"}),
}


@pytest.fixture
def kept(tmp_path, stand_in):
    recorder = Recorder(tmp_path / "traffic", share=1.0)
    server = Upstream(name="upstream", url=f"{stand_in.url}/v1")
    upstreams = Upstreams(options=OPTIONS, serving=dict.fromkeys(OPTIONS, server))
    decider = ToldDecider(options=tuple(OPTIONS), needs_pixels=True)
    with (
        gateway(upstreams, decider, recorder=recorder) as running,
        httpx.Client(base_url=running.url, trust_env=False, timeout=20) as client,
    ):
        yield recorder, client


@pytest.mark.parametrize("stream", [False, True])
def test_it_is_kept_judged_and_deleted_by_the_key_that_asked(kept, stream):
    recorder, client = kept
    data, _ = asked_image(1, cells=8)
    ann, bob = ({"authorization": f"Bearer sk-{name}"} for name in ("ann", "bob"))
    body = chat(user(image_part(data), "Which word?"), stream=stream)
    answer = client.post("/v1/chat/completions", json=body, headers=ann)
    assert answer.status_code == 200
    id = answer.json()["id"] if not stream else answer.text.split('"id": "')[1].split('"')[0]
    told = {"id": id, "right": True}
    assert client.post("/v1/feedback", json=told, headers=bob).status_code == 404
    assert client.post("/v1/feedback", json=told, headers=ann).status_code == 200
    (line,) = read_traffic(recorder.folder)
    assert line["served"]["option"] == "low" and line["served"]["answer"]
    assert line["served"]["answer_id"] == id != line["id"] == answer.headers["x-request-id"]
    assert list(read_feedback(recorder.folder)) == [line["id"]]
    assert client.delete(f"/v1/traffic/{id}", headers=bob).status_code == 404
    assert client.delete(f"/v1/traffic/{line['id']}", headers=ann).status_code == 200
    assert read_traffic(recorder.folder) == []


def test_what_no_label_could_be_about_is_not_kept(kept):
    recorder, client = kept
    data, _ = asked_image(1, cells=8)
    asked = user(image_part(data), "Which word?")
    for body in (
        chat({"role": "system", "content": "Be brief."}, asked),
        chat(user("Which word?")),
        chat(user(image_part(data), image_part(data), "Which word?")),
        {**chat(asked), "store": False},
    ):
        assert client.post("/v1/chat/completions", json=body).status_code == 200
    recorder.stop()
    assert read_traffic(recorder.folder) == [] and recorder.counts()["sampled"] == 0


def test_route_says_what_would_be_asked(kept, stand_in):
    _, client = kept
    data, _ = asked_image(1, cells=8)
    stand_in.hits.clear()
    told = client.post("/v1/route?image=1", json=chat(user(image_part(data), "Which word?"))).json()
    assert (told["option"], told["judged"], told["saved"]) == ("low", True, 100.0)
    assert told["ask"]["longest_side"] == 100 and told["image"].startswith("data:image/jpeg")
    wish = {"x-m3router-option": "high"}
    body = chat(user(image_part(data), "Which word?"))
    told = client.post("/v1/route?image=1", json=body, headers=wish).json()
    assert told["option"] == "high" and told["ask"]["image"] == {"detail": "high"}
    assert client.post("/v1/route", json={"question": "Hello?"}).json()["judged"] is False
    assert client.post("/v1/route", json={"question": "Hello?", "m3router": 5}).status_code == 400
    (image, text) = body["messages"][0]["content"]
    for kind, option in (("image_url", "low"), ("image_url", "high"), ("input_image", "low")):
        part = {"type": kind, "image_url": image["image_url"]["url"]}
        short = chat({"role": "user", "content": [part, text]}, model=f"m3router/{option}")
        told = client.post("/v1/route?image=1", json=short).json()
        assert ("image" in told) is (option == "low")
    lost = chat({"role": "user", "content": [{"type": "input_image", "file_id": "f"}, text]})
    assert "image" not in client.post("/v1/route?image=1", json=lost).json()
    assert stand_in.hits == []

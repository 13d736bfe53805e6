"""The plug-in in a real LiteLLM proxy, between a client and two stand-in models."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from PIL import Image

import m3router.router.serve.litellm_plugin as plugin
from m3router.m3core.endpoint.stand_in import StandIn, running
from m3router.router.inference.router import Router
from tests.clients.environments import python_clients
from tests.router.inference.conftest import imported as imported
from tests.router.inference.conftest import tiny_clip as tiny_clip
from tests.router.inference.world import QUESTIONS
from tests.serve.routing import OPTIONS, asked_of, data_url, gateway

pytestmark = pytest.mark.clients
CONFIG = """
model_list:
  - model_name: m3router/auto
    litellm_params: {{model: openai/large, api_base: {url}/v1, api_key: none}}
  - model_name: small
    litellm_params: {{model: openai/small, api_base: {url}/v1, api_key: none}}
  - model_name: large
    litellm_params: {{model: openai/large, api_base: {url}/v1, api_key: none}}
litellm_settings:
  callbacks: m3router_plugin.instance
"""


@pytest.fixture(scope="module")
def world(imported, tmp_path_factory, cache):
    """A proxy in front of a stand-in, and a gateway that decides; and how to end the latter."""
    folder = tmp_path_factory.mktemp("litellm")
    shutil.copy(plugin.__file__, folder / "m3router_plugin.py")
    router = Router.load(imported.run.root, encoder=imported.encoder, device="cpu")
    with Image.open(imported.images / "3.png") as opened:
        image = opened.convert("RGB")
    with (
        running(StandIn(models=("small", "large"))) as upstream,
        contextlib.ExitStack() as deciding,
    ):
        (folder / "config.yaml").write_text(CONFIG.format(url=upstream.url))
        url = deciding.enter_context(gateway(router))
        with Proxy(python_clients(cache) / "litellm", folder, url) as client:
            yield upstream, client, image, deciding.close


class Proxy:
    """LiteLLM's proxy with a folder's config."""

    def __init__(self, executable: Path, folder: Path, gateway: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "LITELLM_MASTER_KEY": (key := f"sk-{secrets.token_hex(32)}"),
            "M3ROUTER_GATEWAY": gateway,
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "DISABLE_ADMIN_UI": "True",
        }
        command = [executable, "--config", "config.yaml"]
        self.log = (folder / "log.txt").open("w+")
        self.process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(self.port), "--telemetry", "False"],
            cwd=folder,
            env=environment,
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )
        self.client = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}",
            headers={"authorization": f"Bearer {key}"},
            trust_env=False,
            timeout=60,
        )

    def __enter__(self) -> httpx.Client:
        end = time.monotonic() + 180
        while True:
            try:
                if self.client.get("/health/liveliness").status_code == 200:
                    return self.client
            except httpx.HTTPError:
                pass
            if self.process.poll() is not None or time.monotonic() > end:
                self.__exit__()
                self.log.seek(0)
                pytest.fail(self.log.read()[-3000:])
            time.sleep(0.3)

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.process.terminate()
        self.process.wait(30)
        self.log.flush()


def ask(client: httpx.Client, image: Image.Image, budget: float | None, **fields) -> httpx.Response:
    wish = {} if budget is None else {"m3router": {"budget": budget}}
    body = {"model": "m3router/auto", "messages": asked_of(data_url(image), QUESTIONS[1])}
    return client.post("/v1/chat/completions", json={**body, **wish, **fields})


def hit_by(upstream: StandIn) -> dict:
    (hit,) = (one for one in upstream.hits if one["path"].endswith("/chat/completions"))
    upstream.hits.clear()
    return hit


def said(answer: httpx.Response) -> str:
    """The text of an answer, whole or streamed."""
    if answer.headers["content-type"].startswith("application/json"):
        return answer.json()["choices"][0]["message"]["content"]
    events = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")]
    deltas = [json.loads(one)["choices"][0]["delta"] for one in events]
    return "".join(one.get("content") or "" for one in deltas)


def directly(upstream: StandIn, image: Image.Image, option: str) -> str:
    """What the upstream says when it is asked as an option says, without anything between."""
    one = OPTIONS[option]
    messages = asked_of(one.sending.encode(image).url, QUESTIONS[1])
    body = {"model": one.model, "messages": messages, **one.body}
    return said(httpx.post(f"{upstream.url}/v1/chat/completions", json=body, trust_env=False))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("budget", "option"), [(45, "low"), (1000, "high")])
def test_the_option_s_model_answers_as_it_is_asked(world, budget, option, stream):
    upstream, client, image, _ = world
    answer = ask(client, image, budget, stream=stream)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-m3router-option"] == option
    body = hit_by(upstream)["body"]
    body.pop("stream_options", None)  # LiteLLM's own
    assert body == {"model": OPTIONS[option].model, **OPTIONS[option].body}
    assert said(answer) == directly(upstream, image, option)  # it saw the image as it is sent
    upstream.hits.clear()


def test_the_client_s_wish_in_a_header_is_heard(world):
    upstream, client, image, _ = world
    for budget, option in (("45", "low"), ("1000", "high")):
        body = {"model": "m3router/auto", "messages": asked_of(data_url(image), QUESTIONS[1])}
        wish = {"x-m3router-budget": budget}
        answer = client.post("/v1/chat/completions", json=body, headers=wish)
        assert answer.headers["x-m3router-option"] == option
        assert hit_by(upstream)["body"]["model"] == OPTIONS[option].model


def test_other_models_are_left_alone(world):
    upstream, client, image, _ = world
    assert "x-m3router-option" not in ask(client, image, None, model="small").headers
    assert hit_by(upstream)["body"] == {"model": "small"}


def test_without_a_gateway_the_request_goes_on_as_it_came(world):
    upstream, client, image, stop = world
    stop()
    for _ in range(2):
        answer = ask(client, image, 45)
        assert answer.status_code == 200 and "x-m3router-option" not in answer.headers
        assert hit_by(upstream)["body"] == {"model": "large"}

"""As a new user does it: `transformers serve`, a run by the command line, the gateway, clients."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from m3router.m3core.endpoint import PRESETS
from m3router.m3core.vlm.tiny import save_tiny
from m3router.router.cli.main import app
from tests.clients.browsing_chat import asked_in_a_browser
from tests.clients.driving import Asked, ask
from tests.m3core.endpoint.real_servers import transformers_serve
from tests.serve.served import data_url, end, start

pytestmark = pytest.mark.clients
PRESET = "transformers-qwen3-vl"
COARSEST, FINEST = "64", "2048"
"""The image has fewer tokens than this option allows, and than the server does by itself."""
CASES = {
    "OpenAI (Python)": ("whole", "streamed", "system", "history"),
    "LangChain": ("whole", "streamed", "system", "history"),
    "Gradio": ("whole", "streamed", "history"),
}


@dataclass(frozen=True)
class Gateway:
    direct: Asked
    finest: Asked
    routed: Asked
    image: Path
    log: Path


def noise(seed: int) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 255, (16, 20, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((320, 256), Image.Resampling.BICUBIC)


def command(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    print(done.output)  # noqa: T201
    return done.output


def first_words(url: str, model: str, image: Image.Image, question: str, option: str) -> str:
    """What the model answers at an option; of a random model, that is what is right."""
    (patch,) = (one["body"] for one in PRESETS[PRESET].options if one["name"] == option)
    part = {"type": "image_url", "image_url": {"url": data_url(image)}}
    said = [{"role": "user", "content": [part, {"type": "text", "text": question}]}]
    body = {"model": model, "messages": said, "max_tokens": 8, "temperature": 0, **patch}
    answer = httpx.post(f"{url}/chat/completions", json=body, timeout=120)
    return answer.json()["choices"][0]["message"]["content"]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("transformers")
    model = save_tiny("qwen3_vl", folder / "tiny")
    settings = json.loads((model / "generation_config.json").read_text())
    # It says something, and ends after a few of its random words.
    settings |= {"eos_token_id": list(range(1, 200)), "min_new_tokens": 4}
    (model / "generation_config.json").write_text(json.dumps(settings))
    with transformers_serve(model) as url:
        lines = []
        for number in range(16):
            image, question = noise(number), f"What is number {number % 2}?"
            image.save(folder / f"{number}.png")
            option = FINEST if number % 2 else COARSEST
            word = first_words(url, str(model), image, question, option)
            one = {"id": f"q{number}", "image": f"{number}.png", "question": question}
            lines.append(json.dumps({**one, "answers": [word or "nothing"]}))
        (folder / "my.jsonl").write_text("\n".join(lines))
        run = folder / "run"
        endpoint = ("--endpoint", url, "--preset", PRESET, "--model", model)
        data = ("--examples", folder / "my.jsonl", "--images", folder, "--max-new-tokens", 8)
        command("label", *endpoint, *data, "--out", run)
        command("train", run)
        command("calibrate", run, "--budget", 200)
        server = start(tmp_path_factory.mktemp("served"), run)  # in front of the run's endpoint
        try:
            image = folder / "0.png"
            direct = Asked(
                base_url=url,
                model=str(model),
                image=data_url(noise(0)),
                question="What is number 0?",
                stop="#",
            )
            finest = replace(direct, base_url=f"{server.url}/v1", model=f"m3router/{FINEST}")
            routed = replace(finest, model="m3router/auto")
            yield Gateway(direct, finest, routed, image, server.log)
        finally:
            end(server)


@pytest.mark.parametrize("client", list(CASES))
def test_a_client_s_answers_are_those_of_the_server(client, gateway, cache):
    direct = ask(client, gateway.direct, CASES[client], cache=cache).found
    finest = ask(client, gateway.finest, CASES[client], cache=cache).found
    routed = ask(client, gateway.routed, CASES[client], cache=cache).found
    assert any(one["text"] for one in direct.values()), direct  # a random model may say nothing
    assert finest == direct
    assert set(routed) == set(direct) and "error" not in str(routed), routed


def test_a_chat_in_a_browser(gateway, tmp_path):
    told = asked_in_a_browser(gateway.finest, gateway.image, tmp_path / "chat.png")
    assert len(told) == 2 and all(told), "the second message has the first as its history"

"""Runs a client's script against any server that speaks OpenAI's interface."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.clients.environments import HERE, npm_clients, python_clients

SCRIPTS = {
    "OpenAI (Python)": "openai_client.py",
    "OpenAI (npm)": "openai_client.mjs",
    "LangChain": "langchain_client.py",
    "LlamaIndex": "llama_index_client.py",
    "LiteLLM": "litellm_client.py",
    "LiteLLM's proxy": "openai_client.py",
    "Gradio": "gradio_chat_client.py",
}
"""Column of the table in `docs/clients.md` to script; the proxy stands before the server."""
PROXY = "LiteLLM's proxy"
SETTINGS = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",  # on loopback, for minutes
    "GRADIO_ANALYTICS_ENABLED": "False",
}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a script asks.

    Attributes:
        base_url: Of the server, with `/v1`.
        model: Name of the model.
        image: A data URL.
        question: About it.
        stop: A stop string.
    """

    base_url: str
    model: str
    image: str
    question: str
    stop: str


@dataclass(frozen=True)
class Told:
    """What a script says.

    Attributes:
        cases: All that it can do.
        found: Case to `text`, or to `error` with `kind`, `text` and `status`.
    """

    cases: tuple[str, ...]
    found: dict[str, dict[str, Any]]


def ask(client: str, asked: Asked, cases: Sequence[str], *, cache: Path) -> Told:
    """Let a client do some cases.

    Args:
        client: A key of `SCRIPTS`.
        asked: What.
        cases: Names.
        cache: Where clients are installed.
    """
    script = SCRIPTS[client]
    if script.endswith(".mjs"):
        command = ["node", str(npm_clients(cache) / script)]
    elif client == "Gradio":  # comes with the extra `demo`
        command = [sys.executable, str(HERE / "scripts" / script)]
    else:
        command = [str(python_clients(cache) / "python"), str(HERE / "scripts" / script)]
    done = subprocess.run(
        [*command, *cases],
        input=json.dumps(asdict(asked)),
        capture_output=True,
        text=True,
        timeout=300,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    told = json.loads(done.stdout.splitlines()[-1])
    return Told(tuple(told["cases"]), told["found"])


def environment() -> dict[str, str]:
    """Without this project on the path, and without anything that calls home."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**kept, **SETTINGS}


@contextlib.contextmanager
def litellm_proxy(models: Mapping[str, Asked], folder: Path, *, cache: Path) -> Iterator[str]:
    """LiteLLM's proxy before servers.

    Args:
        models: What the proxy calls a model, to the server and model behind it.
        folder: For its configuration and log.
        cache: Where clients are installed.

    Yields:
        Its own address with `/v1`.
    """
    entries = [
        {
            "model_name": name,
            "litellm_params": {
                "model": f"openai/{asked.model}",
                "api_base": asked.base_url,
                "api_key": "none",
            },
        }
        for name, asked in models.items()
    ]
    config = folder / "litellm.yaml"  # JSON is YAML, too
    config.write_text(json.dumps({"model_list": entries, "router_settings": {"num_retries": 0}}))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [python_clients(cache) / "litellm", "--config", config, "--host", "127.0.0.1"]
    log = folder / "litellm.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*map(str, command), "--port", str(port)],
            stdout=out,
            stderr=out,
            env=environment(),
            cwd=folder,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 300
        while not _lives(url):
            assert process.poll() is None and time.monotonic() < until, log.read_text()[-3_000:]
            time.sleep(0.2)
        yield f"{url}/v1"
    finally:
        process.terminate()
        try:
            process.wait(20)
        finally:
            process.kill()


def _lives(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/liveliness", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False

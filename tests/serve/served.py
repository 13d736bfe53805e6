"""`m3router serve` in a process of its own.

Clients verify nothing: reading the certificates of the system takes one longer than its question.
"""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import httpx
import openai


@dataclass(frozen=True)
class Server:
    url: str
    process: subprocess.Popen
    log: Path

    def client(self, token: str = "none", **settings) -> openai.OpenAI:
        settings.setdefault("http_client", openai.DefaultHttpxClient(verify=False))
        return openai.OpenAI(
            base_url=f"{self.url}/v1", api_key=token, max_retries=0, timeout=60, **settings
        )


def start(folder: Path, run: Path, *options: str, verbose: bool = True) -> Server:
    log = folder / "server.log"
    command = [sys.executable, "-m", "m3router", *(["-v"] if verbose else []), "serve"]
    command += [str(run), "--port", "0", "--device", "cpu", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "300", "NO_COLOR": "1"}
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment, cwd=folder)
    until = time.monotonic() + 300
    url = ""
    while time.monotonic() < until and process.poll() is None:
        found = re.search(r"listening at (https?://\S+?)[,\s]", log.read_text())
        if found:
            url = found[1]
            try:
                if httpx.get(f"{url}/ready", timeout=1, verify=False).status_code == 200:
                    return Server(url, process, log)
            except httpx.HTTPError:
                pass
        time.sleep(0.05)
    process.kill()
    raise AssertionError(log.read_text())


def end(server: Server) -> None:
    server.process.terminate()
    try:
        server.process.wait(30)
    finally:
        server.process.kill()


def data_url(image) -> str:
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"

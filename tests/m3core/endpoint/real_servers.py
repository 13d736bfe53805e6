"""Real servers for tests: `transformers serve` in a thread of its own, vLLM in a process."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import transformers
from transformers.cli.serve import Serve

from m3router.m3core.checkpoints.places import read_json
from m3router.m3core.vlm.families import FAMILIES
from m3router.m3core.vlm.processors import load_processor


@contextlib.contextmanager
def transformers_serve(folder: Path) -> Iterator[str]:
    """`transformers serve FOLDER` as it is, on a free port; its address, with ``/v1``.

    Without torchvision, ``AutoProcessor`` cannot build the video processor that most families
    have. Then, and only then, it loads the family's own processor without that part.
    """
    stock = transformers.AutoProcessor.from_pretrained
    if not transformers.utils.is_torchvision_available():
        transformers.AutoProcessor.from_pretrained = _without_video
    try:
        served = Serve(
            force_model=str(folder), port=0, device="cpu", log_level="error", non_blocking=True
        )
        until = time.monotonic() + 60
        while not served.server.started:
            assert time.monotonic() < until, "transformers serve did not start"
            time.sleep(0.01)
        port = served.server.servers[0].sockets[0].getsockname()[1]
        try:
            yield f"http://localhost:{port}/v1"
        finally:
            served.kill_server()
    finally:
        transformers.AutoProcessor.from_pretrained = stock


@contextlib.contextmanager
def vllm_serve(executable: str, folder: Path, *flags: str) -> Iterator[str]:
    """vLLM on a CPU with a folder's model, called ``tiny``; its address, with ``/v1``."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = os.environ | {
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }
    environment.pop("PYTHONPATH", None)  # of this environment, not of vLLM's
    log = folder / "vllm.log"
    command = [executable, "serve", str(folder), "--served-model-name", "tiny"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
    command += ["--enforce-eager", "--max-model-len", "4096", "--max-num-seqs", "4"]
    command += ["--limit-mm-per-prompt", '{"image": 1, "video": 0}', *flags]
    with log.open("wb") as file:
        server = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
    try:
        until = time.monotonic() + 1800
        while not _answers(f"http://127.0.0.1:{port}/health"):
            assert server.poll() is None and time.monotonic() < until, log.read_text()[-3000:]
            time.sleep(2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(60)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.TransportError:
        return False


def _without_video(folder: str, **_: Any) -> Any:
    kind = str(read_json(Path(folder) / "config.json")["model_type"])
    return load_processor(Path(folder), FAMILIES[kind])[0]

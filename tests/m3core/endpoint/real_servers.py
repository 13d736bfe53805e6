"""Real servers for tests: `transformers serve` in a thread of its own, vLLM in a process."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


def _without_video(folder: str, **_: Any) -> Any:
    kind = str(read_json(Path(folder) / "config.json")["model_type"])
    return load_processor(Path(folder), FAMILIES[kind])[0]

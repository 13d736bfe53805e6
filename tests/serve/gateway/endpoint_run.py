"""A run that was labelled over the stand-in server, made in seconds; and what a client sends."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from m3router.data.example import Example
from m3router.m3core.endpoint.connecting import connect
from m3router.m3core.endpoint.endpoint_options import parse_options
from m3router.m3core.endpoint.stand_in import StandIn, coded_image, running
from m3router.router.runs.run import Run
from m3router.router.stages.labelling import label_stage
from m3router.router.stages.learning import calibrate_stage, train_stage

LARGE, SMALL = "Which word is written in large cells?", "Which word is in the small cells?"
OPTIONS: dict[str, Any] = {
    "model": "stand-in",
    "option": [
        {"name": name, "body": {"mm_processor_kwargs": {"size": {"longest_edge": budget * 1024}}}}
        for name, budget in (("coarse", 64), ("fine", 1024))
    ],
}
for _one in OPTIONS["option"]:
    _one["body"]["mm_processor_kwargs"]["size"]["shortest_edge"] = 4096


@dataclass(frozen=True)
class EndpointRun:
    root: Path
    examples: list[tuple[bytes, str, str]] = field(default_factory=list)
    """PNG, question and word."""


def asked_image(number: int, *, cells: int) -> tuple[bytes, str]:
    word = hashlib.sha256(str(number).encode()).hexdigest()[:4]
    buffer = io.BytesIO()
    coded_image(word, cells=cells, size=(512, 512)).save(buffer, "PNG")
    return buffer.getvalue(), word


def make_endpoint_run(folder: Path, *, examples: int = 60) -> EndpointRun:
    """Label over a stand-in that is gone afterwards, train, calibrate."""
    run, images = Run(folder / "run"), folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    made, kept = [], []
    for number in range(examples):
        large = number % 2 == 0
        data, word = asked_image(number, cells=8 if large else 16)
        (images / f"{number}.png").write_bytes(data)
        question = LARGE if large else SMALL
        kept.append((data, question, word))
        made.append(
            Example(id=f"e{number}", image=f"{number}.png", question=question, answers=(word,))
        )
    with (
        running(StandIn()) as server,
        connect(f"{server.url}/v1", parse_options(OPTIONS), max_new_tokens=8) as model,
    ):
        label_stage(run, made, images=images, model=model)
    train_stage(run, estimator="logistic", ablations=False)
    calibrate_stage(run, name="default", budget=200)
    return EndpointRun(run.root, kept)


def data_url(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def image_part(data: bytes, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": data_url(data), **more}}


def user(*parts: Any) -> dict[str, Any]:
    return {
        "role": "user",
        "content": [
            {"type": "text", "text": one} if isinstance(one, str) else one for one in parts
        ],
    }


def chat(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"model": "m3router/auto", "messages": list(messages), **more}


def canonical(body: Any) -> str:
    return json.dumps(body, sort_keys=True)


def picture(side: tuple[int, int] = (64, 48), colour: tuple[int, int, int] = (9, 8, 7)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", side, colour).save(buffer, "PNG")
    return buffer.getvalue()

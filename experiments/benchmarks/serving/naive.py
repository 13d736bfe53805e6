"""The naive server: every request by itself through the offline pipeline, behind a lock.

    python -m experiments.benchmarks.serving.naive RUN PORT

It knows only what the benchmark asks, takes any model as "m3-auto", and streams an answer as one
piece. What is faster than this is faster because requests share batches.
"""

from __future__ import annotations

import base64
import io
import json
import sys
import threading
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response, StreamingResponse
from PIL import Image

from experiments.benchmarks.serving.servers import HOST
from m3router.router.inference.pipeline import AutoScalePipeline

_AUTO = "m3-auto"


def naive_app(pipeline: AutoScalePipeline) -> FastAPI:
    """The application; FastAPI runs its plain functions in threads, of which the lock lets one."""
    app, lock = FastAPI(), threading.Lock()

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/v1/chat/completions")
    def chat(request: dict[str, Any]) -> Response:
        parts = {part["type"]: part for part in request["messages"][0]["content"]}
        _, _, encoded = parts["image_url"]["image_url"]["url"].partition(",")
        image = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
        scale = None if request["model"] == _AUTO else int(request["model"].removeprefix("m3-"))
        with lock:
            (routed,) = pipeline.answer([image], [parts["text"]["text"]], scale=scale)
        text = {"role": "assistant", "content": routed.answer.text}
        about = {"scale": routed.scale, "milliseconds": routed.milliseconds}
        end = {"index": 0, "finish_reason": "stop"}
        if not request["stream"]:
            return JSONResponse({"choices": [{**end, "message": text}], "m3": about})
        chunk = json.dumps({"choices": [{**end, "delta": text}], "m3": about})
        return StreamingResponse(
            iter([f"data: {chunk}\n\n", "data: [DONE]\n\n"]), media_type="text/event-stream"
        )

    return app


def main() -> None:
    """Serve until ended."""
    run, port = sys.argv[1:]
    pipeline = AutoScalePipeline.load(Path(run), device="cpu")
    uvicorn.run(naive_app(pipeline), host=HOST, port=int(port), log_level="warning")


if __name__ == "__main__":
    main()

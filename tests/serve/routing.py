"""A small gateway that only decides: `/v1/route` over a Router, on a port of its own."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import threading
import time
from collections.abc import Iterator, Mapping

import uvicorn
from PIL import Image
from starlette.applications import Starlette

from m3router.m3core.endpoint.endpoint_options import EndpointOption
from m3router.m3core.endpoint.sent_images import Sending
from m3router.router.inference.router import Router
from m3router.router.serve.deciding.decider import Judged
from m3router.router.serve.gateway.route_api import Judgement, RouteApi

OPTIONS = {
    "low": EndpointOption(
        name="low",
        model="small",
        body={"mm_processor_kwargs": {"max_pixels": 65536}},
        sending=Sending(longest_side=40, encoding="jpeg"),
    ),
    "high": EndpointOption(name="high", model="large"),
}


def data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def asked_of(url: str, question: str) -> list[dict]:
    image = {"type": "image_url", "image_url": {"url": url}}
    return [{"role": "user", "content": [image, {"type": "text", "text": question}]}]


def parts(body: Mapping) -> tuple[list[Image.Image], str]:
    """The images and the text of a body's last message."""
    content = body["messages"][-1]["content"]
    content = [{"type": "text", "text": content}] if isinstance(content, str) else content
    urls = [one["image_url"]["url"] for one in content if one["type"] == "image_url"]
    images = [
        Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")
        for url in urls
    ]
    return images, "\n".join(one["text"] for one in content if one["type"] == "text")


def route_api(router: Router) -> RouteApi:
    """As a gateway would make it, without its limits."""

    async def judge(body, request) -> Judgement:
        images, question = parts(body)
        if len(images) != 1:
            why = f"There are {len(images)} images; one is judged."
            return Judgement(judged=None, option="high", reason=why)
        wish = body.get("m3router") or {}
        header = request.headers.get("x-m3router-budget")
        wish = {"budget": float(header)} if header else wish
        (decision,) = await asyncio.to_thread(
            router.decide_many, images, [question], budget=wish.get("budget")
        )

        async def sent() -> str | None:
            sending = OPTIONS[decision.option].sending
            if sending == Sending():
                return None
            return (await asyncio.to_thread(sending.encode, images[0])).url

        return Judgement(
            judged=Judged(decision=decision),
            option=decision.option,
            reason=decision.reason,
            image=sent,
        )

    return RouteApi(judge, lambda: OPTIONS)


@contextlib.contextmanager
def gateway(router: Router) -> Iterator[str]:
    """Run it; gives its address."""
    app = Starlette(routes=route_api(router).routes())
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()

"""Bodies of requests to the gateway: as :mod:`tests.fuzz.bodies`, in front of an upstream."""

from __future__ import annotations

import atexit
import contextlib
from typing import Any

from PIL import Image

from m3router.m3core.endpoint.endpoint_options import EndpointOption
from m3router.m3core.endpoint.sent_images import Sending, SentImage
from m3router.router.serve.deciding.decider import Asked, Judged
from m3router.router.serve.gateway.app import GatewayFront, create_gateway
from m3router.router.serve.gateway.upstreams import Upstream, Upstreams
from m3router.router.serve.guard.keys import KeyRing
from m3router.router.serve.guard.rates import Rates
from m3router.router.serve.settings import ServeSettings
from tests.fuzz.bodies import LIMITS as LIMITS
from tests.fuzz.bodies import Body, check_answer
from tests.fuzz.bodies import cases as cases
from tests.serve.gateway.gateway_server import CountingMetrics, ToldDecider
from tests.serve.gateway.raw_upstream import Heard, Said, raw_upstream

OPTIONS = {
    "low": EndpointOption(
        name="low", model="m", sending=Sending(longest_side=100, encoding="jpeg")
    ),
    "high": EndpointOption(name="high", model="m", image={"detail": "high"}),
}
YES = (
    b'{"id":"chatcmpl-1","object":"chat.completion","choices":[{"index":0,"message":{"role":'
    b'"assistant","content":"yes"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,'
    b'"completion_tokens":1,"total_tokens":10}}'
)


def check(body: Body) -> None:
    """Ask, and judge the answer; the upstream says yes to everything."""
    check_answer(body, application)


def application() -> Any:
    """The gateway's application, with an upstream and a decider of this process."""
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    upstream = stack.enter_context(raw_upstream())

    def yes(heard: Heard) -> Said:
        upstream.heard.clear()
        return Said([YES])

    upstream.script = yes
    server = Upstream(name="upstream", url=f"{upstream.url}/v1")
    front = GatewayFront(
        upstreams=Upstreams(options=OPTIONS, serving=dict.fromkeys(OPTIONS, server)),
        decider=_Decider(tuple(OPTIONS)),
        images=_Images(),
        keys=KeyRing.of(None, None),
        rates=Rates(None, 1),
        settings=ServeSettings(run="run"),
        metrics=_Metrics(),
    )
    return create_gateway(front)


class _Decider(ToldDecider):
    """Remembers nothing, so that memory does not grow."""

    async def decide(self, asked: Asked) -> Judged:
        self.asked.clear()
        return await super().decide(asked)


class _Metrics(CountingMetrics):
    """Remembers nothing either."""

    def request(self, *told: Any) -> None:
        """Nothing to count."""

    usage = upstream = request


class _Images:
    """Takes everything for an image."""

    async def decode(self, data: bytes, *, deadline: float) -> Image.Image:
        return Image.new("RGB", (4, 4))

    async def size(self, data: bytes, *, deadline: float) -> tuple[int, int]:
        return 4, 4

    async def sent(self, data: bytes, sending: Sending, *, deadline: float) -> SentImage:
        return sending.encode(Image.new("RGB", (4, 4)))

"""A gateway in a thread, with a decider and image readers of this process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from m3router.data.images import read_image
from m3router.m3core.endpoint.sent_images import Sending, SentImage
from m3router.router.inference.decision import Decision
from m3router.router.inference.router import Router
from m3router.router.serve.deciding.decider import Asked, AskedImage, Judged, RouterFacts
from m3router.router.serve.errors import ApiError
from m3router.router.serve.gateway.app import GatewayFront, create_gateway
from m3router.router.serve.gateway.upstreams import Upstreams
from m3router.router.serve.guard.keys import KeyRing
from m3router.router.serve.guard.rates import Rates
from m3router.router.serve.http.running import server_of
from m3router.router.serve.settings import ServeSettings


def asked_image(image: Image.Image, digest: str = "") -> AskedImage:
    """An image that is decoded already."""

    async def pixels() -> Image.Image:
        return image

    return AskedImage(size=image.size, pixels=pixels, digest=digest)


class ThreadDecider:
    """`Router.decide` in a thread."""

    def __init__(self, router: Router) -> None:
        self.router = router

    async def start(self) -> RouterFacts:
        return facts(self.router.options, needs_image=self.router.needs_image)

    async def decide(self, asked: Asked) -> Judged:
        wish = asked.wish
        decision = await asyncio.to_thread(
            self.router.decide,
            None if asked.image is None else await asked.image.pixels(),
            asked.question,
            budget=wish.budget,
            option=wish.option,
            policy=wish.policy,
        )
        return Judged(decision=decision)

    def load(self) -> dict[str, float]:
        return {"waiting": 0.0}

    async def stop(self) -> None:
        return None


@dataclass
class ToldDecider:
    """Decides what a test says."""

    options: tuple[str, ...]
    option: str = ""
    error: Exception | None = None
    seconds: float = 0.0
    familiarity: float | None = None
    cascade: Any = None
    guarantee: str = ""
    needs_image: bool = True
    needs_pixels: bool = False
    asked: list[Asked] = field(default_factory=list)

    async def start(self) -> RouterFacts:
        return facts(self.options, needs_image=self.needs_image, needs_pixels=self.needs_pixels)

    async def decide(self, asked: Asked) -> Judged:
        self.asked.append(asked)
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        decision = Decision(
            option=asked.wish.option or self.option or self.options[0],
            estimates={name: 0.5 + 0.1 * at for at, name in enumerate(self.options)},
            costs={name: 100.0 * (at + 1) for at, name in enumerate(self.options)},
            cost_unit="image tokens",
            reason="As the test says.",
            guarantee=self.guarantee,
            escalates=self.cascade is not None and asked.again,
            familiarity=self.familiarity,
            milliseconds={},
        )
        return Judged(decision=decision, cascade=self.cascade if asked.again else None)

    def load(self) -> dict[str, float]:
        return {}

    async def stop(self) -> None:
        return None


def facts(options: Sequence[str], **more: Any) -> RouterFacts:
    given = {"needs_image": True, "needs_pixels": True, **more}
    return RouterFacts(
        options=tuple(options),
        cost_unit="image tokens",
        model="m",
        revision="",
        router="r",
        policy="default",
        guarantee="",
        **given,
    )


class HereImages:
    """Reads images in this process."""

    async def decode(self, data: bytes, *, deadline: float) -> Image.Image:
        try:
            return await asyncio.to_thread(read_image, data)
        except Exception as error:
            raise ApiError(400, str(error), code="image_parse_error") from error

    async def size(self, data: bytes, *, deadline: float) -> tuple[int, int]:
        return (await self.decode(data, deadline=deadline)).size

    async def sent(self, data: bytes, sending: Sending, *, deadline: float) -> SentImage:
        return sending.encode(await self.decode(data, deadline=deadline))


class CountingMetrics:
    def __init__(self) -> None:
        self.requests: list[tuple[int, str, str]] = []
        self.usages: list[tuple[Any, ...]] = []
        self.upstreams: list[tuple[str, Any]] = []
        self.decisions = self.again = 0

    def request(self, status, option, reason, seconds, first_seconds) -> None:
        self.requests.append((status, option, reason))

    def decided(self, judged, seconds) -> None:
        self.decisions += 1

    def usage(self, *numbers) -> None:
        self.usages.append(numbers)

    def escalated(self) -> None:
        self.again += 1

    def upstream(self, name, status) -> None:
        self.upstreams.append((name, status))

    def page(self) -> bytes:
        return b"# nothing\n"


@dataclass
class RunningGateway:
    url: str
    metrics: CountingMetrics


@contextlib.contextmanager
def gateway(
    upstreams: Upstreams, decider: Any, *, keys: KeyRing | None = None, **settings: Any
) -> Iterator[RunningGateway]:
    """Serve a gateway in a thread."""
    own = {
        name: settings.pop(name)
        for name in ("fetch", "decide_seconds", "recorder")
        if name in settings
    }
    own.setdefault("decide_seconds", 30.0)  # the machine may be busy
    metrics = CountingMetrics()
    front = GatewayFront(
        upstreams=upstreams,
        decider=decider,
        images=HereImages(),
        keys=keys or KeyRing.of(None, None),
        rates=Rates(None, 32),
        settings=ServeSettings(run="run", **settings),
        metrics=metrics,
        **own,
    )
    app = create_gateway(front)
    server = server_of(app, access_log=False, drain_seconds=1)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        until = time.monotonic() + 120
        while not server.started:
            if app.error is not None:
                raise app.error
            assert time.monotonic() < until and thread.is_alive()
            time.sleep(0.005)
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        try:
            yield RunningGateway(url, metrics)
        finally:
            server.should_exit = True
            thread.join(10)


def moved(upstreams: Upstreams, **urls: str) -> Upstreams:
    """The upstreams at other addresses."""
    serving = {
        name: replace(one, url=urls.get(name, one.url)) for name, one in upstreams.serving.items()
    }
    return Upstreams(options=upstreams.options, serving=serving)


def decided(router: Router, data: bytes, question: str) -> Decision:
    return router.decide(read_image(data), question)

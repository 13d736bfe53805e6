"""The gateway's application: its routes, its errors, its beginning and its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from m3router.data.errors import DataError, MismatchError
from m3router.router.serve.deciding.decider import Decider, RouterFacts
from m3router.router.serve.errors import ApiError
from m3router.router.serve.gateway.bodies import INPUT, MESSAGES
from m3router.router.serve.gateway.counting import LEFT, Metrics
from m3router.router.serve.gateway.exchange import (
    Exchange,
    Gateway,
    client_of,
    error_body,
    while_there,
)
from m3router.router.serve.gateway.history import Memory
from m3router.router.serve.gateway.judging import DECIDE_SECONDS, Images, Judge
from m3router.router.serve.gateway.recording import made_by, more_routes, record
from m3router.router.serve.gateway.relaying import CutError, Relay, sent_headers
from m3router.router.serve.gateway.upstreams import Upstream, Upstreams, with_models
from m3router.router.serve.gateway.wishes import AUTO, PREFIX
from m3router.router.serve.guard.admission import admission
from m3router.router.serve.guard.keys import KeyRing
from m3router.router.serve.guard.rates import Rates, neighbourhood
from m3router.router.serve.guard.request_guard import Receive, RequestGuard, Scope, Send
from m3router.router.serve.http.lifespan import Lifespan
from m3router.router.serve.http.request_ids import RequestIds
from m3router.router.serve.images.decoding import Fetches
from m3router.router.serve.settings import ServeSettings, WhenRouterFails
from m3router.router.traffic.recorder import Recorder

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

MAX_DEPTH = 64
"""Lists and objects within each other: the schema of a tool is deeper than a conversation."""
MAX_MARKS = 50_000
"""Values in a conversation, with its history and its tools: parsed within some 10 ms."""
UNREAD = ("/v1/embeddings", "/v1/completions")
"""Whose bodies go on as they are; their values may be the numbers of tokens."""
MAX_TOKENS = 400_000
MOST_HELD = 256 << 20
"""Bytes of all requests that wait for their answers; a process takes about four times as much."""
LONGEST_LIST = 1 << 20
"""Bytes of an upstream's list of models that are read."""
LIST_SECONDS = 10.0
"""That an upstream may take to list its models."""

_ID = re.compile(r"(?!\.+$)[A-Za-z0-9_.:-]{1,256}")


@dataclass(frozen=True, kw_only=True)
class GatewayFront:
    """What the gateway is made of.

    Attributes:
        upstreams: Who answers, and how they are asked.
        decider: Decides; started and stopped by the application.
        images: Reads images; started and stopped by the application where it can be.
        keys: Who may ask.
        rates: How often.
        settings: Limits, timeouts and what happens when the router fails.
        metrics: Told of everything.
        fetch: Gets images from elsewhere; None to get none.
        hosts: Names that the gateway goes by; None for any.
        decide_seconds: That reading an image and deciding may take.
        recorder: Keeps a share of the traffic; started and stopped by the application. None for
            none.
    """

    upstreams: Upstreams
    decider: Decider
    images: Images
    keys: KeyRing
    rates: Rates
    settings: ServeSettings
    metrics: Metrics
    fetch: Fetches | None = None
    hosts: frozenset[str] | None = None
    decide_seconds: float = DECIDE_SECONDS
    recorder: Recorder | None = None


class HeldBytes:
    """Bodies of requests whose answers are not there yet; used from one thread.

    Args:
        total: Bytes of all of them.
        share: Of one client's, in (0, 1].
    """

    def __init__(self, total: int, share: float = 0.5) -> None:
        self.total = total
        self.share = share
        self._held: Counter[str] = Counter()

    @contextlib.contextmanager
    def taken(self, who: str, count: int) -> Iterator[None]:
        """Hold so many bytes of a client's.

        Raises:
            ApiError: 503 if that were too many.
        """
        own = self._held[who] + count
        if own > self.share * self.total or self._held.total() + count > self.total:
            raise ApiError(
                503,
                "Too much is being asked at once. Try again in a moment.",
                kind="server_error",
                code="overloaded",
                headers={"Retry-After": "1"},
            )
        self._held[who] = own
        try:
            yield
        finally:
            self._held[who] -= count
            if not self._held[who]:
                del self._held[who]


class GatewayState:
    """What is there between the application's start and its end.

    Args:
        front: What it is made of.

    Attributes:
        upstreams: With every option's model, once it started.
        held: Bodies that wait for answers.
        gateway: Serves requests.
    """

    def __init__(self, front: GatewayFront) -> None:
        settings = front.settings
        self.front = front
        self.upstreams = front.upstreams
        self.started = int(time.time())
        self.held = HeldBytes(max(MOST_HELD, 4 * settings.max_bytes))
        self.relay = Relay(silence=settings.upstream_timeout, trust_env=settings.trust_env)
        self.gateway = Gateway(
            relay=self.relay,
            judge=self.judge,
            upstreams=lambda: self.upstreams,
            metrics=front.metrics,
            own_keys=front.keys.needed,
            ask_logprobs=settings.ask_logprobs,
            on_served=partial(record, front.recorder, front.images) if front.recorder else None,
        )
        self._judge: Judge | None = None

    @property
    def ready(self) -> bool:
        """Whether requests are taken."""
        return self._judge is not None

    def judge(self) -> Judge:
        """What decides how requests are asked.

        Raises:
            ApiError: 503 before the start.
        """
        if self._judge is None:
            raise ApiError(503, "Not ready.", kind="server_error", code="unavailable")
        return self._judge

    async def start(self) -> RouterFacts:
        """Make everything ready.

        Raises:
            M3RouterError: If something cannot be used.
        """
        front, settings = self.front, self.front.settings
        await self.relay.start()
        try:
            self.upstreams = await self._with_models()
            if (start := getattr(front.images, "start", None)) is not None:
                await start()
            facts = await front.decider.start()
            if facts.options != tuple(self.upstreams.options):
                raise MismatchError(
                    f"The router chooses between {', '.join(facts.options)}, but the upstreams are "
                    f"asked at {', '.join(self.upstreams.options)}."
                )
            if front.recorder is not None:
                await asyncio.to_thread(front.recorder.start, made_by(facts))
        except BaseException:
            await self.stop()
            raise
        self._judge = Judge(
            front.decider,
            facts,
            images=front.images,
            upstreams=self.upstreams,
            memory=Memory(),
            unlike=settings.unlike,
            max_bytes=settings.max_bytes,
            fetch=front.fetch,
            fails_open=settings.when_router_fails is WhenRouterFails.OPEN,
            seconds=front.decide_seconds,
        )
        return facts

    async def stop(self) -> None:
        """Let go of everything."""
        self._judge = None
        await self.front.decider.stop()
        if (stop := getattr(self.front.images, "stop", None)) is not None:
            await stop()
        if self.front.recorder is not None:
            await asyncio.to_thread(self.front.recorder.stop)
        await self.relay.stop()

    async def _with_models(self) -> Upstreams:
        servers = {
            self.upstreams.serving[name]
            for name, option in self.upstreams.options.items()
            if option.model is None
        }
        listed: dict[str, list[str]] = {}
        for server in servers:
            cards = await self.models(server, [])
            if cards is None:
                raise DataError(
                    f"The options name no model, and the server {server.url} does not say which "
                    "it has: start it first, or give --model NAME."
                )
            listed[server.name] = [str(one.get("id")) for one in cards]
        return with_models(self.upstreams, lambda server: listed[server.name])

    async def models(
        self, server: Upstream, headers: list[tuple[bytes, bytes]]
    ) -> list[dict[str, Any]] | None:
        """The models that an upstream lists; None where it does not say."""
        sent = sent_headers(headers, server, own_key=self.front.keys.needed, json=False)
        read = bytearray()
        try:
            async with (
                asyncio.timeout(LIST_SECONDS),
                self.relay.ask(server, "GET", "/models", sent, None) as reply,
            ):
                async for piece in reply.pieces():
                    read += piece
                    if len(read) > LONGEST_LIST:
                        return None
            content = json.loads(read)
        except (ApiError, CutError, TimeoutError, ValueError, RecursionError):
            return None
        cards = content.get("data") if isinstance(content, dict) else None
        if not isinstance(cards, list):
            return None
        return [one for one in cards if isinstance(one, dict) and isinstance(one.get("id"), str)]


def create_gateway(
    front: GatewayFront, *, on_ready: Callable[[RouterFacts], None] | None = None
) -> Lifespan:
    """The whole ASGI application.

    Args:
        front: What it is made of.
        on_ready: Called with what decides once requests are taken.
    """
    state = GatewayState(front)

    async def start() -> None:
        facts = await state.start()
        if on_ready is not None:
            on_ready(facts)

    guard = RequestGuard(
        routes(state),
        max_bytes=front.settings.max_bytes,
        body_seconds=front.settings.body_seconds,
        max_depth=max(front.settings.max_depth, MAX_DEPTH),
        hosts=front.hosts,
        max_marks=MAX_MARKS,
        max_marks_at=dict.fromkeys(UNREAD, MAX_TOKENS),
        admit=admission(front.keys, front.rates),
    )
    return Lifespan(RequestIds(guard), start=start, stop=state.stop)


class _Endpoint:
    """An ASGI application that serves requests of one path, for as long as their clients stay."""

    def __init__(
        self, state: GatewayState, path: str, *, field: str | None = None, body: bool = True
    ) -> None:
        self.state = state
        self.path = path
        self.field = field
        self.body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        exchange = Exchange(id=scope["state"]["request_id"])
        raw = await _body(receive)
        if raw is None:
            return
        status = 500
        try:
            with self.state.held.taken(client_of(scope) or _address(scope), len(raw)):
                work = self._serve(scope, raw, send, exchange)
                stayed = await while_there(receive, work, exchange)
            status = exchange.status if stayed else LEFT
        except ApiError as error:
            status = error.status
            await _fail(error, send, exchange)
        finally:
            self.state.front.metrics.request(
                status,
                exchange.option,
                exchange.reason,
                exchange.seconds or time.monotonic() - exchange.started,
                exchange.first,
            )

    async def _serve(self, scope: Scope, raw: bytes, send: Send, exchange: Exchange) -> None:
        path = self.path
        for name, value in scope.get("path_params", {}).items():
            if not _ID.fullmatch(value):
                raise ApiError(404, "There is no such response.", code="not_found")
            path = path.replace(f"{{{name}}}", value)
        gateway = self.state.gateway
        if self.field is None:
            await gateway.passing(
                scope, raw if self.body or raw else None, send, exchange, path=path
            )
        else:
            await gateway.conversation(scope, raw, send, exchange, path=path, field=self.field)


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return neighbourhood(str(client[0])) if client else ""


async def _body(receive: Receive) -> bytes | None:
    """The body, which the guard has read already; None where the client left."""
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


async def _fail(error: ApiError, send: Send, exchange: Exchange) -> None:
    body = error_body(error)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        *(
            (name.lower().encode(), value.encode("latin-1"))
            for name, value in error.headers.items()
        ),
        *exchange.headers,
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def routes(state: GatewayState) -> Starlette:
    """The routes alone, without the guard in front."""
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    async def models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": await _models(state, request)})

    async def model(request: Request) -> Response:
        name = request.path_params["name"]
        for one in await _models(state, request):
            if one["id"] == name:
                return JSONResponse(one)
        raise ApiError(404, "There is no such model.", code="model_not_found")

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(_: Request) -> Response:
        state.judge()
        return JSONResponse({"status": "ready"})

    async def metrics(_: Request) -> Response:
        return Response(state.front.metrics.page(), media_type="text/plain; version=0.0.4")

    async def told(_: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        return JSONResponse(error.body(), status_code=error.status, headers=error.headers)

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return await told(
            request, ApiError(error.status_code, str(error.detail), headers=error.headers)
        )

    one, deeper = "/responses/{id}", "/responses/{id}/input_items"
    passed = partial(_Endpoint, state)
    return Starlette(
        routes=[
            Route(
                "/v1/chat/completions",
                passed("/chat/completions", field=MESSAGES),
                methods=["POST"],
            ),
            Route("/v1/responses", passed("/responses", field=INPUT), methods=["POST"]),
            Route(f"/v1{deeper}", passed(deeper, body=False), methods=["GET"]),
            Route(
                "/v1/responses/{id}/cancel",
                passed("/responses/{id}/cancel", body=False),
                methods=["POST"],
            ),
            Route(f"/v1{one}", passed(one, body=False), methods=["GET", "DELETE"]),
            Route("/v1/completions", passed("/completions"), methods=["POST"]),
            Route("/v1/embeddings", passed("/embeddings"), methods=["POST"]),
            Route("/v1/models", models),
            Route("/v1/models/{name:path}", model),
            Route("/health", health),
            Route("/ready", ready),
            Route("/metrics", metrics),
            *more_routes(state.gateway, state.front.recorder),
        ],
        exception_handlers={ApiError: told, HTTPException: refused},
    )


async def _models(state: GatewayState, request: Request) -> list[dict[str, Any]]:
    """What may be asked for: the upstreams' models and the gateway's own names."""
    state.judge()
    headers = list(request.scope["headers"])
    servers = state.upstreams.servers
    found = await asyncio.gather(*(state.models(one, headers) for one in servers))
    cards: dict[str, dict[str, Any]] = {}
    for listed in found:
        for card in listed or ():
            cards.setdefault(card["id"], card)
    ours = [AUTO, *(PREFIX + name for name in state.upstreams.options)]
    for name in [*sorted(state.upstreams.models), *ours]:
        cards.setdefault(name, _card(name, state.started))
    cards[AUTO] = {**cards[AUTO], "guarantee": state.judge().facts.guarantee}
    return list(cards.values())


def _card(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "m3router"}

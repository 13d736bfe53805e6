"""One request on its way: judged, patched, relayed, perhaps asked again, and answered."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from m3router.router.serve.deciding.decider import Wish
from m3router.router.serve.errors import ApiError
from m3router.router.serve.gateway.bodies import (
    INPUT,
    MESSAGES,
    Json,
    ReadBody,
    parsed,
    read_body,
    written,
)
from m3router.router.serve.gateway.counting import (
    TIMEOUT,
    TOKENS,
    UNREACHABLE,
    Metrics,
    count_usage,
    saved,
)
from m3router.router.serve.gateway.escalating import Answer, can_ask_again, escalated
from m3router.router.serve.gateway.judging import IN_A_THREAD, Judge, Plan, Reason
from m3router.router.serve.gateway.patching import written_apart
from m3router.router.serve.gateway.relaying import (
    CREDENTIALS,
    CutError,
    Headers,
    Relay,
    Reply,
    sent_headers,
)
from m3router.router.serve.gateway.upstreams import Upstream, Upstreams
from m3router.router.serve.gateway.usage_reader import Said, UsageReader
from m3router.router.serve.gateway.wishes import FIELD, PREFIX, shown_headers, wish_of
from m3router.router.serve.guard.request_guard import Receive, Scope, Send
from m3router.router.serve.in_turn import in_turn

LONGEST_REASON = 600

_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Served:
    """A request that was answered, for whoever keeps some of the traffic.

    Attributes:
        id: Of the request.
        key: Name of the gateway's key that it came with; "" without one.
        who: Stands for the client, also where the key is not the gateway's.
        body: As it came.
        plan: How it was asked in the end.
        said: What was read of the answer.
        escalated: Answers that were thrown away.
    """

    id: str
    key: str
    who: str
    body: Mapping[str, Any]
    plan: Plan
    said: Said
    escalated: int


@dataclass(kw_only=True)
class Exchange:
    """What is known of one request while it is served.

    Attributes:
        id: Of the request.
        started: By `time.monotonic`.
        headers: To be told with the answer.
        option: That answered, "" where none is known.
        reason: Code of why.
        status: Of the answer; 0 until it has begun.
        first: Seconds to the first bytes of the answer's body.
        complete: Whether the answer is whole.
        seconds: From the request to the whole answer; None before.
    """

    id: str
    started: float = field(default_factory=time.monotonic)
    headers: Headers = field(default_factory=list)
    option: str = ""
    reason: str = ""
    status: int = 0
    first: float | None = None
    complete: bool = False
    seconds: float | None = None


class Gateway:
    """Serves the requests that go on to upstreams.

    Args:
        relay: Started.
        judge: Decides; asked for at each request, since it starts later.
        upstreams: Who answers.
        metrics: Told of everything.
        own_keys: Whether clients show keys of the gateway's own.
        ask_logprobs: Whether to ask for log-probabilities where a policy may ask again.
        on_served: Awaited with every routed answer that came whole; None for nobody.
    """

    def __init__(
        self,
        *,
        relay: Relay,
        judge: Callable[[], Judge],
        upstreams: Callable[[], Upstreams],
        metrics: Metrics,
        own_keys: bool,
        ask_logprobs: bool = False,
        on_served: Callable[[Served], Awaitable[None]] | None = None,
    ) -> None:
        self.relay = relay
        self.judge = judge
        self.upstreams = upstreams
        self.metrics = metrics
        self.own_keys = own_keys
        self.ask_logprobs = ask_logprobs
        self.on_served = on_served

    # --- conversations -----------------------------------------------------------------------

    async def conversation(
        self, scope: Scope, raw: bytes, send: Send, exchange: Exchange, *, path: str, field: str
    ) -> None:
        """Route a conversation, and return its answer.

        Args:
            scope: Of the request.
            raw: Its body.
            send: Where the answer goes.
            exchange: Of the request.
            path: Behind an upstream's address.
            field: Where the conversation is, see :mod:`.bodies`.

        Raises:
            ApiError: If it cannot be asked.
        """
        large = len(raw) > IN_A_THREAD
        came = await in_turn(read_body, raw) if large else read_body(raw)
        body = came.fields
        wish = wish_of(body, shown_headers(scope["headers"]), self.upstreams().options)
        who = client_of(scope)
        if (reason := self._unrouted(body)) is not None:
            if wish != Wish():
                raise ApiError(
                    400,
                    f"{reason.text} Ask for m3router/auto, or for an option's own model, to have "
                    "it routed as wished.",
                    param="model",
                    code="contradiction",
                )
            self._tell(exchange, None, reason)
            if FIELD in body:
                body = {name: value for name, value in body.items() if name != FIELD}
                raw = written(body, came)
            await self._pass(scope, raw, send, exchange, path, self._server_of(body))
            return
        judge = self.judge()
        again = can_ask_again(body, field, ask_logprobs=self.ask_logprobs)
        plan = await self._plan(body, field, who, wish, large=large, again=again)
        self._tell(exchange, plan, plan.told)
        async with contextlib.AsyncExitStack() as stack:
            route = _Route(self, scope, came, body, path, stack)
            if plan.cascade is None:
                answer = await route.ask(plan)
            else:
                if not body.get("logprobs"):
                    route.body = {**body, "logprobs": True}
                answer = await escalated(plan, plan.cascade, route.ask, self._thrown)
            assert answer.plan is not None, "routed"
            plan = answer.plan
            self._tell(exchange, plan, plan.told)
            if answer.reply.status < 300:
                judge.remember(plan, who)
            said = await self._return(answer, send, exchange, texts=self.on_served is not None)
        if said is None or answer.reply.status >= 300:
            return
        if field == INPUT and said.id:
            judge.remember(plan, who, said.id)
        self._count(plan, said)
        if self.on_served is not None:
            key = str(scope.get("state", {}).get("key", ""))
            await self.on_served(
                Served(
                    id=exchange.id,
                    key=key,
                    who=who,
                    body=body,
                    plan=plan,
                    said=said,
                    escalated=answer.earlier,
                )
            )

    async def plan(self, body: Json, headers: Mapping[str, str], *, who: str = "") -> Plan:
        """How a chat would be asked, for those who ask themselves, once; nothing is remembered.

        Args:
            body: Of a chat.
            headers: As :func:`.wishes.shown_headers` gives them.
            who: The client, as :func:`client_of` says.

        Raises:
            ApiError: If a wish cannot be read or met, or the router fails and the gateway is to
                refuse then.
        """
        wish = wish_of(body, headers, self.upstreams().options)
        return await self._plan(body, MESSAGES, who, wish, large=True, again=False)

    async def _plan(
        self, body: Json, field: str, who: str, wish: Wish, *, large: bool, again: bool
    ) -> Plan:
        plan = await self.judge().plan(body, field, who=who, wish=wish, large=large, again=again)
        if plan.judged is not None:
            self.metrics.decided(plan.judged, plan.seconds)
        return plan

    def _unrouted(self, body: Mapping[str, Any]) -> Reason | None:
        """Why a model's name is not routed; None where it is."""
        model = body.get("model")
        if model is None or model == "":  # servers take both for their own model
            return None
        if isinstance(model, str) and model.startswith(PREFIX):
            return None
        if isinstance(model, str) and model in self.upstreams().models:
            return None
        return Reason(code="other-model", text="The model is none of the options'.")

    def _server_of(self, body: Mapping[str, Any]) -> Upstream:
        """Who is asked what is not routed: whoever has the model, or the finest option."""
        upstreams = self.upstreams()
        model = body.get("model")
        for name, option in upstreams.options.items():
            if model is not None and option.model == model:
                return upstreams.serving[name]
        return upstreams.serving[upstreams.finest]

    # --- answers -----------------------------------------------------------------------------

    async def passing(
        self, scope: Scope, raw: bytes | None, send: Send, exchange: Exchange, *, path: str
    ) -> None:
        """Pass on a request that is not routed.

        Args:
            scope: Of the request.
            raw: Its body; None without one.
            send: Where the answer goes.
            exchange: Of the request.
            path: Behind an upstream's address.

        Raises:
            ApiError: If no answer comes.
        """
        upstreams = self.upstreams()
        server = upstreams.serving[upstreams.finest]
        response = scope.get("path_params", {}).get("id")
        if response is not None:
            judge, who = self.judge(), client_of(scope)
            known = judge.memory.option(who, f"response:{response}")
            server = upstreams.serving[known] if known is not None else server
            if scope["method"] == "DELETE":
                judge.memory.forget(who, f"response:{response}")
        elif raw is not None and len(upstreams.servers) > 1:
            large = len(raw) > IN_A_THREAD
            server = self._server_of(await in_turn(parsed, raw) if large else parsed(raw))
        self._tell(exchange, None, Reason(code="not-routed", text="Requests here are passed on."))
        await self._pass(scope, raw, send, exchange, path, server)

    async def _pass(
        self,
        scope: Scope,
        raw: bytes | None,
        send: Send,
        exchange: Exchange,
        path: str,
        server: Upstream,
    ) -> None:
        query = scope.get("query_string", b"").decode("ascii", "ignore")
        headers = sent_headers(
            scope["headers"], server, own_key=self.own_keys, json=raw is not None
        )
        async with self.ask(
            server, scope["method"], path + (f"?{query}" if query else ""), headers, raw
        ) as reply:
            await self._return(Answer(reply=reply), send, exchange)

    @contextlib.asynccontextmanager
    async def ask(
        self, server: Upstream, method: str, path: str, headers: Headers, raw: bytes | None
    ) -> AsyncIterator[Reply]:
        """Ask an upstream, and count what it answers; as :meth:`.relaying.Relay.ask`.

        Raises:
            ApiError: If no answer comes.
        """
        async with contextlib.AsyncExitStack() as stack:
            asking = self.relay.ask(server, method, path, headers, raw)
            try:
                reply = await stack.enter_async_context(asking)
            except ApiError as error:
                self.metrics.upstream(server.name, TIMEOUT if error.status == 504 else UNREACHABLE)
                raise
            self.metrics.upstream(server.name, reply.status)
            yield reply

    async def _return(
        self, answer: Answer, send: Send, exchange: Exchange, *, texts: bool = False
    ) -> Said | None:
        """Return an answer's bytes; what was read of it, or None where it broke off.

        An answer that breaks off is left unfinished, so that the client sees what happened.
        """
        reply = answer.reply
        exchange.status = reply.status
        told = {name for name, _ in reply.headers}
        headers = [*reply.headers, *exchange.headers]
        if b"x-request-id" not in told:
            headers.append((b"x-request-id", exchange.id.encode("ascii")))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        reader = UsageReader(reply.header(b"content-type"), texts=texts)
        readable = reply.header(b"content-encoding") in ("", "identity")
        try:
            async for piece in answer.pieces():
                if exchange.first is None:
                    exchange.first = time.monotonic() - exchange.started
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                if readable:
                    reader.feed(piece)
        except CutError as error:
            logger.warning("an answer of the upstream was cut: %s", error)
            return None
        exchange.complete = True
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        exchange.seconds = time.monotonic() - exchange.started
        if reader.waiting > IN_A_THREAD:
            return await in_turn(reader.end)
        return reader.end()

    def _tell(self, exchange: Exchange, plan: Plan | None, reason: Reason) -> None:
        """Enter what the answer's headers say."""
        exchange.reason = reason.code
        told = {"reason": str(reason)[:LONGEST_REASON]}
        if plan is not None:
            exchange.option = plan.option
            told["option"] = plan.shown
            if plan.judged is not None:
                decision = plan.judged.decision
                if decision.familiarity is not None:
                    told["familiarity"] = f"{decision.familiarity:.4f}"
                if (estimate := decision.estimates.get(told["option"])) is not None:
                    told["estimate"] = f"{estimate:.4f}"
                if TOKENS in decision.cost_unit:
                    told["saved-tokens"] = f"{saved(plan, self.upstreams().finest):.0f}"
        exchange.headers = [
            (f"x-m3router-{name}".encode(), quote(value, safe=_PLAIN, errors="replace").encode())
            for name, value in told.items()
        ]

    def _count(self, plan: Plan, said: Said) -> None:
        count_usage(self.metrics, plan, said, finest=self.upstreams().finest)

    def _thrown(self, plan: Plan, said: Said) -> None:
        self._count(plan, said)
        self.metrics.escalated()


@dataclass
class _Route:
    """Asks one conversation, at one option after another."""

    gateway: Gateway
    scope: Scope
    came: ReadBody
    body: Json
    path: str
    stack: contextlib.AsyncExitStack

    async def ask(self, plan: Plan) -> Answer:
        """Ask as a plan says.

        Raises:
            ApiError: If no answer comes.
        """
        judge = self.gateway.judge()
        body = await judge.body(plan, self.body)
        places = [part.place for part in plan.turn.images]
        if self._length > IN_A_THREAD:
            raw = await in_turn(written_apart, body, places, self.came)
        else:
            raw = written_apart(body, places, self.came)
        server = self.gateway.upstreams().serving[plan.option]
        headers = sent_headers(
            self.scope["headers"], server, own_key=self.gateway.own_keys, json=True
        )
        asking = self.gateway.ask(server, "POST", self.path, headers, raw)
        return Answer(reply=await self.stack.enter_async_context(asking), plan=plan)

    @property
    def _length(self) -> int:
        found = dict(self.scope["headers"]).get(b"content-length", b"0")
        return int(found) if found.isdigit() else IN_A_THREAD + 1


def client_of(scope: Scope) -> str:
    """Who asks, for what is remembered: a key of the gateway's, or any that goes on."""
    name = scope.get("state", {}).get("key")
    if name:
        return f"key {name}"
    shown = next((value for own, value in scope["headers"] if own in CREDENTIALS), b"")
    return hashlib.sha256(shown).hexdigest() if shown else ""


async def while_there(receive: Receive, work: Awaitable[None], exchange: Exchange) -> bool:
    """Work for a client; stop when it leaves. Returns whether it stayed."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(gone())
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if not working.done() and exchange.complete:
            await working
        stayed = working.done()
        if stayed:
            working.result()
        return stayed
    finally:
        left = [one for one in (working, watching) if not one.done()]
        for one in left:
            one.cancel()
        if left:
            await asyncio.wait(left)


def error_body(error: ApiError) -> bytes:
    """An error as OpenAI's clients read it."""
    return json.dumps(error.body()).encode("ascii")

"""The server: one conversation in, one answer out, in the manners of the imitated one."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import itertools
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from PIL import Image

from m3router.data.errors import ImageError, ModelError
from m3router.data.images import read_image
from m3router.m3core.endpoint.stand_in.answers import END, Token, answered, pieces
from m3router.m3core.endpoint.stand_in.dialects import Json, RefusedError, dialect_named
from m3router.m3core.endpoint.stand_in.faults import HEADER, FaultPlan
from m3router.m3core.endpoint.stand_in.forms import called, choices, formed, schema_of, stopped
from m3router.m3core.endpoint.stand_in.responses import as_chat, events, response
from m3router.m3core.endpoint.stand_in.seeing import Seen, family_named

if TYPE_CHECKING:
    from fastapi import FastAPI, Request, Response

ROLE_TOKENS = 5
"""Tokens that a chat template writes around each message."""
START_TOKENS = 3
"""Tokens that a chat template writes before the answer."""
BLOCK = 16
"""Tokens that a server keeps together of a prompt that it read."""
HTML = "<html><body><h1>502 Bad Gateway</h1></body></html>"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a request asks.

    Attributes:
        question: All text of the last message.
        seen: Its first image as the model sees it; None without one.
        image_tokens: Of all images, markers included.
        prompt_tokens: Of all messages.
        first: Tokens up to the end of the first image.
        prefix: Stands for those in the cache.
    """

    question: str
    seen: Seen | None
    image_tokens: int
    prompt_tokens: int
    first: int
    prefix: tuple[Any, ...]


@dataclass(kw_only=True)
class StandIn:
    """A stand-in for a server.

    Attributes:
        server: Whom it imitates, of :data:`.dialects.DIALECTS`.
        family: Whose image processor counts, of :data:`.seeing.FAMILIES`; None for the server's
            usual one.
        models: Names that it serves.
        key: The key that clients must bring; None for none.
        trust_request_mm_kwargs: vLLM's start flag: whether requests may change the image processor.
        enable_prompt_tokens_details: vLLM's start flag: whether usage names image tokens.
        max_model_len: Tokens of the longest prompt and answer.
        seconds: How long an answer takes.
        slow_seconds: How much longer the fault "slow" takes.
        retry_after: What the fault "429" says, seconds.
        faults: What goes wrong.
        hits: What came, oldest first: path, question, option's fields, fault and status.
        url: Where it is, while :func:`running`; without ``/v1``.
    """

    server: str = "vllm"
    family: str | None = None
    models: tuple[str, ...] = ("stand-in",)
    key: str | None = None
    trust_request_mm_kwargs: bool = True
    enable_prompt_tokens_details: bool = True
    max_model_len: int = 32768
    seconds: float = 0.0
    slow_seconds: float = 2.0
    retry_after: float = 1.0
    faults: FaultPlan = field(default_factory=FaultPlan)
    hits: list[Json] = field(default_factory=list)
    most_at_once: int = 0
    url: str = ""

    def __post_init__(self) -> None:
        self.dialect = dialect_named(self.server)
        self._family = family_named(self.family or self.dialect.family)
        self._numbers = itertools.count(1)
        self._read: dict[tuple[Any, ...], int] = {}
        self._at_once = 0

    # --- routes ------------------------------------------------------------------------------

    def app(self) -> FastAPI:
        """The server's application; needs the extra `serve`."""
        from fastapi import FastAPI

        app = FastAPI(title="stand-in", docs_url=None, redoc_url=None)

        @app.get("/health")
        def health() -> Json:
            return {}

        @app.get("/hits")
        def hits() -> list[Json]:
            return list(self.hits)

        @app.delete("/hits")
        def forget() -> Json:
            self.hits.clear()
            return {}

        if self.dialect.version is not None:

            @app.get("/version")
            def version() -> Json:
                return {"version": self.dialect.version}

        app.add_exception_handler(RefusedError, self._refused)
        app.add_route("/v1/models", self._models, methods=["GET"])
        app.add_route("/v1/chat/completions", self._chat, methods=["POST"])
        if self.dialect.responses:
            app.add_route("/v1/responses", self._chat, methods=["POST"])
        if self.dialect.tokenize:
            app.add_route("/tokenize", self._tokenize, methods=["POST"])
        return app

    async def _models(self, request: Request) -> Response:
        self._check_key(request)
        data = [
            {"id": name, "object": "model", "created": 0, "owned_by": self.server}
            | ({"max_model_len": self.max_model_len} if self.server == "vllm" else {})
            for name in (self.models if self.dialect.lists_models else ())
        ]
        return _response({"object": "list", "data": data})

    async def _tokenize(self, request: Request) -> Response:
        self._check_key(request)
        asked = await asyncio.to_thread(self._understand, await self._body(request))
        return _response(
            {
                "count": asked.prompt_tokens,
                "max_model_len": self.max_model_len,
                "tokens": list(range(asked.prompt_tokens)),
                "token_strs": None,
            }
        )

    async def _chat(self, request: Request) -> Response:
        hit: Json = {"path": request.url.path, "time": time.time()}
        self.hits.append(hit)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            return await self._answer(request, hit)
        except RefusedError as error:
            hit["status"] = error.status
            return self._error(error)
        finally:
            self._at_once -= 1

    # --- one answer --------------------------------------------------------------------------

    async def _answer(self, request: Request, hit: Json) -> Response:
        from fastapi.responses import HTMLResponse, StreamingResponse

        self._check_key(request)
        given = await self._body(request)
        as_response = request.url.path == "/v1/responses"
        body = as_chat(given) if as_response else given
        question = _texts(_messages(body)[-1])
        fault = self.faults.next(question, request.headers.get(HEADER))
        said_elsewhere = ("messages", "input", "stream")
        options = {key: value for key, value in given.items() if key not in said_elsewhere}
        hit |= {"question": question, "fault": fault, "status": 200, "body": options}
        if fault in ("html", "html-200"):
            hit["status"] = 502 if fault == "html" else 200
            return HTMLResponse(HTML, status_code=hit["status"])
        if fault is not None and fault.isdigit():
            raise RefusedError(int(fault), "the stand-in was told to refuse this")
        asked = await asyncio.to_thread(self._understand, body)
        hit |= {"image_tokens": asked.image_tokens, "prompt_tokens": asked.prompt_tokens}
        hit["size"] = None if asked.seen is None else list(asked.seen.image.size)
        await asyncio.sleep(self.seconds + (self.slow_seconds if fault == "slow" else 0.0))
        room = self.max_model_len - asked.prompt_tokens
        if room < 1:
            raise RefusedError(
                400,
                f"This model's maximum context length is {self.max_model_len} tokens. However, "
                f"your request has {asked.prompt_tokens} input tokens.",
            )
        tokens = answered(asked.question, asked.seen)
        if self.dialect.forms:
            function = called(body)
            schema = schema_of(body) if function is None else function.get("parameters") or {}
            tokens = stopped(formed(tokens, schema), body.get("stop"))
        said = tokens[: min(room, _longest(body, len(tokens)))]
        made = {
            "id": f"chatcmpl-{next(self._numbers)}",
            "created": int(time.time()),
            "model": "another-model"
            if fault == "other-model"
            else self.dialect.answers_as.format(body["model"]),
        }
        if self.dialect.fingerprint is not None or fault == "fingerprint":
            other = "fp_another" if fault == "fingerprint" else self.dialect.fingerprint
            made["system_fingerprint"] = other
        count = self._count(body)
        usage = None if fault == "no-usage" else self._usage(asked, said, count, fault)
        whole = self._whole(made, body, said, usage)
        if as_response:
            whole = response(whole, given)
        if as_response and body.get("stream"):
            texts = [one.text for one in said if one.text != END]
            return StreamingResponse(events(whole, texts), media_type="text/event-stream")
        if not body.get("stream"):
            if fault == "cut":
                half = json.dumps(whole).encode()[:-40]
                headers = {"content-length": str(len(half) + 40)}  # more than ever comes
                return StreamingResponse(
                    _once(half), media_type="application/json", headers=headers
                )
            return _response(whole)
        chunks = self._events(made, body, said, usage, fault)
        return StreamingResponse(chunks, media_type="text/event-stream")

    def _whole(self, made: Json, body: Json, said: list[Token], usage: Json | None) -> Json:
        choice = {
            "message": {"role": "assistant", "content": _text(said)},
            "logprobs": self._logprobs(body, said),
            "finish_reason": _reason(said),
        }
        function = self._function(body)
        if function is not None:
            call = _call(function, _text(said))
            choice["message"] = {"role": "assistant", "content": None, "tool_calls": [call]}
            choice["finish_reason"] = "tool_calls"
        made = {**made, "object": "chat.completion", "usage": usage}
        return {**made, "choices": [{"index": at, **choice} for at in range(self._count(body))]}

    async def _events(
        self, made: Json, body: Json, said: list[Token], usage: Json | None, fault: str | None
    ) -> AsyncIterator[str]:
        function = self._function(body)

        def chunk(delta: Json, reason: str | None = None, told: Json | None = None) -> Json:
            choice = {"delta": delta, "logprobs": told, "finish_reason": reason}
            all_of_them = [{"index": at, **choice} for at in range(self._count(body))]
            return {**made, "object": "chat.completion.chunk", "choices": all_of_them}

        yield _event(chunk({"role": "assistant", "content": ""}))
        for place, token in enumerate(said):
            if fault in ("cut", "unfinished") and place == len(said) - 1:
                if fault == "cut":
                    raise ConnectionError("the stand-in was told to cut this stream")
                return
            reason = _reason(said) if place == len(said) - 1 else None
            delta: Json = {"content": _text([token])}
            if function is not None:
                call = _call(function if place == 0 else None, _text([token]))
                delta = {"tool_calls": [{"index": 0, **call}]}
                reason = reason and "tool_calls"
            last = chunk(delta, reason, self._logprobs(body, [token]))
            if reason and not self.dialect.usage_chunk:
                last["usage"] = usage
            yield _event(last)
            await asyncio.sleep(0)
        wanted = (body.get("stream_options") or {}).get("include_usage")
        if self.dialect.usage_chunk and wanted and usage is not None:
            yield _event({**made, "object": "chat.completion.chunk", "choices": [], "usage": usage})
        if self.dialect.done and fault != "no-done":
            yield "data: [DONE]\n\n"

    def _function(self, body: Json) -> Json | None:
        return called(body) if self.dialect.forms else None

    def _count(self, body: Json) -> int:
        return choices(body) if self.dialect.forms else 1

    def _usage(self, asked: Asked, said: list[Token], count: int, fault: str | None) -> Json:
        answer = len(said) - (not self.dialect.end_counts and said[-1].text == END)
        answer *= count
        cached = self._cached(asked)
        prompt = asked.image_tokens // 2 if fault == "wrong-usage" else asked.prompt_tokens
        usage: Json = {
            "prompt_tokens": prompt,
            "completion_tokens": answer,
            "total_tokens": prompt + answer,
        }
        told = self.enable_prompt_tokens_details or not self.dialect.details_by_flag
        if self.dialect.details is not None and told:
            usage["prompt_tokens_details"] = self.dialect.details(asked.image_tokens, cached)
        return usage

    def _cached(self, asked: Asked) -> int:
        """Tokens that were read before, in whole blocks: those up to the end of the same image."""
        known = self._read.get(asked.prefix, 0)
        self._read[asked.prefix] = asked.first // BLOCK * BLOCK
        return known

    def _logprobs(self, body: Json, said: list[Token]) -> Json | None:
        if not (self.dialect.logprobs and body.get("logprobs")):
            return None
        shown = [one for one in said if self.dialect.end_counts or one.text != END]
        return {
            "content": [
                {
                    "token": token.text,
                    "logprob": token.logprob,
                    "bytes": list(token.text.encode()),
                    "top_logprobs": [{"token": token.text, "logprob": token.logprob}]
                    if body.get("top_logprobs")
                    else [],
                }
                for token in shown
            ]
        }

    # --- reading a request -------------------------------------------------------------------

    def _check_key(self, request: Request) -> None:
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            raise RefusedError(401, "Unauthorized")

    async def _body(self, request: Request) -> Json:
        try:
            body = json.loads(await request.body())
        except ValueError as error:
            raise RefusedError(400, f"the body is not JSON: {error}") from error
        if not isinstance(body, dict):
            raise RefusedError(400, "the body must be an object")
        if body.get("model") not in self.models:
            message = f"The model `{body.get('model')}` does not exist. Valid: {self.models}."
            raise RefusedError(self.dialect.unknown_model, message, parameter="model")
        return body

    def _understand(self, body: Json) -> Asked:
        if self.dialect.trust_by_flag and not self.trust_request_mm_kwargs:
            for name in ("mm_processor_kwargs", "media_io_kwargs"):
                if body.get(name):
                    raise RefusedError(
                        400,
                        f"Per-request {name} are disabled by default because they can change "
                        "multimodal preprocessing resource usage. Start the server with "
                        "--trust-request-mm-kwargs only when clients are trusted.",
                        parameter=name,
                    )
        looks: list[Seen] = []
        total, first, prefix = START_TOKENS, 0, list[Any]()
        self.dialect.arguments(body, {})  # refuses unknown fields, also where there is no image
        for message in _messages(body):
            total += ROLE_TOKENS
            for part in _parts(message):
                if part.get("type") == "image_url":
                    looks.append(self._see(body, part["image_url"]))
                    total += looks[-1].tokens + self._family.around
                    if len(looks) == 1:
                        first = total - START_TOKENS
                        prefix += [looks[0].image.size, hash(looks[0].image.tobytes())]
                else:
                    total += len(pieces(part["text"]))
                    if not looks:
                        prefix.append(part["text"])
        return Asked(
            question=_texts(_messages(body)[-1]),
            seen=looks[0] if looks else None,
            image_tokens=sum(one.tokens for one in looks),
            prompt_tokens=total,
            first=first,
            prefix=(body["model"], *prefix),
        )

    def _see(self, body: Json, part: Any) -> Seen:
        part = part if isinstance(part, dict) else {"url": part}
        arguments = self.dialect.arguments(body, part)
        known = self._family.arguments()
        used = {key: value for key, value in arguments.items() if key in known}
        try:
            return self._family.see(_decoded(str(part.get("url"))), used)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            message = f"Failed to apply the image processor: {error}"
            raise RefusedError(self.dialect.broken_image, message) from error

    async def _refused(self, _: Request, error: Exception) -> Response:
        assert isinstance(error, RefusedError)
        return self._error(error)

    def _error(self, error: RefusedError) -> Response:
        headers = {"Retry-After": f"{self.retry_after:g}"} if error.status == 429 else None
        content = self.dialect.error(error.status, error.message, error.parameter)
        return _response(content, status=error.status, headers=headers)


@contextlib.contextmanager
def running(stand_in: StandIn, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[StandIn]:
    """Serve it in a thread of its own, and say where in its ``url``.

    Args:
        stand_in: Whom to serve.
        host: Where to listen.
        port: 0 for any that is free.

    Raises:
        ModelError: If it does not start within 20 s.
    """
    import uvicorn

    with socket.create_server((host, port)) as sock:
        config = uvicorn.Config(stand_in.app(), log_level="critical", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        until = time.monotonic() + 20
        while not server.started:
            if time.monotonic() > until or not thread.is_alive():
                raise ModelError(f"the stand-in did not start on {host}; try another port")
            time.sleep(0.01)
        stand_in.url = f"http://{host}:{sock.getsockname()[1]}"
        try:
            yield stand_in
        finally:
            server.should_exit = server.force_exit = True
            thread.join(10)


def _response(
    content: Any, *, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    from fastapi.responses import JSONResponse, PlainTextResponse

    made = PlainTextResponse if isinstance(content, str) else JSONResponse
    return made(content, status_code=status, headers=headers)


def _messages(body: Json) -> list[Json]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RefusedError(400, "messages must be a list that is not empty", parameter="messages")
    return messages


def _parts(message: Mapping[str, Any]) -> list[Json]:
    content = message.get("content")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
    for part in parts:
        if not isinstance(part, dict):
            raise RefusedError(400, f"a part must be an object: {part!r}", parameter="messages")
        if part.get("type") not in ("text", "image_url") or part["type"] not in part:
            raise RefusedError(
                400, f"Unknown part type: {part.get('type')!r}", parameter="messages"
            )
    return list(parts)


def _texts(message: Mapping[str, Any]) -> str:
    return "".join(part["text"] for part in _parts(message) if part["type"] == "text")


def _decoded(url: str) -> Image.Image:
    head, comma, data = url.partition(",")
    if not comma or not head.startswith("data:image/") or not head.endswith(";base64"):
        raise RefusedError(400, "the stand-in takes images as data URLs in base64 only")
    try:
        return read_image(base64.b64decode(data, validate=True))
    except (binascii.Error, ImageError) as error:
        raise RefusedError(400, f"Failed to load image: {error}") from error


def _longest(body: Json, default: int) -> int:
    given = (body.get(name) for name in ("max_completion_tokens", "max_tokens"))
    found = next((one for one in given if one is not None), default)
    if not isinstance(found, int) or found < 1:
        raise RefusedError(400, f"max_tokens must be at least 1, got {found!r}")
    return found


def _call(function: Json | None, arguments: str) -> Json:
    """A tool's call; without a function, what goes on with one."""
    if function is None:
        return {"function": {"arguments": arguments}}
    called_as = {"name": function["name"], "arguments": arguments}
    return {"id": "call_1", "type": "function", "function": called_as}


def _reason(said: list[Token]) -> str:
    return "stop" if said[-1].text == END else "length"


def _text(said: list[Token]) -> str:
    return "".join(token.text for token in said if token.text != END)


def _event(chunk: Json) -> str:
    return f"data: {json.dumps(chunk)}\n\n"


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data

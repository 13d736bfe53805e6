"""A server that speaks as vLLM does, checks every byte, and answers with the embedded model.

It answers from what it receives alone: the rendered prompt, its own tokens, and the visual tokens
put in at the placeholder, read by transformers' own `generate`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from m3router.m3core.checkpoints import load_model

NAME, KEY = "m3-small", "sk-stand-in"
FIELDS = {
    "model": NAME,
    "n": 1,
    "temperature": 0,
    "top_p": 1,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "repetition_penalty": 1,
    "logprobs": True,
    "top_logprobs": 1,
    "add_special_tokens": False,
    "skip_special_tokens": True,
}


@dataclass
class StandIn:
    """What happens at the server, and what a test makes it do.

    Attributes:
        template: The chat template it was started with.
        faults: What becomes of the next questions, in order; "" answers.
        pause: Seconds before the first token and before each other one.
        wrong: What was wrong with requests.
        bodies: Requests that were right.
        cancelled: Questions whose client went away before the end.
        most: Questions that were answered at the same time, at most.
    """

    template: str
    faults: list[str] = field(default_factory=list)
    pause: float = 0.0
    wrong: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    cancelled: int = 0
    open: int = 0
    most: int = 0
    url: str = ""

    def __post_init__(self) -> None:
        loaded = load_model("embedded", device="cpu")
        self.model, self.tokenizer = loaded.model, loaded.tokenizer
        self.scales = loaded.grid.scales
        self.reading: dict[int, int] = {}  # vLLM dies where images of two lengths are read at once

    # --- the protocol ------------------------------------------------------------------------

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/models", self.models),
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
            ]
        )

    async def models(self, request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return self.error(401, "Unauthorized")
        return JSONResponse({"object": "list", "data": [{"id": NAME, "object": "model"}]})

    async def chat(self, request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return self.error(401, "Unauthorized")
        raw = await request.body()
        try:
            assert request.headers["content-type"] == "application/json"
            assert int(request.headers["content-length"]) == len(raw)
            body = json.loads(raw)
            ids, visual = self.understood(body)
        except Exception as error:
            self.wrong.append(repr(error))
            return self.error(400, f"{error!r}")
        self.bodies.append(body)
        fault = self.faults.pop(0) if self.faults else ""
        if fault.isdigit():
            headers = {"Retry-After": "7"} if fault == "429" else {}
            return self.error(int(fault), "as the test wants", headers=headers)
        said = self.said(ids, visual, body, fault)
        if body["stream"]:
            return StreamingResponse(self.events(said, request), media_type="text/event-stream")
        chunks = [json.loads(one) async for one in said]
        return JSONResponse(self.whole(chunks))

    def understood(self, body: dict[str, Any]) -> tuple[list[int], torch.Tensor]:
        """Prompt ids with one placeholder for each visual token, and those (tokens, D)."""
        rest = dict(body)
        messages, most, stream = (rest.pop(one) for one in ("messages", "max_tokens", "stream"))
        options = rest.pop("stream_options", None)
        assert options == ({"include_usage": True} if stream else None), options
        assert rest == FIELDS, rest
        assert isinstance(most, int) and 1 <= most <= 16, most
        assert [set(one) for one in messages] == [{"role", "content"}], messages
        assert messages[0]["role"] == "user"
        conversation: list[dict[str, Any]] = []
        sent = []
        for part in messages[0]["content"]:
            if part["type"] == "text":
                assert set(part) == {"type", "text"} and isinstance(part["text"], str)
                conversation.append(part)
            else:
                assert part.keys() == {"type", "image_embeds"}, part.keys()
                assert part["type"] == "image_embeds"
                sent.append(part["image_embeds"])
                conversation.append({"type": "image"})
        (one,) = sent
        visual = self.unpacked(one)
        prompt = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": conversation}],
            chat_template=self.template,
            tokenize=False,
            add_generation_prompt=True,
        )
        ids = self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        image = self.tokenizer.convert_tokens_to_ids("<image>")
        assert ids.count(image) == 1, f"{prompt!r} has {ids.count(image)} images"
        place = ids.index(image)
        return [*ids[:place], *[image] * len(visual), *ids[place + 1 :]], visual

    def unpacked(self, text: str) -> torch.Tensor:
        raw = base64.b64decode(text, validate=True)
        tensor = torch.load(io.BytesIO(raw), weights_only=True)
        assert tensor.dtype == torch.float32, tensor.dtype
        assert tensor.ndim == 3 and tensor.shape[0] == 1, tensor.shape
        assert tensor.shape[1] in self.scales, tensor.shape
        assert tensor.shape[2] == self.model.config.text_config.hidden_size, tensor.shape
        assert torch.isfinite(tensor).all()
        assert len(raw) < tensor.numel() * 4 + 4096, "more was saved than is shown"
        return tensor[0]

    # --- the answer --------------------------------------------------------------------------

    async def said(
        self, ids: list[int], visual: torch.Tensor, body: dict[str, Any], fault: str
    ) -> AsyncIterator[str]:
        """The events of a stream, as JSON, with vLLM's framing of the answer."""
        me = id(ids)
        if set(self.reading.values()) - {len(visual)}:
            self.wrong.append(f"images of {self.reading} and {len(visual)} tokens in one step")
        self.reading[me] = len(visual)
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            if fault == "stall":
                await asyncio.sleep(60)
            if fault == "drop":
                raise ConnectionError("as the test wants")
            await asyncio.sleep(self.pause)
            tokens, logprobs = await asyncio.to_thread(self.generated, ids, visual, body)
            self.reading.pop(me)
            yield self.chunk({"role": "assistant", "content": ""}, None)
            if fault == "error":
                yield json.dumps({"error": {"message": "EngineDeadError", "code": 500}})
                return
            text, ends = "", tokens[-1] == self.tokenizer.eos_token_id
            for place in range(len(tokens)):
                now = self.tokenizer.decode(tokens[: place + 1], skip_special_tokens=True)
                last = place + 1 == len(tokens)
                reason = ("stop" if ends else "length") if last else None
                yield self.chunk({"content": now[len(text) :]}, reason, logprobs[place])
                text = now
                if fault == "drop after one":
                    raise ConnectionError("as the test wants")
                if fault == "end after one":
                    return
                await asyncio.sleep(self.pause)
            read = len(ids) + (3 if fault == "another prompt" else 0)
            usage = {"prompt_tokens": read, "completion_tokens": len(tokens)}
            yield json.dumps({"object": "chat.completion.chunk", "choices": [], "usage": usage})
        finally:
            self.open -= 1
            self.reading.pop(me, None)

    async def events(self, said: AsyncIterator[str], request: Request) -> AsyncIterator[str]:
        try:
            async with contextlib.aclosing(said) as chunks:
                async for one in chunks:
                    yield f"data: {one}\n\n"
            yield "data: [DONE]\n\n"
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    def generated(
        self, ids: list[int], visual: torch.Tensor, body: dict[str, Any]
    ) -> tuple[list[int], list[float]]:
        with torch.inference_mode():
            row = torch.tensor([ids])
            embeddings = self.model.get_input_embeddings()(row)
            image = self.tokenizer.convert_tokens_to_ids("<image>")
            embeddings[row == image] = visual
            found = self.model.generate(
                inputs_embeds=embeddings,
                attention_mask=torch.ones_like(row),
                max_new_tokens=body["max_tokens"],
                do_sample=False,
                return_dict_in_generate=True,
                output_logits=True,
            )
        tokens = found.sequences[0].tolist()
        steps = torch.cat(found.logits).log_softmax(-1)
        return tokens, [float(step[token]) for step, token in zip(steps, tokens, strict=True)]

    def chunk(self, delta: dict[str, str], reason: str | None, logprob: float | None = None) -> str:
        one = {"token": "?", "logprob": logprob, "bytes": None, "top_logprobs": []}
        told = None if logprob is None else {"content": [one]}
        choice = {"index": 0, "delta": delta, "logprobs": told, "finish_reason": reason}
        return json.dumps({"object": "chat.completion.chunk", "choices": [choice]})

    @staticmethod
    def whole(chunks: list[dict[str, Any]]) -> dict[str, Any]:
        choices = [one["choices"][0] for one in chunks if one.get("choices")]
        told = [token for one in choices if one["logprobs"] for token in one["logprobs"]["content"]]
        text = "".join(one["delta"].get("content", "") for one in choices)
        reason = choices[-1]["finish_reason"]
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "logprobs": {"content": told}}
        return {
            "object": "chat.completion",
            "choices": [{**choice, "finish_reason": reason}],
            "usage": chunks[-1]["usage"],
        }

    @staticmethod
    def error(status: int, message: str, *, headers: dict[str, str] | None = None) -> Response:
        body = {"error": {"message": message, "type": "BadRequestError", "code": status}}
        return JSONResponse(body, status_code=status, headers=headers)


@contextlib.contextmanager
def running(stand_in: StandIn) -> Iterator[StandIn]:
    """Serve it on a free port, in a thread of its own."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        stand_in.url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        config = uvicorn.Config(stand_in.app(), log_level="critical", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        until = time.monotonic() + 20
        while not server.started and time.monotonic() < until:
            time.sleep(0.01)
        try:
            yield stand_in
        finally:
            server.should_exit = server.force_exit = True
            thread.join(10)

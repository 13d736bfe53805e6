"""Answers through a vLLM server: the picture is seen here, the language model runs there.

Tower, projector, pooling and router run in this process. For each question the pooled visual
tokens of the chosen scale and the prompt go to the server (`router.serve.vllm_protocol`), which
batches questions of all scales; only their pictures are read one length at a time
(`router.serve.one_length`). A cascade asks again at a finer scale, as it does here.

NOTE: written from vLLM's sources and tested against a stand-in that answers with the embedded
model; it has not been run against a real vLLM server. Every answer is checked: a server that did
not read exactly as many tokens as the model here would is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from data.errors import DataError, ModelError
from m3core.models.answering import AnsweringModel
from m3core.models.base import Answer, MultiScaleModel, Request
from router.asking_again import Tried, following_request, may_follow
from router.deciding import Asked, Clock, Decided
from router.policies.policy import Policy
from router.routed import routed_answer
from router.serve.backend import Ask, Finished, Piece, Served, UnavailableError
from router.serve.encodings import Encodings
from router.serve.engine import load_pipeline
from router.serve.places import Places
from router.serve.policies import Policies, told_of
from router.serve.saying import Saying
from router.serve.settings import EngineSettings
from router.serve.vllm_client import VllmAddress, VllmServer, within
from router.serve.vllm_prompt import PROBE, ServerPrompt
from router.serve.vllm_protocol import packed, request_body

logger = logging.getLogger(__name__)

PROBE_SECONDS = 60.0


class VllmBackend:
    """See the module and :class:`router.serve.backend.Backend`.

    Args:
        settings: What to load and how much to take on: `batch` questions at most are at the
            server at once. `wave` is not used.
        address: Of the server.
    """

    def __init__(self, settings: EngineSettings, address: VllmAddress) -> None:
        self._settings = settings
        self._address = address
        self._places = Places(running=settings.batch, waiting=settings.queue)
        # One thread: the tower is not made faster by more, and each needs memory.
        self._seeing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="seeing")
        self._ready = False

    async def start(self) -> None:
        """Load the pipeline and ask the server one question.

        Raises:
            DataError: If the router needs the language model to decide.
            MismatchError: If the model cannot be served so.
            ModelError: If the server is not set up for it; says what is wrong.
            UnavailableError: If the server does not answer.
        """
        await self._here(self._load)
        if self._pipeline.decider.featurizer.peeks:
            raise DataError(
                "this router looks at the language model's first layers before it decides (the "
                "tier 'peek'), and that model runs on the vLLM server; train a router on the "
                "tiers image,question"
            )
        self._prompt = ServerPrompt(self._model)
        self._server = VllmServer(self._address)
        try:
            await self._server.check()
            await self._try_out()
        except BaseException:
            await self._server.close()
            raise
        self._ready = True

    def _load(self) -> None:
        settings = self._settings
        if settings.threads:
            torch.set_num_threads(settings.threads)
        self._pipeline = load_pipeline(settings)
        self._model = self._pipeline.model
        self._policies = Policies(Path(settings.run), self._pipeline.router)
        self._encodings = Encodings(self._model, kept=settings.image_cache_size)
        let_go(self._model)

    def ready(self) -> bool:
        """See :class:`router.serve.backend.Backend`."""
        return self._ready

    def served(self) -> Served:
        """See :class:`router.serve.backend.Backend`."""
        model = self._model
        return Served(
            model=model.name,
            revision=model.revision,
            scales=tuple(model.grid.scales),
            router=self._pipeline.router.fingerprint,
            policy=self._settings.policy,
            max_tokens=model.max_new_tokens,
            guarantee=told_of(None, policy=self._pipeline.policy, cascade=self._pipeline.cascade)[
                1
            ],
        )

    def check(self, ask: Ask) -> None:
        """See :class:`router.serve.backend.Backend`."""
        self._policies.rule(ask)
        grid = self._model.grid
        finest = grid.finest if ask.scale is None else self._model.check_scale(ask.scale)
        self._model.prompt_length(ask.question, finest)  # a scale costs at least its name
        self._prompt.check(ask.question)

    def load(self) -> dict[str, Any]:
        """See :class:`router.serve.backend.Backend`."""
        return self._places.load()

    async def ask(self, ask: Ask) -> AsyncGenerator[Piece | Finished, None]:
        """See :class:`router.serve.backend.Backend`."""
        if not self._ready:
            raise UnavailableError("the server is starting or stopping; try again later")
        self.check(ask)
        deadline = time.monotonic() + ask.seconds
        async with self._places.taken(deadline) as waited:
            rule, clock = self._policies.rule(ask), Clock()
            seen = self._here(lambda: self._decide(ask, rule, clock))
            decided: Decided = await within(deadline, seen)
            request: Request | None = decided.request
            earlier: tuple[Answer, ...] = ()
            while request is not None:
                said, scale = Saying(), request.scale
                streams = not self._may_follow(decided, scale, len(earlier))
                begun = time.perf_counter()
                async with contextlib.aclosing(self._say(request, ask, said, deadline)) as texts:
                    async for text in texts:
                        if streams:
                            yield Piece(text)
                clock.milliseconds["language"] += (time.perf_counter() - begun) * 1000
                answer = said.answer(request)
                request = None if streams else self._following(decided, request, answer, earlier)
                if request is not None:
                    earlier = (*earlier, answer)
            if not streams and answer.text:
                yield Piece(answer.text)
            fallback, certified = told_of(
                rule, policy=self._pipeline.policy, cascade=self._pipeline.cascade
            )
            yield Finished(
                routed=routed_answer(
                    self._model,
                    answer,
                    decided,
                    scale=scale,
                    earlier=earlier,
                    milliseconds={**clock.milliseconds, "queue": waited * 1000},
                ),
                reason="length" if said.reason == "length" else "stop",
                fallback=fallback,
                guarantee=certified,
            )

    async def stop(self, *, seconds: float) -> None:
        """See :class:`router.serve.backend.Backend`."""
        self._ready = False
        self._places.close()
        if not await self._places.empty(seconds):
            logger.warning("stopped with %d questions unanswered", self._places.inside)
        await self._server.close()
        self._seeing.shutdown(wait=False, cancel_futures=True)

    async def _here(self, work: Callable[[], Any]) -> Any:
        """Do work of the tower's in its thread."""
        return await asyncio.get_running_loop().run_in_executor(self._seeing, work)

    def _decide(self, ask: Ask, rule: int | Policy | None, clock: Clock) -> Decided:
        """Look at the picture and choose a scale; in the tower's thread."""
        (encoding,) = self._encodings.of([ask])
        clock.lap("vision")
        asked = Asked(picture=ask.image, encoding=encoding, question=ask.question, rule=rule)
        (found,) = self._pipeline.decider.decide([asked], clock)
        return found[0]

    async def _say(
        self, request: Request, ask: Ask, said: Saying, deadline: float
    ) -> AsyncGenerator[str, None]:
        """Ask the server; gives more text as it comes."""
        visual = request.encoding.at(request.scale)
        expected = self._model.prompt_length(request.question, len(visual))
        sent = await self._here(partial(packed, visual))
        longest = self._model.max_new_tokens
        body = request_body(
            model=self._address.model,
            messages=self._prompt.messages(request.question, sent),
            max_tokens=min(ask.max_tokens or longest, longest),
            stream=self._address.stream,
        )
        answer = self._server.answer(body, tokens=len(visual), deadline=deadline)
        async with contextlib.aclosing(answer) as pieces:
            async for heard in pieces:
                if text := said.hear(heard):
                    yield text
        said.check(expected)

    def _may_follow(self, decided: Decided, scale: int, asked: int) -> bool:
        """Whether a finer scale could be asked after the answer, so that it must not be told."""
        cascade = self._pipeline.cascade
        if cascade is None or not decided.escalates:
            return False
        return may_follow(self._model, cascade, scale, asked=asked)

    def _following(
        self, decided: Decided, request: Request, answer: Answer, earlier: tuple[Answer, ...]
    ) -> Request | None:
        """What to ask after an answer that looks wrong; None to give that answer."""
        cascade = self._pipeline.cascade
        if cascade is None:
            return None
        tried = Tried(request, decided.estimate, answer, earlier)
        return following_request(self._model, cascade, tried)

    async def _try_out(self) -> None:
        """Ask about a grey picture at the coarsest scale.

        Raises:
            ModelError: If the server refuses it or reads another prompt.
        """
        ask = Ask(
            id="probe",
            image=Image.new("RGB", (64, 64), "grey"),
            question=PROBE,
            scale=self._model.grid.scales[0],
            seconds=PROBE_SECONDS,
        )
        decided = await self._here(lambda: self._decide(ask, ask.scale, Clock()))
        said = Saying()
        try:
            deadline = time.monotonic() + ask.seconds
            async for _ in self._say(decided.request, ask, said, deadline):
                pass
        except DataError as error:
            raise ModelError(
                f"the vLLM server at {self._address.url} refuses visual tokens: {error}. Start it "
                "with --enable-mm-embeds and with the model's own folder; its message is in the log"
            ) from error


def let_go(model: MultiScaleModel) -> None:
    """Free the language model's layers, which nothing here runs any more.

    Its embeddings stay: the router reads questions through them.
    """
    if isinstance(model, AnsweringModel):
        model.model.get_decoder().layers = torch.nn.ModuleList()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

"""Answers through a vLLM server: the image is seen here, the language model runs there.

Tower, projector, pooling and router run in this process. For each question the pooled visual
tokens of the chosen scale and the prompt go to the server
(`m3router.router.serve.backends.vllm.protocol`), which batches questions of all scales; only their
images are read one length at a time (`m3router.router.serve.backends.vllm.shape_gate`). A cascade
asks again at a finer scale, as it does here.

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
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from m3router.data.errors import DataError, ModelError
from m3router.m3core.matryoshka.answering import AnsweringModel
from m3router.m3core.matryoshka.base import MultiScaleModel, Request
from m3router.router.inference.decider import Clock
from m3router.router.inference.query import Query, Served
from m3router.router.inference.result import RoutedAnswer
from m3router.router.inference.session import Encoder, Session
from m3router.router.policies.guarantee_text import told_by
from m3router.router.policies.policy import Policy
from m3router.router.serve.backends.admission_queue import AdmissionQueue
from m3router.router.serve.backends.backend import UnavailableError
from m3router.router.serve.backends.engine import load_pipeline
from m3router.router.serve.backends.policies import Policies
from m3router.router.serve.backends.vllm.client import VllmAddress, VllmServer, within
from m3router.router.serve.backends.vllm.prompt import PROBE, ServerPrompt
from m3router.router.serve.backends.vllm.protocol import packed, request_body
from m3router.router.serve.backends.vllm.stream_accumulator import StreamAccumulator
from m3router.router.serve.settings import EngineSettings, ServeSettings

logger = logging.getLogger(__name__)

PROBE_SECONDS = 60.0


class VllmBackend:
    """The image is seen here; the language model runs on the server.

    Args:
        settings: What to load and how much to take on: `batch` questions at most are at the
            server at once. `encode_batch_size` is not used.
        address: Of the server.
    """

    def __init__(self, settings: EngineSettings, address: VllmAddress) -> None:
        self._settings = settings
        self._address = address
        self._places = AdmissionQueue(running=settings.batch, waiting=settings.queue)
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
                "feature group 'peek'), and that model runs on the vLLM server; train a router on "
                "the feature groups image and question"
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
        self._encoder = Encoder(self._model, kept=settings.image_cache_size)
        let_go(self._model)

    def ready(self) -> bool:
        """Whether questions are taken."""
        return self._ready

    def served(self) -> Served:
        """What is served; known once it is ready."""
        model = self._model
        return Served(
            model=model.name,
            revision=model.revision,
            scales=tuple(model.grid.scales),
            router=self._pipeline.router.fingerprint,
            policy=self._settings.policy,
            max_tokens=model.max_new_tokens,
            guarantee=told_by(self._pipeline.decider.own),
        )

    def check(self, query: Query) -> None:
        """Refuse a question that cannot be answered, before it is let in."""
        self._checked(query)

    def _checked(self, query: Query) -> int | Policy | None:
        """Its rule, where it can be answered; a policy may have to be made, and text is encoded."""
        rule = self._policies.rule(query)
        grid = self._model.grid
        finest = grid.finest if query.scale is None else self._model.check_scale(query.scale)
        self._model.prompt_length(query.question, finest)  # a scale costs at least its name
        self._prompt.check(query.question)
        return rule

    def load(self) -> dict[str, Any]:
        """How busy it is: questions queued and running, and the queue's capacity."""
        return self._places.load()

    async def ask(self, query: Query) -> AsyncGenerator[str | RoutedAnswer, None]:
        """Answer one question: texts as they grow, then the routed answer."""
        if not self._ready:
            raise UnavailableError("the server is starting or stopping; try again later")
        deadline = time.monotonic() + query.seconds
        rule = await asyncio.to_thread(self._checked, query)
        async with self._places.taken(deadline) as waited:
            session, clock = self._session(query, rule), Clock()
            await within(deadline, self._here(lambda: self._decide(session, clock)))
            open_ended = True
            while open_ended:
                said, streams = StreamAccumulator(), session.is_final
                begun = time.perf_counter()
                texts = self._say(session.prompt, query, said, deadline)
                async with contextlib.aclosing(texts):
                    async for text in texts:
                        if streams:
                            yield text
                clock.milliseconds["language"] += (time.perf_counter() - begun) * 1000
                open_ended = session.escalate(said.answer(session.prompt))
            session.milliseconds = {**clock.milliseconds, "queue": waited * 1000}
            routed = session.result(self._model)
            if not streams and routed.answer.text:
                yield routed.answer.text
            yield routed

    async def stop(self, *, seconds: float) -> None:
        """Take nothing new, answer what was let in for at most so many seconds, then let go."""
        self._ready = False
        self._places.close()
        if not await self._places.empty(seconds):
            logger.warning("stopped with %d questions unanswered", self._places.inside)
        await self._server.close()
        self._seeing.shutdown(wait=False, cancel_futures=True)

    async def _here(self, work: Callable[[], Any]) -> Any:
        """Do work of the tower's in its thread."""
        return await asyncio.get_running_loop().run_in_executor(self._seeing, work)

    def _session(self, query: Query, rule: int | Policy | None) -> Session:
        return Session(
            image=query.image,
            question=query.question,
            digest=query.digest,
            rule=rule,
        )

    def _decide(self, session: Session, clock: Clock) -> None:
        """Look at the image and choose a scale; in the tower's thread."""
        self._encoder.encode([session])
        clock.lap("vision")
        for _ in self._pipeline.decider.decide([session], clock):
            pass

    async def _say(
        self, request: Request, query: Query, said: StreamAccumulator, deadline: float
    ) -> AsyncGenerator[str, None]:
        """Ask the server; gives more text as it comes."""
        visual = request.encoding.at(request.scale)
        expected = self._model.prompt_length(request.question, len(visual))
        sent = await self._here(partial(packed, visual))
        longest = self._model.max_new_tokens
        body = request_body(
            model=self._address.model,
            messages=self._prompt.messages(request.question, sent),
            max_tokens=min(query.max_tokens or longest, longest),
            stream=self._address.stream,
            stop=query.stop,
            sampling=query.sampling,
        )
        answer = self._server.answer(body, tokens=len(visual), deadline=deadline)
        async with contextlib.aclosing(answer) as pieces:
            async for heard in pieces:
                if text := said.hear(heard):
                    yield text
        said.check(expected)

    async def _try_out(self) -> None:
        """Ask about a grey image at the coarsest scale.

        Raises:
            ModelError: If the server refuses it or reads another prompt.
        """
        query = Query(
            id="probe",
            image=Image.new("RGB", (64, 64), "grey"),
            question=PROBE,
            scale=self._model.grid.scales[0],
            seconds=PROBE_SECONDS,
        )
        session = self._session(query, query.scale)
        await self._here(lambda: self._decide(session, Clock()))
        said = StreamAccumulator()
        try:
            deadline = time.monotonic() + query.seconds
            async for _ in self._say(session.prompt, query, said, deadline):
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


def from_settings(settings: ServeSettings, environment: Mapping[str, str]) -> VllmBackend:
    """The server at ``--vllm``; its key is M3ROUTER_VLLM_KEY."""
    key = environment.get("M3ROUTER_VLLM_KEY")
    address = VllmAddress(url=str(settings.vllm), model=settings.vllm_model, key=key)
    return VllmBackend(settings.engine, address)

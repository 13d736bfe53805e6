"""Answers in this very process: a few threads work, the event loop waits."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from m3router.data.errors import M3RouterError
from m3router.router.inference.pipeline import AutoScalePipeline
from m3router.router.inference.query import Query, Served
from m3router.router.inference.result import RoutedAnswer
from m3router.router.inference.session import Encoder
from m3router.router.policies.guarantee_text import told_by
from m3router.router.serve.backends.backend import BusyError, UnavailableError
from m3router.router.serve.backends.job_queue import Event, Job, JobQueue, Pace
from m3router.router.serve.backends.policies import Policies
from m3router.router.serve.backends.worker import Cores, Worker
from m3router.router.serve.settings import EngineSettings as EngineSettings
from m3router.router.serve.settings import ServeSettings

MOST_WORKERS = 4
PAUSE = 0.02  # seconds between looks at whether all is answered


class LocalEngine:
    """A pipeline behind a queue; see `m3router.router.serve.backends.backend.Backend`.

    Args:
        settings: What to load.
        pipeline: Loaded before from the run of the settings; None to load it at the start.
    """

    def __init__(
        self, settings: EngineSettings, *, pipeline: AutoScalePipeline | None = None
    ) -> None:
        self.settings = settings
        self._given = pipeline
        self._pipeline: AutoScalePipeline | None = None
        self._policies: Policies | None = None
        self._waiting = JobQueue(1)
        self._workers: list[Worker] = []
        self._threads: list[threading.Thread] = []
        self._open = 0  # questions that were let in and have no end yet
        self._taking = False
        self._pace = Pace()

    async def start(self) -> None:
        """Load the model and answer once at every scale; see the protocol."""
        await asyncio.to_thread(self._load)
        self._taking = True

    def _load(self) -> None:
        settings = self.settings
        if settings.threads:
            torch.set_num_threads(settings.threads)
        pipeline = self._given or load_pipeline(settings)
        image = Image.new("RGB", (64, 64), "white")
        for scale in (None, *pipeline.model.grid.scales):
            pipeline.answer([image], ["Is it ready?"], scale=scale)
        self._pipeline = pipeline
        self._policies = Policies(Path(settings.run), pipeline.router)
        count = settings.workers or workers_for(pipeline)
        self._waiting = JobQueue(count)
        cores = Cores(torch.get_num_threads())
        encoder = Encoder(pipeline.model, kept=settings.image_cache_size)
        self._workers = [
            Worker(
                pipeline,
                waiting=self._waiting,
                cores=cores,
                encoder=encoder,
                batch=max(1, settings.batch // count),
                encode_batch_size=settings.encode_batch_size,
            )
            for _ in range(count)
        ]
        self._threads = [
            threading.Thread(target=worker.run, name=f"worker-{number}", daemon=True)
            for number, worker in enumerate(self._workers)
        ]
        for thread in self._threads:
            thread.start()

    def ready(self) -> bool:
        """Whether questions are taken and all workers are alive."""
        return self._taking and all(thread.is_alive() for thread in self._threads)

    def served(self) -> Served:
        """What is served, once started."""
        pipeline, _ = self._started()
        return Served(
            model=pipeline.model.name,
            revision=pipeline.model.revision,
            scales=tuple(pipeline.model.grid.scales),
            router=pipeline.router.fingerprint,
            policy=self.settings.policy,
            max_tokens=pipeline.model.max_new_tokens,
            guarantee=told_by(pipeline.decider.own),
        )

    def check(self, query: Query) -> None:
        """Refuse what could never be answered; see the protocol."""
        pipeline, policies = self._started()
        model = pipeline.model
        policies.rule(query)
        finest = model.grid.finest if query.scale is None else model.check_scale(query.scale)
        model.prompt_length(query.question, finest)  # a scale costs at least its name

    async def ask(self, query: Query) -> AsyncIterator[str | RoutedAnswer]:
        """Answer one question; see the protocol."""
        _, policies = self._started()
        if query.budget is None and query.max_regret is None:
            rule = policies.rule(query)
        else:  # it may have to be made, or others' are being made
            rule = await asyncio.to_thread(policies.rule, query)
        if not self.ready():
            raise UnavailableError("The server is stopping.")
        waiting = len(self._waiting)
        if waiting >= self.settings.queue:
            raise BusyError(
                f"The queue is full: {waiting} questions wait. Try again later.",
                retry_after=self._patience(waiting),
            )
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[Event] = asyncio.Queue()

        def tell(event: Event) -> None:
            loop.call_soon_threadsafe(events.put_nowait, event)

        job = Job.of(query, rule=rule, tell=tell)
        if not self._open:
            self._pace.began(time.monotonic())
        self._open += 1
        try:
            self._waiting.put(job)
            while True:
                event = await _before(job, events)
                if isinstance(event, M3RouterError):
                    raise event
                yield event
                if isinstance(event, RoutedAnswer):
                    self._pace.ended(time.monotonic())
                    return
        finally:
            job.gone = True
            self._open -= 1

    def load(self) -> dict[str, Any]:
        """How busy it is: questions queued and running, and the queue's capacity."""
        running, waiting = sum(worker.answering() for worker in self._workers), len(self._waiting)
        return {
            "queued": waiting,
            "running": running,
            "capacity": self.settings.queue,
            "retry_after": self._patience(waiting),
        }

    async def stop(self, *, seconds: float) -> None:
        """Answer what was let in, then end the worker; see the protocol."""
        self._taking = False
        until = time.monotonic() + seconds
        while self._open and time.monotonic() < until:
            await asyncio.sleep(PAUSE)
        self._waiting.stop()
        for thread in self._threads:
            await asyncio.to_thread(thread.join, seconds)
        for job in self._waiting.take(len(self._waiting)):
            job.tell(UnavailableError("The server stopped before the question was answered."))

    def _started(self) -> tuple[AutoScalePipeline, Policies]:
        if self._pipeline is None or self._policies is None:
            raise UnavailableError("The server is starting.")
        return self._pipeline, self._policies

    def _patience(self, waiting: int) -> float:
        """Seconds in which half of the queue is likely to be gone."""
        return min(60.0, max(1.0, self._pace.seconds_for(waiting / 2)))


async def _before(job: Job, events: asyncio.Queue[Event]) -> Event:
    """The next event, as long as there is time: a worker may be busy for longer, or be gone."""
    try:
        async with asyncio.timeout(job.entered + job.seconds - time.perf_counter()):
            return await events.get()
    except TimeoutError:
        raise job.too_late() from None


def load_pipeline(settings: EngineSettings) -> AutoScalePipeline:
    """The pipeline of the settings' run, with the model that it names or that labelled the run.

    Raises:
        DataError: When a part is missing or damaged, or the model must be given.
        MismatchError: When the parts do not belong together.
    """
    return AutoScalePipeline.load(
        settings.run, model=settings.model or None, policy=settings.policy, device=settings.device
    )


def workers_for(pipeline: AutoScalePipeline) -> int:
    """One for a GPU; on a processor one for each core, up to some."""
    device = getattr(getattr(pipeline.model, "model", None), "device", torch.device("cpu"))
    return 1 if device.type != "cpu" else max(1, min(MOST_WORKERS, torch.get_num_threads()))


def from_settings(settings: ServeSettings, environment: Mapping[str, str]) -> LocalEngine:
    """An engine in this very process."""
    return LocalEngine(settings.engine)

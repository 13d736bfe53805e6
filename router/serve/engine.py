"""Answers in this very process: one thread works, the event loop waits."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from data.errors import M3RouterError
from router.pipeline import AutoScalePipeline
from router.run import Run
from router.serve.backend import Ask, BusyError, Finished, Piece, Served, UnavailableError
from router.serve.jobs import Event, Job
from router.serve.policies import Policies
from router.serve.settings import EngineSettings as EngineSettings
from router.serve.worker import Worker

PAUSE = 0.02  # seconds between looks at whether all is answered


class LocalEngine:
    """A pipeline behind a queue; see `router.serve.backend.Backend`.

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
        self._worker: Worker | None = None
        self._thread: threading.Thread | None = None
        self._open = 0  # questions that were let in and have no end yet
        self._taking = False
        self._rate = 0.0  # questions a second, lately
        self._last_end = 0.0

    async def start(self) -> None:
        """Load the model and answer once at every scale; see the protocol."""
        await asyncio.to_thread(self._load)
        self._taking = True

    def _load(self) -> None:
        settings = self.settings
        if settings.threads:
            torch.set_num_threads(settings.threads)
        pipeline = self._given or load_pipeline(settings)
        picture = Image.new("RGB", (64, 64), "white")
        for scale in (None, *pipeline.model.grid.scales):
            pipeline.answer([picture], ["Is it ready?"], scale=scale)
        self._pipeline = pipeline
        self._policies = Policies(Path(settings.run), pipeline.router)
        self._worker = Worker(
            pipeline, batch=settings.batch, wave=settings.wave, pictures=settings.pictures
        )
        self._thread = threading.Thread(target=self._worker.run, name="worker", daemon=True)
        self._thread.start()

    def ready(self) -> bool:
        """Whether questions are taken and the worker is alive."""
        return self._taking and self._thread is not None and self._thread.is_alive()

    def served(self) -> Served:
        """What is served, once started."""
        pipeline, _, _ = self._started()
        return Served(
            model=pipeline.model.name,
            revision=pipeline.model.revision,
            scales=tuple(pipeline.model.grid.scales),
            router=pipeline.router.fingerprint,
            policy=self.settings.policy,
            max_tokens=pipeline.model.max_new_tokens,
        )

    def check(self, ask: Ask) -> None:
        """Refuse what could never be answered; see the protocol."""
        pipeline, policies, _ = self._started()
        model = pipeline.model
        policies.rule(ask)
        finest = model.grid.finest if ask.scale is None else model.check_scale(ask.scale)
        model.prompt_length(ask.question, finest)  # a scale costs at least its name

    async def ask(self, ask: Ask) -> AsyncIterator[Piece | Finished]:
        """Answer one question; see the protocol."""
        _, policies, worker = self._started()
        if not self.ready():
            raise UnavailableError("The server is stopping.")
        waiting = worker.counts()[0]
        if waiting >= self.settings.queue:
            raise BusyError(
                f"The queue is full: {waiting} questions wait. Try again later.",
                retry_after=self._patience(waiting),
            )
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[Event] = asyncio.Queue()

        def tell(event: Event) -> None:
            loop.call_soon_threadsafe(events.put_nowait, event)

        job = Job(ask=ask, rule=policies.rule(ask), tell=tell)
        self._open += 1
        try:
            worker.put(job)
            while True:
                event = await events.get()
                if isinstance(event, M3RouterError):
                    raise event
                yield event
                if isinstance(event, Finished):
                    self._ended()
                    return
        finally:
            job.gone = True
            self._open -= 1

    def load(self) -> dict[str, Any]:
        """See the protocol."""
        waiting, running = self._worker.counts() if self._worker else (0, 0)
        return {"queued": waiting, "running": running, "capacity": self.settings.queue}

    async def stop(self, *, seconds: float) -> None:
        """Answer what was let in, then end the worker; see the protocol."""
        self._taking = False
        until = time.monotonic() + seconds
        while self._open and time.monotonic() < until:
            await asyncio.sleep(PAUSE)
        if self._worker and self._thread:
            self._worker.stop()
            await asyncio.to_thread(self._thread.join, seconds)

    def _started(self) -> tuple[AutoScalePipeline, Policies, Worker]:
        if self._pipeline is None or self._policies is None or self._worker is None:
            raise UnavailableError("The server is starting.")
        return self._pipeline, self._policies, self._worker

    def _ended(self) -> None:
        """Keep a running mean of how fast questions are answered."""
        now = time.monotonic()
        if self._last_end:
            rate = 1 / max(1e-3, now - self._last_end)
            self._rate = 0.95 * self._rate + 0.05 * rate if self._rate else rate
        self._last_end = now

    def _patience(self, waiting: int) -> float:
        """Seconds in which half of the queue is likely to be gone."""
        return min(60.0, max(1.0, waiting / 2 / self._rate if self._rate else 1.0))


def load_pipeline(settings: EngineSettings) -> AutoScalePipeline:
    """The pipeline of the settings' run, with the model that it names or that labelled the run.

    Raises:
        DataError: When a part is missing or damaged, or the model must be given.
        MismatchError: When the parts do not belong together.
    """
    name = settings.model or Run(Path(settings.run)).model_name()
    return AutoScalePipeline.load(
        settings.run, model=name, policy=settings.policy, device=settings.device
    )

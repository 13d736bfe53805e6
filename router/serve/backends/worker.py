"""Answers questions in batches that are formed anew at every step, in one thread.

A turn takes in waiting questions (tower, features, decision), reads the prompts of some of them,
and gives every answer in the running batch one more token. Answers of all scales run in one batch;
what ends, or is given up, leaves it, and others take its place (iteration-level scheduling: Yu et
al., Orca, OSDI 2022).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch

from m3router.data.errors import DataError, M3RouterError
from m3router.m3core.matryoshka.base import IncrementalAnswer, IncrementalAnswers
from m3router.m3core.matryoshka.batching import (
    Limits,
    batches,
    limits_for,
    load_of,
    needs_of,
    out_of_memory,
)
from m3router.router.inference.decider import Clock
from m3router.router.inference.pipeline import AutoScalePipeline
from m3router.router.inference.session import Encoder
from m3router.router.serve.backends.backend import UnavailableError
from m3router.router.serve.backends.job_queue import Event, Job, JobQueue
from m3router.router.serve.errors import where

logger = logging.getLogger(__name__)


class Cores:
    """Threads of the processor, shared out among the workers that have something to do.

    One question alone is answered by all cores together. Where many wait, each worker keeps to its
    own: cores that work on one small tensor together spend much of their time on waiting for each
    other.

    Args:
        threads: To be shared.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._busy: set[int] = set()
        self._own = threading.local()

    def enter(self) -> None:
        """This thread has something to do: give it its share."""
        me = threading.get_ident()
        self._busy.add(me)
        share = max(1, self._threads // len(self._busy))
        if getattr(self._own, "share", None) != share:
            torch.set_num_threads(share)  # of this thread, with OpenMP
            self._own.share = share

    def leave(self) -> None:
        """This thread has nothing to do."""
        self._busy.discard(threading.get_ident())


class Worker:
    """Answers jobs, all in one thread; several workers may share a model.

    Args:
        pipeline: Model, router and policy.
        waiting: Where questions are taken from.
        cores: Shared with other workers.
        encoder: Of images, shared with other workers.
        batch: Most questions that are answered at once.
        encode_batch_size: Most images that the tower reads in one turn, while others wait for
            their tokens.
    """

    def __init__(
        self,
        pipeline: AutoScalePipeline,
        *,
        waiting: JobQueue,
        cores: Cores,
        encoder: Encoder,
        batch: int,
        encode_batch_size: int,
    ) -> None:
        self._pipeline = pipeline
        self._model = pipeline.model
        self._waiting = waiting
        self._cores = cores
        self._encoder = encoder
        self._batch = batch
        self._encode_batch_size = encode_batch_size
        self._limits: Limits = limits_for(pipeline.model)
        self._unread: list[Job] = []  # decided, their prompts not read yet
        self._running: list[Job] = []
        self._growing: IncrementalAnswers | None = None

    def answering(self) -> int:
        """Questions in hand."""
        return len(self._unread) + len(self._running)

    def run(self) -> None:
        """Work until stopped. Whatever ends it, those whose answers it has in hand are told."""
        try:
            while not self._waiting.stopped:
                if not self.answering():
                    self._cores.leave()
                    self._waiting.wait()
                self.turn()
        except Exception as error:  # the edge: the engine sees that it ended, and is not ready
            logger.error("a worker broke down: %s", where(error))
        finally:
            self._cores.leave()
            for job in [*self._unread, *self._running]:
                self._tell(job, UnavailableError("The server stopped before the answer was whole."))

    @torch.inference_mode()
    def turn(self) -> None:
        """Take in, read, and write one token each."""
        self._let_go()
        taken = self._waiting.take(min(self._encode_batch_size, self._batch - self.answering()))
        if taken or self.answering():
            self._cores.enter()
        if taken:
            self._guarded(taken, lambda: self._decide(taken), or_each=self._decide)
        if self._unread:
            chosen = self._choose_batch()
            self._guarded(chosen, lambda: self._begin(chosen))
        if self._running:
            self._guarded(self._running, self._step)

    def _let_go(self) -> None:
        """Forget who left, and tell whose time is over."""
        own = [job for job in [*self._unread, *self._running] if job.gone or job.overdue]
        for job in [*self._waiting.lost(), *own]:
            self._tell(job, job.too_late())
        self._forget(own)

    def _forget(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if job.row is not None:
                job.row.give_up()
        gone = set(map(id, jobs))
        self._unread = [job for job in self._unread if id(job) not in gone]
        self._running = [job for job in self._running if id(job) not in gone]

    def _guarded(
        self,
        jobs: Sequence[Job],
        work: Callable[[], None],
        *,
        or_each: Callable[[list[Job]], None] | None = None,
    ) -> None:
        """Do some work; where it fails, those whom it was for are told, and the others go on.

        Args:
            jobs: Whom it is for.
            work: To be done.
            or_each: Tried for each job alone where it failed for several together.
        """
        jobs = list(jobs)
        try:
            work()
        except Exception as error:  # the server's edge: one bad question must not stop the rest
            if or_each is not None and len(jobs) > 1:
                logger.warning("questions failed together, and are tried alone: %s", where(error))
                self._forget(jobs)  # what some have come to is begun anew
                for job in jobs:
                    self._guarded([job], partial(or_each, [job]))
                return
            logger.error("questions could not be answered: %s", where(error))
            reason = str(error) if isinstance(error, DataError) else "The server failed to answer."
            for job in jobs:
                self._tell(job, UnavailableError(reason))
            self._forget(jobs)

    def _decide(self, jobs: list[Job]) -> None:
        start = time.perf_counter()
        clock = Clock()
        self._encoder.encode(jobs)
        clock.lap("vision")
        for part in self._pipeline.decider.decide(jobs, clock):
            staying = [(job, job.peek) for job in part if job.peek is not None]
            self._unread += [job for job in part if job.peek is None]
            if staying:
                answered = [job for job, _ in staying]
                growing = self._model.resume(
                    [peek for _, peek in staying],
                    most=self._most(answered),
                    sampling=[job.sampling for job in answered],
                )
                for job in answered:
                    job.peek = None  # it holds the keys and values of its batch
                self._join(answered, growing)
        now = time.perf_counter()
        for job in jobs:
            job.milliseconds = {"queue": (start - job.entered) * 1000, **clock.milliseconds}
            job.since = now

    def _choose_batch(self) -> list[Job]:
        """Of the batches that unread prompts make, the one with the oldest question."""
        readable = []
        for job in self._unread:
            try:
                needs_of(self._model, [job.prompt])
            except M3RouterError as error:
                self._tell(job, error)
            else:
                readable.append(job)
        self._unread = readable
        if not readable:
            return []
        oldest = min(range(len(readable)), key=lambda place: readable[place].entered)
        needs = needs_of(self._model, [job.prompt for job in readable])
        for batch in batches(needs, self._limits):
            if oldest in batch:
                return [readable[place] for place in batch]
        raise AssertionError("every prompt is in a batch")

    def _begin(self, jobs: list[Job]) -> None:
        """Read the prompts of a batch; where memory is too small, of half of it."""
        if not jobs:
            return
        requests = [job.prompt for job in jobs]
        try:
            growing = self._model.begin(
                requests, most=self._most(jobs), sampling=[job.sampling for job in jobs]
            )
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            if len(jobs) == 1:
                raise DataError("The question does not fit into the server's memory.") from error
            self._limits.shrink(load_of(range(len(jobs)), needs_of(self._model, requests)))
            return
        self._join(jobs, growing)

    def _join(self, jobs: list[Job], growing: IncrementalAnswers) -> None:
        for job, row in zip(jobs, growing.rows, strict=True):
            job.row = row
            job.streams = job.is_final
        if self._growing is None or not self._growing.rows:
            self._growing = growing
        else:
            self._growing.join(growing)
        begun = set(map(id, jobs))
        self._unread = [job for job in self._unread if id(job) not in begun]
        self._running += jobs

    def _step(self) -> None:
        growing, self._growing = self._growing, None
        if growing is not None:
            growing.step()
        self._growing = growing  # not where the step failed: its rows are told so
        for job in list(self._running):
            row = job.row
            if row is None:
                continue
            if not row.ended and job.stop and job.stop.ended(row.so_far()) is not None:
                row.give_up()
            if row.ended:
                self._end(job, row)
            elif job.streams:
                self._say(job, job.stop.settled(row.so_far()).rstrip())

    def _say(self, job: Job, text: str) -> None:
        if len(text) > len(job.said):
            self._tell(job, text[len(job.said) :])
            job.said = text

    def _end(self, job: Job, row: IncrementalAnswer) -> None:
        """An answer is whole: give it, or ask a finer scale."""
        answer = row.answer()
        said = job.stop.ended(row.so_far())
        if said is not None:
            answer = replace(answer, text=said.rstrip(), cut=False)
        self._running.remove(job)
        job.row = None
        if job.escalate(answer):
            self._unread.append(job)
            return
        self._say(job, answer.text)
        job.milliseconds["language"] += (time.perf_counter() - job.since) * 1000
        self._tell(job, job.result(self._model))

    def _tell(self, job: Job, event: Event) -> None:
        if not job.gone:
            job.gone = not isinstance(event, str)
            job.tell(event)

    def _most(self, jobs: Sequence[Job]) -> list[int]:
        longest = self._model.max_new_tokens
        return [min(longest, job.max_tokens or longest) for job in jobs]

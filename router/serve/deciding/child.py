"""The process that decides: the router, its encoder, and what was seen of images before.

Three threads: one takes in questions and pixels, one decides for what is ready, one makes policies
for budgets and losses that nobody asked for before, which takes a moment.
"""

from __future__ import annotations

import logging
import math
import os
import pickle
import signal
import socket
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image

from m3router.data.errors import DataError, M3RouterError, MismatchError
from m3router.data.registry import unknown_name
from m3router.router.cascade.rule import Cascade
from m3router.router.inference.router import CHUNK, Look, Router
from m3router.router.policies.guarantee_text import told_by
from m3router.router.policies.policy import Policy
from m3router.router.runs.run import Run
from m3router.router.serve.backends.backend import UnavailableError
from m3router.router.serve.backends.policies import Policies
from m3router.router.serve.deciding.decider import MOST_CHARACTERS, RouterFacts, Wish
from m3router.router.serve.deciding.wire import (
    Dropped,
    Loading,
    NeedsPixels,
    Pixels,
    Question,
    Refused,
    Started,
    Told,
    receive,
    send,
)
from m3router.router.serve.logs import continue_logging

logger = logging.getLogger(__name__)

KEPT = 2048
"""Images of which is kept what was seen; some 20 KB each, with a large encoder."""
MOST_PIXELS = 128 << 20
"""Bytes of images that were sent for and not looked at yet; a larger image comes by itself."""
WATCH = 1.0  # seconds between looks at whether the parent lives

AnyRule = Policy | Cascade | str


@dataclass(eq=False)
class Picture:
    """An image that questions are about.

    Attributes:
        digest: "" where it is not known.
        size: Width and height, as its header says.
        decoded: The same of its pixels.
        look: What was seen of it; None until then.
        looking: Whether it is being looked at.
        supplier: The question whose pixels were sent for; None where none were.
        pixels: RGB, as far as they have come.
        missing: Bytes that have not come.
        jobs: Questions about it that wait, by number.
    """

    digest: str
    size: tuple[int, int]
    look: Look | None = None
    looking: bool = False
    supplier: int | None = None
    pixels: bytearray = field(default_factory=bytearray)
    missing: int = 0
    decoded: tuple[int, int] = (0, 0)
    jobs: dict[int, Job] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Of all its pixels, at most."""
        return 3 * self.size[0] * self.size[1]

    @property
    def here(self) -> bool:
        """Whether it can be looked at, or was."""
        return self.look is not None or (self.supplier is not None and not self.missing)

    def opened(self) -> Image.Image:
        """The image."""
        return Image.frombytes("RGB", self.decoded, self.pixels)


@dataclass(eq=False)
class Job:
    """A question that waits.

    Attributes:
        asked: The question.
        picture: Its image; None without one.
        rule: What decides; None until that is made.
    """

    asked: Question
    picture: Picture | None = None
    rule: AnyRule | None = None

    @property
    def seen(self) -> bool:
        """Whether nothing needs to be looked at to decide."""
        return self.picture is None or self.picture.look is not None


class Rules:
    """What decides for a wish.

    Args:
        router: With a rule of its own.
        run: Of the router.
        policy: Name of that rule.
    """

    def __init__(self, router: Router, run: Path, policy: str) -> None:
        self._router = router
        self._policies = Policies(run, router.router)
        self._run = Run(run)
        self._named: dict[tuple[str, bool], AnyRule] = {
            (policy, again): router.rule(again=again) for again in (True, False)
        }
        self.own = policy

    def at_hand(self, wish: Wish, *, again: bool) -> AnyRule | None:
        """The rule, or None where it must be made first.

        Args:
            wish: What is wished for.
            again: Whether it may be a cascade.

        Raises:
            DataError: If the wish is for several things at once, or for no number.
            MismatchError: If there is no such option or policy.
        """
        given = {name: value for name, value in vars(wish).items() if value is not None}
        if len(given) > 1:
            raise DataError(f"Give at most one of option, budget, max_loss and policy, not {given}")
        for name in ("budget", "max_loss"):
            if not math.isfinite(given.get(name, 0)):
                raise DataError(f"{name} must be a number, not {given[name]}.")
        if wish.option is not None:
            return self._router.rule(option=wish.option)
        if wish.budget is not None:
            return self._policies.at_hand(budget=wish.budget)
        if wish.max_loss is not None:
            return self._policies.at_hand(max_loss=wish.max_loss)
        return self._named.get((self.own if wish.policy is None else wish.policy, again))

    def made(self, wish: Wish, *, again: bool) -> AnyRule:
        """The rule of a wish that `at_hand` had none for.

        Raises:
            DataError: If none can be made.
            MismatchError: If there is no such policy.
        """
        if wish.budget is not None:
            return self._policies.made(budget=wish.budget)
        if wish.max_loss is not None:
            return self._policies.made(max_loss=wish.max_loss)
        name = wish.policy or ""
        if name not in self._run.policy_names():
            raise MismatchError(unknown_name("policy", name, self._run.policy_names()))
        made = self._router.rule(policy=name, again=again)
        return self._named.setdefault((name, again), made)


class Desk:
    """Questions that wait, what they wait for, and what is known of images.

    Args:
        router: Decides.
        rules: Of the router.
        together: Images that are looked at at once.
        tell: Sends a message to the gateway; may be called from any thread.
    """

    def __init__(
        self, router: Router, rules: Rules, *, together: int, tell: Callable[[object], None]
    ) -> None:
        self._router, self._rules, self._tell, self._together = router, rules, tell, together
        self._jobs: dict[int, Job] = {}
        self._ready: list[Job] = []
        self._seen: OrderedDict[str, Picture] = OrderedDict()  # by digest
        self._unseen: dict[str, Picture] = {}  # likewise, those that questions wait for
        self._wanted: deque[Picture] = deque()  # not sent for yet
        self._held = 0  # bytes of those that were sent for
        self._changed = threading.Condition(threading.RLock())
        self._maker = ThreadPoolExecutor(1, thread_name_prefix="policies")
        self._pickled: dict[int, bytes] = {}

    def take(self, message: object, pixels: bytearray) -> None:
        """Take in a message of the gateway's."""
        with self._changed:
            if isinstance(message, Question):
                self._asked(message)
            elif isinstance(message, Pixels):
                self._filled(message, pixels)
            elif isinstance(message, Dropped):
                self._close(message.number)

    def work(self) -> None:
        """Decide for what is ready, for ever."""
        while True:
            seen, unseen, pictures = self._next()
            self._decide_all(seen)
            self._look_at(pictures)
            self._decide_all([one for one in unseen if one.seen])

    def _asked(self, asked: Question) -> None:
        job = self._jobs[asked.number] = Job(asked)
        try:
            check(asked, needs_image=self._router.needs_image)
            job.rule = self._rules.at_hand(asked.wish, again=asked.again)
        except M3RouterError as error:
            self._refuse(job, error)
            return
        if asked.size is not None:
            job.picture = self._picture(asked.digest, asked.size)
            job.picture.jobs[asked.number] = job
            self._send_for()
        if job.rule is None:
            self._maker.submit(self._make_rule, job)
        self._settle(job)

    def _make_rule(self, job: Job) -> None:
        if job.asked.number not in self._jobs:
            return
        try:
            rule = self._rules.made(job.asked.wish, again=job.asked.again)
        except Exception as error:  # whatever a library does, other questions go on
            self._fail([job], error)
            return
        with self._changed:
            job.rule = rule
            self._settle(job)

    def _picture(self, digest: str, size: tuple[int, int]) -> Picture:
        """The image of that digest, or a new one that is wanted."""
        if not self._router.needs_pixels:
            return Picture("", size, look=self._router.look_at_size(size))
        known = self._seen.get(digest) or self._unseen.get(digest)
        if known is not None and known.size == size:
            if known.look is not None:
                self._seen.move_to_end(digest)
            return known
        new = Picture(digest, size)
        if digest:
            self._unseen[digest] = new
        self._wanted.append(new)
        return new

    def _send_for(self) -> None:
        """Send for the pixels of as many images as may be held."""
        while self._wanted:
            picture = self._wanted[0]
            if picture.jobs:
                if self._held and self._held + picture.bytes > MOST_PIXELS:
                    return
                self._held += picture.bytes
                self._supply(picture)
            self._wanted.popleft()

    def _supply(self, picture: Picture) -> None:
        """Ask the first question about an image for all of its pixels."""
        picture.supplier = next(iter(picture.jobs))
        picture.pixels, picture.missing = bytearray(), picture.bytes
        self._tell(NeedsPixels(picture.supplier))

    def _filled(self, message: Pixels, pixels: bytearray) -> None:
        job = self._jobs.get(message.number)
        picture = None if job is None else job.picture
        if picture is None or picture.supplier != message.number:
            return
        if not message.start:
            picture.decoded, picture.missing = message.size, 3 * math.prod(message.size)
            picture.pixels = bytearray(picture.missing)
        picture.pixels[message.start : message.start + len(pixels)] = pixels
        picture.missing -= len(pixels)
        if not picture.missing:
            for one in picture.jobs.values():
                self._settle(one)

    def _settle(self, job: Job) -> None:
        """Let a question be decided, where all is there that it takes."""
        if job.rule is not None and (job.picture is None or job.picture.here):
            self._ready.append(job)
            self._changed.notify_all()

    def _refuse(self, job: Job, error: M3RouterError) -> None:
        with self._changed:
            if job.asked.number in self._jobs:
                self._tell(Refused.because(job.asked.number, error))
                self._close(job.asked.number)

    def _close(self, number: int) -> None:
        """Nothing more is done for a question; others may wait for its image."""
        job = self._jobs.pop(number, None)
        picture = None if job is None else job.picture
        if picture is None:
            return
        picture.jobs.pop(number, None)
        if picture.look is not None or picture.looking:
            return
        if not picture.jobs:
            self._let_go(picture)
        elif picture.supplier == number and picture.missing:
            self._supply(picture)

    def _let_go(self, picture: Picture) -> None:
        """Free the pixels of an image."""
        if self._unseen.get(picture.digest) is picture:
            del self._unseen[picture.digest]
        if picture.supplier is not None:
            picture.supplier, picture.pixels = None, bytearray()
            self._held -= picture.bytes
            self._send_for()

    def _next(self) -> tuple[list[Job], list[Job], list[Picture]]:
        """Questions about images that were seen, and about some that were not; waits for one."""
        with self._changed:
            while True:
                self._ready = [one for one in self._ready if one.asked.number in self._jobs]
                if self._ready:
                    break
                self._changed.wait()
            seen = [one for one in self._ready if one.seen][:CHUNK]
            waiting = [one for one in self._ready if not one.seen]
            pictures = {id(one.picture): one.picture for one in waiting if one.picture}
            chosen = dict(list(pictures.items())[: self._together])
            unseen = [one for one in waiting if id(one.picture) in chosen]
            taken = {id(one) for one in [*seen, *unseen]}
            self._ready = [one for one in self._ready if id(one) not in taken]
            for picture in chosen.values():
                picture.looking = True
            return seen, unseen, list(chosen.values())

    def _look_at(self, pictures: list[Picture]) -> None:
        """Look at images; what fails together is tried one by one."""
        if not pictures:
            return
        try:
            looks = self._router.look([one.opened() for one in pictures])
        except Exception as error:  # whatever a library does, other questions go on
            if len(pictures) > 1:
                for one in pictures:
                    self._look_at([one])
                return
            (lost,) = pictures
            with self._changed:
                self._let_go(lost)
                jobs = list(lost.jobs.values())
            self._fail(jobs, error)
            return
        with self._changed:
            for picture, look in zip(pictures, looks, strict=True):
                picture.look, picture.looking = look, False
                self._let_go(picture)
                if picture.digest:
                    self._seen[picture.digest] = picture
            while len(self._seen) > KEPT:
                self._seen.popitem(last=False)

    def _decide_all(self, jobs: list[Job]) -> None:
        groups: dict[object, list[Job]] = {}
        for one in jobs:
            key = one.rule if isinstance(one.rule, str) else id(one.rule)
            groups.setdefault(key, []).append(one)
        for group in groups.values():
            for start in range(0, len(group), CHUNK):
                self._decide(group[start : start + CHUNK])

    def _decide(self, jobs: list[Job]) -> None:
        """Decide for questions with the same rule; what fails together is tried one by one."""
        rule = jobs[0].rule
        try:
            decisions = self._router.decide_many(
                [None if one.picture is None else one.picture.look for one in jobs],
                [one.asked.question for one in jobs],
                option=rule if isinstance(rule, str) else None,
                policy=None if isinstance(rule, str) else rule,
            )
        except Exception as error:  # whatever a library does, other questions go on
            if len(jobs) > 1:
                for one in jobs:
                    self._decide([one])
            else:
                self._fail(jobs, error)
            return
        cascade = b""
        if isinstance(rule, Cascade):
            cascade = self._pickled.setdefault(id(rule), pickle.dumps(rule))
        with self._changed:
            for job, decision in zip(jobs, decisions, strict=True):
                number = job.asked.number
                if number in self._jobs:
                    self._tell(Told(number, decision, cascade, len(self._seen)))
                    self._close(number)

    def _fail(self, jobs: list[Job], error: Exception) -> None:
        """Refuse questions; where nothing can be decided any more, end, to be started again."""
        if not isinstance(error, M3RouterError):
            logger.error("The router broke down on a question.", exc_info=error)
        told = error if isinstance(error, DataError | MismatchError) else BROKEN
        for job in jobs:
            self._refuse(job, told)
        if told is BROKEN:
            try:
                warm_up(self._router)
            except Exception:
                logger.critical("The router decides nothing any more.", exc_info=True)
                os._exit(1)


BROKEN = UnavailableError("The router broke down on this question; the server's log says how.")


def check(asked: Question, *, needs_image: bool) -> None:
    """Refuse a question that nothing can be decided for.

    Raises:
        DataError: Saying why.
    """
    if not asked.question.strip():
        raise DataError("The question is empty; ask something.")
    if len(asked.question) > MOST_CHARACTERS:
        raise DataError(
            f"The question has {len(asked.question)} characters; the router judges questions of "
            f"up to {MOST_CHARACTERS}."
        )
    try:
        asked.question.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"The question is no Unicode: {error}.") from error
    if needs_image and asked.size is None:
        raise DataError("The question has no image, but the router reads images.")


def warm_up(router: Router) -> None:
    """Decide once, for the first option, about a white image."""
    image = Image.new("RGB", (64, 64), "white") if router.needs_image else None
    router.decide(image, "Is it ready?", option=router.options[0])


def opened(loading: Loading, tell: Callable[[object], None]) -> tuple[Desk, RouterFacts]:
    """Load and warm up.

    Raises:
        M3RouterError: Where router, policy or encoder cannot be loaded.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch.set_num_threads(loading.threads or max(1, min(torch.get_num_threads(), cores or 1) - 1))
    router = Router.load(
        loading.run, policy=loading.policy, encoder=loading.encoder, device=loading.device
    )
    rules = Rules(router, Path(loading.run), loading.policy)
    warm_up(router)
    # On a processor many images take as long together as one by one, and one by one what is decided
    # does not depend on who else asks.
    accelerated = loading.device.startswith("cuda") or (
        loading.device == "auto" and torch.cuda.is_available()
    )
    trained, own = router.router, router.rule()
    assert not isinstance(own, str), "no option was asked for"
    facts = RouterFacts(
        options=router.options,
        cost_unit=trained.cost_unit,
        model=trained.model,
        revision=str(trained.metadata.get("log", {}).get("revision", "")),
        router=trained.fingerprint,
        policy=loading.policy,
        guarantee=told_by(own),
        needs_image=router.needs_image,
        needs_pixels=router.needs_pixels,
    )
    return Desk(router, rules, together=CHUNK if accelerated else 1, tell=tell), facts


def main(asked: socket.socket, told: socket.socket) -> None:
    """Load what the first message says, then decide until the gateway is gone."""
    continue_logging()
    for name in (signal.SIGINT, signal.SIGTERM):  # the gateway has questions to finish by then
        signal.signal(name, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    telling = threading.Lock()

    def tell(message: object) -> None:
        with telling:
            try:
                send(told, message)
            except OSError:
                os._exit(0)

    try:
        loading, _ = receive(asked)
        assert isinstance(loading, Loading)
        desk, facts = opened(loading, tell)
    except M3RouterError as error:
        tell(Refused.because(0, error))
        return
    except EOFError:
        return
    tell(Started(facts))
    threading.Thread(target=_take_in, args=(asked, desk), daemon=True).start()
    desk.work()


def _take_in(asked: socket.socket, desk: Desk) -> None:
    try:
        while True:
            desk.take(*receive(asked))
    except EOFError:
        os._exit(0)
    except Exception:
        logger.critical("The deciding process cannot go on.", exc_info=True)
        os._exit(1)


def _end_with(parent: int) -> None:
    """End when the parent does, also where another process of its holds the sockets open."""
    while os.getppid() == parent:
        time.sleep(WATCH)
    os._exit(0)


if __name__ == "__main__":
    main(*(socket.socket(fileno=int(one)) for one in sys.argv[1:]))

"""From a request's body to the options it is asked at, and why."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from PIL import Image

from m3router.data.errors import DataError, MismatchError
from m3router.m3core.endpoint.sent_images import Sending
from m3router.router.cascade.rule import Cascade
from m3router.router.serve.deciding.decider import (
    MOST_CHARACTERS,
    Asked,
    AskedImage,
    Decider,
    Judged,
    RouterFacts,
    Wish,
)
from m3router.router.serve.errors import ApiError, where
from m3router.router.serve.gateway.bodies import (
    ImageFile,
    ImagePart,
    Json,
    Place,
    Turn,
    image_file,
    read_turn,
)
from m3router.router.serve.gateway.examples import as_labelled
from m3router.router.serve.gateway.history import Memory
from m3router.router.serve.gateway.patching import (
    ImagePatch,
    may_re_encode,
    patched,
    re_encoded,
)
from m3router.router.serve.gateway.upstreams import Upstreams
from m3router.router.serve.images.decoding import Fetches, is_data_url
from m3router.router.serve.in_turn import in_turn
from m3router.router.text.familiarity import is_unfamiliar, unfamiliar_sentence

DECIDE_SECONDS = 2.0
"""That reading an image and deciding may take; the request then goes on without."""
WISH_SECONDS = 30.0
"""The same where a policy must be made for a wish, once for each budget and loss."""
IN_A_THREAD = 256 << 10
"""Bytes of a body from which on it is read and written beside the event loop."""

logger = logging.getLogger(__name__)


class SentUrl(Protocol):
    """An image as it is sent."""

    @property
    def url(self) -> str:
        """A data URL."""
        ...


class Images(Protocol):
    """Reads images, in processes of its own."""

    async def decode(self, data: bytes, *, deadline: float) -> Image.Image:
        """Decode a file: RGB, upright.

        Raises:
            ApiError: If it cannot be read, or not in time.
        """
        ...

    async def size(self, data: bytes, *, deadline: float) -> tuple[int, int]:
        """Width and height, by the file's header.

        Raises:
            ApiError: If it cannot be read, or not in time.
        """
        ...

    async def sent(self, data: bytes, sending: Sending, *, deadline: float) -> SentUrl:
        """Make an image smaller and encode it.

        Raises:
            ApiError: If it cannot be read, or not in time.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why a request is asked at its option.

    Attributes:
        code: One of a few words, for metrics.
        text: One sentence.
    """

    code: str
    text: str

    def __str__(self) -> str:
        return f"{self.code}: {self.text}"


def option_asked(option: str) -> Reason:
    """The reason of a request that named its option."""
    return Reason(code="asked", text=f"The option {option} was asked for.")


ROUTED = "routed"
"""Code of the reason of what was decided."""
UNCERTIFIED = "Nothing is certified about that."
CERTIFIED = "The policy's guarantee is about such requests."
OTHERWISE = "The policy's guarantee is not about it: that is for a question and its image alone."

NO_TURN = Reason(code="no-user-turn", text="There is no message of a user that could be judged.")
NO_IMAGE = Reason(code="no-image", text="The last user turn has no image.")
NO_TEXT = Reason(code="no-text", text="The last user turn has no text.")
ODD_TEXT = Reason(
    code="no-text", text="The last user turn has half a surrogate pair, which is no text."
)
LONG_TEXT = Reason(
    code="long-text",
    text=f"The last user turn has more than {MOST_CHARACTERS} characters.",
)
SEVERAL = Reason(code="several-images", text="The last user turn has several images.")
ELSEWHERE = Reason(
    code="remote-image",
    text="The image is at an address that the gateway does not fetch from (--image-host).",
)
FILE_ID = Reason(code="remote-image", text="The image is a file at the upstream.")
KEPT = Reason(
    code="follow-up",
    text="It is about an image of an earlier turn, and keeps that one's option.",
)
HISTORY = Reason(
    code="history",
    text="What came earlier was answered at this option, or at its server, which a whole request "
    "shares.",
)
FAILED = Reason(code="router-failed", text="The router failed to judge this request.")
SLOW = Reason(code="router-failed", text="The router did not judge this request in time.")


def other_part(kind: str) -> Reason:
    """Why a part that is neither text nor image is not judged."""
    return Reason(
        code="other-part",
        text=f"The last user turn has a part of the kind {kind!r}, which the router cannot judge.",
    )


def unreadable(problem: str) -> Reason:
    """Why an image that cannot be read is not judged."""
    return Reason(code="unreadable-image", text=f"The image cannot be read here: {problem}")


def unlike(familiarity: float, level: float) -> Reason:
    """Why an image of another kind is not routed."""
    return Reason(code="unlike-training", text=unfamiliar_sentence(familiarity, level=level))


class RouterFailedError(Exception):
    """The router does not judge, through no fault of the request's.

    Attributes:
        reason: What the client learns of it.
    """

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.text)
        self.reason = reason


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """How a request is asked.

    Attributes:
        option: Whose model, server and body are taken, and that of the last turn's image.
        reason: Why.
        turn: What the body asks.
        files: Of the turn's images, in their order.
        options: Option of each of the turn's images.
        wish: What was wished for.
        judged: What was decided; None where nothing was.
        seconds: What deciding took.
        guarantee: What is certified about requests that are routed so, one sentence; "" without.
        note: A sentence about that; "" where nothing is to be said.
    """

    option: str
    reason: Reason
    turn: Turn
    files: tuple[ImageFile, ...] = ()
    options: tuple[str, ...] = ()
    wish: Wish = field(default_factory=Wish)
    judged: Judged | None = None
    seconds: float = 0.0
    guarantee: str = ""
    note: str = ""

    @property
    def told(self) -> Reason:
        """Why it is asked so, and what is certified about that."""
        return replace(self.reason, text=f"{self.reason.text} {self.note}".rstrip())

    @property
    def shown(self) -> str:
        """The option of the last turn's image, or of the request."""
        own = [
            option
            for part, option in zip(self.turn.images, self.options, strict=True)
            if part.current
        ]
        return own[0] if len(own) == 1 else self.option

    @property
    def cascade(self) -> Cascade | None:
        """What decides after the answer whether another option is asked; None where none does."""
        if self.judged is None or self.reason.code != ROUTED:
            return None
        return self.judged.cascade if self.judged.decision.escalates else None

    def again(self, option: str) -> Plan:
        """The same request, asked again at another option."""
        asked = f"The answer at {self.option} looked wrong, so that {option} was asked."
        reason = replace(self.reason, text=f"{self.reason.text} {asked}")
        return replace(self.at(option), reason=reason)

    def unfinished(self, why: str) -> Plan:
        """The same request, where a cascade could not go on."""
        note = f"It could not be asked again: {why}."
        return replace(self, guarantee="", note=f"{note} {UNCERTIFIED}" if self.guarantee else note)

    def at(self, option: str) -> Plan:
        """The same request at another option."""
        options = tuple(
            option if part.current else own
            for part, own in zip(self.turn.images, self.options, strict=True)
        )
        return replace(self, option=option, options=options)


class Judge:
    """Decides how requests are asked.

    Args:
        decider: Decides; started.
        facts: What it is.
        images: Reads images.
        upstreams: How options are asked.
        memory: What earlier images were answered at.
        unlike: Images at most so familiar are asked at the finest option.
        max_bytes: Of an image's file.
        fetch: Gets images from elsewhere; None to get none.
        fails_open: Whether a request is asked, at the finest option, where the router fails.
        seconds: That judging may take.
    """

    def __init__(
        self,
        decider: Decider,
        facts: RouterFacts,
        *,
        images: Images,
        upstreams: Upstreams,
        memory: Memory,
        unlike: float,
        max_bytes: int,
        fetch: Fetches | None = None,
        fails_open: bool = True,
        seconds: float = DECIDE_SECONDS,
    ) -> None:
        self.decider = decider
        self.facts = facts
        self.images = images
        self.upstreams = upstreams
        self.memory = memory
        self.unlike = unlike
        self.max_bytes = max_bytes
        self.fetch = fetch
        self.fails_open = fails_open
        self.seconds = seconds
        self._encodings = {one.sending.encoding for one in upstreams.options.values()}

    async def plan(
        self,
        body: Mapping[str, Any],
        field: str,
        *,
        who: str,
        wish: Wish,
        large: bool = False,
        again: bool = False,
    ) -> Plan:
        """How a request is asked.

        Args:
            body: Of the request.
            field: Where its conversation is, see :mod:`.bodies`.
            who: The client, for what is remembered.
            wish: How it wants to be routed.
            large: Whether to read the body beside the event loop.
            again: Whether another option can be asked after the answer.

        Raises:
            ApiError: 400 if the wish cannot be met; 503 where the router fails and the gateway
                fails closed.
        """
        if large:
            turn, files = await in_turn(self._read, body, field)
        else:
            turn, files = self._read(body, field)
        began = time.monotonic()
        judged = None
        files = await self._fetched(turn, files)
        try:
            found = await self._judge(turn, files, wish, again=again)
        except RouterFailedError as error:
            if wish.option is None and not self.fails_open:
                raise ApiError(
                    503,
                    f"{error.reason.text} Try again, or name an option.",
                    kind="server_error",
                    code="router_failed",
                    headers={"Retry-After": "1"},
                ) from error
            found = error.reason
        if isinstance(found, Reason):
            own, reason = self._unjudged(turn, files, found, who)
        else:
            judged = found
            own, reason = self._chosen(judged)
        if wish.option is not None:
            own, reason = wish.option, option_asked(wish.option)
        option, options, forced = self._together(turn, files, own, who, fixed=wish.option)
        reason = HISTORY if forced else reason
        guarantee, note = "", ""
        if judged is not None and reason.code == ROUTED and judged.decision.guarantee:
            alone = as_labelled(body, field)
            guarantee, note = (judged.decision.guarantee, CERTIFIED) if alone else ("", OTHERWISE)
        return Plan(
            option=option,
            reason=reason,
            turn=turn,
            files=files,
            options=options,
            wish=wish,
            judged=judged,
            seconds=time.monotonic() - began,
            guarantee=guarantee,
            note=note,
        )

    async def body(self, plan: Plan, body: Mapping[str, Any]) -> Json:
        """The body as the plan asks it; an image that cannot be made smaller goes on as it is."""
        patches: dict[Place, ImagePatch] = {}
        for part, file, name in zip(plan.turn.images, plan.files, plan.options, strict=True):
            option = self.upstreams.options[name]
            url = await self._sent(file, option.sending)
            if option.image or url is not None:
                patches[part.place] = ImagePatch(image=option.image, url=url)
        return patched(body, self.upstreams.options[plan.option], patches)

    def remember(self, plan: Plan, who: str, response: str = "") -> None:
        """Keep at which options a request was answered.

        Args:
            plan: As it was answered.
            who: The client.
            response: Id of the answer, where the next request may name it.
        """
        for part, file, option in zip(plan.turn.images, plan.files, plan.options, strict=True):
            if part.current and file.digest:
                self.memory.keep(who, file.digest, option)
        for name in (response, plan.turn.conversation):
            if name:
                self.memory.keep(who, f"response:{name}", plan.option)

    def _read(self, body: Mapping[str, Any], field: str) -> tuple[Turn, tuple[ImageFile, ...]]:
        turn = read_turn(body, field)
        known: dict[str | None, ImageFile] = {}
        files = []
        for part in turn.images:
            if part.url is None or part.url not in known:
                known[part.url] = image_file(part, self.max_bytes)
            files.append(known[part.url])
        return turn, tuple(files)

    async def _judge(
        self, turn: Turn, files: tuple[ImageFile, ...], wish: Wish, *, again: bool
    ) -> Reason | Judged:
        """What is decided, or why nothing is.

        Raises:
            ApiError: If the wish cannot be met.
            RouterFailedError: If the router fails.
        """
        found = [
            (part, file) for part, file in zip(turn.images, files, strict=True) if part.current
        ]
        if (reason := self._cannot(turn, [part for part, _ in found])) is not None:
            return reason
        made = wish.option is None and wish != Wish()
        seconds = max(self.seconds, WISH_SECONDS) if made else self.seconds
        deadline = time.monotonic() + seconds
        image = None
        try:
            async with asyncio.timeout(seconds):
                if found:
                    seen = await self._seen(*found[0], deadline)
                    if isinstance(seen, Reason):
                        return seen
                    image = seen
                asked = Asked(question=turn.question, image=image, wish=wish, again=again)
                return await self.decider.decide(asked)
        except TimeoutError:
            raise RouterFailedError(SLOW) from None
        except (DataError, MismatchError) as error:
            if wish == Wish():
                logger.error("the router failed: %s", where(error))
                raise RouterFailedError(FAILED) from error
            raise ApiError(400, str(error), code="unmet_wish") from error
        except ApiError as error:
            if error.status < 500:
                return unreadable(str(error))
            raise RouterFailedError(SLOW) from error
        except Exception as error:
            # The edge: whatever breaks the router, requests go on, or not, as configured.
            logger.error("the router failed: %s", where(error))
            raise RouterFailedError(FAILED) from error

    def _cannot(self, turn: Turn, current: list[ImagePart]) -> Reason | None:
        """Why a turn cannot be judged; None where it can."""
        if not turn.user:
            return NO_TURN
        if turn.other:
            return other_part(turn.other)
        if len(current) > 1:
            return SEVERAL
        if not turn.question.strip():
            return NO_TEXT
        if any("\ud800" <= one <= "\udfff" for one in turn.question):
            return ODD_TEXT
        if len(turn.question) > MOST_CHARACTERS:
            return LONG_TEXT
        if not current and (self.facts.needs_image or turn.images or turn.follows):
            return NO_IMAGE
        return None

    async def _seen(self, part: ImagePart, file: ImageFile, deadline: float) -> Reason | AskedImage:
        """What the router may see of an image, or why it does not.

        Raises:
            ApiError: If it cannot be read.
        """
        if file.problem:
            return unreadable(file.problem)
        if file.data is None:
            return FILE_ID if part.url is None else ELSEWHERE
        return AskedImage(
            size=await self.images.size(file.data, deadline=deadline),
            pixels=partial(self.images.decode, file.data, deadline=deadline),
            digest=file.content,
        )

    async def _fetched(self, turn: Turn, files: tuple[ImageFile, ...]) -> tuple[ImageFile, ...]:
        """The files, the only one of the last turn fetched where it is elsewhere and may be."""
        current = [at for at, part in enumerate(turn.images) if part.current]
        if self.fetch is None or len(current) != 1:
            return files
        url, file = turn.images[current[0]].url, files[current[0]]
        if url is None or file.data is not None or is_data_url(url):
            return files
        try:
            data = await self.fetch.fetch(url)
            content = await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest())
            file = replace(file, data=data, content=content)
        except ApiError as error:
            file = replace(file, problem=str(error))
        return tuple(file if at == current[0] else one for at, one in enumerate(files))

    def _chosen(self, judged: Judged) -> tuple[str, Reason]:
        """The option that was decided, unless the image is of another kind."""
        decision = judged.decision
        familiarity = decision.familiarity
        if familiarity is not None and is_unfamiliar(familiarity, level=self.unlike):
            return self.upstreams.finest, unlike(familiarity, self.unlike)
        text = " ".join(one for one in (decision.reason, decision.fallback) if one)
        return decision.option, Reason(code=ROUTED, text=text)

    def _unjudged(
        self, turn: Turn, files: tuple[ImageFile, ...], reason: Reason, who: str
    ) -> tuple[str, Reason]:
        """The option of a turn that was not judged."""
        if reason is not NO_IMAGE:
            return self.upstreams.finest, reason
        earlier = [self._earlier(file.digest, who) for file in files]
        if turn.follows:
            known = self.memory.option(who, f"response:{turn.follows}")
            if known is None and not earlier:
                return self.upstreams.finest, reason
            earlier.append(known or self.upstreams.finest)
        if not earlier:
            return self.upstreams.finest, reason
        return self._finest(earlier), KEPT

    def _earlier(self, digest: str, who: str) -> str:
        known = self.memory.option(who, digest) if digest else None
        return self.upstreams.finest if known is None else known

    def _together(
        self, turn: Turn, files: tuple[ImageFile, ...], own: str, who: str, *, fixed: str | None
    ) -> tuple[str, tuple[str, ...], bool]:
        """The option of the whole request and of each image, and whether history forced it."""
        wanted = [
            own if part.current else self._earlier(file.digest, who)
            for part, file in zip(turn.images, files, strict=True)
        ]
        everything = [own, *wanted, *([self.upstreams.finest] if turn.earlier_other else [])]
        before = self._earlier(f"response:{turn.follows}", who) if turn.follows else own
        everything.append(before)
        option = own
        if fixed is None and not all(self.upstreams.alike(own, one) for one in everything):
            option = self._finest(everything)
        if fixed is None and turn.follows:
            option = self._at_home(option, before)
        options = tuple(one if self.upstreams.alike(one, option) else option for one in wanted)
        return option, options, option != own

    def _at_home(self, option: str, earlier: str) -> str:
        """The option, or the finest of the server that has the response that is followed."""
        home = self.upstreams.serving[earlier]
        there = [name for name, one in self.upstreams.serving.items() if one == home]
        return option if option in there else self._finest(there)

    def _finest(self, options: Iterable[str]) -> str:
        return max(options, key=list(self.upstreams.options).index)

    async def _sent(self, file: ImageFile, sending: Sending) -> str | None:
        """The image's data URL as it is sent; None for as it came."""
        if file.data is None or not may_re_encode(sending, self._encodings):
            return None
        try:
            async with asyncio.timeout(self.seconds):
                deadline = time.monotonic() + self.seconds
                size = await self.images.size(file.data, deadline=deadline)
                if not re_encoded(sending, size, self._encodings):
                    return None
                return (await self.images.sent(file.data, sending, deadline=deadline)).url
        except (ApiError, TimeoutError) as error:
            logger.warning("an image is sent as it came: %s", type(error).__name__)
            return None

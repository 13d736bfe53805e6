"""Asking again: an answer that looks wrong is thrown away, and another option asked.

That needs one whole answer with its log-probabilities. Where a request cannot have that, the plain
policy decides from the start: a cascade that stops half-way is not what was calibrated.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from m3router.m3core.endpoint.completions import BrokenReplyError, Completion, read_completion
from m3router.router.cascade.rule import Cascade
from m3router.router.serve.errors import ApiError
from m3router.router.serve.gateway.bodies import MESSAGES
from m3router.router.serve.gateway.judging import Plan
from m3router.router.serve.gateway.relaying import CutError, Reply
from m3router.router.serve.gateway.usage_reader import Said, UsageReader

LONGEST_TRIED = 4 << 20
"""Bytes of an answer that may be thrown away; a longer one is given as it is."""


@dataclass(kw_only=True)
class Answer:
    """An answer that is coming.

    Attributes:
        reply: Its beginning.
        plan: How it was asked; None for what is not routed.
        read: What was read of its body already.
        cut: Whether it broke off there.
        whole: Whether that is all of it.
        earlier: Answers that were thrown away.
    """

    reply: Reply
    plan: Plan | None = None
    read: Sequence[bytes] = ()
    cut: bool = False
    whole: bool = False
    earlier: int = 0

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body's bytes.

        Raises:
            CutError: If it breaks off.
        """
        for piece in self.read:
            yield piece
        if self.cut:
            raise CutError("while it was read")
        if not self.whole:
            async for piece in self.reply.pieces():
                yield piece


def can_ask_again(body: Mapping[str, Any], field: str, *, ask_logprobs: bool) -> bool:
    """Whether what comes can be judged: one whole answer with log-probabilities.

    Args:
        body: Of the request.
        field: Where its conversation is.
        ask_logprobs: Whether the gateway asks for log-probabilities by itself.
    """
    if field != MESSAGES or body.get("stream"):
        return False
    alone = body.get("n") is None or body.get("n") == 1
    return alone and bool(body.get("logprobs") or ask_logprobs)


async def escalated(
    plan: Plan,
    cascade: Cascade,
    ask: Callable[[Plan], Awaitable[Answer]],
    on_thrown: Callable[[Plan, Said], None],
) -> Answer:
    """The answer that a cascade gives in the end.

    Args:
        plan: How it is asked first; judged.
        cascade: Decides after each answer.
        ask: Asks as a plan says.
        on_thrown: Called with each answer that is thrown away.

    Raises:
        ApiError: If the first option gives no answer.
    """
    assert plan.judged is not None, "a cascade decided"
    decision = plan.judged.decision
    names = list(decision.estimates)
    p = np.array(list(decision.estimates.values()))
    costs = np.array(list(decision.costs.values()))
    answer = await _read(await ask(plan))
    for step in range(len(names)):
        completion = _completion(answer)
        if completion is None or completion.confidence is None or completion.logprob is None:
            answer.plan = plan.unfinished("the answer has no log-probabilities that can be read")
            break
        following = cascade.decide_after(
            p,
            costs,
            names.index(plan.option),
            confidence=completion.confidence,
            logprob=completion.logprob,
            step=step,
        )
        if following is None:
            break
        finer = plan.again(names[following])
        try:
            other = await _read(await ask(finer))
        except ApiError:
            other = None
        if other is None or other.cut or other.reply.status != 200:
            answer.plan = plan.unfinished(f"the option {finer.option}, asked next, failed")
            break
        on_thrown(plan, _said(answer))
        other.earlier = answer.earlier + 1
        plan, answer = finer, other
    return answer


async def _read(answer: Answer) -> Answer:
    """Read an answer whole, unless it is too long to be thrown away."""
    read: list[bytes] = []
    length = 0
    try:
        async for piece in answer.reply.pieces():
            read.append(piece)
            length += len(piece)
            if length > LONGEST_TRIED:
                break
        else:
            answer.whole = True
    except CutError:
        answer.cut = True
    answer.read = read
    return answer


def _completion(answer: Answer) -> Completion | None:
    """What a whole answer says; None where it cannot be read."""
    if not answer.whole or answer.reply.status != 200:
        return None
    try:
        found = read_completion(
            b"".join(answer.read), content_type=answer.reply.header(b"content-type")
        )
    except BrokenReplyError:
        return None
    return found if found.missing is None else None


def _said(answer: Answer) -> Said:
    """What was read of an answer that is thrown away."""
    reader = UsageReader(answer.reply.header(b"content-type"))
    for piece in answer.read:
        reader.feed(piece)
    return reader.end()

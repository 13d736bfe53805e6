"""A cascade at work: finer scales are asked where answers look wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from m3core.batching import answer_all
from m3core.models.base import Answer, MultiScaleModel, Request
from router.cascade.rule import STEPS, Cascade


@dataclass(frozen=True)
class Tried:
    """What was asked last for one question, and what was answered.

    Attributes:
        request: At the scale that was asked last.
        estimate: Scale to the router's probability, in the order of the grid.
        answer: To the request.
        earlier: Answers before, which looked wrong.
    """

    request: Request
    estimate: Mapping[int, float]
    answer: Answer
    earlier: tuple[Answer, ...] = ()


def ask_again(model: MultiScaleModel, cascade: Cascade, tries: Sequence[Tried]) -> list[Tried]:
    """Ask finer scales, together for all questions, until no answer looks wrong.

    Args:
        model: The model that answered.
        cascade: At most :data:`router.cascade.rule.STEPS` further scales are asked.
        tries: One for each question, as first asked.
    """
    found = list(tries)
    active = list(range(len(found)))
    while active:
        again: dict[int, Request] = {}
        for place in active:
            following = following_request(model, cascade, found[place])
            if following is not None:
                again[place] = following
        answers = answer_all(model, list(again.values()))
        for (place, request), answer in zip(again.items(), answers, strict=True):
            one = found[place]
            earlier = (*one.earlier, one.answer)
            found[place] = replace(one, request=request, answer=answer, earlier=earlier)
        active = list(again)
    return found


def following_request(model: MultiScaleModel, cascade: Cascade, one: Tried) -> Request | None:
    """What to ask after an answer; None to give that answer."""
    scales = model.grid.scales
    costs = [one.request.encoding.tokens(scale) for scale in scales]
    following = cascade.decide_after(
        np.array([one.estimate[scale] for scale in scales]),
        np.array(costs, dtype=np.float64),
        scales.index(one.request.scale),
        confidence=one.answer.confidence,
        logprob=one.answer.logprob,
        step=len(one.earlier),
    )
    return None if following is None else replace(one.request, scale=scales[following])


def may_follow(model: MultiScaleModel, cascade: Cascade, scale: int, *, asked: int) -> bool:
    """Whether anything could be asked after the answer at a scale, whatever it says.

    Args:
        model: The model.
        cascade: Decides.
        scale: Of the answer in hand.
        asked: Scales that were asked before it.
    """
    return bool(cascade.rule.start) and asked < STEPS and scale != model.grid.scales[-1]

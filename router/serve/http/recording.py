"""From an answer of a Matryoshka model to what the recorder of traffic keeps."""

from __future__ import annotations

from m3router.router.inference.query import Query, Served
from m3router.router.inference.result import RoutedAnswer
from m3router.router.traffic.records import MadeBy, ServedRequest

WISHES = ("scale", "budget", "max_regret", "max_tokens")


def served_request(
    query: Query, routed: RoutedAnswer, *, key: str = "", consented: bool | None = None
) -> ServedRequest:
    """What is kept of an answered question.

    Args:
        query: What was asked.
        routed: What was answered.
        key: Name of the API key that it came with.
        consented: What the request says about being recorded; None for nothing.
    """
    return ServedRequest(
        id=query.id,
        key=key,
        image=query.image,
        question=query.question,
        asked={name: value for name in WISHES if (value := getattr(query, name)) is not None},
        option=routed.option,
        estimates=routed.estimates,
        answer=routed.text,
        usage={
            "visual_tokens": routed.answer.visual_tokens,
            "spent_tokens": routed.spent_tokens,
            "text_tokens": routed.answer.text_tokens,
            "answer_tokens": routed.answer.answer_tokens,
        },
        reason="routed" if routed.sufficiency else "asked for",
        escalated=len(routed.earlier),
        fallback=routed.fallback,
        finish=routed.reason,
        consented=consented,
    )


def made_by(served: Served) -> MadeBy:
    """What answers, as the recorder keeps it."""
    return MadeBy(
        model=served.model,
        revision=served.revision,
        router=served.router,
        policy=served.policy,
        options=tuple(str(scale) for scale in served.scales),
    )

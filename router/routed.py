"""What a routed answer tells, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from m3core.models.base import Answer, MultiScaleModel
from router.deciding import Decided


@dataclass(frozen=True, kw_only=True)
class RoutedAnswer:
    """An answer, the scale it was given at and why.

    Attributes:
        answer: The answer with its token counts.
        scale: The chosen scale; what it really cost is in ``answer.visual_tokens``.
        sufficiency: Scale to the estimated probability that it answers rightly; empty where the
            caller fixed the scale.
        milliseconds: Wall-clock time by stage (``vision``, ``features``, ``peek``, ``route``,
            ``language``); a batch's time is shared equally. Where a peek became the answer, its
            prefill is in ``peek`` and only the decoding in ``language``.
        flops: Operations of the ``language`` model for the answer, its prefill included, of the
            ``vision`` tower, which sees a picture of a high-resolution model several times, and
            of a ``peek`` that was thrown away (0 where there was none, or it became the answer),
            and of ``earlier`` answers.
        peek_tokens: Visual tokens that the language model read in a peek that was thrown away.
        earlier: Answers at coarser scales that looked wrong, in the order in which they came.
    """

    answer: Answer
    scale: int
    sufficiency: dict[int, float]
    milliseconds: dict[str, float]
    flops: dict[str, float]
    peek_tokens: int = 0
    earlier: tuple[Answer, ...] = ()

    @property
    def spent_tokens(self) -> int:
        """Visual tokens that the language model read in all, for what was thrown away too."""
        thrown_away = sum(answer.visual_tokens for answer in self.earlier)
        return self.answer.visual_tokens + self.peek_tokens + thrown_away

    @property
    def spent_text_tokens(self) -> int:
        """Other prompt tokens that it read in all; a peek reads the answer's own."""
        peeked = self.answer.text_tokens if self.peek_tokens else 0
        return self.answer.text_tokens + peeked + sum(one.text_tokens for one in self.earlier)


def routed_answer(
    model: MultiScaleModel,
    answer: Answer,
    decided: Decided,
    *,
    scale: int,
    earlier: tuple[Answer, ...],
    milliseconds: Mapping[str, float],
) -> RoutedAnswer:
    """Put together what is told.

    Args:
        model: That answered.
        answer: The last one.
        decided: What was decided first.
        scale: Of the last answer.
        earlier: Answers before, which looked wrong.
        milliseconds: By stage, of this question.
    """
    shape, peeked = model.shape, sum(decided.lost)
    return RoutedAnswer(
        answer=answer,
        scale=scale,
        sufficiency=decided.estimate,
        milliseconds=dict(milliseconds),
        flops={
            "language": _flops(model, answer),
            "vision": shape.vision_flops(decided.request.encoding.views),
            "peek": shape.answer_flops(peeked, 1) if peeked else 0.0,
            "earlier": float(sum(_flops(model, one) for one in earlier)),
        },
        peek_tokens=decided.lost[0],
        earlier=earlier,
    )


def _flops(model: MultiScaleModel, answer: Answer) -> float:
    prompt = answer.visual_tokens + answer.text_tokens
    return model.shape.answer_flops(prompt, answer.answer_tokens)

"""What one visitor's questions cost so far, against always asking at the finest option."""

from __future__ import annotations

from dataclasses import dataclass

from m3router.m3core.cost.operations import ModelShape
from m3router.m3core.options import Usage, total_usage
from m3router.router.inference.pipeline import RoutedAnswer


@dataclass(frozen=True, kw_only=True)
class Spending:
    """What was spent on questions, and what the finest scale would have cost.

    FLOPs are the language model's, with what a peek or an answer that was thrown away cost. The
    vision tower sees every image once at any scale; its FLOPs stand by themselves.

    Attributes:
        questions: How many.
        tokens: Visual tokens that the language model read.
        finest_tokens: Those that it would have read at the finest scale.
        flops: Of the language model.
        finest_flops: Of the language model at the finest scale. NOTE: with an answer of the same
            length as the one that was given; the finest scale's own was never asked for.
        vision_flops: Of the vision tower, the same either way.
    """

    questions: int = 0
    tokens: int = 0
    finest_tokens: int = 0
    flops: float = 0.0
    finest_flops: float = 0.0
    vision_flops: float = 0.0

    def __add__(self, other: Spending) -> Spending:
        """Both together.

        >>> (Spending(questions=1, tokens=9) + Spending(questions=2, tokens=36)).tokens
        45
        """
        return Spending(
            questions=self.questions + other.questions,
            tokens=self.tokens + other.tokens,
            finest_tokens=self.finest_tokens + other.finest_tokens,
            flops=self.flops + other.flops,
            finest_flops=self.finest_flops + other.finest_flops,
            vision_flops=self.vision_flops + other.vision_flops,
        )


@dataclass(frozen=True, kw_only=True)
class OptionSpending:
    """What was spent on questions at options, and what the finest option would have cost.

    Attributes:
        questions: How many.
        spent: In all, with answers that were thrown away; None before anything.
        finest: Of the finest option, as far as it is known without asking it.
    """

    questions: int = 0
    spent: Usage | None = None
    finest: Usage | None = None

    def __add__(self, other: OptionSpending) -> OptionSpending:
        """Both together; what is not known of one is not known of both.

        >>> one = OptionSpending(questions=1, spent=Usage(cost=3.0), finest=Usage(cost=9.0))
        >>> (OptionSpending() + one + one).spent.cost
        6.0
        """
        return OptionSpending(
            questions=self.questions + other.questions,
            spent=_together(self.spent, other.spent),
            finest=_together(self.finest, other.finest),
        )


def _together(*usages: Usage | None) -> Usage | None:
    known = [one for one in usages if one is not None]
    return total_usage(known) if known else None


def spent_on(routed: RoutedAnswer, *, finest_tokens: int, shape: ModelShape) -> Spending:
    """What one answer cost.

    Args:
        routed: The answer.
        finest_tokens: Visual tokens of its image at the finest scale.
        shape: Of the model that answered.
    """
    said = routed.answer
    vision = routed.flops["vision"]
    return Spending(
        questions=1,
        tokens=routed.spent_tokens,
        finest_tokens=finest_tokens,
        flops=sum(routed.flops.values()) - vision,
        finest_flops=shape.answer_flops(finest_tokens + said.text_tokens, said.answer_tokens),
        vision_flops=vision,
    )


def saved(spent: float, finest: float) -> float:
    """The share in (-inf, 1] of the finest scale's cost that was not spent; 0 before anything.

    >>> saved(36, 576), saved(577, 576) < 0, saved(0, 0)
    (0.9375, True, 0.0)
    """
    return 1 - spent / finest if finest else 0.0

"""What the gateway counts: requests, what answers cost, and what was saved."""

from __future__ import annotations

from typing import Protocol

from m3router.router.serve.deciding.decider import Judged
from m3router.router.serve.gateway.judging import Plan
from m3router.router.serve.gateway.usage_reader import Said

LEFT = 499
"""Status in metrics of a request whose client left, as nginx has it."""
TIMEOUT, UNREACHABLE = "timeout", "unreachable"
"""What metrics call an upstream without an answer."""
TOKENS = "tokens"
"""In the name of a unit of costs that counts tokens."""
MONEY = "price"
"""The unit of costs that is money."""


class Metrics(Protocol):
    """Counts; see :mod:`m3router.router.serve.gateway.metrics`."""

    def request(
        self, status: int, option: str, reason: str, seconds: float, first_seconds: float | None
    ) -> None:
        """Count a request that ended."""
        ...

    def decided(self, judged: Judged, seconds: float) -> None:
        """Count a decision."""
        ...

    def usage(
        self,
        option: str,
        prompt_tokens: float | None,
        completion_tokens: float | None,
        image_tokens: float | None,
        saved: float | None,
        saved_money: float | None,
    ) -> None:
        """Count what an answer cost."""
        ...

    def escalated(self) -> None:
        """Count that another option was asked after an answer."""
        ...

    def upstream(self, name: str, status: int | str) -> None:
        """Count an upstream's answer, or what went wrong with it."""
        ...

    def page(self) -> bytes:
        """All of it, in Prometheus' format."""
        ...


def saved(plan: Plan, finest: str) -> float:
    """Cost below that of the finest option, as it was expected; 0 where nothing was decided."""
    if plan.judged is None:
        return 0.0
    costs = plan.judged.decision.costs
    return costs.get(finest, 0.0) - costs.get(plan.shown, 0.0)


def count_usage(metrics: Metrics, plan: Plan, said: Said, *, finest: str) -> None:
    """Count what an answer cost, and what was saved by its option."""
    counts, unit = said.counts, plan.judged.decision.cost_unit if plan.judged else ""
    less = saved(plan, finest)
    metrics.usage(
        plan.shown,
        counts.prompt,
        counts.answer,
        counts.image,
        less if TOKENS in unit else None,
        less if unit == MONEY else None,
    )

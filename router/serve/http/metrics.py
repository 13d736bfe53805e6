"""What is counted and timed, for Prometheus; nothing of what was asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from m3router.router.serve.http.traffic_counts import TrafficCounts

if TYPE_CHECKING:
    from m3router.router.inference.query import Served
    from m3router.router.inference.result import RoutedAnswer

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """Counts of one server.

    Args:
        load: Tells "queued" and "running" questions, and the queue's "capacity".
    """

    def __init__(self, load: Callable[[], Mapping[str, Any]]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "m3router_requests",
            "Requests by model and HTTP status; 499 for clients that left",
            ["model", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "m3router_request_seconds",
            "From the whole body to the end of the answer",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.first = Histogram(
            "m3router_first_token_seconds",
            "From the whole body to the first piece of the answer",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.stages = Counter(
            "m3router_stage_seconds",
            "Wall-clock time of answered requests by stage",
            ["stage"],
            registry=self.registry,
        )
        self.scales = Counter(
            "m3router_answers", "Answers by scale", ["scale", "routed"], registry=self.registry
        )
        self.escalated = Counter(
            "m3router_escalations",
            "Answers after a coarser one looked wrong",
            registry=self.registry,
        )
        self.tokens = Counter(
            "m3router_tokens",
            "Tokens that the language model read (visual, text) and wrote (answer)",
            ["kind"],
            registry=self.registry,
        )
        self.saved = Counter(
            "m3router_visual_tokens_saved",
            "Visual tokens that the finest scale's name would have taken beyond those spent",
            registry=self.registry,
        )
        for name in ("queued", "running", "capacity"):
            gauge = Gauge(f"m3router_{name}", f"Questions: {name}", registry=self.registry)
            gauge.set_function(lambda name=name: float(load()[name]))  # type: ignore[misc]

    def answered(self, routed: RoutedAnswer, served: Served, *, seconds: float) -> None:
        """Count an answer."""
        self.seconds.observe(seconds)
        for stage, spent in routed.milliseconds.items():
            self.stages.labels(stage).inc(spent / 1000)
        how = "yes" if routed.sufficiency else "no"
        self.scales.labels(str(routed.scale), how).inc()
        self.escalated.inc(bool(routed.earlier))
        self.tokens.labels("visual").inc(routed.spent_tokens)
        self.tokens.labels("text").inc(routed.spent_text_tokens)
        written = sum(one.answer_tokens for one in (routed.answer, *routed.earlier))
        self.tokens.labels("answer").inc(written)
        self.saved.inc(max(0, served.scales[-1] - routed.spent_tokens))

    def of_traffic(self, counts: Callable[[], Mapping[str, int]]) -> None:
        """Tell what the recorder of traffic counts, too."""
        self.registry.register(TrafficCounts(counts))

    def page(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)

"""What the gateway counts and times, for Prometheus; nothing of what was asked.

A label is a name of ours or of the operator's: an option, a status, a reason. Whatever else comes
is counted as "other", so that no client fills the page or writes on it.

With several processes (`share`), each writes its numbers to files in one folder, and whichever is
asked for the page adds up all of them: `prometheus_client`'s multiprocess mode. A process that
takes a dead one's place goes on with its counters.

Drift. An image's familiarity is a p-value: uniform in (0, 1] for images like the training's. The
drift score is the one-sided Kolmogorov-Smirnov distance from that, at the edges `EDGES`, over the
last `WINDOW` decisions of each process:

    max over b of (share of images of familiarity <= b) - b

0 for images like the training's, up to 1 for none like them. By chance alone it exceeds
sqrt(ln(20) / 2n) in at most 5 % of windows of n independent images (Massart, The Tight Constant in
the Dvoretzky-Kiefer-Wolfowitz Inequality, Annals of Probability 18, 1990).
"""

from __future__ import annotations

import math
import os
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Summary,
    generate_latest,
    values,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from m3router.router.serve.http.traffic_counts import TrafficCounts
from m3router.router.text.familiarity import UNLIKE

if TYPE_CHECKING:
    from m3router.router.serve.deciding.decider import Judged

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
DECIDING = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
EDGES = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Of familiarity."""
WINDOW = 1000
"""Decisions of each process that recent numbers are about."""
OTHER = "other"
MOST_NAMES = 64
"""Most different values of a label."""
LOADS = {
    "waiting": "Questions that wait for a decision",
    "cached": "Encodings of images that are kept",
    "image_bytes": "Bytes of decoded images in flight",
    "image_file_bytes": "Bytes of image files that are being decoded or wait for it",
    "image_restarts": "Processes that decode images and were started again",
}
_RECENT = "m3router_gateway_recent"


def share(folder: Path, process: int) -> None:
    """Write this process' numbers where others add them up; before any metric is made.

    Args:
        folder: Of this server alone; exists.
        process: Number of this process, of no other that runs.
    """
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    values.ValueClass = values.MultiProcessValue(lambda: process)


class GatewayMetrics:
    """Counts of one server, or of one of its processes.

    Args:
        options: The router's, cheapest first.
        unlike: Familiarity up to which an image counts as unlike the training's.
        load: Tells some of `LOADS` now, as `Decider.load` does.
        folder: Where all processes `share`; None for one process alone.
    """

    def __init__(
        self,
        *,
        options: Sequence[str] = (),
        unlike: float = UNLIKE,
        load: Callable[[], Mapping[str, float]] = dict,
        folder: Path | None = None,
    ) -> None:
        self._options = frozenset(options)
        self._unlike = unlike
        self._load = load
        self._reasons = _Names()
        self._upstreams = _Names()
        own = CollectorRegistry()
        self._requests = Counter(
            "m3router_gateway_requests",
            "Requests by option and HTTP status; 499 for clients that left",
            ["option", "status"],
            registry=own,
        )
        self._by_reason = Counter(
            "m3router_gateway_reasons",
            "Requests by why they went where they went",
            ["reason"],
            registry=own,
        )
        self._seconds = Histogram(
            "m3router_gateway_request_seconds",
            "From the whole body to the end of the answer",
            buckets=SECONDS,
            registry=own,
        )
        self._first = Histogram(
            "m3router_gateway_first_byte_seconds",
            "From the whole body to the answer's first byte",
            buckets=SECONDS,
            registry=own,
        )
        self._deciding = Histogram(
            "m3router_gateway_decision_seconds",
            "From the question to the decision, waiting included",
            buckets=DECIDING,
            registry=own,
        )
        self._stages = Counter(
            "m3router_gateway_stage_seconds",
            "Wall-clock time of decisions by stage",
            ["stage"],
            registry=own,
        )
        self._accuracy = Summary(
            "m3router_gateway_estimated_accuracy",
            "The router's probability that the option it chose answers rightly",
            registry=own,
        )
        self._familiarity = Histogram(
            "m3router_gateway_familiarity",
            "Share of the training images that look as unusual as a request's image",
            buckets=EDGES,
            registry=own,
        )
        self._unlike_images = Counter(
            "m3router_gateway_unlike",
            "Decisions about images unlike the training's, by the server's threshold",
            registry=own,
        )
        self._escalated = Counter(
            "m3router_gateway_escalations",
            "Answers after a coarser one looked wrong",
            registry=own,
        )
        self._answers = Counter(
            "m3router_gateway_upstream_answers",
            "Answers of upstreams by HTTP status, or by what went wrong",
            ["upstream", "status"],
            registry=own,
        )
        self._tokens = Counter(
            "m3router_gateway_tokens",
            "Tokens that upstreams counted, by option; image: those of the prompt that images took",
            ["option", "kind"],
            registry=own,
        )
        self._balances = {
            what: tuple(
                Counter(
                    f"m3router_gateway_{what}_{name}",
                    f"{what.capitalize()} {help_} what the finest option would have taken",
                    registry=own,
                )
                for name, help_ in (("saved", "below"), ("overspent", "beyond"))
            )
            for what in ("tokens", "money")
        }
        self._loads = {
            name: Gauge(
                f"m3router_gateway_{name}", help_, registry=own, multiprocess_mode="livesum"
            )
            for name, help_ in LOADS.items()
        }
        self._recent = _Recent(own)
        for option in options:
            self._requests.labels(option, "200")
        self._registry = CollectorRegistry()
        self._registry.register(
            _WithDrift(own if folder is None else MultiProcessCollector(None, str(folder)))
        )
        self._refresh()

    def request(
        self, status: int, option: str, reason: str, seconds: float, first_seconds: float | None
    ) -> None:
        """Count a request that is over.

        Args:
            status: HTTP status that the client got; 499 if it left.
            option: That was asked, or asked last; "" for none.
            reason: Why: a word of the gateway's own, never text of a request.
            seconds: From the whole body to the end of the answer.
            first_seconds: Until the answer's first byte; None without one.
        """
        self._requests.labels(self._option(option), _status(status)).inc()
        self._by_reason.labels(self._reasons.known(reason)).inc()
        self._seconds.observe(seconds)
        if first_seconds is not None:
            self._first.observe(first_seconds)
        self._refresh()

    def decided(self, judged: Judged, seconds: float) -> None:
        """Count a decision of the router's, and how long it took, waiting included."""
        decision = judged.decision
        self._deciding.observe(seconds)
        for stage, spent in decision.milliseconds.items():
            self._stages.labels(stage).inc(max(0.0, spent) / 1000)
        estimate = decision.estimates.get(decision.option)
        if estimate is not None and math.isfinite(estimate):
            self._accuracy.observe(estimate)
        else:
            estimate = None
        familiarity = decision.familiarity
        if familiarity is not None:
            self._familiarity.observe(familiarity)
            self._unlike_images.inc(familiarity <= self._unlike)
        self._recent.add(estimate, familiarity)
        self._refresh()

    def escalated(self) -> None:
        """Count that another option was asked after an answer."""
        self._escalated.inc()

    def upstream(self, name: str, status: int | str) -> None:
        """Count an answer of an upstream.

        Args:
            name: Of the upstream, as the operator calls it.
            status: Its HTTP status; or a word of the gateway's own for what went wrong, such as
                "timeout", "unreachable" or "cut".
        """
        self._answers.labels(self._upstreams.known(name), _status(status)).inc()

    def usage(
        self,
        option: str,
        prompt_tokens: float | None,
        completion_tokens: float | None,
        image_tokens: float | None,
        saved: float | None,
        saved_money: float | None,
    ) -> None:
        """Count what an answer took, as its upstream says; None for what is not known.

        Args:
            option: That was asked.
            prompt_tokens: Read, the images' included.
            completion_tokens: Written.
            image_tokens: Read for images.
            saved: Tokens below what the finest option would have taken; below 0 for beyond.
            saved_money: The same in money, in the unit of the prices.
        """
        kinds = {"prompt": prompt_tokens, "completion": completion_tokens, "image": image_tokens}
        for kind, count in kinds.items():
            if _countable(count):
                self._tokens.labels(self._option(option), kind).inc(max(0.0, count))
        for what, balance in (("tokens", saved), ("money", saved_money)):
            if _countable(balance):
                self._balances[what][balance < 0].inc(abs(balance))

    def of_traffic(self, counts: Callable[[], Mapping[str, int]]) -> None:
        """Tell what the recorder of traffic counts, too."""
        self._registry.register(TrafficCounts(counts))

    def page(self) -> bytes:
        """Everything in Prometheus' text format, of all processes."""
        self._refresh()
        return generate_latest(self._registry)

    def _option(self, name: str) -> str:
        return name if not name or name in self._options else OTHER

    def _refresh(self) -> None:
        """Gauges are written with every event: another process may make the page."""
        for name, value in self._load().items():
            if name in self._loads:
                self._loads[name].set(value)


class _Names:
    """The values of a label: the first few short ones that come."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def known(self, name: str) -> str:
        if name in self._seen:
            return name
        if len(self._seen) == MOST_NAMES or len(name) > 64 or not name.isprintable():
            return OTHER
        self._seen.add(name)
        return name


class _Recent:
    """Sums over the last decisions, as gauges that can be added up over processes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        gauge = Gauge(_RECENT, "", ["sum"], registry=registry, multiprocess_mode="livesum")
        self._estimates: deque[float] = deque(maxlen=WINDOW)
        self._sum = 0.0
        self._places: deque[int] = deque(maxlen=WINDOW)
        self._counts = [0] * len(EDGES)
        self._estimated = gauge.labels("estimated")
        self._estimate = gauge.labels("estimate")
        self._at = [gauge.labels(f"{edge}") for edge in EDGES]
        for one in (self._estimated, self._estimate, *self._at):
            one.set(0)  # a dead process may have left its own

    def add(self, estimate: float | None, familiarity: float | None) -> None:
        if estimate is not None:
            if len(self._estimates) == WINDOW:
                self._sum -= self._estimates[0]
            self._estimates.append(estimate)
            self._sum += estimate
            self._estimated.set(len(self._estimates))
            self._estimate.set(self._sum)
        if familiarity is not None:
            if len(self._places) == WINDOW:
                self._count(self._places[0], -1)
            place = min(bisect_left(EDGES, familiarity), len(EDGES) - 1)
            self._places.append(place)
            self._count(place, 1)

    def _count(self, place: int, change: int) -> None:
        self._counts[place] += change
        self._at[place].set(self._counts[place])


class _WithDrift(Collector):
    """All families; recent sums become the numbers that an operator wants."""

    def __init__(self, source: CollectorRegistry | MultiProcessCollector) -> None:
        self._source = source

    def collect(self) -> Iterable[Metric]:
        recent: dict[str, float] = {}
        for family in self._source.collect():
            if family.name == _RECENT:
                recent = {one.labels["sum"]: one.value for one in family.samples}
            else:
                yield family
        yield from _recent_families(recent)


def _recent_families(sums: Mapping[str, float]) -> Iterator[Metric]:
    counts = [sums.get(f"{edge}", 0.0) for edge in EDGES]
    total, estimated = sum(counts), sums.get("estimated", 0.0)
    score = math.nan
    if total:
        score = max(at / total - edge for at, edge in zip(accumulate(counts), EDGES, strict=True))
    accuracy = sums.get("estimate", 0.0) / estimated if estimated else math.nan
    for name, help_, value in (
        ("drift_score", "How unlike the training's the last images are: 0 not, 1 all", score),
        ("drift_images", "Images that the drift score is about", total),
        ("estimated_accuracy_recent", "Mean estimate of the last decisions", accuracy),
        ("estimated_accuracy_decisions", "Decisions that this mean is about", estimated),
    ):
        yield GaugeMetricFamily(f"m3router_gateway_{name}", help_, value=value)


def _status(status: int | str) -> str:
    if isinstance(status, int):
        return str(status) if 100 <= status <= 599 else OTHER
    return status if status.isascii() and status.isalpha() and len(status) <= 16 else OTHER


def _countable(value: float | None) -> TypeGuard[float]:
    """A number that an upstream wrote may be anything."""
    return value is not None and abs(value) < 1e12

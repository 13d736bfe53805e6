"""What the recorder of traffic counted, for Prometheus: both servers' pages have it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector


class TrafficCounts(Collector):
    """Requests for the recorder by outcome, read as the page is made.

    Args:
        counts: Outcome to number.
    """

    def __init__(self, counts: Callable[[], Mapping[str, int]]) -> None:
        self._counts = counts

    def collect(self) -> Iterable[Metric]:
        """Read the counts now."""
        family = CounterMetricFamily(
            "m3router_traffic", "Requests for the recorder of traffic, by outcome", labels=["is"]
        )
        for name, count in self._counts().items():
            family.add_metric([name], count)
        yield family
